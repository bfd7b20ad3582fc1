"""Thoughts and the answer are told apart, however the text is cut into tokens."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.engine.output.reasoning_parser import ReasoningParser, ReasoningPiece
from segue.engine.prompt.chat_template import ReasoningFormat
from tests.strategies import examples

THINK = ReasoningFormat("<think>", "</think>")


def read(pieces: list[str], *, begun: bool = False) -> tuple[str, str]:
    """The thoughts and the answer."""
    parser = ReasoningParser(THINK, begun=begun)
    parts = [part for piece in pieces for part in parser.feed(piece)] + parser.close()
    assert all(part.text if isinstance(part, ReasoningPiece) else part for part in parts), "no part is empty"
    thoughts = "".join(part.text for part in parts if isinstance(part, ReasoningPiece))
    return thoughts, "".join(part for part in parts if isinstance(part, str))


@pytest.mark.parametrize(
    ("written", "begun", "thoughts", "answer"),
    [
        ("Hello.", False, "", "Hello."),
        ("<think>\na b\n</think>\n\nHello.", False, "a b", "Hello."),
        ("\n<think>a</think>b", False, "a", "b"),
        ("a b\n</think>\n\nHello.", True, "a b", "Hello."),
        ("<think>\n\n</think>\n\nHello.", False, "", "Hello."),
        ("<think>a\n\nb </thin", False, "a\n\nb </thin", ""),
        ("<think>a\n", False, "a", ""),
        ("<think>a</think>\n", False, "a", ""),
        ("Say <think>a</think>.", False, "", "Say <think>a</think>."),
        ("<think>a</think>b <think>c</think>", False, "a", "b <think>c</think>"),
        (" <thi", False, "", " <thi"),
        ("<this>", False, "", "<this>"),
        ("", True, "", ""),
    ],
)
@given(data=st.data())
@settings(max_examples=examples(10))
def test_thoughts_come_before_the_answer(
    data: st.DataObject, *, written: str, begun: bool, thoughts: str, answer: str
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(written)))) | {0, len(written)})
    pieces = [written[start:end] for start, end in pairwise(cuts)]
    assert read(pieces, begun=begun) == (thoughts, answer)


def test_a_thought_is_told_as_soon_as_it_is_clear() -> None:
    parser = ReasoningParser(THINK, begun=False)
    assert parser.phase == "undecided"
    told = [
        (parser.feed(piece), parser.phase, parser.over)
        for piece in ("<thi", "nk>\nI am", " here", "\n", "</", "b>", "</think>", "\n", "Yes")
    ]
    assert told == [
        ([], "undecided", False),
        ([ReasoningPiece("I am")], "thinking", False),
        ([ReasoningPiece(" here")], "thinking", False),
        ([], "thinking", False),
        ([], "thinking", False),
        ([ReasoningPiece("\n</b>")], "thinking", False),
        ([], "behind", False),
        ([], "behind", False),
        (["Yes"], "answering", True),
    ]
    assert parser.held_text == ""

"""The messages of a model that writes in channels are told apart, however the text is cut into tokens."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.engine.output.channel_parser import ChannelParser
from segue.engine.output.reasoning_parser import ReasoningPiece
from segue.engine.prompt.chat_template import (
    ANSWER_CHANNEL,
    CHANNEL_CALL_FORMAT,
    CHANNELS,
    DEFAULT_CALL_FORMAT,
    CallFormat,
)
from tests.strategies import examples

THINK, END, AGAIN, FINAL = CHANNELS.opening, CHANNELS.closing, CHANNELS.behind, ANSWER_CHANNEL
COMMENT = "<|channel|>commentary<|message|>"
CALL = "<|channel|>commentary to=functions.look <|constrain|>json<|message|>{}"


def read(pieces: list[str], call_format: CallFormat = CHANNEL_CALL_FORMAT) -> tuple[str, str]:
    """The thoughts and the answer."""
    parser = ChannelParser(call_format)
    parts = [part for piece in pieces for part in parser.feed(piece)] + parser.close()
    assert all(part.text if isinstance(part, ReasoningPiece) else part for part in parts), "no part is empty"
    thoughts = "".join(part.text for part in parts if isinstance(part, ReasoningPiece))
    return thoughts, "".join(part for part in parts if isinstance(part, str))


@pytest.mark.parametrize(
    ("written", "thoughts", "answer"),
    [
        (f"{FINAL}Hello.", "", "Hello."),
        (f"{THINK}I see.{END}{AGAIN}{FINAL}Hello.", "I see.", "Hello."),
        (f"{THINK}a{END}{AGAIN}{THINK}b{END}{AGAIN}{FINAL}c", "a\n\nb", "c"),
        (f"{THINK}{END}{AGAIN}{FINAL}c", "", "c"),
        (f"{THINK}a < b <|en", "a < b <|en", ""),
        (f"{THINK}a{END}{AGAIN}{COMMENT}I look.{END}{AGAIN}{CALL}", "a", f"I look.{CALL}"),
        (f"{COMMENT}One.{END}{AGAIN}{COMMENT}Two.{END}{AGAIN}{FINAL}Three.", "", "One.\n\nTwo.\n\nThree."),
        (f"{THINK}a{END}{AGAIN}{CALL}", "a", CALL),
        (f"{THINK}a{END}{AGAIN} to=functions.look<|channel|>commentary json<|message|>{{}}", "a", CALL),
        ("<|channel|>analysis to=python code<|message|>1 + 1", "1 + 1", ""),
        ("Hello.", "", "Hello."),
        (" to be", "", " to be"),
        (f"{THINK}a{END}Hello.", "a", "Hello."),
        (f"{THINK}a{END}{AGAIN}<|channel|>fi", "a", ""),
        ("<|cha", "", "<|cha"),
        ("<|channel|>" + "x" * 300, "", "<|channel|>" + "x" * 300),
        ("", "", ""),
    ],
)
@given(data=st.data())
@settings(max_examples=examples(10))
def test_channels_are_told_apart(data: st.DataObject, *, written: str, thoughts: str, answer: str) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(written)))) | {0, len(written)})
    pieces = [written[start:end] for start, end in pairwise(cuts)]
    assert read(pieces) == (thoughts, answer)


def test_a_call_comes_out_in_the_format_of_the_model() -> None:
    """Which is the common one if its template shows it no tools of its own."""
    assert read([CALL], DEFAULT_CALL_FORMAT) == ("", '<tool_call>\n{"name": "look", "arguments": {}')


def test_a_thought_is_told_as_soon_as_it_is_clear() -> None:
    parser = ChannelParser(CHANNEL_CALL_FORMAT)
    told = [
        (parser.feed(piece), parser.phase, parser.over, parser.held_text)
        for piece in ("<|channel|>analysis<|mess", "age|>I am", " here<", "b>", f"{END}{AGAIN}{COMMENT}I", " say<")
    ]
    assert told == [
        ([], "undecided", False, ""),
        ([ReasoningPiece("I am")], "thinking", False, ""),
        ([ReasoningPiece(" here")], "thinking", False, ""),
        ([ReasoningPiece("<b>")], "thinking", False, ""),
        (["I"], "answering", False, ""),
        ([" say"], "answering", False, "<"),
    ]
    assert parser.feed("/b>") == ["</b>"]
    assert parser.feed(f"{END}{AGAIN}{FINAL}") == ["\n\n"]
    assert parser.over
    assert parser.feed("<|end|>") == ["<|end|>"]

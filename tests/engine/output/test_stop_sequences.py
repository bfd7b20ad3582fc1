"""Texts that end an answer: it ends at the same place however it is cut, and no text waits for nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.engine.output.stop_sequences import StopSequences

texts = st.text("ab€", max_size=20)
stops = st.lists(st.text("ab€", min_size=1, max_size=4), min_size=1, max_size=4)
sizes = st.lists(st.integers(1, 6), max_size=20)


def pieces(text: str, cuts: list[int]) -> list[str]:
    """A text in pieces of these lengths, the rest in one."""
    cut: list[str] = []
    for size in cuts:
        cut.append(text[:size])
        text = text[size:]
    return [piece for piece in (*cut, text) if piece]


def before_any(text: str, words: list[str]) -> tuple[str, bool]:
    """What stands before the first stop to be complete, found letter by letter; whether there is one."""
    for end in range(1, len(text) + 1):
        begun = [end - len(word) for word in words if text[:end].endswith(word)]
        if begun:
            return text[: min(begun)], True
    return text, False


@given(texts, stops, sizes)
def test_an_answer_ends_before_the_first_stop(text: str, words: list[str], cuts: list[int]) -> None:
    looking = StopSequences(words)
    fed = given_out = ""
    for piece in pieces(text, cuts):
        fed += piece
        given_out += looking.feed(piece)
        if looking.found:
            break
        held = fed[len(given_out) :]
        assert fed.startswith(given_out)
        assert not held or any(word.startswith(held) and word != held for word in words), "only what may be one waits"
    given_out += "" if looking.found else looking.close()
    assert (given_out, looking.found) == before_any(text, words)
    assert looking.close() == "", "it is given out once"


def test_what_is_complete_first_counts() -> None:
    """A longer stop that began earlier would have to be waited for; of two that end together, it is the longer."""
    looking = StopSequences(["abcd", "bc"])
    assert (looking.feed("xab"), looking.feed("cd"), looking.found) == ("x", "a", True)
    assert StopSequences(["bc", "abc"]).feed("xabc") == "x"

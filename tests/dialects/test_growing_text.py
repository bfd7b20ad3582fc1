"""Text that comes in pieces: characters that were cut in two become whole, and none is lost."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from segue.dialects.growing_text import GrowingText, mended
from tests.strategies import any_text


def grown(*pieces: str) -> str:
    text = GrowingText()
    return "".join([*map(text.mend, pieces), text.rest(), text.rest()])


def test_a_half_waits_for_the_other() -> None:
    text = GrowingText()
    assert (text.mend("a\ud83d"), text.half) == ("a", "\ud83d")
    assert (text.mend("\ude00b"), text.half, text.rest()) == ("\U0001f600b", "", "")


def test_a_half_that_stays_alone_is_replaced() -> None:
    assert grown("a\ud83d") == "a\ufffd"
    assert grown("a\ud83d", "b") == "a\ufffdb"
    assert grown("\ude00b") == "\ufffdb"
    assert grown("\ud83d", "\ud83d", "\ude00") == "\ufffd\U0001f600"
    assert grown("a\ud83db\ude00c") == "a\ufffdb\ufffdc"


@given(text=st.text(max_size=6), cuts=st.lists(st.integers(0, 12), max_size=4))
def test_however_a_text_is_cut_it_becomes_whole(text: str, cuts: list[int]) -> None:
    units = text.encode("utf-16-le")
    places = [0, *sorted(2 * min(cut, len(units) // 2) for cut in cuts), len(units)]
    pieces = [units[one:two].decode("utf-16-le", "surrogatepass") for one, two in itertools.pairwise(places)]
    assert grown(*pieces) == text


@given(pieces=st.lists(any_text, max_size=4))
def test_what_comes_out_is_always_sound(pieces: list[str]) -> None:
    assert grown(*pieces) == mended("".join(pieces))
    grown(*pieces).encode()

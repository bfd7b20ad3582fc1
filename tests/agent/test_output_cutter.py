"""What is kept of long output is its beginning and its end, in bounded memory."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from segue.agent.output_cutter import OutputCutter

MARK = " bytes left out …\n"


@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(0, 60))
def test_pieces_make_no_difference(pieces: list[bytes], limit: int) -> None:
    """However the output comes, the same of it is kept."""
    cutter, whole = OutputCutter(limit), OutputCutter(limit)
    for piece in pieces:
        cutter.feed(piece)
    whole.feed(b"".join(pieces))
    assert cutter.text() == whole.text()
    assert cutter.total_bytes == len(b"".join(pieces))


@given(st.binary(max_size=200), st.integers(0, 60))
def test_what_fits_is_kept_whole(data: bytes, limit: int) -> None:
    cutter = OutputCutter(limit)
    cutter.feed(data)
    assert (cutter.text() == data.decode(errors="replace")) or len(data) > limit


@given(st.text(max_size=120), st.integers(0, 60))
def test_a_cut_splits_no_character_and_counts_what_it_leaves_out(text: str, limit: int) -> None:
    data = text.encode(errors="replace")
    cutter = OutputCutter(limit)
    cutter.feed(data)
    shown = cutter.text()
    if len(data) <= limit:
        assert shown == data.decode()
        return
    head, _, rest = shown.rpartition("\n… ")
    number, _, tail = rest.partition(MARK)
    kept = len(head.encode()) + len(tail.encode())
    assert data.decode().startswith(head)
    assert data.decode().endswith(tail)
    assert int(number.replace(",", "")) == len(data) - kept
    assert limit - 6 <= kept <= limit, "at most 3 bytes of a split character at each side"


def test_memory_is_bounded() -> None:
    """A command that prints for ever fills nothing."""
    cutter = OutputCutter(1000)
    tracemalloc.start()
    try:
        for _ in range(50):
            cutter.feed(b"x" * 100_000)
        for _ in range(1000):
            cutter.feed(b"0123456789")
        assert tracemalloc.get_traced_memory()[0] < 50_000
    finally:
        tracemalloc.stop()
    assert cutter.text() == "x" * 500 + "\n… 5,009,000 bytes left out …\n" + "0123456789" * 50

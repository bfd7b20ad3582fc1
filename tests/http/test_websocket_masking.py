"""Frames of clients are masked; the first that is not is found, however the stream is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.http.websocket_masking import MaskCheck
from tests.strategies import examples

MASK = b"\x01\x02\x03\x04"


def frame(size: int, *, masked: bool = True) -> bytes:
    mark = 0x80 if masked else 0
    if size < 126:
        head = bytes([0x81, mark | size])
    elif size < 1 << 16:
        head = bytes([0x81, mark | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x81, mark | 127]) + size.to_bytes(8, "big")
    return head + (MASK if masked else b"") + b"\xff" * size


def passed(check: MaskCheck, pieces: list[bytes]) -> bytes:
    return b"".join(check.passed(piece) for piece in pieces)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_whole_frame_passes_as_the_object_that_it_is(size: int) -> None:
    check, data = MaskCheck(), frame(size)
    assert check.passed(data) is data
    assert not check.violated


@pytest.mark.parametrize("size", [0, 125, 126, 65_536])
def test_nothing_of_an_unmasked_frame_passes(size: int) -> None:
    check = MaskCheck()
    assert check.passed(frame(3) + frame(size, masked=False)) == frame(3)
    assert check.violated


@pytest.mark.parametrize("cut", [1, 3, 5, 1000])
def test_frames_in_pieces_pass_whole(cut: int) -> None:
    check = MaskCheck()
    stream = frame(2) + frame(300) + frame(70_000) + frame(0)
    pieces = [stream[at : at + cut] for at in range(0, len(stream), cut)]
    assert passed(check, pieces) == stream
    assert not check.violated


@settings(max_examples=examples(300))
@given(
    st.lists(st.sampled_from([0, 1, 5, 124, 125, 126, 127, 300, 65_536]), max_size=6),
    st.none() | st.sampled_from([0, 7, 126, 70_000]),
    st.lists(st.integers(1, 400), min_size=1),
)
def test_however_the_stream_is_cut(sizes: list[int], bad: int | None, cuts: list[int]) -> None:
    """All that is masked passes, but for a head that is not whole, and nothing from the first unmasked frame on."""
    good = b"".join(map(frame, sizes))
    stream = good if bad is None else good + frame(bad, masked=False) + frame(1)
    check, at = MaskCheck(), 0
    pieces: list[bytes] = []
    while at < len(stream) and len(pieces) < 2000:
        size = cuts[len(pieces) % len(cuts)] if len(stream) - at < 3000 or len(pieces) < 500 else len(stream)
        pieces.append(stream[at : at + size])
        at += size
    got = b""
    for piece in pieces:
        got += check.passed(piece)
        if check.violated:
            break
    assert (got, check.violated) == (good, bad is not None)

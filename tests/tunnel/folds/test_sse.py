from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.tunnel.folds.sse import EventReader


def read(*pieces: bytes, limit: int = 1000) -> list[bytes]:
    reader = EventReader(limit)
    return [event for piece in pieces for event in reader.feed(piece)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_in_three_ways(end: bytes) -> None:
    assert read(end.join([b"data: a", b"data:b", b"", b"event: x", b"data:  c", b"", b""])) == [b"a\nb", b" c"]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"\n\xef\xbb\xbfdata: a\n\n", []),
        (b": comment\ndata: a\nid: 1\nretry: 5\n\n", [b"a"]),
        (b"data\n\n", [b""]),
        (b"data\ndata\n\n", [b"\n"]),
        (b"event: x\n\n", []),
        (b"datax: a\n\n", []),
        (b" data: a\n\n", []),
        (b"data: a", []),
        (b"data: a\n", []),
        (b"\n\n\r\r", []),
        (b"data: a \t\x0b\n\n", [b"a \t\x0b"]),
    ],
)
def test_events_are_read_as_the_standard_says(stream: bytes, events: list[bytes]) -> None:
    assert read(stream) == events


def test_a_line_feed_is_part_of_an_end_only_right_behind_its_carriage_return() -> None:
    assert read(b"data: a\rdata:", b"\n\r") == read(b"data: a\rdata:\n\r") == [b"a\n"]
    assert read(b"data: a\r", b"\n\r\n") == [b"a"]
    assert read(b"data: a\r", b"\n", b"\n") == [b"a"]
    assert read(b"data: a\r", b"\ndata: b\r\n\r\n") == [b"a\nb"]


@given(
    st.lists(st.sampled_from([b"data: a", b"\r", b"\n", b"\r\n", b"data:", b":", b"\xef\xbb\xbf", b"dat"])), st.data()
)
def test_events_do_not_depend_on_the_pieces(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cut = data.draw(st.integers(0, len(stream)))
    assert read(stream[:cut], stream[cut:]) == read(stream) == read(*(bytes((byte,)) for byte in stream))


@given(
    st.lists(
        st.sampled_from(
            [
                b"data: a\n\n",
                b"event: x\n",
                b"data:b\n",
                b"data: 1234567\n\n",
                b"data: 12345678901234\n\n",
                b"\n",
                b"\r\n",
            ]
        )
    ),
    st.lists(st.integers(1, 40), max_size=6),
)
def test_whole_events_are_read_as_their_bytes_one_by_one(parts: list[bytes], sizes: list[int]) -> None:
    stream, pieces, at = b"".join(parts), list[bytes](), 0
    for size in sizes:
        pieces.append(stream[at : at + size])
        at += size
    pieces.append(stream[at:])
    assert read(*pieces, limit=15) == read(*(bytes((byte,)) for byte in stream), limit=15)


@given(st.integers(1, 60), st.integers(1, 20))
def test_an_event_over_the_limit_is_dropped_whatever_the_pieces(size: int, step: int) -> None:
    stream = b"data: a\n\n: " + b"x" * size + b"\ndata: b\n\ndata: c\n\n"
    expected = [b"a", b"b", b"c"] if size + 2 <= 20 else [b"a", b"c"]
    assert read(stream, limit=20) == expected
    assert read(*(stream[at : at + step] for at in range(0, len(stream), step)), limit=20) == expected


def test_many_short_lines_of_data_are_over_the_limit_too() -> None:
    assert read(b"data: 1234\n" * 5 + b"\ndata: b\n\n", limit=20) == [b"b"]
    assert read(b"data: 1234\n" * 4 + b"\ndata: b\n\n", limit=20) == [b"1234\n1234\n1234\n1234", b"b"]

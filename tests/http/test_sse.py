"""Server-sent events, read in any chunking and written in the one form we write."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.http.sse import SseEvent, SseReader, write_event

_lines = st.sampled_from(
    [b"data: a", b"data:b", b"data", b"event: e", b"event", b": comment", b"id: 7", b"retry: 9", b"", b"", b"nonsense"]
)
_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(lines=st.lists(st.tuples(_lines, _ends), max_size=12), cuts=st.lists(st.integers(0, 120), max_size=8))
def test_chunking_and_line_ends_change_nothing(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    whole = SseReader().feed(b"".join(line + b"\n" for line, _ in lines))
    data = b"".join(line + end for line, end in lines)
    places = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    reader = SseReader()
    events = [event for one, two in pairwise(places) for event in reader.feed(data[one:two])]
    ambiguous = any(end == b"\r" and line == b"" for (_, end), (line, _) in pairwise(lines))  # CR LF is one line end
    assert events == whole or ambiguous


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"data: 1\n\n", [SseEvent("", b"1")]),
        (b"event: e\ndata: 1\ndata: 2\n\n", [SseEvent("e", b"1\n2")]),
        (b"\xef\xbb\xbfdata: 1\n\n", [SseEvent("", b"1")]),
        (b"data:  two spaces\n\n", [SseEvent("", b" two spaces")]),
        (b"event: e\n\ndata: 1\n\n", [SseEvent("", b"1")]),
        (b": ping\n\n: ping\n\n", []),
        (b"data: cut off", []),
        (b"data: cut off\n", []),
        (b"data: \xff\nevent: \xff\n\n", [SseEvent("\ufffd", b"\xff")]),
    ],
)
def test_the_format(data: bytes, events: list[SseEvent]) -> None:
    assert SseReader().feed(data) == events


@given(data=st.binary(max_size=200), cut=st.integers(0, 200))
def test_any_bytes_can_be_read(data: bytes, cut: int) -> None:
    one, two = SseReader(), SseReader()
    assert one.feed(data) == two.feed(data[:cut]) + two.feed(data[cut:])


@pytest.mark.parametrize("pieces", [[b"data: " + b"x" * 100], [b"data: x\n"] * 20, [b"x"] * 100])
def test_an_event_that_is_too_large_stops_the_reader(pieces: list[bytes]) -> None:
    reader = SseReader(max_event_bytes=50)
    assert reader.feed(b"data: 1\n\n") == [SseEvent("", b"1")]
    for piece in pieces:
        assert reader.feed(piece) == []
    assert reader.overflowed
    assert reader.feed(b"\n\ndata: 2\n\n") == []


def test_many_small_events_are_not_too_large() -> None:
    reader = SseReader(max_event_bytes=50)
    assert len(reader.feed(b"data: 0123456789\n\n" * 100)) == 100
    assert not reader.overflowed


@given(kind=st.sampled_from(["", "response.created"]), data=st.binary(max_size=20))
def test_what_is_written_is_read(kind: str, data: bytes) -> None:
    data = data.replace(b"\n", b"").replace(b"\r", b"")
    assert SseReader().feed(write_event(kind, data)) == [SseEvent(kind, data)]


def test_an_event_is_written_in_one_line() -> None:
    assert write_event("", b'{"a":\n1,\n"b":2}') == b'data: {"a": 1, "b":2}\n\n'

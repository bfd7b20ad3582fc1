"""A provider's own events: when they come, and when they do not."""

from __future__ import annotations

import pytest

from segue.dialects.interface import Awaited, Output
from segue.dialects.source_events import SourceDecoder
from segue.http.sse import SseEvent
from segue.protocol.events import SOURCE, Ended, Event
from segue.protocol.responses import Failure

DELTA = Event("response.output_text.delta", b"{}", 2)
FAILED = Ended("failed", error=Failure("x", "No."))
DONE = Ended("completed")


class Playing:
    """A decoder that answers each event with what is planned."""

    def __init__(self, *outputs: Output) -> None:
        self._outputs = list(outputs)
        self.ended = False
        self.awaited: Awaited = "answer"

    def feed(self, event: SseEvent | None = None) -> Output:
        output = self._outputs.pop(0)
        self.ended = any(isinstance(one, Ended) for one in output)
        return output

    def end(self, *, truncated: bool = False) -> Output:
        return [Ended("failed" if truncated else "completed")]

    def fail(self, failure: Failure) -> Output:
        return [Ended("failed", error=failure)]


def source(data: bytes) -> Event:
    return Event(SOURCE, data, -1)


def fed(decoder: SourceDecoder, *data: bytes) -> list[Output]:
    return [decoder.feed(SseEvent("", piece)) for piece in data]


def test_each_event_comes_before_what_it_means_and_the_first_wait_for_the_answer() -> None:
    decoder = SourceDecoder(Playing([], [], [DELTA], [], [DONE]))
    first, second, third, fourth, last = fed(decoder, b"1", b"2", b"3", b"4", b"5")
    assert (first, second) == ([], [])
    assert third == [source(b"1"), source(b"2"), source(b"3"), DELTA]
    assert (fourth, last) == ([source(b"4")], [source(b"5"), DONE])
    assert decoder.ended
    assert decoder.feed(SseEvent("", b"6")) == []


@pytest.mark.parametrize("depth", [70, 5000])
def test_an_event_that_is_nested_too_deeply_ends_the_turn(depth: int) -> None:
    """What a client gets of it is made by code that recurses."""
    decoder = SourceDecoder(Playing([DELTA], [DELTA], [DELTA]))
    flat, broken = b"[%b]" % b",".join([b"{}"] * 70), b"[" * 70
    assert fed(decoder, flat, broken) == [[source(flat), DELTA], [source(broken), DELTA]]
    (ended,) = decoder.feed(SseEvent("", b"[" * depth + b"]" * depth))
    assert isinstance(ended, Ended)
    assert ended.error is not None
    assert ended.error.code == "upstream_protocol_error"


def test_a_turn_that_fails_before_its_answer_shows_nothing() -> None:
    """So it can be attempted again."""
    decoder = SourceDecoder(Playing([], [FAILED]))
    assert fed(decoder, b"1", b"2") == [[], [FAILED]]
    assert SourceDecoder(Playing()).fail(Failure("x", "No.")) == [FAILED]


def test_a_block_that_has_no_item_begins_the_answer_too() -> None:
    start = b'{"type":"content_block_start","content_block":{"type":"server_tool_use"}}'
    assert fed(SourceDecoder(Playing([], [])), b"1", start) == [[], [source(b"1"), source(start)]]


def test_an_answer_without_output_is_shown_at_its_end() -> None:
    decoder = SourceDecoder(Playing([], []))
    assert fed(decoder, b"1", b"") == [[], []]
    assert decoder.awaited == "answer"
    assert decoder.end() == [source(b"1"), DONE]
    assert decoder.end(truncated=True) == [Ended("failed")]

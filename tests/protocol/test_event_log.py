"""The log of one response's events: what it gives back, and what it drops."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.protocol.event_log import EVENT_OVERHEAD_BYTES, EventLog
from segue.protocol.events import Ended, Event, OutputWriter
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.requests import Settings, json_text
from segue.protocol.responses import Failure, encode_echo, usage
from segue.protocol.turns import TurnStream


def events(sizes: list[int], first: int = 0) -> list[Event]:
    return [Event("response.output_text.delta", b"x" * size, first + index) for index, size in enumerate(sizes)]


sizes = st.lists(st.integers(0, 2000), max_size=30)


@given(st.lists(sizes, max_size=8), st.integers(-1, 100), st.integers(0, 3000))
def test_pages_after_a_number_are_exactly_the_rest(batches: list[list[int]], after: int, page: int) -> None:
    """However it was added and in whatever pages it is asked for."""
    log = EventLog()
    added: list[Event] = []
    for batch in batches:
        added += events(batch, log.next)
        log.append(added[log.next :])
    got: list[Event] = []
    while found := log.after(after + len(got), page):
        got += found
    assert got == added[after + 1 :]


@given(sizes, st.integers(0, 40_000), st.integers(0, 40))
def test_trimming_drops_the_oldest_and_no_more_than_needed(batch: list[int], limit: int, floor: int) -> None:
    """Never what is from the floor on; what was dropped is said to be gone, not skipped."""
    log, added = EventLog(), events(batch)
    log.append(added)
    log.trim(limit, floor)
    kept = added[log.first :]
    assert log.size_bytes == sum(len(event.data) + EVENT_OVERHEAD_BYTES for event in kept)
    assert log.next == len(added)
    assert log.size_bytes <= limit or log.first in {floor, len(added)} or log.first >= floor
    if log.first:
        assert log.first <= floor
        assert log.size_bytes + len(added[log.first - 1].data) + EVENT_OVERHEAD_BYTES > limit
        assert log.after(log.first - 2, 1) is None
    assert list(log.after(log.first - 1, 10**9) or ()) == kept


def test_the_latest_event_with_the_response_outlives_the_rest() -> None:
    """It says what has become of the response."""
    log = EventLog()
    created = Event("response.created", b"{}", 0)
    log.append([created, *events([5, 5], 1)])
    log.trim(0, 3)
    assert log.latest is created
    end = Event("response.completed", b"{}", 3)
    log.append([end])
    assert log.latest is end


def test_a_page_holds_what_fits_and_one_event_at_least() -> None:
    log, added = EventLog(), events([10, 10, 10, 50])
    log.append(added)
    assert log.after(-1, 29) == added[:2]
    assert log.after(-1, 30) == added[:3]
    assert log.after(-1, 31) == added[:3]
    assert log.after(1, 5) == added[2:3]
    assert log.after(2, 5) == added[3:]
    assert log.after(3, 5) == []


def test_what_just_fits_is_kept() -> None:
    log, added = EventLog(), events([10, 10])
    log.append(added)
    log.trim(2 * (10 + EVENT_OVERHEAD_BYTES), 2)
    assert log.first == 0
    log.trim(2 * (10 + EVENT_OVERHEAD_BYTES) - 1, 2)
    assert log.first == 1


def test_a_new_log_has_no_response() -> None:
    log = EventLog()
    assert (log.latest, log.first, log.next, log.size_bytes, log.after(-1, 1)) == (None, 0, 0, 0, [])


ECHO = encode_echo(Settings(model="m", instructions=json_text("be brief " * 1000)), store=False)


def turn(*texts: str, ended: Ended | None = None) -> list[Event]:
    """The events of a turn with a large echo."""
    ident = new_response_id(bytes(ENTROPY_BYTES))
    stream, writer = TurnStream(ident, None, ECHO, 1.0), OutputWriter(ident)
    output = [event for text in texts for event in writer.text(text)] + writer.end_item()
    end = ended or Ended("completed", usage(1, 1))
    return [*stream.open(), *stream.feed(output), stream.close(end, 2.0).terminal]


@given(st.lists(st.text(max_size=9) | st.just(',"output":['), max_size=5), st.integers(1, 4), st.integers(0, 30_000))
def test_what_several_events_end_in_is_kept_once(texts: list[str], size: int, page: int) -> None:
    """And every event comes back as it was, wherever one begins to read."""
    added, log = turn(*texts), EventLog()
    for at in range(0, len(added), size):
        log.append(added[at : at + size])
        assert log.latest in added[: at + size]
    assert log.latest == added[-1]
    assert log.size_bytes == sum(len(event.data) + EVENT_OVERHEAD_BYTES for event in added)
    assert log.echo is ECHO
    for after in range(-1, len(added)):
        got: list[Event] = []
        while found := log.after(after + len(got), page):
            got += found
        assert got == added[after + 1 :]


def test_an_equal_echo_takes_the_place_of_an_events_own() -> None:
    """Whoever keeps many logs puts one of them into all."""
    log = EventLog()
    log.echo = bytes(bytearray(ECHO))
    added = turn("x")
    log.append(added)
    found = log.after(-1, 10**9)
    assert found == added
    assert all(event.echo is log.echo for event in found if event.echo)
    assert log.latest is not None
    assert log.latest.echo is log.echo


def test_a_page_counts_what_is_read_and_not_what_is_kept() -> None:
    added, log = turn("x"), EventLog()
    log.append(added)
    two = added[0].size_bytes + added[1].size_bytes
    assert log.after(-1, two) == added[:2]
    assert log.after(-1, two - 1) == added[:1]


def test_the_latest_event_is_whole_after_the_rest_was_dropped() -> None:
    log, added = EventLog(), turn("x")
    log.append(added)
    log.trim(0, len(added))
    assert log.latest == added[-1]


def test_a_failed_turn_is_kept_as_it_was() -> None:
    """Also with an error that quotes what stands before the echo."""
    log, added = EventLog(), turn("x", ended=Ended("failed", error=Failure("c", ',"output":[],"model":"m"')))
    log.append(added)
    assert log.after(-1, 10**9) == added

"""The little that is looked at in an event."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.client.transports.event_scan import ScannedEvent, scan


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (b'{"type":"response.created","response":{"id":"r"}}', ScannedEvent("response.created", "", False, False)),
        (b'{"type":"x","stream_id":"a"}', ScannedEvent("x", "a", False, False)),
        (b'{"type":"x","stream_id":null}', ScannedEvent("x", "", False, False)),
        (b'{"type":"response.completed"}', ScannedEvent("response.completed", "", True, False)),
        (b'{"type":"response.incomplete"}', ScannedEvent("response.incomplete", "", True, False)),
        (b'{"type":"response.failed","error":null}', ScannedEvent("response.failed", "", True, False)),
        (b'{"type":"error","stream_id":"a"}', ScannedEvent("error", "a", False, True)),
        (b'{"type":"response.error"}', ScannedEvent("response.error", "", False, True)),
        (b'{"error":{"code":"x"}}', ScannedEvent("error", "", False, True)),
        (b' {"type" : "x" } ', ScannedEvent("x", "", False, False)),
    ],
)
def test_an_event_is_looked_at(data: bytes, event: ScannedEvent) -> None:
    assert scan(data) == event


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"1", b'{"type":5}', b'{"type":"x","stream_id":5}', b'{"error":null}', b"<html>",
     b'{"type":"x"', b'{"type":"x"} {}', b'{"type":"\xff"}', b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_event(data: bytes) -> None:
    assert scan(data) is None


@given(st.binary(max_size=60))
def test_nothing_is_stumbled_over(data: bytes) -> None:
    scan(data)


@given(st.text(min_size=1, max_size=9), st.text(max_size=9), st.dictionaries(st.text(max_size=3), st.integers()))
def test_an_event_is_found_among_whatever_else_there_is(kind: str, lane: str, more: dict[str, int]) -> None:
    more.pop("error", None)
    event = scan(msgspec.json.encode({**more, "type": f"response.x{kind}", "stream_id": lane}))
    assert event == ScannedEvent(f"response.x{kind}", lane, False, False)

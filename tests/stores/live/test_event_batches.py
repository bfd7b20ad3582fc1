"""Events come out of an entry as they went in."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.protocol.events import Event
from segue.stores.live.event_batches import decode_events, encode_events
from tests.strategies import any_text

EVENTS = st.builds(
    lambda kind, before, item, after, number, echoes: Event(
        kind, before + item + after, number, item, b'{"a":1}' if echoes else b""
    ),
    any_text,
    st.binary(),
    st.binary(),
    st.binary(),
    st.integers(0, 2**40),
    st.booleans(),
)


@given(st.lists(EVENTS, max_size=5))
def test_events_come_out_as_they_went_in(events: list[Event]) -> None:
    assert decode_events(encode_events(events), b'{"a":1}') == events


def test_what_is_no_entry_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_events(b"\xff", b"")

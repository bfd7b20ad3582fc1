"""A fold that is made later is the same."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from segue.tunnel.folds.deferred import BATCH_BYTES, DeferredFold
from segue.tunnel.folds.fold import Fold
from tests.strategies import examples

EVENT = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word "}}\n\n'
START = b'data: {"type":"message_start"}\n\ndata: {"type":"content_block_start","content_block":{"type":"text"}}\n\n'


@settings(max_examples=examples(60))
@given(st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=12))
def test_it_is_that_of_the_same_bytes_whenever_it_is_made(cuts: list[tuple[int, bool]]) -> None:
    reply = START + 4 * EVENT
    deferred, at = DeferredFold(b"text/event-stream"), 0
    for size, now in cuts:
        deferred.feed(reply[at : at + size])
        at = min(len(reply), at + size)
        if now:
            deferred.fold()
    at_once = Fold(b"text/event-stream")
    at_once.feed(reply[:at])
    assert deferred.value == at_once.value


def test_it_is_due_when_much_waits() -> None:
    deferred, due = DeferredFold(b"text/plain"), list[bool]()
    for size in (BATCH_BYTES - 1, 1):
        deferred.feed(b"x" * size)
        due.append(deferred.due)
    deferred.fold()
    due.append(deferred.due)
    assert due == [False, True, False]
    assert deferred.value == b"x" * BATCH_BYTES

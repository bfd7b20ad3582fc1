"""Items are looked through beside the event loop if they are many."""

from __future__ import annotations

import threading

from segue.gateway.turns.item_scans import FEW_BYTES, scan_items


async def test_few_items_are_looked_through_at_once_and_many_in_a_thread() -> None:
    here = threading.current_thread()
    assert await scan_items(threading.current_thread, FEW_BYTES - 1) is here
    assert await scan_items(threading.current_thread, FEW_BYTES) is not here

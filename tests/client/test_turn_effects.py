"""What a later process must know of a turn survives a file."""

from __future__ import annotations

import msgspec

from segue.client.create_request import CreateOptions
from segue.client.turn_effects import DeliveredCreate


def test_what_was_delivered_can_be_written_and_read() -> None:
    options = CreateOptions(idempotency_key="k", resume=True, lean=True)
    told = DeliveredCreate(previous_response_id="r", options=options, epoch="e", resume_s=60.0, silent_s=1.5)
    assert msgspec.json.decode(msgspec.json.encode(told), type=DeliveredCreate) == told

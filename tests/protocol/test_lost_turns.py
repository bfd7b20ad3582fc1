"""A turn whose gateway is gone has failed, and its response says so."""

from __future__ import annotations

import msgspec

from segue.protocol.events import response_of
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.lost_turns import lost_turn
from segue.protocol.requests import Settings
from segue.protocol.responses import encode_echo
from segue.protocol.turns import TurnStream


def test_a_lost_turn_has_failed_with_a_code_that_says_so() -> None:
    response_id = new_response_id(b"\1" * ENTROPY_BYTES, None)
    echo = encode_echo(Settings(model="m"), store=True, background=True)
    created, in_progress = TurnStream(response_id, None, echo, 1000.0).open()
    terminal = lost_turn(in_progress, 7)
    assert (terminal.type, terminal.sequence_number) == ("response.failed", 7)
    before = msgspec.json.decode(response_of(created).whole())
    after = msgspec.json.decode(response_of(terminal).whole())
    assert after["error"]["code"] == "segue_outcome_unknown"
    changed = {name for name in before if before[name] != after[name]}
    assert (changed, set(after)) == ({"status", "error"}, set(before))
    assert msgspec.json.decode(terminal.whole())["sequence_number"] == 7

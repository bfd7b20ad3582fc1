"""How a turn ends whose gateway is gone: failed, as far as another gateway can tell. Pure.

Not here: how it is found out (`segue.stores.live`).
"""

from __future__ import annotations

import msgspec

from segue.protocol.events import Event, response_event, response_of
from segue.protocol.problems import outcome_unknown
from segue.protocol.responses import Failure, ResponseObjectHead, encode_start

_heads = msgspec.json.Decoder(ResponseObjectHead)


def lost_turn(latest: Event, number: int) -> Event:
    """Return the terminal event of a turn, by the latest event that shows its response."""
    response, problem = response_of(latest), outcome_unknown()
    head = _heads.decode(response.start.removesuffix(b",") + b"}")
    failed = msgspec.structs.replace(
        head, status="failed", completed_at=None, error=Failure(problem.code, problem.message)
    )
    return response_event("response.failed", encode_start(failed, ()), number, response.echo)

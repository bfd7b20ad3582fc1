"""One exchange of an agent with its provider as an observer sees it: sizes and times, and no content.

Not here: how exchanges are told from each other (`http_exchanges`, `websocket_exchanges`).
"""

from __future__ import annotations

import msgspec


class ObservedExchange(msgspec.Struct):
    """One exchange so far. Wire bytes are the whole messages; payload is what is in their bodies."""

    begun_at: float
    method: str = ""
    path: str = ""
    status: int | None = None
    up_wire_bytes: int = 0
    up_payload_bytes: int = 0
    down_wire_bytes: int = 0
    down_payload_bytes: int = 0
    first_at: float | None = None
    """When the first byte of the reply's body came."""
    ended_at: float | None = None
    whole: bool = False
    """Whether the reply came to its end."""

"""What a server offers, as a client knows it.

Not here: how a gateway writes it (`segue.protocol.capabilities`), and when it is asked for (`transports`).
"""

from __future__ import annotations

import msgspec

from segue.protocol.lanes import BOUNDS, LaneBounds


class ServerCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a server told about itself; sizes in bytes, times in seconds, None where it told nothing.

    `epoch` is one life of the server's memory: idempotency keys and running turns end with it.
    """

    extensions: frozenset[str] = frozenset()
    lanes: LaneBounds = BOUNDS["serial"]
    epoch: str | None = None
    connection_age_s: float | None = None
    connection_idle_s: float | None = None
    message_bytes: int | None = None
    grace_s: float = 0.0
    resume_s: float = 0.0
    events_s: float = 0.0


#: A server that told nothing: one turn at a time on a connection, and no extension.
PLAIN_SERVER = ServerCapabilities()

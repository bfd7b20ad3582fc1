"""The timeouts and bounds of the client, for each target. Not here: enforcing them."""

from __future__ import annotations

import msgspec


class EgressLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one client, for each target."""

    connect_s: float = 15.0
    """Timeout of the TCP connection, again of TLS, and of the wait for a place when `requests` are under way."""
    silence_s: float | None = None
    """Timeout of the next byte of an answer. None: a model may think for an hour, and the agent has its own timeout."""
    requests: int = 1000
    """The most requests at once."""
    idle_connections: int = 20
    """The most connections kept for later requests."""
    idle_s: float = 4.0
    """How long a connection is kept: for less than servers keep theirs (Node and uvicorn: 5 s). So a server hardly ever
    closes one just when a request, which must not be sent twice, is written to it."""
    message_bytes: int = 64 * 1024 * 1024
    """The largest message of a WebSocket that is received."""
    close_s: float = 5.0
    """Timeout of the target's part of the closing handshake of a WebSocket."""

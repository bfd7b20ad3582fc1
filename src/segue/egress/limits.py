"""How long is waited for a target, and how much goes to it at once. Not here: enforcing it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EgressLimits:
    """The limits of one way out, for each target."""

    connect_s: float = 15.0
    """For a TCP connection, again for TLS, and for one's turn when `requests` are under way."""
    silence_s: float | None = None
    """For the next byte of an answer. A model may think for an hour, and how long an agent waits is its own affair."""
    requests: int = 1000
    """Under way at once."""
    idle_connections: int = 20
    """Kept for the next request."""
    idle_s: float = 4.0
    """How long one is kept: less than servers keep theirs (Node and uvicorn: 5 s), so that hardly ever one is closed
    there just when a request, which must not be sent twice, goes out on it."""
    message_bytes: int = 64 * 1024 * 1024
    """Largest message of a WebSocket that comes in."""
    close_s: float = 5.0
    """For the other side's part of closing a WebSocket."""

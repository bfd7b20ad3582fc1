"""What the agent asks of a conversation with a model: what `segue.client` offers, and scripted sessions of tests too.

Not here: how a turn reaches the model.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from segue.client.meters import SessionMeters
from segue.client.stream_events import ClientEvent, ClientResponse


class ModelTurn(Protocol):
    """One turn. Nothing is sent before it is iterated or its response is awaited."""

    def __aiter__(self) -> AsyncIterator[ClientEvent]:
        """Yield the events, once."""

    async def response(self) -> ClientResponse:
        """Return the response, when all events have come."""

    async def cancel(self) -> None:
        """Stop it; the history is then as it was before."""


class ModelSession(Protocol):
    """One conversation."""

    @property
    def history(self) -> Sequence[bytes]:
        """All items, as JSON."""

    @property
    def meters(self) -> SessionMeters:
        """What it has sent and received."""

    @property
    def pending_turn(self) -> ModelTurn | None:
        """The turn that was running when the session was saved, if it has not been taken up again."""

    def send(self, items: str | Sequence[dict[str, Any]], /) -> ModelTurn:
        """Return the turn that says this."""

    def save(self, path: Path, /) -> None:
        """Write the session to a file."""

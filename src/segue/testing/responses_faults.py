"""What can go wrong at a double of a Responses server, as values: give them to its `plan`.

Not here: what they do to sockets (`responses_server`), and faults of the network on the way (`link`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from segue.testing.response_events import Json
from segue.testing.responses_rules import CreateRefusal


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Reset the connection: when the create arrives (as if it never had), before the event with the number `events`, in
    the middle of the terminal event, or after it.

    With a `close_code` the server closes politely instead: a WebSocket with this code, HTTP by the end of the body.
    """

    at: Literal["create", "events", "terminal", "end"]
    events: int = 0
    close_code: int | None = None


class RestartAt(msgspec.Struct, frozen=True, kw_only=True):
    """Restart the server before the event with this number: all connections and, if told, all responses are gone."""

    events: int = 0
    keeps_stored: bool = True


class ErrorAt(msgspec.Struct, frozen=True, kw_only=True):
    """Refuse the create before the model runs; or end the turn with an `error` event before the event given.

    A `flat` error has code and message beside `type`, as in server-sent events; otherwise they are in `error`.
    """

    refusal: CreateRefusal
    events: int | None = None
    flat: bool = False


class FailAt(msgspec.Struct, frozen=True, kw_only=True):
    """End the turn with `response.failed` before the event with this number."""

    events: int = 2
    code: str = "server_error"
    message: str = "The model went away."


class AgeLimit(msgspec.Struct, frozen=True):
    """Answer the create as on a WebSocket that is too old, and close it. Over HTTP nothing happens."""


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """Answer with what no client expects, as a proxy does that knows nothing of the API."""

    status: int = 200
    content_type: str = "text/html"
    body: bytes = b"<!doctype html><title>Please sign in</title>"


class Rewritten(msgspec.Struct, frozen=True):
    """Send other events than the turn's. The function may return an endless iterator."""

    rewrite: Callable[[Sequence[Json]], Iterable[Json]]


class HoldAt(msgspec.Struct, frozen=True, kw_only=True):
    """Wait for `gate` before the event with this number."""

    gate: asyncio.Event
    events: int = 0


Fault = Cut | RestartAt | ErrorAt | FailAt | AgeLimit | Unreadable | Rewritten | HoldAt

#: What an upgrade can meet.
UpgradeFault = Unreadable | Cut

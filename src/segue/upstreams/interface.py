"""What an upstream must do: run one turn and stream its events.

The contract of `stream`, in order:

1. It may raise `Refused` before it yields anything: the turn then never began, and the client gets an error instead of
   a stream.
2. Its first batch (which may be empty) says that the turn has begun.
3. Batches are lists of events that were ready at the same time, so that they leave in one write. Events are numbered
   from `FIRST_SEQUENCE_NUMBER`; `response.created`, `response.in_progress` and the terminal event are not among them.
4. Its last batch ends in exactly one `Ended`. A failure after the turn began is an `Ended` with status `failed`.
5. Closing the generator (`aclose`, or cancelling whoever awaits it) stops the work at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from segue.history.chains import History
from segue.protocol.events import Ended, Event
from segue.protocol.ids import ResponseId
from segue.protocol.requests import Settings
from segue.protocol.responses import Usage

Batch = Sequence[Event | Ended]


class Secret:
    """A key on its way through; it does not show itself in a log or a traceback."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return it."""
        return self._value


class UpstreamRequest(msgspec.Struct, frozen=True):
    """One turn as an upstream sees it.

    `model` is the upstream's own name for the model. `history` holds all items, the new ones in `history.input`;
    `history.parent` is the turn that is continued, with its id: an upstream that keeps state of its own (tokens, a
    KV cache, an upstream response id) finds there what to continue, and `response_id` is the name to keep it under.
    `credential` is the client's own key for a provider, for upstreams that are configured to pass it on. `store` says
    that the turn will be stored: what is kept of one that is not must stay in memory. `held` says that its response can
    be continued by its id once it has ended well, until that is told to be gone (`Forgetting`); nobody will ever name
    one that is not held, but its client may send the history again.
    """

    model: str
    response_id: ResponseId
    tenant: str
    history: History
    settings: Settings
    credential: Secret | None = None
    store: bool = False
    held: bool = False


class Upstream(Protocol):
    """A model server, or a model in this process."""

    @property
    def models(self) -> Sequence[str]:
        """The names it answers to, for `GET /v1/models`; patterns are not listed."""

    async def start(self) -> None:
        """Get ready; called once, before the first turn."""

    def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Run one turn (see the module's contract)."""

    async def aclose(self) -> None:
        """Stop running turns and release everything."""


@runtime_checkable
class Prefilling(Protocol):
    """An upstream that can get ready for a turn before it is asked for (`generate: false`). Not every one can."""

    async def prefill(self, request: UpstreamRequest) -> Usage:
        """Take in the history of a turn that is to make no output, for turns that will continue it.

        What it keeps, it keeps under `request.response_id`. It may raise `Refused`, as `stream` may before it yields.
        Returns the tokens it took in. Whoever awaits it may be cancelled; the work stops then.
        """


@runtime_checkable
class Forgetting(Protocol):
    """An upstream that keeps something of the responses it made, and lets go of it when they are gone."""

    def forget(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        """Take note that these responses are gone for good: deleted, expired, or unstored and held by nobody any more.

        What only they need must soon be gone too; what living responses that continue them need stays. Ids that are
        unknown here, or told before, are fine, and so are turns that still run. Returns at once.
        """

"""What an upstream must do: run one turn and stream its events.

The contract of `stream`, in order:

1. It may raise `Refused` before it yields anything: the turn then never began, and the client gets an error instead of
   a stream.
2. Its first batch, which may be empty, means that the turn has begun.
3. A batch holds the events that were ready at the same time, so that they leave in one write. Events are numbered
   from `FIRST_SEQUENCE_NUMBER`; `response.created`, `response.in_progress` and the terminal event are not among them.
4. Its last batch ends in exactly one `Ended`. A failure after the turn began is an `Ended` with status `failed`.
5. Closing the generator (`aclose`, or cancelling the task that awaits it) stops the work at once.

Not here: the upstreams themselves.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from segue.history.chains import History
from segue.protocol.events import Ended, Event
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Refused
from segue.protocol.requests import NativeBody, Settings
from segue.protocol.responses import Usage
from segue.upstreams.retries import FailedAttempt

Batch = Sequence[Event | Ended]


class Secret:
    """A key in transit; neither `str` nor `repr` shows it, so that no log or traceback does."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return it."""
        return self._value


class UpstreamNotes(msgspec.Struct):
    """What upstreams note about one turn, for the log.

    `tried`: the members of a group that were asked, the last of which ran the turn. `continuation`: `hit`, if only what
    is new was sent to an upstream that keeps conversations, else why all was; None: there was nothing to continue.
    """

    tried: list[str] = msgspec.field(default_factory=list)
    continuation: str | None = None


class UpstreamRequest(msgspec.Struct, frozen=True):
    """One turn as an upstream sees it.

    `model` is the upstream's own name for the model. `history` holds all items, the new ones in `history.input`, and in
    `history.parent` the turn that this one continues. An upstream that keeps state (tokens, a KV cache, an upstream
    response id) looks it up by the parent's id, and keeps its own under `response_id`. `credential` is the client's own
    key for a provider, for upstreams that are configured to pass it on. `store` is true if the turn will be stored;
    state of a turn that will not be stored must stay in memory. `held` is true if other turns can continue the response
    by its id, from its successful end until `Forgetting.forget` names it. A response that is not held is never
    continued by its id, but its client may send the whole history again. `standby` is true if another upstream can run
    the turn: a failure that proves that nothing was generated is then raised at once, as `UpstreamFailed`. `native` is
    the request as its client wrote it in the API that this upstream speaks: it is sent instead of the items.
    `size_bytes` is the length of its message. `notes` are filled in while the turn runs.
    """

    model: str
    response_id: ResponseId
    tenant: str
    history: History
    settings: Settings
    credential: Secret | None = None
    store: bool = False
    held: bool = False
    standby: bool = False
    native: NativeBody | None = None
    size_bytes: int = 0
    notes: UpstreamNotes = msgspec.field(default_factory=UpstreamNotes)


class UpstreamFailed(Refused):
    """A turn that did not begin, and what its failure proves."""

    def __init__(self, failed: FailedAttempt) -> None:
        super().__init__(failed.problem)
        self.failed = failed


class Streaming(Protocol):
    """What runs turns: an upstream, or a group of them."""

    def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Run one turn (see the module's contract)."""


class Upstream(Streaming, Protocol):
    """A model server, or a model in this process."""

    @property
    def models(self) -> Sequence[str]:
        """The models it serves: names and patterns of the configuration."""

    async def start(self) -> None:
        """Get ready; called once, before the first turn."""

    async def aclose(self) -> None:
        """Stop running turns and release everything."""


@runtime_checkable
class HasName(Protocol):
    """An upstream that the configuration has given a name."""

    @property
    def name(self) -> str:
        """The name."""


@runtime_checkable
class Limited(Protocol):
    """An upstream that runs a limited number of turns at once."""

    def has_place(self) -> bool:
        """Say whether a turn would run at once, without waiting for others."""


@runtime_checkable
class Prefilling(Protocol):
    """An upstream that can process a prompt before an answer is wanted (`generate: false`). Not every one can."""

    async def prefill(self, request: UpstreamRequest) -> Usage:
        """Process the history of a turn without output, for the turns that will continue it.

        It keeps its state under `request.response_id` and returns how many tokens it processed. It may raise `Refused`,
        as `stream` may before it yields. Cancelling the task that awaits it stops the work.
        """


@runtime_checkable
class StopsBetweenItems(Protocol):
    """An upstream that knows whether a turn can be stopped between two items, while what it has made stays good."""

    @property
    def stops_between_items(self) -> bool:
        """Whether closing its stream there stops its work and disturbs no other turn."""


def can_stop_between_items(upstreams: Iterable[Upstream]) -> bool:
    """Tell whether a turn of any of these upstreams can be stopped between two items."""
    return all(isinstance(one, StopsBetweenItems) and one.stops_between_items for one in upstreams)


@runtime_checkable
class ModelLister(Protocol):
    """An upstream that knows the names of its models beyond those that are configured."""

    async def list_models(self, credential: Secret | None) -> Sequence[str]:
        """Return them, as far as they are known; `credential` is the client's own key. Never raises or takes long."""


@runtime_checkable
class Counting(Protocol):
    """An upstream that can say how many tokens a prompt has, without running the model. Not every one can."""

    async def count_input(self, request: UpstreamRequest) -> int:
        """Return how many tokens the input of a turn would have: history, instructions and tools.

        Nothing is kept of it. It may raise `Refused`, as `stream` may before it yields.
        """


@runtime_checkable
class TellingSettings(Protocol):
    """An upstream that decides itself what a request left open, and can say how before the turn begins."""

    def settings_used(self, settings: Settings) -> Settings:
        """Return the settings of a request as it obeys them; the response echoes these."""


@runtime_checkable
class SpeaksNatively(Protocol):
    """An upstream that can be sent a request as its client wrote it, if the client speaks its API."""

    @property
    def dialect_name(self) -> str:
        """The name of that API, as in the configuration."""


def is_native(upstreams: Iterable[Upstream], dialect: str) -> bool:
    """Tell whether each of these upstreams can be sent a request that came in this API as its client wrote it."""
    return all(isinstance(one, SpeaksNatively) and one.dialect_name == dialect for one in upstreams)


@runtime_checkable
class CompactingItself(Protocol):
    """An upstream that may be configured to compact histories itself, as its API has it."""

    @property
    def compacts(self) -> bool:
        """Whether it is."""


def compacts_itself(upstreams: Iterable[Upstream]) -> bool:
    """Tell whether each of these upstreams compacts histories itself, so that the gateway must not."""
    return all(isinstance(one, CompactingItself) and one.compacts for one in upstreams)


@runtime_checkable
class Forgetting(Protocol):
    """An upstream that keeps state of its responses, and drops that state when they are gone."""

    def forget(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        """Drop the state of responses that are gone for good: deleted, expired, or unstored and no longer held.

        State that only they need must soon be gone too; state that living responses need to continue them stays. Ids
        that are unknown here or that were named before are fine, and so are turns that still run. Returns at once.
        """


@runtime_checkable
class ForgettingTenants(Protocol):
    """An upstream that keeps state of its responses beyond what `Forgetting` can name."""

    def forget_tenant(self, tenant: str) -> None:
        """Drop the state of all responses of a tenant, whether a client can name them or not. Returns at once."""

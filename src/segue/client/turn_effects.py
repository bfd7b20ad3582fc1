"""What goes into a turn, and what it asks of its shell.

Not here: the turn itself (`turn_machine`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from segue.client.continuation import Continuation
from segue.client.create_request import CreateOptions, StaticMembers
from segue.client.errors import ClientError
from segue.client.local_history import LocalHistory
from segue.client.recovery import Decision, Progress, TurnFault
from segue.client.settings import SessionSettings, TransportKind
from segue.client.stream_events import ClientEvent, ClientResponse
from segue.protocol.items import Item
from segue.protocol.requests import LeanForm

# --- what goes in ----------------------------------------------------------------------------------------------------


class DeliveredCreate(msgspec.Struct, frozen=True, kw_only=True):
    """What a later process must know of a create that was delivered, to find out what became of it.

    `silent_s` is how long ago its connection last showed life.
    """

    previous_response_id: str | None = None
    replayed: bool = False
    own_field: bool = True
    options: CreateOptions = CreateOptions()
    epoch: str | None = None
    resume_s: float = 0.0
    response_id: str | None = None
    silent_s: float = 0.0


class TurnInput(msgspec.Struct, frozen=True, kw_only=True):
    """One turn to run: `items` are new, `key` is its idempotency key, `delivered` what an earlier process began.

    `own_field` allows the field that a client adds by itself. `alive_at` is when the connection of what was delivered
    last showed life, in unix seconds.
    """

    static: StaticMembers
    settings: SessionSettings
    history: LocalHistory
    items: tuple[Item, ...]
    key: str
    continuation: Continuation | None = None
    generate: bool = True
    own_field: bool = True
    delivered: DeliveredCreate | None = None
    alive_at: float | None = None


class Moment(msgspec.Struct, frozen=True):
    """When something happens, and a random fraction for it.

    `now` is of a clock that only goes forward, but may stand still while the machine sleeps. `unix` is the time of day,
    which may be set.
    """

    now: float
    fraction: float = 1.0
    unix: float = 0.0


# --- what comes out --------------------------------------------------------------------------------------------------


class Connect(msgspec.Struct, frozen=True, kw_only=True):
    """Make sure that there is a connection; answer with `connected` or `failed`."""

    kind: TransportKind
    near: int | None = None
    fresh: bool = False


class SendCreate(msgspec.Struct, frozen=True, kw_only=True):
    """Send a create on this connection and read its stream: `received` for each event, `failed` otherwise."""

    kind: TransportKind
    body: bytes
    connection: int


class SendResume(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for the events after a number and read them, as for a create."""

    kind: TransportKind
    response_id: str
    starting_after: int
    connection: int
    lean: LeanForm


class Retrieve(msgspec.Struct, frozen=True):
    """Ask for a stored response; answer with `retrieved` or `failed`."""

    response_id: str


class SleepFor(msgspec.Struct, frozen=True):
    """Wait, then call `woken`. `for_network`: it may be sooner when the machine's network has changed."""

    seconds: float
    for_network: bool = False


class SwitchToHttp(msgspec.Struct, frozen=True):
    """Use HTTP for all turns to come."""


class RecoveryStep(msgspec.Struct, frozen=True, kw_only=True):
    """A fault was met and something is done about it: for whoever watches."""

    fault: TurnFault
    progress: Progress
    decision: Decision


class Emit(msgspec.Struct, frozen=True):
    """Show an event."""

    event: ClientEvent


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """The turn has ended well: these items belong to the history now, and this stands for all of it."""

    response: ClientResponse
    items: tuple[Item, ...]
    continuation: Continuation


class GiveUp(msgspec.Struct, frozen=True):
    """The turn has ended; the history is as it was."""

    error: ClientError


TurnEffect = (
    Connect | SendCreate | SendResume | Retrieve | SleepFor | SwitchToHttp | RecoveryStep | Emit | Finish | GiveUp
)
TurnEffects = Sequence[TurnEffect]

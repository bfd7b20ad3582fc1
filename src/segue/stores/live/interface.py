"""What several gateways of one deployment know of each other. The interface of both forms.

A *node* is one run of a gateway. It lives as long as its lease, which it renews. A *fencing token* is the number of a
lease; a later lease has a higher one, so that what an earlier holder still writes can be told and refused. Not here:
event logs, claims and locks, which have interfaces of their own (`segue.stores.event_logs`, `idempotency_keys`,
`advisory_locks`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol

import msgspec

from segue.stores.event_logs import EventLogs, MemoryEventLogs
from segue.stores.idempotency_keys import Claims
from segue.stores.live.advisory_locks import AdvisoryLocks


class LiveUnavailable(Exception):
    """What gateways share cannot be reached at the moment, or this one's lease is over. Nothing was changed by us."""


class NodeLease(msgspec.Struct, frozen=True):
    """One node that lives: its id, its fencing token, its own address, when it began, and whether it is leaving."""

    node: str
    token: int
    address: str
    started_at: float
    draining: bool = False
    read_up_to: str = ""
    """The latest notice that the node has acted on."""


class Notice(msgspec.Struct, frozen=True):
    """What a node tells all others: responses were deleted, a tenant was erased, or turns are to be stopped.

    A turn that is *forgotten* leaves nothing; one that is *cancelled* ends as what there is of it.
    """

    kind: Literal["deleted", "erased", "forgotten", "cancelled"]
    tenant: str
    ids: tuple[str, ...] = ()


#: Acts on a notice of another node. What it raises is logged, and the notice counts as read.
Act = Callable[[Notice], Awaitable[None]]


class Nodes(Protocol):
    """The nodes of a deployment, as one of them sees them."""

    @property
    def id(self) -> str:
        """The id of this node."""

    @property
    def token(self) -> int:
        """The fencing token of this node's latest lease."""

    @property
    def held(self) -> bool:
        """Whether this node's lease holds: if not, it must trust nothing that others may have changed."""

    @property
    def address(self) -> str:
        """The address of this node, if it has one."""

    @property
    def epoch(self) -> bytes:
        """What names the data that all nodes share; it changes when that data was lost."""

    def watch(self, on_lost: Callable[[], Awaitable[None]]) -> None:
        """Call this when the node may have missed what others did: what it holds may be out of date."""

    async def start(self, act: Act) -> None:
        """Take a lease, and begin to renew it and to act on the notices of other nodes. Raises `LiveUnavailable`."""

    async def living(self) -> Sequence[NodeLease]:
        """Return the nodes that live, this one too. Raises `LiveUnavailable`."""

    async def is_gone(self, node: str) -> bool:
        """Say whether a node lives no more, for certain. Raises `LiveUnavailable`."""

    async def tell(self, notice: Notice) -> None:
        """Tell all others, and return when each of them has acted, or lives no more. Raises `LiveUnavailable`."""

    async def drain(self) -> None:
        """Let the others know that this node is leaving."""

    async def aclose(self) -> None:
        """Give the lease back."""


class TakenUnits(msgspec.Struct, frozen=True):
    """How many units were taken out of a window, which is not full before `full_in_s` at the least."""

    window: str
    units: int
    per_minute: int
    full_in_s: float = 0.0


class Windows(Protocol):
    """The windows of quotas, as all nodes count them."""

    async def take(self, tenant: str, taken: Sequence[TakenUnits]) -> Sequence[float]:
        """Take units out of windows; return for each after how many seconds it is full. Raises `LiveUnavailable`."""


class WantedPlaces(msgspec.Struct, frozen=True):
    """Places under a limit of what may be under way at once: how many of `most` a node uses, and wants to have."""

    name: str
    used: int
    wanted: int
    most: int


class HeldPlaces(msgspec.Struct, frozen=True):
    """Places that a node has, until it says otherwise or says nothing for the time of a lease; and that others have."""

    held: int
    others: int


class Places(Protocol):
    """The places of limits of what may be under way at once, as nodes have them."""

    @property
    def lease_s(self) -> float:
        """For how long a node has its places without a word; then they are free."""

    async def hold(self, tenant: str, wanted: Sequence[WantedPlaces]) -> Sequence[HeldPlaces]:
        """Have so many places in place of those that this node had. Raises `LiveUnavailable`.

        All nodes together get no more than the most; but what a node uses already counts in any case.
        """


class Exchanges(Protocol):
    """Which node has forwarded an exchange of a sidecar."""

    async def claim(self, tenant: str, session: str, number: int) -> bool:
        """Claim an exchange; False if another node has it. Raises `LiveUnavailable`."""


class Live(Protocol):
    """Everything that several gateways share, as one of them holds it."""

    @property
    def nodes(self) -> Nodes:
        """The nodes; this one is to be started before anything else is used."""

    @property
    def claims(self) -> Claims:
        """The idempotency keys of all nodes."""

    @property
    def locks(self) -> AdvisoryLocks:
        """The locks of all nodes."""

    @property
    def windows(self) -> Windows:
        """The windows of quotas of all nodes."""

    @property
    def places(self) -> Places:
        """The places under limits of what may be under way at once, of all nodes."""

    @property
    def exchanges(self) -> Exchanges:
        """The exchanges of sidecars that nodes have forwarded."""

    def share_logs(
        self, local: MemoryEventLogs, *, log_bytes: int, tenant_bytes: int, clock: Callable[[], float]
    ) -> EventLogs:
        """Return event logs that all nodes can read, around those of this one."""

    @property
    def available(self) -> bool:
        """Whether what is shared can be reached, as far as is known."""

    async def aclose(self) -> None:
        """Give the lease back, and release everything."""

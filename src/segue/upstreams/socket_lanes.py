"""Which lane of which WebSocket of an upstream a turn gets, and which sockets must be closed. Pure.

Theory. A socket has an owner: the tenant, the model and the header lines that it was opened with. Nobody else gets it.
It has one lane, or as many as its server offers. A lane *runs* a turn, or is *unread* (its turn was given up, and comes
to its end by itself), or *holds* the response of its last turn, or is *free*. The provider keeps the latest response of
a lane in that connection's memory alone, so that the turn that continues it goes to that very lane; any other turn of
the owner gets a free one. A socket *waits* while no turn runs on it, read or unread. Over the limit, the tenant that
has most loses the socket that has waited longest. A socket that has waited or lived too long is closed: providers end
connections after a time of their own, which should not hit a turn. A socket that is *retired* gets no turn any more; it
is closed as soon as nobody reads a turn on it. Not here: the sockets themselves (`socket_pool`), and whose a message is
(`lane_traffic`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

from segue.protocol.ids import ResponseId
from segue.upstreams.continuation import ReplayReason

#: Of how many responses it is known why no lane holds them any more.
MOST_LOST = 4096


class SocketOwner(NamedTuple):
    """Whose a socket is; `opened_for` is a digest of the model and the header lines."""

    tenant: str
    opened_for: bytes


class IdleLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many sockets of an upstream may wait for a turn, for how long, and how old one may be.

    A turn that was given up may run unread for `unread_s` before its socket is retired. So many `lanes` of a socket are
    used at most; by default as many as its server says that it runs at once and stops one by one.
    """

    max_idle: int = 256
    idle_s: float = 600.0
    age_s: float = 3300.0
    unread_s: float = 60.0
    lanes: int | None = None


class LaneAt(NamedTuple):
    """A lane of a socket, both by their numbers."""

    socket: int
    lane: int


LaneState = Literal["running", "unread", "holding", "free"]


class _LanedSocket:
    __slots__ = ("free", "heads", "opened_at", "owner", "retired", "running", "since", "unread")

    def __init__(self, owner: SocketOwner, lanes: int, opened_at: float) -> None:
        self.owner = owner
        self.opened_at = opened_at
        self.since = opened_at  # when the last turn on it ended
        self.retired = False
        self.free = list(reversed(range(lanes)))
        self.heads: OrderedDict[int, ResponseId] = OrderedDict()  # that lanes hold; the oldest first
        self.running: set[int] = set()
        self.unread: dict[int, float] = {}  # since when


class SocketLanes:
    """The lanes of all sockets of an upstream. Every `now` is of the same monotonic clock."""

    def __init__(self, limits: IdleLimits) -> None:
        self._limits = limits
        self._sockets: dict[int, _LanedSocket] = {}
        self._waiting: dict[str, OrderedDict[int, None]] = {}  # by tenant; the one that has waited longest first
        self._waiting_count = 0
        self._with_free: dict[SocketOwner, OrderedDict[int, None]] = {}  # the one that was used last comes last
        self._heads: dict[tuple[str, ResponseId], LaneAt] = {}
        self._lost: OrderedDict[tuple[str, ResponseId], ReplayReason] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many sockets wait for a turn."""
        return self._waiting_count

    @property
    def held(self) -> int:
        """How many responses the provider holds."""
        return len(self._heads)

    def state_of(self, at: LaneAt) -> LaneState | None:
        """Return what a lane does; None if its socket is not here."""
        socket = self._sockets.get(at.socket)
        if socket is None:
            return None
        if at.lane in socket.running:
            return "running"
        return "unread" if at.lane in socket.unread else "holding" if at.lane in socket.heads else "free"

    # --- turns -------------------------------------------------------------------------------------------------------

    def add(self, number: int, owner: SocketOwner, *, lanes: int, now: float) -> LaneAt:
        """Take in a socket that was opened for a turn; return the lane in which the turn runs."""
        self._sockets[number] = _LanedSocket(owner, lanes, now)
        return self._run(number, self._sockets[number].free[-1])

    def take_held(self, tenant: str, parent: ResponseId, owner: SocketOwner, *, now: float) -> LaneAt | ReplayReason:
        """Take the lane that holds the response that a turn continues; or say why there is none."""
        at = self._heads.get((tenant, parent))
        if at is None:
            return self._lost.get((tenant, parent), "unknown")
        socket = self._sockets[at.socket]
        if socket.owner != owner:
            return "settings"
        if self._is_old(socket, now):
            return "expired"
        self._lose(at, None)
        return self._run(at.socket, at.lane)

    def take_free(self, owner: SocketOwner, *, now: float) -> LaneAt | None:
        """Take a free lane of this owner, on the socket that was used last.

        If no more sockets may wait, the lane of another response does as well: it would go with its socket otherwise.
        """
        for number in reversed(self._with_free.get(owner, {})):
            if not self._is_old(self._sockets[number], now):
                return self._run(number, self._sockets[number].free[-1])
        if self._waiting_count < self._limits.max_idle:
            return None
        for number in self._waiting.get(owner.tenant, ()):
            socket = self._sockets[number]
            if socket.owner == owner and socket.heads and not self._is_old(socket, now):
                at = LaneAt(number, next(iter(socket.heads)))
                self._lose(at, "expired")
                return self._run(number, at.lane)
        return None

    def rest(self, at: LaneAt, head: ResponseId | None, *, now: float) -> list[int]:
        """Note that nothing runs in a lane any more; it holds the response `head`, or none that anybody continues.

        Returns the sockets that must be closed.
        """
        socket = self._sockets[at.socket]
        assert at.lane in socket.running or at.lane in socket.unread, "nothing runs there"
        socket.running.discard(at.lane)
        socket.unread.pop(at.lane, None)
        socket.since = now
        socket.free.append(at.lane)
        if self._is_old(socket, now):
            self.retire(at.socket)
            self._note_lost(socket.owner.tenant, head, "expired")
        if head is not None and not socket.retired:
            socket.free.pop()
            socket.heads[at.lane] = head
            self._heads[socket.owner.tenant, head] = at
        self._file(at.socket)
        return [at.socket] if socket.retired and not socket.running else self._evict()

    def abandon(self, at: LaneAt, *, now: float) -> list[int]:
        """Note that nobody reads the turn of a lane any more. Returns the sockets that must be closed."""
        socket = self._sockets[at.socket]
        assert at.lane in socket.running, "no turn runs there"
        socket.running.remove(at.lane)
        socket.unread[at.lane] = now
        return [at.socket] if socket.retired and not socket.running else []

    # --- sockets -----------------------------------------------------------------------------------------------------

    def retire(self, number: int) -> list[int]:
        """Give a socket no turn any more. Returns it if it must be closed."""
        socket = self._sockets.get(number)
        if socket is None:
            return []
        socket.retired = True
        for lane in tuple(socket.heads):
            self._lose(LaneAt(number, lane), "expired")
        self._file(number)
        return [] if socket.running else [number]

    def remove(self, number: int, why: ReplayReason) -> None:
        """Forget a socket that is closed; one that is not here is fine. `why` its responses cannot be continued."""
        socket = self._sockets.get(number)
        if socket is None:
            return
        for lane in tuple(socket.heads):
            self._lose(LaneAt(number, lane), why)
        socket.retired = True
        self._file(number)
        del self._sockets[number]

    def forget(self, tenant: str, response_ids: Iterable[ResponseId], *, now: float) -> tuple[list[int], list[LaneAt]]:
        """Let go of responses that are gone for good.

        Returns the sockets that must be closed, since nothing else is on them, and the lanes in which the provider must
        be made to drop its response. Those count as unread until that is done.
        """
        found = [at for at in (self._heads.get((tenant, one)) for one in dict.fromkeys(response_ids)) if at is not None]
        for at in found:
            self._lose(at, "unknown")
        closed: list[int] = []
        cleared: list[LaneAt] = []
        for at in found:
            socket = self._sockets[at.socket]
            if at.socket in closed:
                continue
            if not socket.heads and not socket.running and not socket.unread:
                closed += self.retire(at.socket)
                continue
            socket.free.remove(at.lane)
            socket.unread[at.lane] = now
            self._file(at.socket)
            cleared.append(at)
        return closed, cleared

    def forget_tenant(self, tenant: str) -> list[int]:
        """Retire all sockets of a tenant; return those that must be closed at once."""
        numbers = [number for number, socket in self._sockets.items() if socket.owner.tenant == tenant]
        closed = [one for number in numbers for one in self.retire(number)]
        self._lost = OrderedDict((head, why) for head, why in self._lost.items() if head[0] != tenant)
        return closed

    def of_tenant(self, tenant: str) -> Sequence[int]:
        """Return the sockets of a tenant that wait."""
        return tuple(self._waiting.get(tenant, ()))

    def overdue(self, now: float) -> list[int]:
        """Return the sockets that have waited or lived too long, and retire those with turns that run unread too long.

        O(sockets).
        """
        found = []
        for number, socket in tuple(self._sockets.items()):
            if any(now - since >= self._limits.unread_s for since in socket.unread.values()):
                self.retire(number)
            idle = not socket.unread and now - socket.since >= self._limits.idle_s
            if not socket.running and (socket.retired or idle or self._is_old(socket, now)):
                found.append(number)
        return found

    # --- private -----------------------------------------------------------------------------------------------------

    def _run(self, number: int, lane: int) -> LaneAt:
        socket = self._sockets[number]
        socket.free.remove(lane)
        socket.running.add(lane)
        self._file(number)
        return LaneAt(number, lane)

    def _lose(self, at: LaneAt, why: ReplayReason | None) -> None:
        """Free a lane of the response that it holds; remember why, if somebody may ask."""
        socket = self._sockets[at.socket]
        tenant, head = socket.owner.tenant, socket.heads.pop(at.lane)
        socket.free.append(at.lane)
        del self._heads[tenant, head]
        self._note_lost(tenant, head, why)

    def _note_lost(self, tenant: str, head: ResponseId | None, why: ReplayReason | None) -> None:
        if head is not None and why is not None and why != "unknown":
            self._lost[tenant, head] = why
            if len(self._lost) > MOST_LOST:
                self._lost.popitem(last=False)

    def _file(self, number: int) -> None:
        """File a socket under what it is now."""
        socket = self._sockets[number]
        with_free = self._with_free.setdefault(socket.owner, OrderedDict())
        with_free.pop(number, None)
        if socket.free and not socket.retired:
            with_free[number] = None
        elif not with_free:
            del self._with_free[socket.owner]
        waiting = self._waiting.setdefault(socket.owner.tenant, OrderedDict())
        waits = not socket.running and not socket.unread and not socket.retired
        self._waiting_count += waits - (number in waiting)
        waiting.pop(number, None)
        if waits:
            waiting[number] = None
        elif not waiting:
            del self._waiting[socket.owner.tenant]

    def _evict(self) -> list[int]:
        evicted: list[int] = []
        while self._waiting_count > self._limits.max_idle:
            most = max(self._waiting.values(), key=len)
            evicted += self.retire(next(iter(most)))
        return evicted

    def _is_old(self, socket: _LanedSocket, now: float) -> bool:
        return now - socket.opened_at >= self._limits.age_s

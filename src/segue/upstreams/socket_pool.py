"""The WebSockets to one provider: those that carry turns, in one lane or several, and those that wait for the next.

Not here: which lane a turn gets, and when a socket is closed (`socket_lanes`), and opening one (`websocket`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from segue.http_client.websocket_opening import OpenedWebSocket
from segue.protocol.ids import ResponseId
from segue.upstreams.continuation import ReplayReason
from segue.upstreams.lane_offer import ONE_LANE, OfferedLanes
from segue.upstreams.provider_socket import ProviderSocket, SocketEvents, SocketLane
from segue.upstreams.socket_lanes import IdleLimits, LaneAt, SocketLanes, SocketOwner

#: How often it is looked for sockets that have waited too long.
_SWEEP_S = 15.0


class SocketPool:
    """The sockets of one upstream, whichever tenant they are for."""

    def __init__(self, limits: IdleLimits) -> None:
        self._lanes = SocketLanes(limits)
        self._sockets: dict[int, ProviderSocket] = {}
        self._cleared: set[LaneAt] = set()
        self._count = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._events = SocketEvents(self._on_over, self._on_rest, self._on_given_up, self._on_retired)

    def __len__(self) -> int:
        return len(self._sockets)

    @property
    def idle(self) -> int:
        """How many wait for a turn."""
        return self._lanes.waiting

    @property
    def held(self) -> int:
        """How many responses the provider holds on them."""
        return self._lanes.held

    def add(
        self,
        opened: OpenedWebSocket,
        owner: SocketOwner,
        offered: OfferedLanes = ONE_LANE,
        *,
        clearing: Callable[[str], bytes] | None = None,
    ) -> SocketLane:
        """Take in a socket that was opened for a turn; return the lane for it.

        `clearing` writes the message with which the server drops what a lane holds; None if it is not known to do that.
        """
        self._count += 1
        socket = ProviderSocket(self._count, opened, owner, events=self._events, offered=offered, clearing=clearing)
        self._sockets[socket.number] = socket
        self._sweep_later()
        return self._lane(self._lanes.add(socket.number, owner, lanes=offered.count, now=_now()))

    def take_held(self, tenant: str, parent: ResponseId, owner: SocketOwner) -> SocketLane | ReplayReason:
        """Take the lane that holds the response that a turn continues; or say why there is none."""
        at = self._lanes.take_held(tenant, parent, owner, now=_now())
        return self._lane(at) if isinstance(at, LaneAt) else at

    def take_free(self, owner: SocketOwner) -> SocketLane | None:
        """Take a lane of this owner that holds nothing, or nothing that can be kept."""
        at = self._lanes.take_free(owner, now=_now())
        if at is None:
            return None
        lane = self._lane(at)
        lane.held = None
        return lane

    def give_back(self, lane: SocketLane, head: ResponseId | None) -> None:
        """Let a lane wait whose turn has ended; it holds the response `head`, or none that anybody continues."""
        if self._is_gone(lane):
            return
        if head is None:
            lane.held = None
        self._close(self._lanes.rest(lane.at, head, now=_now()), "expired")
        self._sweep_later()

    def give_up(self, lane: SocketLane) -> None:
        """Stop a turn that runs, or let it run to its end unread. Without lanes, its socket is broken."""
        if self._is_gone(lane):
            return
        if lane.at_rest:
            self.give_back(lane, None)
        elif lane.name is None:
            lane.socket.drop()
        else:
            lane.held = None
            self._on_given_up(lane.at)

    def retire(self, socket: ProviderSocket) -> None:
        """Let no turn begin on a socket any more, and close it when those on it have ended."""
        self._on_retired(socket.number)

    def forget(self, tenant: str, response_ids: Iterable[ResponseId]) -> None:
        """Let the provider drop these responses, with their socket, or with a turn in their lane that holds nothing."""
        closed, cleared = self._lanes.forget(tenant, response_ids, now=_now())
        self._close(closed, "unknown")
        for at in cleared:
            lane = self._lane(at)
            lane.held = None
            if lane.socket.clear(at.lane):
                self._cleared.add(at)
            else:
                self._on_retired(at.socket)

    def forget_tenant(self, tenant: str) -> None:
        """Close all sockets of a tenant: those that wait at once, the others when their turns have ended."""
        self._close(self._lanes.forget_tenant(tenant), "unknown")

    async def aclose(self) -> None:
        """Close all sockets; turns that run are broken off."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._close(tuple(self._sockets), "unknown")
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _is_gone(self, lane: SocketLane) -> bool:
        return lane.socket.end is not None or self._lanes.state_of(lane.at) is None  # over, or being closed

    def _lane(self, at: LaneAt) -> SocketLane:
        return self._sockets[at.socket].lanes[at.lane]

    def _sweep_later(self) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        self._close(self._lanes.overdue(_now()), "expired")
        if self._sockets:
            self._sweep_later()

    def _close(self, numbers: Sequence[int], why: ReplayReason) -> None:
        for number in numbers:
            self._lanes.remove(number, why)
            closing = asyncio.get_running_loop().create_task(self._sockets[number].aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    # --- what sockets tell -------------------------------------------------------------------------------------------

    def _on_over(self, socket: ProviderSocket) -> None:
        self._lanes.remove(socket.number, "disconnected")
        self._cleared = {at for at in self._cleared if at.socket != socket.number}
        del self._sockets[socket.number]

    def _on_rest(self, at: LaneAt, failed: bool) -> None:  # noqa: FBT001 - a socket calls it by position
        if at.socket not in self._sockets:
            return
        if at in self._cleared:
            self._cleared.remove(at)
            if failed:  # it may hold what it was to drop
                self._on_retired(at.socket)
        if self._lanes.state_of(at) == "unread":
            self._close(self._lanes.rest(at, None, now=_now()), "expired")

    def _on_given_up(self, at: LaneAt) -> None:
        self._sockets[at.socket].stop(at.lane)
        self._close(self._lanes.abandon(at, now=_now()), "expired")

    def _on_retired(self, number: int) -> None:
        self._close(self._lanes.retire(number), "expired")


def _now() -> float:
    return asyncio.get_running_loop().time()

"""The WebSockets to one provider: those that carry a turn, and those that wait for the next.

Not here: which of those that wait a turn gets (`idle_sockets`), and opening one (`websocket`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from segue.http_client.websocket_opening import OpenedWebSocket
from segue.protocol.ids import ResponseId
from segue.upstreams.continuation import ReplayReason
from segue.upstreams.idle_sockets import IdleLimits, IdleSockets, SocketOwner
from segue.upstreams.provider_socket import ProviderSocket

#: How often it is looked for sockets that have waited too long.
_SWEEP_S = 15.0
#: Of how many responses it is known that their socket is gone.
_MOST_LOST = 4096


class SocketPool:
    """The sockets of one upstream, whichever tenant they are for."""

    def __init__(self, limits: IdleLimits) -> None:
        self._idle = IdleSockets(limits)
        self._sockets: dict[int, ProviderSocket] = {}
        self._heads: dict[int, tuple[str, ResponseId]] = {}  # of those that wait
        self._lost: OrderedDict[tuple[str, ResponseId], ReplayReason] = OrderedDict()
        self._erased: set[int] = set()  # those that carry a turn of a tenant that was erased meanwhile
        self._count = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._sockets)

    @property
    def idle(self) -> int:
        """How many wait for a turn."""
        return len(self._idle)

    def add(self, opened: OpenedWebSocket, owner: SocketOwner) -> ProviderSocket:
        """Take in a socket that was opened for a turn."""
        self._count += 1
        socket = ProviderSocket(self._count, opened, owner, on_over=self._on_over)
        self._sockets[socket.number] = socket
        return socket

    def take_held(self, tenant: str, parent: ResponseId, owner: SocketOwner) -> ProviderSocket | ReplayReason:
        """Take the socket that holds the response that a turn continues; or say why there is none."""
        number = self._idle.holder_of(tenant, parent)
        if number is None:
            return self._lost.get((tenant, parent), "unknown")
        socket = self._sockets[number]
        if socket.owner != owner:
            return "settings"
        if not self._idle.take(number, owner, _now()):
            return "expired"
        del self._heads[number]
        return socket

    def take_free(self, owner: SocketOwner) -> ProviderSocket | None:
        """Take a socket of this owner that holds nothing, or nothing that can be kept."""
        number = self._idle.take_free(owner, _now())
        if number is None:
            return None
        self._forget_head(number, "expired")
        socket = self._sockets[number]
        socket.held = None
        return socket

    def give_back(self, socket: ProviderSocket, head: ResponseId | None) -> None:
        """Let a socket wait whose turn has ended; it holds the response `head`, or none that anybody continues."""
        if socket.end is not None:
            return
        if socket.number in self._erased:
            self._close([socket.number], "unknown")
            return
        if head is None:
            socket.held = None
        else:
            self._heads[socket.number] = socket.owner.tenant, head
        overdue = self._idle.put(socket.number, socket.owner, head, opened_at=socket.opened_at, now=_now())
        self._close(overdue, "expired")
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def forget(self, tenant: str, response_ids: Iterable[ResponseId]) -> None:
        """Close the sockets that hold these responses, so that the provider drops them."""
        found = (self._idle.holder_of(tenant, one) for one in response_ids)
        self._close([number for number in found if number is not None], "unknown")

    def forget_tenant(self, tenant: str) -> None:
        """Close all sockets of a tenant: those that wait at once, the others when their turn has ended."""
        waiting = self._idle.of_tenant(tenant)
        self._erased.update(number for number, one in self._sockets.items() if one.owner.tenant == tenant)
        self._close(waiting, "unknown")
        self._lost = OrderedDict((head, why) for head, why in self._lost.items() if head[0] != tenant)

    async def aclose(self) -> None:
        """Close all sockets; turns that run are broken off."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for number in tuple(self._sockets):
            self._close([number], "unknown")
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _sweep(self) -> None:
        self._sweeper = None
        self._close(self._idle.overdue(_now()), "expired")
        if len(self._idle):
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _close(self, numbers: Sequence[int], why: ReplayReason) -> None:
        for number in numbers:
            self._forget_head(number, why)
            self._idle.remove(number)
            closing = asyncio.get_running_loop().create_task(self._sockets[number].aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _on_over(self, socket: ProviderSocket) -> None:
        self._forget_head(socket.number, "disconnected")
        self._idle.remove(socket.number)
        self._erased.discard(socket.number)
        del self._sockets[socket.number]

    def _forget_head(self, number: int, why: ReplayReason) -> None:
        head = self._heads.pop(number, None)
        if head is not None and why != "unknown":
            self._lost[head] = why
            if len(self._lost) > _MOST_LOST:
                self._lost.popitem(last=False)


def _now() -> float:
    return asyncio.get_running_loop().time()

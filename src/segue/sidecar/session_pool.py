"""The sessions of one sidecar: one for new exchanges, and older ones until everything that they carry has ended.

When the node of a session drains, the next session begins at the gateway after it. An exchange that a session could not
have forwarded is opened once more, in the session for new exchanges. Not here: how a session finds its gateway
(`segue.sidecar.session`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from segue.network_changes.monitor import NetworkMonitor
from segue.network_changes.watch import NetworkChange
from segue.sidecar.dialer import Dialer, check_gateway
from segue.sidecar.link_status import LinkTimeouts
from segue.sidecar.session import AgentExchange, GatewaySession
from segue.sidecar.stats import Stats
from segue.tunnel.client import TunnelRequest


class SessionPool:
    """All sessions of one sidecar, from `start` to `aclose`."""

    def __init__(
        self,
        gateways: Sequence[str],
        dialer: Dialer,
        *,
        stats: Stats,
        timeouts: LinkTimeouts | None = None,
    ) -> None:
        if not gateways:
            raise ValueError("a sidecar needs the address of a gateway")
        for gateway in gateways:
            check_gateway(gateway)
        self._gateways = tuple(gateways)
        self._dialer = dialer
        self._stats = stats
        self._timeouts = LinkTimeouts() if timeouts is None else timeouts
        self._current: GatewaySession | None = None
        self._watches: dict[GatewaySession, asyncio.Task[None]] = {}
        self._network = NetworkMonitor(self._note_change)

    def start(self) -> None:
        """Begin to look for a gateway."""
        self._network.start()
        self._current = self._begin(self._gateways, was_up=False)

    async def aclose(self) -> None:
        """Give everything up."""
        await self._network.aclose()
        for watch in self._watches.values():
            watch.cancel()
        sessions = tuple(self._watches)
        await asyncio.gather(*self._watches.values(), return_exceptions=True)
        await asyncio.gather(*(session.aclose() for session in sessions))
        await self._dialer.aclose()

    def __len__(self) -> int:
        """How many sessions are not over yet."""
        return len(self._watches)

    @property
    def current(self) -> GatewaySession:
        """The session for new exchanges."""
        assert self._current is not None, "start() comes first"
        return self._current

    @property
    def queued(self) -> int:
        """How many exchanges have not wholly gone to a gateway yet."""
        return sum(session.queued for session in self._watches)

    def open(self, request: TunnelRequest, *, keep_bytes: int = 0) -> AgentExchange:
        """Begin an exchange. `keep_bytes`: how much of the reply is kept although it was read."""
        exchange = AgentExchange(self.current, request, keep_bytes=keep_bytes)
        self.current.open(exchange)
        return exchange

    def _note_change(self, change: NetworkChange) -> None:
        """Let all sessions act on a change of this machine's network."""
        if change == "moved":
            self._dialer.network_changed()
        for session in self._watches:
            session.network_changed(change)

    def _begin(self, gateways: Sequence[str], *, was_up: bool) -> GatewaySession:
        session = GatewaySession(gateways, self._dialer, timeouts=self._timeouts, stats=self._stats, was_up=was_up)
        session.start()
        self._watches[session] = asyncio.get_running_loop().create_task(self._watch(session))
        return session

    async def _watch(self, session: GatewaySession) -> None:
        """Act on what a session cannot do itself, until it is over."""
        while not session.over:
            await session.attention.wait()
            session.attention.clear()
            if session.draining and session is self._current:
                self._leave(session)
            for exchange in session.take_rejected():
                if exchange.ending is None:
                    self.current.open(exchange)
        del self._watches[session]

    def _leave(self, session: GatewaySession) -> None:
        """Begin the next session at the gateway after this one; the exchanges of this one go on where they are."""
        left = session.gateway
        after = self._gateways.index(left) + 1 if left in self._gateways else 0
        self._current = self._begin((*self._gateways[after:], *self._gateways[:after]), was_up=True)
        session.leave()

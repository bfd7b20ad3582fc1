"""Finds a connection to take the place of a link that is silent, though it owes an answer.

After an outage TCP says what it could not deliver again only after a wait that grew with the outage (RFC 6298, 5.5),
while a new connection gets through at once. So another one is tried while the old one stays; whichever moves first goes
on. A connection that leads to another node is no successor: what is under way here would be lost by it. Not here: links
that are known to be lost (`segue.sidecar.link_search`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import NamedTuple

from segue.sidecar.connector import GatewayRefusedError, GatewayUnreachableError, LinkIntroduction, TunnelSocket
from segue.sidecar.dialer import Dialer
from segue.sidecar.link_silence import STEADY_S, doubt_at
from segue.tunnel.client import TunnelClient

#: Attempts begin no closer together than this.
RETRY_S = 1.0


class Successor(NamedTuple):
    """A connection to the same node, and what closes it."""

    socket: TunnelSocket
    stack: AsyncExitStack


class _LinkIsBackError(Exception):
    """The old link has shown life meanwhile."""


class SuccessorFinder:
    """Watches the links of one session. `numbers`: of its links. `is_wanted`: something waits for what one carries."""

    def __init__(
        self, dialer: Dialer, tunnel: TunnelClient, name: str, *, numbers: Iterator[int], is_wanted: Callable[[], bool]
    ) -> None:
        self._numbers = numbers
        self._dialer = dialer
        self._tunnel = tunnel
        self._name = name
        self._is_wanted = is_wanted
        self._loop = asyncio.get_running_loop()
        self._moved_at: float | None = None
        self._stirred = asyncio.Event()
        self._found: Successor | None = None
        self._began_at = self._loop.time()
        self._replaced = 0

    def look(self) -> None:
        """Look again: something waits now, or does no more."""
        self._stirred.set()

    def network_moved(self) -> None:
        """Doubt the present link soon, whether or not something waits, unless it answers a PING."""
        self._moved_at = self._loop.time()
        self._tunnel.probe()
        self._stirred.set()

    @asynccontextmanager
    async def watching(self, gateway: str, end_link: Callable[[], None]) -> AsyncIterator[None]:
        """Watch a link around a block, and end it when there is a successor."""
        self._began_at = self._loop.time()
        finder = self._loop.create_task(self._find(gateway, end_link))
        try:
            yield
        finally:
            finder.cancel()
            [ended] = await asyncio.gather(finder, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended

    @property
    def found(self) -> bool:
        """There is a successor, which nobody has taken yet."""
        return self._found is not None

    def take(self) -> Successor | None:
        """Return the successor of the link that has ended, if there is one. The caller closes it."""
        found, self._found = self._found, None
        return found

    async def aclose(self) -> None:
        """Close a successor that nobody took."""
        found = self.take()
        if found is not None:
            await found.stack.aclose()

    async def _find(self, gateway: str, end_link: Callable[[], None]) -> None:
        """Wait until the link is doubtful, and try until there is a successor, or none may be tried for this link."""
        while True:
            await self._until_doubtful()
            began_at = self._loop.time()
            try:
                self._found = await self._connect(gateway)
            except (GatewayUnreachableError, GatewayRefusedError, _LinkIsBackError):
                await asyncio.sleep(max(0.0, began_at + RETRY_S - self._loop.time()))
                continue
            if self._found is not None:
                self._replaced = 1 if self._is_steady() else self._replaced + 1
                end_link()
            return

    async def _until_doubtful(self) -> None:
        while (at := self._doubt_at()) is None or at > self._loop.time():
            self._stirred.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(at):
                    await self._stirred.wait()

    def _doubt_at(self) -> float | None:
        """Return when the link is to be doubted, if nothing comes by then; None: nothing waits for it."""
        tunnel, heard_at = self._tunnel, self._tunnel.heard_at
        moved = self._moved_at is not None and heard_at is not None and heard_at < self._moved_at
        if not (moved or self._is_wanted()):
            return None
        return doubt_at(
            self._loop.time(),
            tunnel.quiet_since(),
            rtt_s=tunnel.rtt_s or 0.0,
            moved=moved,
            replaced=0 if self._is_steady() else self._replaced,
        )

    def _is_steady(self) -> bool:
        return self._loop.time() >= self._began_at + STEADY_S

    def _is_doubtful(self) -> bool:
        at = self._doubt_at()
        return at is not None and at <= self._loop.time()

    async def _connect(self, gateway: str) -> Successor | None:
        async def introduce() -> LinkIntroduction:
            """Take the old link's place only if it is silent still. HELLO follows when the node is known."""
            if not self._is_doubtful():
                raise _LinkIsBackError
            return LinkIntroduction(next(self._numbers), b"")

        async with AsyncExitStack() as stack:
            link = self._dialer.link(gateway, self._name, introduce, is_wanted=self._is_doubtful)
            socket = await stack.enter_async_context(link)
            if socket.answer.epoch not in ("", self._tunnel.epoch.hex()):
                return None
            return Successor(socket, stack.pop_all())

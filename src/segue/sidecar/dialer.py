"""Opens links to gateways by whatever way their addresses name: TCP, TLS, a proxy, or ssh.

A link by ssh is the same WebSocket, over the bytes of an ssh connection. Not here: when links are opened
(`segue.sidecar.session`), which of several connections becomes the link (`segue.sidecar.dial_race`), the WebSocket
(`segue.sidecar.connector`), and ssh (`segue.sidecar.ssh_stream`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias, assert_never

import msgspec

from segue.sidecar.connector import (
    ConnectorSettings,
    GatewayRefusedError,
    GatewayUnreachableError,
    Introduce,
    LinkIntroduction,
    TunnelSocket,
    connected,
    only_link,
    tunnel_url,
)
from segue.sidecar.dial_race import AbortDial, AskUpgrade, DialPace, DialRace, RaceEffect, StartDial
from segue.sidecar.resolver import RememberingResolver
from segue.sidecar.ssh_address import is_ssh, parse_ssh_address
from segue.sidecar.ssh_stream import SshFailedError, SshSettings, SshStream, open_stream
from segue.sidecar.tls_sessions import ResumingContext, verifying_context

#: The far gateway is on its own machine's Unix socket: this only names its loopback.
_FAR_URL = "ws://localhost/segue/tunnel"

_Opener: TypeAlias = Callable[[Introduce], AbstractAsyncContextManager[TunnelSocket]]


def check_gateway(gateway: str) -> None:
    """Raise `ValueError` if this is not the address of a gateway."""
    if is_ssh(gateway):
        parse_ssh_address(gateway)
    else:
        tunnel_url(gateway)


def never() -> bool:
    """Tell that nothing waits for a link."""
    return False


class Dialer:
    """Opens links with the same settings. `context` verifies gateways, instead of the one that the settings ask for."""

    def __init__(self, settings: ConnectorSettings, context: ResumingContext | None = None) -> None:
        if not (settings.key or "").isprintable():
            raise ValueError("the key for gateways cannot be sent: it holds a line break or another control character")
        self._settings = settings
        self._ssh = SshSettings(settings.install, settings.connect_s)
        self._context = context or verifying_context(settings.cafile, settings.identity)
        self._resolver = RememberingResolver()
        self._prepared: dict[str, SshStream] = {}
        self._pace = DialPace()
        self._racing: set[_RacingDials] = set()

    async def prepare(self, gateway: str, *, attended: bool) -> None:
        """Connect to a machine of ssh:// before the first link to it, which uses this connection.

        `attended`: a person is at the terminal, and may be asked by ssh.

        Raises:
            GatewayUnreachableError, GatewayRefusedError: there is no connection.
        """
        if is_ssh(gateway):
            self._prepared[gateway] = await self._open_stream(gateway, attended=attended)

    @asynccontextmanager
    async def link(
        self,
        gateway: str,
        session_name: str,
        introduce: Introduce = only_link,
        *,
        is_wanted: Callable[[], bool] = never,
    ) -> AsyncIterator[TunnelSocket]:
        """Open a link around a block. `introduce`: what its upgrade request says (`segue.sidecar.connector`).

        While `is_wanted` says that something waits for it, a connection that does not move gets rivals.

        Raises:
            GatewayUnreachableError, GatewayRefusedError: it was not opened.
        """
        if is_ssh(gateway):
            async with self._link_by_ssh(gateway, session_name, introduce) as link:
                yield link
            return
        url = tunnel_url(gateway)
        resolver = self._resolver if url.startswith("wss:") else None

        def opener(turn: Introduce) -> AbstractAsyncContextManager[TunnelSocket]:
            return connected(url, session_name, self._settings, self._context, introduce=turn, resolver=resolver)

        async with _RacingDials(opener, introduce, self._pace, is_wanted=is_wanted) as dials:
            self._racing.add(dials)
            try:
                link = await dials.first()
            finally:
                self._racing.discard(dials)
            if link.tls is not None:
                self._context.remember(link.tls)
            yield link

    def network_changed(self) -> None:
        """Begin another connection where one is being set up, which may lead nowhere any more."""
        for dials in self._racing:
            dials.hurry()

    @asynccontextmanager
    async def _link_by_ssh(self, gateway: str, session_name: str, introduce: Introduce) -> AsyncIterator[TunnelSocket]:
        stream = self._prepared.pop(gateway, None) or await self._open_stream(gateway, attended=False)
        no_key = msgspec.structs.replace(self._settings, key=None)  # ssh has said who we are
        try:
            async with connected(
                _FAR_URL, session_name, no_key, self._context, through=stream.socket, introduce=introduce
            ) as link:
                yield link
        finally:
            await stream.aclose()

    async def aclose(self) -> None:
        """Close what was prepared and not used."""
        while self._prepared:
            await self._prepared.popitem()[1].aclose()
        await self._resolver.close()

    async def _open_stream(self, gateway: str, *, attended: bool) -> SshStream:
        try:
            return await open_stream(parse_ssh_address(gateway), self._ssh, attended=attended)
        except SshFailedError as error:
            if error.failure.persistent:
                raise GatewayRefusedError("segue_gateway_refused", error.failure.reason) from None
            raise GatewayUnreachableError(error.failure.reason) from None


class _OpenedLink(NamedTuple):
    """A link, and what closes it."""

    link: TunnelSocket
    stack: AsyncExitStack


class _RacingDials:
    """Carries out one race of connections, up to the first link."""

    def __init__(self, opener: _Opener, introduce: Introduce, pace: DialPace, *, is_wanted: Callable[[], bool]) -> None:
        self._opener = opener
        self._introduce = introduce
        self._is_wanted = is_wanted
        self._race = DialRace(pace, random.random())  # noqa: S311 - jitter, not a secret
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._dials: dict[int, asyncio.Task[_OpenedLink]] = {}
        self._dropped: list[asyncio.Task[_OpenedLink]] = []
        self._opened: _OpenedLink | None = None
        self._turns: dict[int, asyncio.Event] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close_others()
        if self._opened is not None:
            await self._opened.stack.aclose()

    async def first(self) -> TunnelSocket:
        """Return the first link, which is open until the end of the block.

        Raises:
            GatewayUnreachableError, GatewayRefusedError: there is none.
        """
        self._do(self._race.begin(self._loop.time()))
        while (opened := self._settle()) is None:
            self._do(self._race.handle_timeout(self._loop.time(), wanted=self._is_wanted()))
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._race.next_at()):
                    await self._changed.wait()
        self._opened = opened
        await self._close_others()
        return opened.link

    def hurry(self) -> None:
        """Begin another connection at once."""
        self._do(self._race.hurry(self._loop.time()))

    def _settle(self) -> _OpenedLink | None:
        """Take what has ended; return the first link. If nothing is left, raise why the last connection failed."""
        for dial, task in tuple(self._dials.items()):
            if not task.done():
                continue
            del self._dials[dial]
            error = task.exception()
            if error is None:
                self._do(self._race.opened(dial, self._loop.time()))
                return task.result()
            self._do(self._race.failed(dial, self._loop.time()))
            if self._race.over or not isinstance(error, GatewayUnreachableError):
                raise error
        return None

    def _do(self, effects: Sequence[RaceEffect]) -> None:
        for effect in effects:
            match effect:
                case StartDial(dial=dial):
                    self._turns[dial] = asyncio.Event()
                    task = self._dials[dial] = self._loop.create_task(self._dial(dial))
                    task.add_done_callback(lambda _: self._changed.set())
                case AskUpgrade(dial=dial):
                    self._turns[dial].set()
                case AbortDial(dial=dial):
                    self._dropped.append(self._dials.pop(dial))
                    self._dropped[-1].cancel()
                case _:
                    assert_never(effect)

    async def _dial(self, dial: int) -> _OpenedLink:
        async def turn() -> LinkIntroduction:
            """Wait, with a connection that is ready, until it is its turn to ask for the upgrade."""
            self._do(self._race.ready(dial, self._loop.time()))
            await self._turns[dial].wait()
            return await self._introduce()

        stack = AsyncExitStack()
        return _OpenedLink(await stack.enter_async_context(self._opener(turn)), stack)

    async def _close_others(self) -> None:
        """Close every connection but the first link, also one that has become a link meanwhile."""
        self._dropped += self._dials.values()
        self._dials.clear()
        for task in self._dropped:
            task.cancel()
        for ended in await asyncio.gather(*self._dropped, return_exceptions=True):
            if isinstance(ended, _OpenedLink):
                await ended.stack.aclose()

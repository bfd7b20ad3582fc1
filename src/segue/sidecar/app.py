"""The sidecar put together: the listener for agents, the tunnel to a gateway, and the cache of bases.

    async with Sidecar(SidecarSettings(gateways=("wss://gateway.example.com",))) as sidecar:
        ...agents talk to sidecar.url + "/anthropic", "/openai/v1", "/gemini"

Not here: configuration, signals and printing, which are the command line's.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from segue.egress.client import Egress
from segue.http.heads import Line, ReplyHead
from segue.peer_credentials.lookup import peer_users
from segue.sidecar.agent_access import AccessMode, AgentAccess
from segue.sidecar.agent_request import AgentRequest
from segue.sidecar.base_cache import BaseCache, BaseCacheLimits
from segue.sidecar.connector import ConnectorSettings
from segue.sidecar.dialer import Dialer
from segue.sidecar.direct import DirectForwarder
from segue.sidecar.link_status import LinkTimeouts
from segue.sidecar.listener import Listener, ListenerLimits
from segue.sidecar.proxied_network import ProxiedNetwork
from segue.sidecar.request_handler import HandlerLimits, RequestHandler
from segue.sidecar.session_pool import SessionPool
from segue.sidecar.stats import SidecarReport, Stats, rounded

#: The target at which the listener answers with the counters; all other targets are passed on.
STATS_PATH = b"/segue/stats"


class SidecarSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one sidecar."""

    gateways: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 0
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    access: AccessMode = "user"
    token: str | None = None
    """What the base URLs of agents may begin with, or must; None: if they must, one is drawn."""
    direct: bool = False
    """Requests go straight to the provider when no gateway can be reached."""
    cache_directory: Path | None = None
    """Where bases are kept for the next start; None: nowhere."""
    save_every_s: float = 5.0
    connector: ConnectorSettings = ConnectorSettings()
    timeouts: LinkTimeouts = LinkTimeouts()
    listener: ListenerLimits = ListenerLimits()
    handler: HandlerLimits = HandlerLimits()
    cache: BaseCacheLimits = BaseCacheLimits()


def _direct_of(settings: SidecarSettings) -> DirectForwarder | None:
    """Return what sends requests straight to the provider, by the proxy that leads to gateways; None: nothing does."""
    if not settings.direct:
        return None
    proxy = settings.connector.proxy
    return DirectForwarder(Egress(network=None if proxy is None else ProxiedNetwork(proxy)))


class Sidecar:
    """One sidecar in this process.

    `direct` replaces the forwarder that the settings ask for. `dialer`: one that has prepared a link already.
    """

    def __init__(
        self, settings: SidecarSettings, direct: DirectForwarder | None = None, *, dialer: Dialer | None = None
    ) -> None:
        self.settings = settings
        self.url = ""
        self.stats = Stats()
        self._cache = BaseCache(settings.cache_directory, settings.cache)
        self._sessions = SessionPool(
            settings.gateways, dialer or Dialer(settings.connector), stats=self.stats, timeouts=settings.timeouts
        )
        self._direct = direct or _direct_of(settings)
        self._handler = RequestHandler(
            self._sessions, self._cache, stats=self.stats, direct=self._direct, limits=settings.handler
        )
        self.access = AgentAccess(settings.access, settings.token, peer_users())
        self._listener = Listener(
            self._handle,
            access=self.access,
            host=settings.host,
            port=settings.port,
            hosts=settings.hosts,
            origins=settings.origins,
            limits=settings.listener,
        )
        self._saver: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the bases of earlier sessions, and begin to look for a gateway."""
        await asyncio.to_thread(self._cache.load)
        self._sessions.start()
        self._saver = asyncio.get_running_loop().create_task(self._save())

    async def listen(self) -> str:
        """Open the port for agents; returns the URL."""
        self.url = await self._listener.start()
        return self.url

    @property
    def agent_url(self) -> str:
        """What the base URLs of agents begin with: the URL, and behind it the token if they need it."""
        return self.access.base_url(self.url)

    async def has_link(self, within_s: float) -> bool:
        """Look for a gateway once, for so long at most; tell whether there is a link."""
        session = self._sessions.current
        attempted = session.ask_for_link()
        if session.state != "up":
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await attempted.wait()
        return session.state == "up"

    async def settle(self, within_s: float) -> None:
        """Let what agents that have ended left under way come to its end, so that it counts as what it was."""
        try:
            async with asyncio.timeout(within_s):
                await self._handler.idle.wait()
        except TimeoutError:
            pass  # an agent that has not ended, or a gateway that cannot be reached

    async def aclose(self) -> None:
        """Cut all requests, close the sessions with gateways, and save the bases."""
        await self._listener.aclose()
        await self._handler.aclose()
        await self._sessions.aclose()
        if self._saver is not None:
            self._saver.cancel()
            await asyncio.gather(self._saver, return_exceptions=True)
        await asyncio.to_thread(self._cache.flush)
        if self._direct is not None:
            await self._direct.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self.open()
            await self.listen()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def report(self) -> SidecarReport:
        """Return the counters, and the state of the link."""
        session = self._sessions.current
        return self.stats.report(
            parked=self._handler.orphans,
            queued=self._sessions.queued,
            link=session.state,
            gateway=session.gateway,
            reason=session.reason,
            rtt_s=session.rtt_s,
        )

    async def _handle(self, request: AgentRequest) -> None:
        if request.kind == "http" and request.head.target.partition(b"?")[0] == STATS_PATH:
            await self._answer_stats(request)
        else:
            await self._handler.handle(request)

    async def _answer_stats(self, request: AgentRequest) -> None:
        """Tell this machine the counters. With `hosts`, others may be led here, and look as if they were on it."""
        if self.settings.hosts or not request.source.local:
            await request.fail("forbidden_peer", "The counters are for this machine only, and for nobody with `hosts`.")
            return
        body = msgspec.json.encode(rounded(self.report()))
        lines = (Line(b"Content-Type", b"application/json"), Line(b"Content-Length", b"%d" % len(body)))
        await request.start(ReplyHead(200, b"OK", lines))
        await request.send(body)
        await request.end()

    async def _save(self) -> None:
        """Save new bases at intervals, when no request is under way."""
        while True:
            await asyncio.sleep(self.settings.save_every_s)
            if self._cache.needs_flush and not self.stats.active:
                await asyncio.to_thread(self._cache.flush)

"""The gateway put together: what its parts share, the listening socket, and the way out.

`Gateway.open` builds everything from a `Config`, `listen` opens the port, `drain` lets running turns end, `close`
releases the rest; `serving` does all of it around a block. Clocks and randomness enter here. Not here: signals and the
command line (`cli`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import get_args

from aiohttp import web

from segue.config import Config, ListenerConfig, ServerConfig
from segue.egress.client import Egress
from segue.egress.limits import EgressLimits
from segue.engine.upstream import LocalUpstream
from segue.gateway.access import Access
from segue.gateway.admin.metrics import Metrics
from segue.gateway.api.routes import Routes
from segue.gateway.api.websocket import Connection
from segue.gateway.bootstrap import build_router, build_routes
from segue.gateway.listener_profile import Face, face_of
from segue.gateway.tunnel.endpoint import EPOCH_BYTES, Tunnel
from segue.gateway.turns.background import Keeper, Settings
from segue.gateway.turns.executor import Executor
from segue.gateway.turns.grace_period import Parking
from segue.history.cache import TurnCache
from segue.protocol.lanes import Profile
from segue.stores.claims import MemoryClaims
from segue.stores.event_logs import MemoryEventLogs
from segue.stores.interface import Store, StoreError
from segue.stores.opening import open_store
from segue.upstreams.http import HttpUpstream
from segue.upstreams.interface import Upstream
from segue.upstreams.router import Router

_log = logging.getLogger("segue.gateway")


class Gateway:
    """One gateway in this process."""

    def __init__(self, config: Config, router: Router, store: Store, clock: Callable[[], float]) -> None:
        server = config.server
        self.config = config
        self.router = router
        self.store = store
        self.clock = clock
        self.started_at = clock()
        self.access = Access(config)
        self.metrics = Metrics()
        self.cache = TurnCache(server.memory_budget_bytes)
        self.executor = Executor(
            router=router,
            store=store,
            cache=self.cache,
            metrics=self.metrics,
            retention_s=server.retention_s,
            clock=clock,
            monotonic=time.monotonic,
            entropy=os.urandom,
        )
        self.routes = build_routes(config)
        self.connections: set[Connection] = set()
        self.draining = False
        self._detached_turns = 0  # those of HTTP requests, and kept ones
        self._quiet = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._tunnel: Tunnel | None = None
        self._sweepers: list[asyncio.Task[None]] = []
        self.parking = Parking(self.cache, clock, self.executor.forgetter.release)
        self.event_logs = MemoryEventLogs(server.events_bytes, server.event_log_bytes)
        self.keeper = Keeper(
            self.executor,
            logs=self.event_logs,
            claims=MemoryClaims(),
            parking=self.parking,
            settings=Settings(server.resume_s, server.events_s, server.max_kept),
            watch=self,
        )
        self._faces = {profile: face_of(server, profile) for profile in get_args(Profile)}
        self._profiles: dict[int, Profile] = {}  # by port
        self.urls: list[str] = []  # of all addresses, once it listens; that of `[server]` first
        self.metrics.connections.set_function(lambda: len(self.connections))
        self.metrics.kept_turns.set_function(lambda: self.keeper.running)
        self.metrics.event_log_bytes.set_function(lambda: self.event_logs.size_bytes)
        self.metrics.upstreams.providers += [one for one in router.upstreams if isinstance(one, HttpUpstream)]
        self.metrics.engines.models += [one for one in router.upstreams if isinstance(one, LocalUpstream)]

    @classmethod
    async def open(
        cls, config: Config, router: Router | None = None, clock: Callable[[], float] = time.time
    ) -> Gateway:
        """Open the store and start the upstreams; `router` replaces the configured upstreams (tests, embedding)."""
        router = build_router(config) if router is None else router
        store = await open_store(config.server.store)
        started: list[Upstream] = []
        try:
            for upstream in router.upstreams:
                await upstream.start()
                started.append(upstream)
        except BaseException:
            for upstream in started:  # one that goes on running could keep the process alive
                await upstream.aclose()
            await store.aclose()
            raise
        return cls(config, router, store, clock)

    async def listen(self) -> str:
        """Open the ports and return the URL of the gateway."""
        self._runner = web.AppRunner(
            Routes(self).application(),
            access_log=None,
            # It quotes malformed requests, credentials included; whatever else goes wrong is logged by the routes.
            logger=logging.Logger("aiohttp.server", logging.CRITICAL),  # noqa: LOG001 - ours alone, not the process-wide one
            handle_signals=False,
            handler_cancellation=True,  # a client that goes away cancels its turn
            auto_decompress=False,  # limits come before expansion: compressed bodies are refused
            shutdown_timeout=0.1,  # drain() has waited for what runs; what still does is cancelled
        )
        await self._runner.setup()
        self._tunnel = self._open_tunnel(self._runner)
        for address in self._addresses():
            before = len(self._runner.addresses)
            await web.TCPSite(self._runner, address.host, address.port, backlog=1024).start()
            bound = self._runner.addresses[before:]  # several, if the name stands for several
            self._profiles.update({name[1]: address.profile for name in bound})
            host, port = bound[0][:2]
            self.urls.append(f"http://{f'[{host}]' if ':' in host else host}:{port}")
            _log.info("action=listen url=%s profile=%s", self.urls[-1], address.profile)
        self._sweepers = [asyncio.create_task(self._sweep()), asyncio.create_task(self._tunnel.sweep())]
        return self.urls[0]

    def _addresses(self) -> list[ServerConfig | ListenerConfig]:
        return [self.config.server, *self.config.listener]

    def face(self, request: web.Request) -> Face:
        """Return what is offered on the address that a request came to."""
        name = None if request.transport is None else request.transport.get_extra_info("sockname")
        port = name[1] if isinstance(name, tuple) else 0  # none, if the request came through the tunnel
        return self._faces[self._profiles.get(port, self.config.server.profile)]

    @property
    def tunnel(self) -> Tunnel:
        """The endpoint of sidecars; there is one once the gateway listens."""
        assert self._tunnel is not None, "listen() comes first"
        return self._tunnel

    @contextmanager
    def turn_running(self) -> Iterator[None]:
        """Count a turn that is no connection's while it runs, for draining."""
        self._detached_turns += 1
        try:
            yield
        finally:
            self._detached_turns -= 1
            self.note_progress()

    def note_progress(self) -> None:
        """Let a drain look again whether everything has ended."""
        self._quiet.set()

    async def drain(self) -> None:
        """Accept nothing new, let running turns end within `drain_s`, and tell every connection to move."""
        if self._runner is None or self.draining:
            return
        self.draining = True
        for site in list(self._runner.sites):
            await site.stop()
        try:
            async with asyncio.timeout(self.config.server.drain_s):
                await asyncio.gather(
                    self.tunnel.drain(),
                    *(connection.drain() for connection in self.connections),
                    return_exceptions=True,
                )
                while self.connections or self._detached_turns:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            left = len(self.connections) + self._detached_turns
            _log.warning("action=drain %d turns did not end in time and are cancelled", left)

    async def close(self) -> None:
        """Cancel what still runs and release everything."""
        for sweeper in self._sweepers:
            sweeper.cancel()
        await asyncio.gather(*self._sweepers, return_exceptions=True)
        if self._tunnel is not None:
            await self._tunnel.close()
        if self._runner is not None:
            await self._runner.cleanup()
        await self.keeper.close()
        self.parking.close()
        for upstream in self.router.upstreams:
            await upstream.aclose()
        await self.store.aclose()

    def _open_tunnel(self, runner: web.AppRunner) -> Tunnel:
        config = self.config.tunnel
        limits = EgressLimits(
            connect_s=config.connect_timeout_s,
            silence_s=config.reply_timeout_s,
            message_bytes=config.max_body_bytes,
        )
        assert runner.server is not None, "the runner was set up"
        return Tunnel(self, Egress(limits=limits, own=runner.server), os.urandom(EPOCH_BYTES))

    async def _sweep(self) -> None:
        """Remove expired responses now and then."""
        while True:
            try:
                swept = await self.executor.sweep()
                if swept:
                    _log.info("action=sweep expired=%d", swept)
            except StoreError as error:
                _log.error("action=sweep error=%r", str(error))
            await asyncio.sleep(self.config.server.sweep_interval_s)


@asynccontextmanager
async def serving(config: Config, router: Router | None = None) -> AsyncIterator[tuple[Gateway, str]]:
    """Run a gateway around a block: yields it and its URL, and drains it at the end."""
    gateway = await Gateway.open(config, router)
    try:
        yield gateway, await gateway.listen()
        await gateway.drain()
    finally:
        await gateway.close()

"""A gateway from its start to its end: it is built from a `Config`, listens, drains, and closes.

`Gateway.open` opens the store and starts the upstreams, `listen` opens the ports, `drain` lets running turns end, and
`aclose` releases the rest; `serving` does all of it around a block. Not here: what the parts are given (`services`),
signals and the command line (`cli`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from aiohttp import web

from segue.config import Config, ListenerConfig, ServerConfig
from segue.egress.client import Egress
from segue.egress.limits import EgressLimits
from segue.gateway.api.application import build_application
from segue.gateway.bootstrap import build_router, build_routes, provider_targets
from segue.gateway.connections import AcceptLimits, Connections, FramedConnection, HeldConnection
from segue.gateway.descriptors import descriptor_limit
from segue.gateway.reload import restart_needed
from segue.gateway.server_tls import server_tls
from segue.gateway.services import build_services
from segue.gateway.tls_port import HandshakeLimits, TlsPort
from segue.gateway.tunnel.diagnostics import RouteDiagnostics
from segue.gateway.tunnel.endpoint import SidecarSessions
from segue.gateway.turns.erasure import Erasure
from segue.gateway.turns.threads import ThreadRules
from segue.gateway.user_socket import SameUserProtocol
from segue.http.origins import authority_of
from segue.listening import BACKLOG, bind, stop_listening
from segue.stores.interface import Store, StoreError
from segue.stores.live.interface import Live
from segue.stores.live.opening import open_live
from segue.stores.store_url import open_store
from segue.upstreams.interface import Upstream
from segue.upstreams.router import Router

_log = logging.getLogger("segue.gateway")

#: How long the rest of a body is read after its request was answered, so that the client sees the answer.
_LINGER_S = 2.0
#: Descriptors that are not connections: the store, the log, listening sockets, a model's file.
_OTHER_DESCRIPTORS = 64


class Gateway:
    """One gateway in this process."""

    def __init__(
        self, config: Config, router: Router, store: Store, clock: Callable[[], float], live: Live | None = None
    ) -> None:
        self.config = config
        self.services = build_services(config, router, store, clock, live)
        routes, egress = build_routes(config), self._egress()
        self.tunnel = SidecarSessions(
            config.tunnel,
            rules=self.services.rules,
            routes=routes,
            egress=egress,
            epoch=self.services.epoch,
            meter=self.services.metrics.tunnel,
            drain=self.services.drain,
            accounts=router.accounts,
        )
        if live is not None:
            self.tunnel.resources.owners = live.exchanges
        services, drop_bases = self.services, self.tunnel.resources.bases.drop_tenant
        self.erasure = Erasure(services.executor, services.background, services.grace, drop_bases)
        self.diagnostics = RouteDiagnostics(routes, provider_targets(config), egress)
        self._tls = server_tls(config.server)
        self.urls: list[str] = []
        """The addresses that it listens on; that of `[server]` comes first."""
        self.connections = Connections(self._limit_connections(), time.monotonic)
        self._runner: web.AppRunner | None = None
        self._make_own: Callable[[], FramedConnection] | None = None
        self._servers: list[asyncio.AbstractServer] = []
        self._tls_ports: list[TlsPort] = []
        self._sweepers: list[asyncio.Task[None]] = []
        self.retiring: dict[Upstream, asyncio.Task[None]] = {}
        """Upstreams that were replaced and have turns under way."""

    @classmethod
    async def open(
        cls,
        config: Config,
        router: Router | None = None,
        clock: Callable[[], float] = time.time,
        *,
        store: Store | None = None,
    ) -> Gateway:
        """Open the store and start the upstreams; `router` and `store` replace the configured ones (tests, embedding).

        A store that is given is closed with the gateway.
        """
        router = build_router(config) if router is None else router
        async with AsyncExitStack() as opened:
            store = await open_store(config.server.store) if store is None else store
            opened.push_async_callback(store.aclose)
            live = open_live(config.server.live, address=config.tunnel.address, started_at=clock())
            if live is not None:
                opened.push_async_callback(live.aclose)
            await _start(router.upstreams)
            opened.push_async_callback(_close, router.upstreams)
            gateway = cls(config, router, store, clock, live)  # a file that the configuration names may be unusable
            await gateway.services.start_node(gateway.erasure)
            opened.pop_all()
        return gateway

    async def listen(self, opened: Sequence[Sequence[socket.socket]] | None = None) -> str:
        """Listen on the configured ports, and return the URL of the gateway.

        `opened`: the sockets of each address, if somebody else has opened them; they are closed with the gateway.
        """
        make = await self._set_up()
        if self.services.access.for_own_user and not self.connections.users.known:
            _log.warning(
                "action=listen any user of this machine may use the gateway: the platform does not tell them apart"
            )
        scheme = "http" if self._tls is None else "https"
        addresses: list[ServerConfig | ListenerConfig] = [self.config.server, *self.config.listener]
        for number, address in enumerate(addresses):
            sockets = opened[number] if opened is not None else await bind(address.host, address.port)
            bound = [one.getsockname()[:2] for one in sockets]  # several, if the name stands for several
            await self._accept_on(sockets, make)
            for _, port in bound:
                self.services.profiles.bind(port, address.profile)
            host, port = bound[0]
            self.urls.append(f"{scheme}://{authority_of(host, port)}")
            _log.info("action=listen url=%s profile=%s", self.urls[-1], address.profile)
        return self.urls[0]

    async def _accept_on(
        self, sockets: Sequence[socket.socket], make: Callable[[HeldConnection | None], asyncio.Protocol]
    ) -> None:
        """Accept connections on sockets that listen already."""
        if self._tls is not None:
            limits = HandshakeLimits(self.config.server.head_timeout_s, _LINGER_S)
            tls_port = TlsPort(
                self._tls,
                make,
                connections=self.connections,
                limits=limits,
                note_refused=lambda peer, reason: self.services.audit.note(
                    "refused_certificate", peer=peer, reason=reason
                ),
            )
            self._tls_ports.append(tls_port)
            tls_port.listen(sockets)
            return
        loop = asyncio.get_running_loop()
        for one in sockets:
            self._servers.append(await loop.create_server(lambda: make(None), sock=one, backlog=BACKLOG))

    async def listen_for_user(self, bound: socket.socket) -> None:
        """Listen on a Unix socket, for this process's own user alone, instead of the configured ports."""
        make = await self._set_up()
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: SameUserProtocol(make(None)), sock=bound, backlog=128
        )
        self._servers.append(server)
        _log.info("action=listen path=%s", bound.getsockname())

    @property
    def idle(self) -> bool:
        """Nobody is connected, no turn and no exchange is under way, and no sidecar has to come back for the rest."""
        connections = [] if self._runner is None or self._runner.server is None else self._runner.server.connections
        return not (connections or self.tunnel.unfinished or self.services.drain.busy)

    async def _set_up(self) -> Callable[[HeldConnection | None], asyncio.Protocol]:
        """Make the server, which listens nowhere yet, and begin what is done at intervals.

        Returns what makes the protocol of a connection (`Connections.serve`).
        """
        options: dict[str, Any] = {
            "access_log": None,
            # It quotes malformed requests, credentials included; whatever else goes wrong is logged by the routes.
            "logger": logging.Logger("aiohttp.server", logging.CRITICAL),  # noqa: LOG001 - ours alone, not the process-wide one
            "auto_decompress": False,  # limits come before expansion: compressed bodies are refused
            "lingering_time": _LINGER_S,
        }
        runner = self._runner = web.AppRunner(
            build_application(
                self.services,
                self.tunnel,
                diagnostics=self.diagnostics,
                connections=self.connections,
                erasure=self.erasure,
            ),
            handle_signals=False,
            handler_cancellation=True,  # a client that goes away cancels its turn
            shutdown_timeout=0.1,  # drain() has waited for what runs; what still does is cancelled
            **options,
        )
        # It quotes the protocols that a client offers, in which browsers send API keys.
        logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)
        await runner.setup()
        assert runner.server is not None, "the runner was set up"
        sweeps = [self._sweep(), self.tunnel.sweep(), self.connections.sweep()]
        if self.services.shared_windows is not None:
            sweeps += [self.services.shared_windows.run(), self.services.rules.limiter.run()]
        self._sweepers = [asyncio.create_task(sweep) for sweep in sweeps]
        self._make_own = partial(FramedConnection, runner.server, loop=asyncio.get_running_loop(), **options)
        return self.connections.serve(runner.server, options)

    def _limit_connections(self) -> AcceptLimits:
        """Return the limits of connections: each may need another one, to a provider."""
        server, usable = self.config.server, descriptor_limit()
        most = server.max_connections
        if usable is not None:
            most = max(1, min(most, (usable - _OTHER_DESCRIPTORS) // 2))
        if most < server.max_connections:
            _log.info("action=listen connections=%d descriptors=%s", most, usable)
        return AcceptLimits(most, server.head_timeout_s, server.keep_alive_s)

    async def reload(self, config: Config) -> None:
        """Take the keys, routes and upstreams of a configuration that was read again: all, or none.

        Turns and exchanges that are under way end as they began: an upstream that is not configured any more is closed
        after its last turn. Connections stay; each of their turns is judged by the keys of that moment. What is
        configured as before is kept, with all that it holds.

        Raises:
            ConfigError: something cannot be used; nothing has changed.
        """
        try:
            await self._replace(config)
        except Exception as error:
            self.services.audit.note("refused_reload", reason=str(error))
            raise
        self.services.audit.note("reload")
        for setting in restart_needed(self.config, config):
            _log.warning("action=reload %s has changed: only a restart applies that", setting)
        counts = len(config.key), len(config.route), len(config.upstream)
        _log.info("action=reload keys=%d routes=%d upstreams=%d", *counts)

    async def _replace(self, config: Config) -> None:
        services, before = self.services, self.services.router.upstreams
        routes, router = build_routes(config), build_router(config, services.router)
        tls = server_tls(config.server)  # what cannot be used is refused before anything is replaced
        await _start([one for one in router.upstreams if one not in before])
        if self._tls is not None and tls is not None:
            self._tls.replace(config.server)
        services.router.replace(router.rules)
        services.note_upstreams()
        services.access.replace_keys(config.key, config.certificate)
        services.rules.quotas.replace(config)
        services.threads.rules = ThreadRules.of(config)
        self.tunnel.resources.routes = routes
        self.diagnostics.replace(routes, provider_targets(config))
        for upstream in before:
            if upstream not in router.upstreams:
                self.retiring[upstream] = asyncio.create_task(self._retire(upstream))

    async def _retire(self, upstream: Upstream) -> None:
        """Close an upstream that no turn can find any more, after those that have found it."""
        await self.services.executor.upstream_use.until_idle(upstream)
        await upstream.aclose()
        del self.retiring[upstream]

    async def drain(self, *, at_once: bool = False) -> None:
        """Begin nothing new, let what runs end within `drain_s`, and tell every connection to move; close the ports.

        The ports stay open until then: sidecars and clients that have lost their connection come back for the rest.
        Before that, turns still begin for `drain_delay_s`, unless it is to drain `at_once`, since nobody sends any.
        """
        drain = self.services.drain
        if self._runner is None or drain.leaving:
            return
        drain.leaving = True
        await self.services.nodes.drain()
        if not at_once:
            await asyncio.sleep(self.config.server.drain_delay_s)
        drain.draining = True
        try:
            async with asyncio.timeout(self.config.server.drain_s):
                await asyncio.gather(self.tunnel.drain(), drain.drain_connections(), return_exceptions=True)
                await drain.wait_until_idle()
        except TimeoutError:
            for count, what in ((drain.busy, "turns"), (self.tunnel.unfinished, "exchanges of sidecars")):
                if count:
                    _log.warning("action=drain %d %s did not end in time and are cancelled", count, what)
        finally:
            await self.stop_listening()

    async def stop_listening(self) -> None:
        """Close the ports, unless they are closed already; connections stay."""
        servers, self._servers = self._servers, []
        for server in servers:
            await stop_listening(server)
        for tls_port in self._tls_ports:
            await tls_port.close()

    async def aclose(self) -> None:
        """Cancel what still runs and release everything, whatever of it fails. What fails last is raised."""
        services = self.services
        async with AsyncExitStack() as rest:  # which begins with what was added last
            rest.callback(services.executor.turn_log.close)
            rest.callback(services.audit.close)
            rest.push_async_callback(services.store.aclose)
            rest.push_async_callback(self._close_upstreams)
            rest.callback(services.grace.close)
            if services.live is not None:
                rest.push_async_callback(services.live.aclose)
            rest.push_async_callback(services.executor.deletions.aclose)
            rest.push_async_callback(services.background.aclose)
            if self._runner is not None:
                rest.push_async_callback(self._runner.cleanup)
            for tls_port in self._tls_ports:
                rest.push_async_callback(tls_port.aclose)
            rest.push_async_callback(self.stop_listening)
            rest.push_async_callback(self.tunnel.aclose)
            await _end(self._sweepers)

    async def _close_upstreams(self) -> None:
        await _end(self.retiring.values())
        await _close((*self.services.router.upstreams, *self.retiring))

    def _egress(self) -> Egress:
        config = self.config.tunnel
        limits = EgressLimits(
            connect_s=config.connect_timeout_s,
            silence_s=config.reply_timeout_s,
            message_bytes=config.max_body_bytes,
        )
        return Egress(limits=limits, own=self._accept_in_process)

    def _accept_in_process(self) -> asyncio.Protocol:
        """Make the server's end of a connection that a tunnelled request to the gateway's own API takes."""
        assert self._make_own is not None, "requests come once the gateway listens"
        return self._make_own()

    async def _sweep(self) -> None:
        """Remove expired responses, at an interval."""
        while True:
            try:
                swept = await self.services.executor.sweep()
                if swept:
                    _log.info("action=sweep expired=%d", swept)
            except StoreError as error:
                _log.error("action=sweep error=%r", str(error))
            await asyncio.sleep(self.config.server.sweep_interval_s)


async def _start(upstreams: Sequence[Upstream]) -> None:
    """Start upstreams, all or none: one that goes on running could keep the process alive."""
    started: list[Upstream] = []
    try:
        for upstream in upstreams:
            await upstream.start()
            started.append(upstream)
    except BaseException:
        await _close(started)
        raise


async def _close(upstreams: Iterable[Upstream]) -> None:
    async with AsyncExitStack() as rest:
        for upstream in upstreams:
            rest.push_async_callback(upstream.aclose)


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def serving(config: Config, router: Router | None = None) -> AsyncIterator[tuple[Gateway, str]]:
    """Run a gateway around a block: yields it and its URL, and drains it at the end."""
    gateway = await Gateway.open(config, router)
    try:
        yield gateway, await gateway.listen()
        await gateway.drain()
    finally:
        await gateway.aclose()

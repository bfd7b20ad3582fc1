"""The tunnel's endpoint: the sockets of sidecars, their sessions, and what all of them share.

A session outlives its sockets: it goes on for a while without one, and a sidecar that comes back finds its exchanges as
they are. Each socket has one reader (the request's own task) and one writer. Not here: what the frames mean
(`segue.tunnel`), and what is done with an exchange (`exchanges`).
"""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import WSCloseCode, WSMsgType, web

from segue.egress.client import Egress
from segue.gateway.redacted_traceback import outline
from segue.gateway.tunnel.base_cache import Bases
from segue.gateway.tunnel.exchange import Exchange, Uploads
from segue.gateway.websocket_transport import watch_peer
from segue.protocol.problems import Problem, Refused
from segue.tunnel.events import Cancelled, LinkFailed, Opened, ServerEvent, UploadData, UploadEnded, Writable
from segue.tunnel.frames import MAX_PACKET_BYTES, SUBPROTOCOL
from segue.tunnel.server import Node, TunnelServer

if TYPE_CHECKING:
    from segue.gateway.app import Gateway

_log = logging.getLogger("segue.gateway")

_SESSION = re.compile(r"[0-9a-f]{32}")
#: An epoch names one run of a gateway.
EPOCH_BYTES = 8
#: What a connection within this process says of itself.
TENANT = "segue_tenant"
#: So long a full socket is waited for before it is asked whether the link is dead.
STUCK_S = 5.0
#: How much may wait in the socket's own buffer: what is there cannot be overtaken by a heartbeat.
_SOCKET_BUFFER_BYTES = 2 * MAX_PACKET_BYTES


class Tunnel:
    """All that the sidecars of one gateway share."""

    def __init__(self, gateway: Gateway, egress: Egress, epoch: bytes) -> None:
        config = gateway.config.tunnel
        self.gateway = gateway
        self.config = config
        self.routes = gateway.routes
        self.egress = egress
        self.metrics = gateway.metrics.tunnel
        self.bases = Bases(config.bases_bytes)
        self.uploads = Uploads(config.uploads_bytes)
        self.node = Node(epoch, config.address.encode(), config.max_body_bytes)
        self._sessions: dict[tuple[str, str], Session] = {}
        self.metrics.sessions.set_function(lambda: len(self._sessions))
        self.metrics.running.set_function(lambda: self.exchanges)
        self.metrics.bases_bytes.set_function(lambda: self.bases.size_bytes)

    async def serve(self, request: web.Request, tenant: str) -> web.StreamResponse:
        """Serve one socket of a sidecar until it is closed."""
        name = request.headers.get("Segue-Session", "")
        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            compress=False,  # what travels is compressed already, and no credential ever is
            max_msg_size=MAX_PACKET_BYTES + 1,  # aiohttp refuses a message of exactly the limit it is given
        )
        ready = socket.can_prepare(request)
        if not ready.ok or ready.protocol != SUBPROTOCOL or _SESSION.fullmatch(name) is None:
            message = (
                f"This endpoint is for sidecars that speak {SUBPROTOCOL}: this one is of another version, or none."
            )
            raise Refused(Problem("upgrade_required", message))
        if self.gateway.draining:
            raise Refused(Problem("server_overloaded", "The gateway is shutting down. Try again."))
        session = self._session(tenant, name)
        await socket.prepare(request)
        watch_peer(request)
        if request.transport is not None:
            request.transport.set_write_buffer_limits(high=_SOCKET_BUFFER_BYTES)
        await session.serve(socket)
        return socket

    def _session(self, tenant: str, name: str) -> Session:
        session = self._sessions.get((tenant, name))
        if session is None:
            if sum(owner == tenant for owner, _ in self._sessions) >= self.config.max_sessions:
                raise Refused(
                    Problem("server_overloaded", "Too many sidecars of this tenant at the moment. Try again.")
                )
            session = self._sessions[tenant, name] = Session(self, tenant)
        return session

    # --- time --------------------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Give up sessions that have been without a sidecar for too long, now and then."""
        while True:
            await asyncio.sleep(self.config.away_s / 10)
            now = asyncio.get_running_loop().time()
            for key, session in tuple(self._sessions.items()):
                if session.away_for_s(now) >= self.config.away_s:
                    del self._sessions[key]
                    session.cancel()

    async def drain(self) -> None:
        """Tell every sidecar to go elsewhere, and wait until what runs here has ended."""
        for session in self._sessions.values():
            session.drain()
        await asyncio.gather(*(session.ended() for session in tuple(self._sessions.values())))

    async def close(self) -> None:
        """Cancel what still runs, and let the connections to providers go."""
        sessions, self._sessions = tuple(self._sessions.values()), {}
        for session in sessions:
            session.cancel()
        await asyncio.gather(*(session.close() for session in sessions))
        await self.egress.aclose()

    @property
    def sessions(self) -> int:
        """How many sidecars have a session."""
        return len(self._sessions)

    @property
    def exchanges(self) -> int:
        """How many exchanges are under way."""
        return sum(session.exchanges for session in self._sessions.values())


class Session:
    """One sidecar: its end of the tunnel, its exchanges, and its socket while there is one."""

    def __init__(self, tunnel: Tunnel, tenant: str) -> None:
        self.tunnel = tunnel
        self.tenant = tenant
        self.extra = {TENANT: tenant}
        """What the gateway's own API is told of requests that come from here."""
        self.end = TunnelServer(tunnel.node)
        self._loop = asyncio.get_running_loop()
        self._exchanges: dict[int, Exchange] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unflushed: set[Exchange] = set()
        self._socket: web.WebSocketResponse | None = None
        self._left_at = self._loop.time()
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()

    @property
    def exchanges(self) -> int:
        """How many exchanges are under way."""
        return len(self._exchanges)

    def away_for_s(self, now: float) -> float:
        """How long there has been no sidecar."""
        return 0.0 if self._socket is not None else now - self._left_at

    # --- one socket --------------------------------------------------------------------------------------------------

    async def serve(self, socket: web.WebSocketResponse) -> None:
        """Carry packets over a socket until it is over; one before it is given up."""
        before, self._socket = self._socket, socket
        self.end.link_opened(self._loop.time())
        self.tunnel.metrics.links.inc()
        if before is not None:
            _abort(before)
        writer = self._loop.create_task(self._write(socket))
        try:
            await self._read(socket)
        finally:
            if self._socket is socket:
                self._socket = None
                self._left_at = self._loop.time()
                self.end.link_lost()
                self._progress.set()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _read(self, socket: web.WebSocketResponse) -> None:
        metrics = self.tunnel.metrics
        while True:
            message = await socket.receive()
            if message.type is not WSMsgType.BINARY or self._socket is not socket:
                return
            metrics.received_bytes.inc(len(message.data))
            for event in self.end.receive(message.data, self._loop.time()):
                if isinstance(event, LinkFailed):
                    _log.warning("action=tunnel tenant=%s link failed: %s", self.tenant, event.reason)
                    await socket.close(code=WSCloseCode.PROTOCOL_ERROR, message=event.reason.encode()[:120])
                    return
                self._apply(event)
            self._wake.set()
            self._progress.set()

    async def _write(self, socket: web.WebSocketResponse) -> None:
        """Send what there is to send, and come back when there is more or when it is time."""
        metrics = self.tunnel.metrics
        with suppress(ConnectionError):
            while self._socket is socket and not socket.closed:
                self._wake.clear()
                self._flush()
                now = self._loop.time()
                if self.end.handle_timeout(now):
                    _abort(socket)  # nobody is there to close with
                    return
                packet = self.end.next_packet(now)
                if packet is None:
                    await self._wait(self.end.next_deadline())
                    continue
                metrics.sent_bytes.inc(len(packet))
                with suppress(TimeoutError):  # a socket that takes nothing must not keep us from noticing it
                    async with asyncio.timeout(STUCK_S):
                        await socket.send_bytes(packet)

    async def _wait(self, deadline: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._wake.wait()

    def _flush(self) -> None:
        """Let the peer read what was compressed so far, unless it has not even got what was before.

        So the first event never waits, and while the link is busy events are put together.
        """
        for exchange in tuple(self._unflushed):
            if not self.end.unsent_bytes(exchange.number):
                self._unflushed.discard(exchange)
                exchange.flush()

    # --- exchanges ---------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Let the writer look again: there is something to send."""
        self._wake.set()

    def flush_later(self, exchange: Exchange) -> None:
        """Note that an exchange holds compressed bytes that its peer cannot read yet."""
        self._unflushed.add(exchange)
        self._wake.set()

    def _apply(self, event: ServerEvent) -> None:
        if isinstance(event, Opened):
            self._open(event)
            return
        assert not isinstance(event, LinkFailed), "the reader takes it"
        exchange = self._exchanges.get(event.exchange)
        if exchange is None:
            return  # it was refused while its upload was still on the way
        match event:
            case UploadData():
                exchange.receive(event.data)
            case UploadEnded():
                exchange.receive_end()
            case Writable():
                exchange.writable()
            case Cancelled():
                exchange.cancel()

    def _open(self, event: Opened) -> None:
        exchange = Exchange(self, event)
        self._exchanges[event.exchange] = exchange
        task = self._loop.create_task(self._run(exchange))
        exchange.cancel = task.cancel
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, exchange: Exchange) -> None:
        started_at = self._loop.time()
        try:
            await exchange.run()
        except Exception as error:  # noqa: BLE001 - the outermost seam: a bug of ours ends one exchange, and is told
            _log.error("action=exchange tenant=%s error=%s", self.tenant, outline(error))
            exchange.outcome = "failed"
            self.end.abort(exchange.number, "failed", b"the gateway failed; its log has more")
        finally:
            self._exchanges.pop(exchange.number, None)
            self._unflushed.discard(exchange)
            self.tunnel.metrics.count(exchange.outcome)
            _log.info(
                "action=exchange tenant=%s number=%d outcome=%s body_bytes=%d time_s=%.3f",
                self.tenant,
                exchange.number,
                exchange.outcome,
                exchange.body_bytes,
                self._loop.time() - started_at,
            )
            self._progress.set()
            self._wake.set()

    # --- the way out -------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Open nothing more."""
        self.end.drain()
        self._wake.set()

    def cancel(self) -> None:
        """Cancel every exchange."""
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """Wait until no exchange runs here and the sidecar, if it is there, has all that it was sent."""
        while self._exchanges or (self._socket is not None and len(self.end)):
            self._progress.clear()
            await self._progress.wait()

    async def close(self) -> None:
        """Wait for what was cancelled, and close the socket."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close(code=WSCloseCode.GOING_AWAY)


def tunnel_tenant(request: web.Request) -> str | None:
    """Return the tenant of a request that came through the tunnel to the gateway itself: its key was checked there."""
    transport = request.transport
    return None if transport is None else transport.get_extra_info(TENANT)


def _abort(socket: web.WebSocketResponse) -> None:
    transport = socket._req.transport if socket._req is not None else None  # noqa: SLF001 - aiohttp has no abort of its own
    if transport is not None:
        transport.abort()

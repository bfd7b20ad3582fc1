"""One sidecar at the gateway: its end of the tunnel, its exchanges, and its socket while there is one.

A session outlives its sockets: it goes on for a while without one, and a sidecar that comes back finds its exchanges as
they are. Each socket has one reader (the request's own task) and one writer. Not here: which sessions there are
(`endpoint`), what the frames mean (`segue.tunnel`), and what is done with an exchange (`exchange`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from aiohttp import WSCloseCode, WSMsgType, web

from segue.gateway.principal import Principal
from segue.gateway.redacted_traceback import redacted_traceback
from segue.gateway.tunnel.exchange import ForwardedExchange
from segue.gateway.tunnel.resources import TunnelResources
from segue.protocol.problems import Problem, Refused
from segue.tunnel.events import Cancelled, LinkFailed, Opened, ServerEvent, UploadData, UploadEnded, Writable
from segue.tunnel.server import TunnelServer
from segue.tunnel.upgrade_headers import LINK_HEADER

_log = logging.getLogger("segue.gateway")

#: The name under which a connection within this process carries whose sidecar it is of.
PRINCIPAL = "segue_principal"
#: How long a full socket may take nothing before the link is checked.
STUCK_S = 5.0


class SidecarSession:
    """One sidecar: its end of the tunnel, its exchanges, and its socket while there is one."""

    def __init__(self, resources: TunnelResources, principal: Principal) -> None:
        self.principal = principal
        """Whose sidecar it is, by the key of its latest socket."""
        self.end = TunnelServer(resources.node)
        self.rebuilding = asyncio.Lock()
        """Held while a body is rebuilt."""
        self._resources = resources
        self._loop = asyncio.get_running_loop()
        self._exchanges: dict[int, ForwardedExchange] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unflushed: set[ForwardedExchange] = set()
        self._socket: web.WebSocketResponse | None = None
        self._left_at = self._loop.time()
        self._given_up = False
        self.greeted = False
        """A packet has come: until then there is nothing that the sidecar could come back for."""
        self._link_number = 0
        self._wake = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        """Wakes the writer; one for each wait would cost more than the rest of the wait."""
        self._progress = asyncio.Event()

    @property
    def tenant(self) -> str:
        """The tenant that the sidecar belongs to."""
        return self.principal.tenant

    @property
    def extra(self) -> Mapping[str, object]:
        """What the gateway's own API learns about requests from here."""
        return {PRINCIPAL: self.principal}

    @property
    def has_link(self) -> bool:
        """Whether the sidecar is connected."""
        return self._socket is not None

    @property
    def exchanges(self) -> int:
        """How many exchanges are under way."""
        return len(self._exchanges)

    @property
    def unfinished(self) -> int:
        """How many exchanges are under way, or are complete without the sidecar having all of them."""
        return max(len(self._exchanges), len(self.end))

    def away_for_s(self, now: float) -> float:
        """How long no sidecar has been connected."""
        return 0.0 if self._socket is not None else now - self._left_at

    def take_link_number(self, number: int | None) -> None:
        """Take the number of a new link, if it has one.

        Raises:
            Refused: a later link was taken before. The sidecar has given this one up, and its HELLO is of that time.
        """
        if number is None:
            return
        if number <= self._link_number:
            raise Refused(Problem("stale_upgrade", "A later link of this session was taken before.", LINK_HEADER))
        self._link_number = number

    # --- one socket --------------------------------------------------------------------------------------------------

    async def serve(self, socket: web.WebSocketResponse, hello: bytes | None = None) -> None:
        """Carry packets over a socket until it is over; a socket before it is cut off.

        `hello`: the first packet, if it came with the upgrade request.
        """
        before, self._socket = self._socket, socket
        self.end.link_opened(self._loop.time())
        self._resources.meter.links.inc()
        if before is not None:
            _abort(before)
        writer = self._loop.create_task(self._write(socket))
        try:
            if hello is None or await self._take(socket, hello):
                await self._read(socket)
        finally:
            if self._socket is socket:
                self._socket = None
                self._left_at = self._loop.time()
                self.end.link_lost()
                self._silence_alarm()  # a later socket has set it for itself
                self._progress.set()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _read(self, socket: web.WebSocketResponse) -> None:
        while True:
            message = await socket.receive()
            if message.type is WSMsgType.TEXT and self._socket is socket:
                await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"a packet is a binary message")
            if message.type is not WSMsgType.BINARY or self._socket is not socket:
                return
            if not await self._take(socket, message.data):
                return

    async def _take(self, socket: web.WebSocketResponse, packet: bytes) -> bool:
        """Take a packet; return False, and close the socket, if the peer has broken the protocol by it."""
        self._resources.meter.received_bytes.inc(len(packet))
        for event in self.end.receive(packet, self._loop.time()):
            if isinstance(event, LinkFailed):
                _log.warning("action=tunnel tenant=%s link failed: %s", self.tenant, event.reason)
                await socket.close(code=WSCloseCode.PROTOCOL_ERROR, message=event.reason.encode()[:120])
                return False
            self._apply(event)
        self.greeted = True
        self._wake.set()
        self._progress.set()
        return True

    async def _write(self, socket: web.WebSocketResponse) -> None:
        """Send what there is to send; wait for more, or for the next deadline."""
        meter = self._resources.meter
        with suppress(ConnectionError):
            while self._socket is socket and not socket.closed:
                self._wake.clear()
                self._flush()
                now = self._loop.time()
                if self.end.handle_timeout(now):
                    _abort(socket)  # the peer is gone: it would not answer a close
                    return
                packet = self.end.next_packet(now)
                if packet is None:
                    await self._wait(self.end.next_deadline())
                    continue
                meter.sent_bytes.inc(len(packet))
                await self._send(socket, packet)

    async def _send(self, socket: web.WebSocketResponse, packet: bytes) -> None:
        transport = _transport_of(socket)
        if transport is not None and not transport.get_write_buffer_size():
            await socket.send_bytes(packet)  # it has room
            return
        with suppress(TimeoutError):  # a socket that takes nothing must not block the check for a dead link
            async with asyncio.timeout(STUCK_S):
                await socket.send_bytes(packet)

    async def _wait(self, deadline: float | None) -> None:
        """Wait until there is something to do, at this time at the latest. It may be earlier: look again."""
        if deadline is not None and (self._alarm is None or deadline < self._alarm.when()):
            self._silence_alarm()
            self._alarm = self._loop.call_at(deadline, self._ring)
        await self._wake.wait()

    def _ring(self) -> None:
        self._alarm = None
        self._wake.set()

    def _silence_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _flush(self) -> None:
        """Let the peer read what was compressed so far, unless earlier bytes of the exchange still wait to be sent.

        So the first event never waits, and while the link is busy events travel together.
        """
        for exchange in tuple(self._unflushed):
            if not self.end.unsent_bytes(exchange.number):
                self._unflushed.discard(exchange)
                exchange.flush()

    # --- exchanges ---------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Let the writer look again: there is something to send."""
        self._wake.set()

    def flush_later(self, exchange: ForwardedExchange) -> None:
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
            return  # it was refused while its upload was still coming
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
        exchange = ForwardedExchange(self, self._resources, event)
        self._exchanges[event.exchange] = exchange
        started_at = self._loop.time()
        task = self._loop.create_task(self._run(exchange))
        exchange.cancel = task.cancel
        self._tasks.add(task)
        # A task that is cancelled before its first step runs nothing of its code, and no `finally` either.
        task.add_done_callback(lambda _: self._leave(exchange, task, started_at))

    async def _run(self, exchange: ForwardedExchange) -> None:
        try:
            await exchange.run()
        except Exception as error:  # noqa: BLE001 - the outermost seam: a bug of ours ends one exchange, and its agent gets an error
            _log.error("action=exchange tenant=%s error=%s", self.tenant, redacted_traceback(error))
            exchange.outcome = "failed"
            self.end.abort(exchange.number, "failed", b"the gateway failed; its log has more")
        finally:
            self._unflushed.discard(exchange)  # at once: the writer may run before the callback

    def _leave(self, exchange: ForwardedExchange, task: asyncio.Task[None], started_at: float) -> None:
        """Forget an exchange that has ended, whatever ended it."""
        self._tasks.discard(task)
        self._exchanges.pop(exchange.number, None)
        self._resources.uploads.release(exchange)
        self._resources.meter.count(exchange.outcome)
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
        """Give the session up: cancel every exchange."""
        self._given_up = True
        self._progress.set()
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """Wait until no exchange runs here and the sidecar has every reply, or until the session is given up.

        A sidecar that has lost its link comes back for what it has not got, so that is waited for too.
        """
        while self._exchanges or (len(self.end) and not self._given_up):
            self._progress.clear()
            await self._progress.wait()

    async def aclose(self) -> None:
        """Wait for what was cancelled, and close the socket."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close(code=WSCloseCode.GOING_AWAY)


def tunnel_principal(request: web.Request) -> Principal | None:
    """Return whose sidecar a request to the gateway's own API came through, if it did: its key was checked."""
    transport = request.transport
    return None if transport is None else transport.get_extra_info(PRINCIPAL)


def _transport_of(socket: web.WebSocketResponse) -> asyncio.Transport | None:
    return socket._req.transport if socket._req is not None else None  # noqa: SLF001 - aiohttp has no abort of its own


def _abort(socket: web.WebSocketResponse) -> None:
    transport = _transport_of(socket)
    if transport is not None:
        transport.abort()

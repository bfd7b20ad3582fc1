"""One sidecar at the gateway: its end of the tunnel, its exchanges, and its socket while there is one.

A session outlives its sockets: it goes on for a while without one, and a sidecar that comes back finds its exchanges as
they are. Each socket has one reader (the request's own task) and one writer. Not here: which sessions there are
(`endpoint`), what the frames mean (`segue.tunnel`), and what is done with an exchange (`exchange`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from aiohttp import WSCloseCode, WSMsgType, web

from segue.gateway.principal import Principal
from segue.gateway.redacted_traceback import redacted_traceback
from segue.gateway.tunnel.exchange import ForwardedExchange
from segue.gateway.tunnel.exchange_log import EndTimes, SessionExchangeLog
from segue.gateway.tunnel.resources import TunnelResources
from segue.packet_writer import PacketSocket, PacketWriter
from segue.protocol.problems import Problem, Refused
from segue.tunnel.events import Cancelled, LinkFailed, Opened, ServerEvent, UploadData, UploadEnded, Writable
from segue.tunnel.server import TunnelServer
from segue.tunnel.upgrade_headers import LINK_HEADER

_log = logging.getLogger("segue.gateway")

#: The name under which a connection within this process carries whose sidecar it is of.
PRINCIPAL = "segue_principal"


class SidecarSession:
    """One sidecar: its end of the tunnel, its exchanges, and its socket while there is one."""

    def __init__(self, resources: TunnelResources, principal: Principal, name: str) -> None:
        self.name = name
        """By which the sidecar names it, at every gateway."""
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
        self._links = 0
        """How many sockets it has had."""
        self._log = SessionExchangeLog(resources.log)
        self._writer: PacketWriter | None = None
        """Of the present socket."""
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
        transport = _transport_of(socket)
        if transport is None:
            return  # it is lost already
        before, self._socket = self._socket, socket
        self.end.link_opened(self._loop.time())
        self._resources.meter.links.inc()
        self._links += 1
        if before is not None:
            _abort(before)
        packets = PacketSocket(socket, transport, masked=False)
        count = self._resources.meter.sent_bytes.inc
        self._writer = PacketWriter(self.end, packets, before_packet=self._flush, count=count)
        writer = self._loop.create_task(self._writer.run())
        try:
            if hello is None or await self._take(socket, hello):
                await self._read(socket)
        finally:
            if self._socket is socket:
                self._socket = None
                self._left_at = self._loop.time()
                self._writer = None
                self.end.link_lost()
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
        self._log_delivered()
        self.greeted = True
        if self._writer is not None:
            self._writer.note_received()
        self._progress.set()
        return True

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
        if self._writer is not None:
            self._writer.wake()

    def write_now(self) -> None:
        """Let the writer send what there is in this call: somebody waits for it."""
        if self._writer is not None:
            self._writer.write_now()

    def note_unflushed(self, exchange: ForwardedExchange) -> None:
        """Note what `flush_later` does, and leave it to the caller to wake the writer."""
        self._unflushed.add(exchange)

    def flush_later(self, exchange: ForwardedExchange) -> None:
        """Note that an exchange holds compressed bytes that its peer cannot read yet."""
        self._unflushed.add(exchange)
        self.wake()

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
        started_at, links = self._loop.time(), self._links
        task = self._loop.create_task(self._run(exchange))
        exchange.cancel = task.cancel
        self._tasks.add(task)
        # A task that is cancelled before its first step runs nothing of its code, and no `finally` either.
        task.add_done_callback(lambda _: self._leave(exchange, task, started_at, links))

    async def _run(self, exchange: ForwardedExchange) -> None:
        try:
            await exchange.run()
        except Exception as error:  # noqa: BLE001 - the outermost seam: a bug of ours ends one exchange, and its agent gets an error
            _log.error("action=exchange tenant=%s error=%s", self.tenant, redacted_traceback(error))
            exchange.record.outcome = "failed"
            self.end.abort(exchange.number, "failed", b"the gateway failed; its log has more")
        finally:
            self._unflushed.discard(exchange)  # at once: the writer may run before the callback

    def _leave(self, exchange: ForwardedExchange, task: asyncio.Task[None], started_at: float, links: int) -> None:
        """Forget an exchange that has ended, whatever ended it."""
        self._tasks.discard(task)
        self._exchanges.pop(exchange.number, None)
        self._resources.uploads.release(exchange)
        exchange.cancel = _is_over
        record, now = exchange.record, self._loop.time()
        self._resources.meter.count(record.outcome)
        _log.info(
            "action=exchange tenant=%s number=%d outcome=%s body_bytes=%d time_s=%.3f",
            self.tenant,
            exchange.number,
            record.outcome,
            record.up_bytes,
            now - started_at,
        )
        if self._log.on:
            times = EndTimes(opened_at=started_at, ended_at=now, at=self._resources.rules.clock())
            self._log.note_end(exchange.number, record, times, principal=self.principal, links_before=links)
            self._log_delivered()
        self._progress.set()
        self.wake()

    def _log_delivered(self) -> None:
        """Write the log's lines of exchanges whose reply is with the sidecar, or if it will not come back, of all."""
        if self._given_up:
            self._log.give_up(links=self._links)
        elif self._log.waits:
            self._log.note_progress(self.end, now=self._loop.time(), links=self._links)

    # --- the way out -------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Open nothing more."""
        self.end.drain()
        self.wake()

    def cancel(self) -> None:
        """Give the session up: cancel every exchange."""
        self._given_up = True
        self._log_delivered()
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


def _is_over() -> None:
    """Stand in for what would cancel a task that has ended.

    A cancelled task keeps what its frames held, its exchange and so a body of megabytes. If that held the task as well,
    they would be there until all objects are looked through for cycles.
    """

"""A gateway made of the tunnel core alone: what it answers is a function of the test, and so are its faults."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web

from segue.gateway.error_mapping import http_reply
from segue.http.heads import Line, ReplyHead, RequestHead, values
from segue.http.websocket import WebSocketClose, WebSocketMessage
from segue.protocol.problems import Problem
from segue.testing.tunnel_checker import TunnelChecker
from segue.tunnel.documents import Base, BaseMiss, Body, decode_document, may_be_missed
from segue.tunnel.events import Cancelled, LinkFailed, Opened, ServerEvent, UploadData, UploadEnded
from segue.tunnel.folds.fold import Fold
from segue.tunnel.frames import MAX_PACKET_BYTES, SUBPROTOCOL
from segue.tunnel.server import Node, TunnelServer
from segue.tunnel.socket_opening import SocketOpening
from segue.tunnel.socket_upload import SocketUploadReader, UploadRecords
from segue.tunnel.stream_compression import (
    REPLY_WINDOW_LOG,
    SOCKET_WINDOW_LOG,
    StreamEncoder,
)
from segue.tunnel.upgrade_headers import EPOCH_HEADER, HELLO_HEADER, decode_hello
from segue.tunnel.websocket_records import Record, RecordError, encode_record
from tests.tunnel.checkers import new_checker

STREAM = ReplyHead(200, b"OK", (Line(b"Content-Type", b"text/event-stream"),))


@dataclass
class Answer:
    """How a request is answered: the pieces one by one, each when its gate (by number) is open."""

    pieces: tuple[bytes, ...] = (b"data: {}\n\n",)
    head: ReplyHead = STREAM
    gates: dict[int, asyncio.Event] = field(default_factory=dict)
    before: asyncio.Event | None = None
    aborts: bool = False


@dataclass
class Forwarded:
    """A request as it would have gone to a provider."""

    head: RequestHead
    body: bytes | None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


Script = Callable[[Forwarded], Answer]


class FakeGateway:
    """One node. `forget_bases`, `drain` and `restart` are its faults."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.forwarded: list[Forwarded] = []
        self.messages: list[bytes] = []
        self.bases: dict[bytes, Base] = {}
        self.misses = 0
        self.taken = 0
        self.refusal: Problem | None = None
        self.between: Callable[[], web.StreamResponse] | None = None
        """What answers in place of this gateway."""
        self.upgrades: list[dict[str, str]] = []
        self.close_codes: list[int | None] = []
        """How the sockets of sidecars were closed, in that order."""
        self.port = 0
        self.address = b""
        self.max_body_bytes = 64 * 1024 * 1024
        self.takes_nothing = False
        self.takes_hello = True
        """It takes the first packet from the upgrade request; earlier gateways did not."""
        self.mute = False
        """Its links are accepted, and nothing is said on them."""
        self.greeting: bytes | None = None
        """What is sent as the first packet instead of a WELCOME; empty: the link is closed at once."""
        self.sessions: dict[str, _Session] = {}
        self.checkers: defaultdict[str, TunnelChecker] = defaultdict(new_checker)
        """What is heard of each session, whatever this gateway forgets."""
        self.changed = asyncio.Condition()
        self.epoch = secrets.token_bytes(8)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def seen(self, count: int) -> None:
        await self.until(lambda: len(self.forwarded) >= count)

    async def until(self, reached: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(reached)

    async def note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def drain(self) -> None:
        for session in self.sessions.values():
            session.end.drain()
            session.wake.set()

    async def forget(self) -> None:
        """Become another node: everything it held is gone, and every link is cut."""
        self.epoch = secrets.token_bytes(8)
        self.bases.clear()
        sessions, self.sessions = self.sessions, {}
        for session in sessions.values():
            await session.close()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.upgrades.append({name.lower(): value for name, value in request.headers.items()})
        await self.note()
        if self.between is not None:
            return self.between()
        if self.refusal is not None:
            return http_reply(self.refusal)
        socket = web.WebSocketResponse(protocols=(SUBPROTOCOL,), compress=False, max_msg_size=MAX_PACKET_BYTES + 1)
        hello = decode_hello(request.headers.get(HELLO_HEADER, "")) if self.takes_hello else None
        if self.takes_hello:
            socket.headers[EPOCH_HEADER] = self.epoch.hex()
        await socket.prepare(request)
        if self.greeting is not None:
            if self.greeting:
                await socket.send_bytes(self.greeting)
                await socket.receive()
            await socket.close()
            return socket
        name = request.headers["Segue-Session"]
        session = self.sessions.get(name)
        if session is None:
            session = self.sessions[name] = _Session(self, self.checkers[name])
        try:
            await session.serve(socket, hello)
        finally:
            self.close_codes.append(socket.close_code)
            await self.note()
        return socket


class _Session:
    def __init__(self, gateway: FakeGateway, checker: TunnelChecker) -> None:
        self.gateway = gateway
        self.checker = checker
        self.end = TunnelServer(Node(gateway.epoch, gateway.address, gateway.max_body_bytes))
        self.wake = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.exchanges: dict[int, _Exchange] = {}
        self.socket: web.WebSocketResponse | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, socket: web.WebSocketResponse, hello: bytes | None) -> None:
        self.socket = socket
        self.wake.set()  # one before it is read and written no more
        self.end.link_opened(self.loop.time())
        self.checker.link_opened()
        writer = self.loop.create_task(self.write(socket))
        try:
            if hello is not None:
                self.take(hello)
            while (message := await socket.receive()).type is WSMsgType.BINARY and self.socket is socket:
                self.take(message.data)
        finally:
            if self.socket is socket:
                self.end.link_lost()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def take(self, packet: bytes) -> None:
        self.checker.sent("up", packet)
        for event in self.end.receive(packet, self.loop.time()):
            self.apply(event)
        self.wake.set()

    async def write(self, socket: web.WebSocketResponse) -> None:
        with suppress(ConnectionError):
            while self.socket is socket and not socket.closed:
                self.wake.clear()
                packet = None if self.gateway.mute else self.end.next_packet(self.loop.time())
                if packet is not None:
                    self.checker.sent("down", packet)
                    await socket.send_bytes(packet)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self.end.next_deadline()):
                        await self.wake.wait()

    def apply(self, event: ServerEvent) -> None:
        assert not isinstance(event, LinkFailed), event.reason
        if isinstance(event, Opened):
            self.open(event)
            return
        exchange = self.exchanges.get(event.exchange)
        match event:
            case UploadData() if exchange is not None:
                exchange.receive(event.data)
            case UploadEnded() if exchange is not None:
                exchange.receive_end()
            case Cancelled() if exchange is not None:
                exchange.cancel()
            case _:
                pass

    def open(self, event: Opened) -> None:
        if self.gateway.takes_nothing:
            self.end.abort(event.exchange, "not_forwarded", b"too many exchanges")
            return
        exchange = self.exchanges[event.exchange] = _Exchange(self, event)
        if event.kind == "websocket" or not event.has_body:
            exchange.begin()

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.socket is not None:
            await self.socket.close()


class _Exchange:
    def __init__(self, session: _Session, opened: Opened) -> None:
        self.session = session
        self.opened = opened
        self.number = opened.exchange
        self.upload = bytearray()
        self.ended = False
        self.arrived = asyncio.Event()
        self.forwarded: Forwarded | None = None
        self.task: asyncio.Task[None] | None = None

    def receive(self, data: bytes) -> None:
        self.upload += data
        self.session.end.consume(self.number, len(data))
        self.arrived.set()

    def receive_end(self) -> None:
        self.ended = True
        self.arrived.set()
        if self.opened.kind == "http":
            self.rebuild()

    def cancel(self) -> None:
        if self.forwarded is not None:
            self.forwarded.cancelled.set()
        if self.task is not None:
            self.task.cancel()

    def rebuild(self) -> None:
        gateway = self.session.gateway
        body = decode_document(bytes(self.upload), gateway.bases.get)
        if isinstance(body, BaseMiss):
            gateway.misses += 1
            self.upload.clear()
            self.session.end.missed(self.number)
            return
        assert isinstance(body, Body), body
        self.begin(body)

    def begin(self, body: Body | None = None) -> None:
        self.task = self.session.loop.create_task(self.run(body))
        self.session.tasks.add(self.task)
        self.task.add_done_callback(self.session.tasks.discard)

    async def run(self, body: Body | None) -> None:
        gateway, end = self.session.gateway, self.session.end
        self.forwarded = Forwarded(self.opened.head, None if body is None else body.sent)
        gateway.forwarded.append(self.forwarded)
        await gateway.note()
        answer = gateway.script(self.forwarded)
        if answer.before is not None:
            await answer.before.wait()
        end.reply(self.number, answer.head)
        self.session.wake.set()
        if answer.head.status == 101:
            await self.talk()
            return
        encoder = StreamEncoder(SOCKET_WINDOW_LOG if self.opened.kind == "websocket" else REPLY_WINDOW_LOG)
        fold = Fold(b"".join(values(answer.head.lines, b"content-type")))
        try:
            for number, piece in enumerate(answer.pieces):
                if number in answer.gates:
                    await answer.gates[number].wait()
                fold.feed(piece)
                end.send(self.number, encoder.feed(piece) + encoder.flush())
                self.session.wake.set()
        finally:
            if body is not None:
                base = body.as_base(fold.value)
                gateway.bases[base.id] = base
        if answer.aborts:
            end.abort(self.number, "aborted", b"the provider cut it")
        else:
            end.send(self.number, encoder.finish())
            end.finish(self.number)
        self.session.wake.set()

    async def talk(self) -> None:
        """Echo every message, and the close."""
        encoder, reader = StreamEncoder(SOCKET_WINDOW_LOG), SocketUploadReader(2**26)
        while await self.has_upload():
            reader.feed(bytes(self.upload))
            self.upload.clear()
            while (step := reader.read()) is not None:
                assert not isinstance(step, RecordError)
                records = step.records if isinstance(step, UploadRecords) else self.rebuild_message(reader, step)
                for record in records:
                    await self.echo(record, encoder)

    async def has_upload(self) -> bool:
        """Wait for more of the upload; False if there is none."""
        while not self.upload and not self.ended:
            self.arrived.clear()
            await self.arrived.wait()
        return bool(self.upload)

    def rebuild_message(self, reader: SocketUploadReader, opening: SocketOpening) -> tuple[WebSocketMessage, ...]:
        """Rebuild a message that is a document; one whose base is not here is missed."""
        end, gateway = self.session.end, self.session.gateway
        document = opening.document or b""
        body = decode_document(document, gateway.bases.get)
        self.session.wake.set()
        if isinstance(body, BaseMiss):
            gateway.misses += 1
            reader.drop_message(opening)
            end.missed(self.number)
            return ()
        assert isinstance(body, Body)
        if may_be_missed(document):
            gateway.taken += 1
            end.taken(self.number)
        gateway.bases[body.plain_id] = body.as_base(b"")
        return (reader.take_message(opening, body.sent),)

    async def echo(self, record: Record, encoder: StreamEncoder) -> None:
        gateway, end = self.session.gateway, self.session.end
        end.send(self.number, encoder.feed(encode_record(record)) + encoder.flush())
        if isinstance(record, WebSocketClose):
            end.send(self.number, encoder.finish())
            end.finish(self.number)
        else:
            gateway.messages.append(record.data)
            await gateway.note()
        self.session.wake.set()


@asynccontextmanager
async def fake_gateway(
    script: Script | None = None, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[FakeGateway]:
    gateway = FakeGateway(script or (lambda _: Answer()))
    application = web.Application()
    application.router.add_get("/segue/tunnel", gateway.serve)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    gateway.port = runner.addresses[0][1]
    try:
        yield gateway
    finally:
        for session in gateway.sessions.values():
            await session.close()
        await runner.cleanup()
    problems = [problem for checker in gateway.checkers.values() for problem in checker.problems]
    assert problems == [], problems

"""A sidecar without an agent: the tunnel's own end on a real socket, driven by a test step by step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp

from segue.http.heads import ReplyHead
from segue.tunnel.client import TunnelClient, TunnelRequest
from segue.tunnel.events import (
    BaseMissed,
    ClientEvent,
    ExchangeReset,
    GoneAway,
    LinkFailed,
    OutcomeUnknown,
    ReplyData,
    ReplyEnded,
    ReplyStarted,
    UploadTaken,
    Welcomed,
)
from segue.tunnel.frames import SUBPROTOCOL
from segue.tunnel.stream_compression import REPLY_BASE_BYTES, StreamDecoder
from segue.tunnel.upgrade_headers import HELLO_HEADER, encode_hello
from tests.tunnel.checkers import new_checker

SESSION = "0123456789abcdef" * 2


@dataclass
class Answer:
    """What came back for one exchange."""

    head: ReplyHead | None = None
    body: bytes = b""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    reset: ExchangeReset | OutcomeUnknown | None = None
    misses: int = 0
    taken: int = 0
    prefix: bytes = b""
    """What its stream builds on."""
    grew: asyncio.Event = field(default_factory=asyncio.Event)
    decoder: StreamDecoder = field(default_factory=StreamDecoder)

    def take(self, data: bytes) -> None:
        """Expand what came."""
        self.decoder.feed(data)
        while piece := self.decoder.read(65536):
            assert isinstance(piece, bytes)
            self.body += piece
            self.grew.set()

    async def until(self, body: bytes) -> None:
        """Wait until this much of the body has come."""
        async with asyncio.timeout(20):
            while self.body != body:
                self.grew.clear()
                await self.grew.wait()

    async def whole(self) -> bytes:
        """Wait for the end and return the body."""
        await asyncio.wait_for(self.ended.wait(), 20)
        return self.body


class Peer:
    """One session; `connect` may be used again and again."""

    def __init__(self, url: str, session: str = SESSION, *, acknowledges: bool = True) -> None:
        self.end = TunnelClient()
        self.checker = new_checker()
        self.answers: dict[int, Answer] = {}
        self.whole_documents: dict[int, bytes] = {}
        self.welcomed = asyncio.Event()
        self.gone_away = asyncio.Event()
        self.closed = asyncio.Event()
        """The gateway has closed the connection."""
        self.consuming = True
        self._acknowledges = acknowledges
        """It acknowledges what it has before it leaves."""
        self._url = url
        self._session = session

    @asynccontextmanager
    async def connected(
        self, headers: Mapping[str, str] | None = None, *, early: bool = False
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Be connected around a block; the link is lost at its end. `early`: the upgrade request has the HELLO."""
        loop = asyncio.get_running_loop()
        self.end.link_opened(loop.time())
        self.checker.link_opened()
        if early:
            hello = self.end.next_packet(loop.time())
            assert hello is not None
            self.checker.sent("up", hello)
            headers = {HELLO_HEADER: encode_hello(hello), **(headers or {})}
        async with aiohttp.ClientSession() as client:
            socket = await client.ws_connect(
                f"{self._url}/segue/tunnel",
                protocols=(SUBPROTOCOL,),
                headers={"Segue-Session": self._session, **(headers or {})},
                autoping=True,
            )
            self.welcomed.clear()
            self.closed.clear()
            carrying = asyncio.gather(self._carry(socket), self._keep_time(socket))
            try:
                await self.pump(socket)
                await asyncio.wait_for(self.welcomed.wait(), 20)
                yield socket
            finally:
                carrying.cancel()
                await asyncio.gather(carrying, return_exceptions=True)
                if self._acknowledges:
                    self.end.acknowledge()
                    await self.pump(socket)
                self.end.link_lost()
                await socket.close()
                assert not self.checker.problems

    def open(self, request: TunnelRequest, whole: bytes = b"") -> Answer:
        """Begin an exchange; `whole` is the document to send after a miss."""
        handle = self.end.open(request)
        self.whole_documents[handle] = whole
        answer = self.answers[handle] = Answer()
        return answer

    async def request(
        self, socket: aiohttp.ClientWebSocketResponse, request: TunnelRequest, whole: bytes = b""
    ) -> tuple[Answer, bytes]:
        """Make an exchange from beginning to end."""
        answer = self.open(request, whole)
        await self.pump(socket)
        return answer, await answer.whole()

    async def pump(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Send what there is to send."""
        with suppress(ConnectionError):
            while (packet := self.end.next_packet(asyncio.get_running_loop().time())) is not None:
                self.checker.sent("up", packet)
                await socket.send_bytes(packet)

    async def _keep_time(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Send what is due though nothing came: acknowledgements above all."""
        loop = asyncio.get_running_loop()
        while True:
            deadline = self.end.next_deadline()
            await asyncio.sleep(0.05 if deadline is None else max(0.01, min(0.05, deadline - loop.time())))
            await self.pump(socket)

    async def _carry(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            self.checker.sent("down", message.data)
            for event in self.end.receive(message.data, asyncio.get_running_loop().time()):
                self._take(event)
            await self.pump(socket)
        self.closed.set()

    def _take(self, event: ClientEvent) -> None:
        match event:
            case Welcomed():
                self.welcomed.set()
            case GoneAway():
                self.gone_away.set()
            case LinkFailed():
                raise AssertionError(event.reason)
            case ReplyStarted() | ReplyData() | ReplyEnded():
                self._take_reply(event)
            case ExchangeReset() | OutcomeUnknown():
                answer = self.answers[event.exchange]
                answer.reset = event
                answer.ended.set()
            case BaseMissed():
                self.answers[event.exchange].misses += 1
                self.end.upload_again(event.exchange, self.whole_documents[event.exchange])
            case UploadTaken():
                self.answers[event.exchange].taken += 1
            case _:
                pass

    def _take_reply(self, event: ReplyStarted | ReplyData | ReplyEnded) -> None:
        answer = self.answers[event.exchange]
        match event:
            case ReplyStarted():
                answer.head = event.head
                answer.prefix = event.prefix
                if event.prefix:
                    answer.decoder = StreamDecoder(prefix=event.prefix)
                answer.started.set()
            case ReplyEnded():
                self.end.keep_reply(event.exchange, answer.body[:REPLY_BASE_BYTES])
                answer.ended.set()
            case ReplyData():
                answer.take(event.data)
                if self.consuming:
                    self.end.consume(event.exchange, len(event.data))

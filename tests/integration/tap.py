"""A tap: a TCP forwarder in front of the gateway for clients that are not ours. It keeps the bytes of each connection
as they passed, and at the end reads them again as HTTP and WebSocket and puts all of it before the checker. It changes
and delays nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar
from urllib.parse import urlsplit

import h11
from websockets.frames import CTRL_OPCODES, Frame, Opcode
from websockets.streams import StreamReader

from tests.checker import Json, SocketChecker, check_error, check_response, check_sse, parse_json

T = TypeVar("T")


class Link:
    """What one connection sent and received."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.received = bytearray()


class Tap:
    """The way to the gateway, and what went over it. What clients received is only looked at by `judge`."""

    def __init__(self, target: str) -> None:
        self.url = ""
        self.port = 0
        #: What `judge` found: how many turns over a WebSocket, SSE bodies and JSON bodies were good.
        self.turns = 0
        self.streams = 0
        self.bodies = 0
        #: What the clients asked for: bodies and messages, in the order of connections.
        self.asked: list[Json] = []
        self._target = urlsplit(target)
        self._links: list[Link] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = Link()
        self._links.append(link)
        far_reader, far_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far_writer, link.sent))
                group.create_task(_pump(far_reader, writer, link.received))
        finally:
            for end in (writer, far_writer):
                end.close()
                with suppress(ConnectionError):
                    await end.wait_closed()

    async def close(self) -> None:
        """End what is still open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def judge(self) -> None:
        """Put everything that clients received before the checker."""
        for link in self._links:
            self._judge_link(link)
        self._links.clear()

    def _judge_link(self, link: Link) -> None:
        """Replay both directions through h11, each side's events being what the other side gets."""
        client, server = h11.Connection(h11.CLIENT), h11.Connection(h11.SERVER)
        server.receive_data(bytes(link.sent))
        client.receive_data(bytes(link.received))
        while server.trailing_data[0]:
            request, asked = _message(server, client)
            response, body = _message(client, server)
            assert isinstance(request, h11.Request)
            if client.our_state is h11.SWITCHED_PROTOCOL:
                self._judge_socket(client.trailing_data[0], server.trailing_data[0])
                return
            if asked:
                self.asked.append(parse_json(asked.decode()))
            assert isinstance(response, h11.Response)
            self._judge_body(response, body)
            client.start_next_cycle()
            server.start_next_cycle()

    def _judge_body(self, response: h11.Response, body: bytes) -> None:
        if dict(response.headers)[b"content-type"] == b"text/event-stream":
            check_sse(body)
            self.streams += 1
            return
        reply = parse_json(body.decode())
        if response.status_code >= 400:
            check_error(reply)
        elif reply.get("object") == "response" and "deleted" not in reply:
            check_response(reply)
        self.bodies += 1

    def _judge_socket(self, received: bytes, sent: bytes) -> None:
        checker = SocketChecker()
        for text in _texts(received, masked=False):
            checker.feed(parse_json(text))
        checker.finish()
        self.turns += len(checker.turns)
        self.asked += [parse_json(text) for text in _texts(sent, masked=True)]


@asynccontextmanager
async def tapping(url: str) -> AsyncIterator[Tap]:
    """Forward to `url` around a block, and judge at its end what passed."""
    tap = Tap(url)
    server = await asyncio.start_server(tap.forward, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    tap.url, tap.port = f"http://{host}:{port}", port
    try:
        yield tap
    finally:
        server.close()
        await tap.close()
    tap.judge()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            kept += data
            writer.write(data)
            await writer.drain()
        writer.write_eof()


def _message(side: h11.Connection, other: h11.Connection) -> tuple[h11.Request | h11.Response | None, bytes]:
    """Read one request or response that `side` receives, and tell `other` that it was sent."""
    head: h11.Request | h11.Response | None = None
    body = b""
    while True:
        event = side.next_event()
        assert isinstance(event, h11.Event), f"the connection ends within a message: {event}"
        other.send(event)
        match event:
            case h11.Request() | h11.Response():
                head = event
            case h11.Data():
                body += event.data
            case h11.EndOfMessage():
                return head, body
            case h11.InformationalResponse(status_code=101):
                return None, b""


def _texts(data: bytes, *, masked: bool) -> list[str]:
    """Read the text messages of one direction of a WebSocket; no other kind may be among them."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    texts: list[str] = []
    while not _run(reader.at_eof()):
        frame = _run(Frame.parse(reader.read_exact, mask=masked))
        if frame.opcode in CTRL_OPCODES:
            continue
        assert frame.opcode is Opcode.TEXT, f"a frame of kind {frame.opcode!r}"
        assert frame.fin, "a message in pieces"
        texts.append(bytes(frame.data).decode())
    return texts


def _run(steps: Generator[None, None, T]) -> T:
    """Run a reader that has all its data to its result."""
    try:
        next(steps)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the connection ends within a frame")

"""A tap: a TCP forwarder in front of the gateway for clients that are not ours. It keeps the bytes of each connection
as they passed, and at the end reads them again as HTTP and WebSocket and puts all of it before the checker. It changes
and delays nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

import h11
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import CTRL_OPCODES, Frame, Opcode
from websockets.streams import StreamReader

from segue.testing.protocol_checker import (
    Json,
    SocketChecker,
    check_error,
    check_response,
    check_sse,
    parse_json,
    parse_sse,
)
from tests.integration.clients import Cut

T = TypeVar("T")


class _End(asyncio.Protocol):
    """One of the two sockets of a connection; what it receives goes out at the other one."""

    transport: asyncio.Transport | None = None

    def __init__(self, sockets: set[_End]) -> None:
        self.received = bytearray()
        self.other: _End | None = None
        self.closed = asyncio.get_running_loop().create_future()
        self._sockets = sockets

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._sockets.add(self)
        if self.other is not None and self.other.received:
            transport.write(self.other.received)  # it spoke before this one was open

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class Tap:
    """The way to the gateway, and what went over it. What clients received is only looked at by `judge`."""

    def __init__(self, target: str) -> None:
        self.url = ""
        self.port = 0
        #: What `judge` found: how many turns over a WebSocket, SSE bodies and JSON bodies were good.
        self.turns = 0
        self.streams = 0
        self.bodies = 0
        #: What the clients asked for (bodies and messages), and the finished responses they got, by connection.
        self.asked: list[Json] = []
        self.responses: list[Json] = []
        self._target = urlsplit(target).hostname or "", urlsplit(target).port or 0
        self._links: list[tuple[_End, _End]] = []
        self._sockets: set[_End] = set()
        self._opening: set[asyncio.Task[object]] = set()
        self._begun: dict[str, list[Json]] = {}
        self._resumed: list[tuple[str, int, list[Json]]] = []

    def accept(self) -> _End:
        """Make the two ends of a connection that a client opened."""
        near, far = _End(self._sockets), _End(self._sockets)
        near.other, far.other = far, near
        self._links.append((near, far))
        loop = asyncio.get_running_loop()
        opening = loop.create_task(loop.create_connection(lambda: far, *self._target))
        self._opening.add(opening)
        return near

    async def close(self) -> None:
        """End what is still open."""
        await asyncio.gather(*self._opening)
        for socket in self._sockets:
            assert socket.transport is not None, "it was added when it was open"
            socket.transport.close()
        await asyncio.gather(*(socket.closed for socket in self._sockets))

    def sent(self) -> list[Json]:
        """The JSON bodies that clients sent, whatever API they are of, by connection."""
        return [json.loads(body) for near, _ in self._links for body in _bodies(bytes(near.received))]

    def judge(self) -> None:
        """Put everything that clients received before the checker."""
        for near, far in self._links:
            self._judge_link(bytes(near.received), bytes(far.received))
        self._links.clear()
        for ident, after, frames in self._resumed:
            before = [frame for frame in self._begun[ident] if frame["sequence_number"] <= after]
            self._keep(Cut(before).whole(frames).response)
        self._resumed.clear()

    def _judge_link(self, sent: bytes, received: bytes) -> None:
        """Replay both directions through h11, each side's events being what the other side gets."""
        client, server = h11.Connection(h11.CLIENT), h11.Connection(h11.SERVER)
        server.receive_data(sent)
        client.receive_data(received)
        while server.trailing_data[0]:
            request, asked, _ = _message(server, client)
            response, body, is_whole = _message(client, server)
            assert isinstance(request, h11.Request)
            if client.our_state is h11.SWITCHED_PROTOCOL:
                self._judge_socket(client.trailing_data[0], server.trailing_data[0])
                return
            if asked:
                self.asked.append(parse_json(asked.decode()))
            assert isinstance(response, h11.Response)
            if dict(response.headers)[b"content-type"] == b"text/event-stream":
                self._judge_stream(request.target.decode(), body, is_whole=is_whole)
            else:
                self._judge_body(response, body)
            if not is_whole:
                return
            client.start_next_cycle()
            server.start_next_cycle()

    def _judge_stream(self, target: str, body: bytes, *, is_whole: bool) -> None:
        """Judge a stream; one that the client left as far as it came, and one that was resumed with what was before."""
        self.streams += 1
        parts = urlsplit(target)
        after = parse_qs(parts.query).get("starting_after")
        if after is not None:
            assert is_whole, "a resumed stream is followed to its end"
            frames = [parse_json(text) for _, text in parse_sse(body)]
            self._resumed.append((parts.path.rpartition("/")[2], int(after[0]), frames))
            return
        whole, _, _ = body.rpartition(b"\n\n")
        checker = check_sse(body) if is_whole else Cut([parse_json(block) for block in _data_of(whole)]).checker
        if checker.frames and "response" in checker.frames[0]:
            self._begun[checker.frames[0]["response"]["id"]] = checker.frames
        self._keep(checker.response)

    def _judge_body(self, response: h11.Response, body: bytes) -> None:
        reply = parse_json(body.decode())
        if response.status_code >= 400:
            check_error(reply)
        elif reply.get("object") == "response" and "deleted" not in reply:
            check_response(reply)
            self._keep(reply)
        self.bodies += 1

    def _judge_socket(self, received: bytes, sent: bytes) -> None:
        asked = [parse_json(text) for text in _texts(sent, masked=True)]
        checker = SocketChecker(message["stream_id"] for message in asked if "stream_id" in message)
        for text in _texts(received, masked=False):
            checker.feed(parse_json(text))
        checker.finish()
        for turn in checker.turns:
            self._keep(turn.response)
        self.turns += len(checker.turns)
        self.asked += asked

    def _keep(self, response: Json | None) -> None:
        if response is not None:
            self.responses.append(response)


@asynccontextmanager
async def tapping(url: str, *, judged: bool = True) -> AsyncIterator[Tap]:
    """Forward to `url` around a block, and judge at its end what passed; `judged` is for those who speak our API."""
    tap = Tap(url)
    server = await asyncio.get_running_loop().create_server(tap.accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    tap.url, tap.port = f"http://{host}:{port}", port
    try:
        yield tap
    finally:
        server.close()
        await tap.close()
    if judged:
        tap.judge()


def _data_of(body: bytes) -> list[str]:
    """Return the data of the blocks of a stream that does not end."""
    return [line.removeprefix("data: ") for line in body.decode().split("\n") if line.startswith("data: {")]


def _message(side: h11.Connection, other: h11.Connection) -> tuple[h11.Request | h11.Response | None, bytes, bool]:
    """Read one request or response that `side` receives, and tell `other` that it was sent; a stream may be cut."""
    head: h11.Request | h11.Response | None = None
    body = b""
    while True:
        event = side.next_event()
        if isinstance(head, h11.Response) and event in (h11.NEED_DATA, h11.ConnectionClosed()):
            assert dict(head.headers)[b"content-type"] == b"text/event-stream", "the connection ends within a message"
            return head, body, False
        assert isinstance(event, h11.Event), f"the connection ends within a message: {event}"
        other.send(event)
        match event:
            case h11.Request() | h11.Response():
                head = event
            case h11.Data():
                body += event.data
            case h11.EndOfMessage():
                return head, body, True
            case h11.InformationalResponse(status_code=101):
                return None, b"", True
            case _:
                pass


def _bodies(data: bytes) -> Iterator[bytes]:
    """Read the bodies of the requests on one connection, as a server that has nothing to say."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    while server.trailing_data[0]:
        _, body, _ = _message(server, h11.Connection(h11.CLIENT))
        if body:
            yield body
        server.send(h11.Response(status_code=204, headers=[]))
        server.send(h11.EndOfMessage())
        server.start_next_cycle()


def _texts(data: bytes, *, masked: bool) -> list[str]:
    """Read the text messages of one direction of a WebSocket, compressed or not; no other kind may be among them."""
    deflate = PerMessageDeflate(
        remote_no_context_takeover=False,
        local_no_context_takeover=False,
        remote_max_window_bits=15,
        local_max_window_bits=15,
    )
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    texts: list[str] = []
    while not _run(reader.at_eof()):
        frame = _run(Frame.parse(reader.read_exact, mask=masked, extensions=[deflate]))
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

"""Clients that judge everything they receive, and that can go away without a word."""

from __future__ import annotations

import asyncio
import fcntl
import json
import socket
import struct
import termios
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from segue.testing.protocol_checker import (
    Json,
    SocketChecker,
    StreamChecker,
    check_error,
    check_response,
    check_sse,
    parse_json,
)
from tests.faults.gateways import PATIENCE_S

SMALL_BUFFER_BYTES = 128 * 1024


class Socket:
    """A client in WebSocket mode, with the lanes given. Its frames are checked as they are read."""

    def __init__(self, connection: ClientConnection, lanes: Iterable[str] = ()) -> None:
        self.connection = connection
        self.checker = SocketChecker(lanes)

    async def create(self, text: str | list[Json] = "hello", **fields: object) -> None:
        """Ask for a turn."""
        message = {"type": "response.create", "model": "scripted", "input": text, **fields}
        await self.connection.send(json.dumps(message))

    async def frame(self) -> Json:
        """Return the next frame."""
        async with asyncio.timeout(PATIENCE_S):
            frame = parse_json(await self.connection.recv(decode=True))
        self.checker.feed(frame)
        return frame

    async def until(self, kind: str) -> Json:
        """Read on to the next frame of this type."""
        while True:
            frame = await self.frame()
            if frame["type"] == kind:
                return frame

    async def answer(self) -> StreamChecker:
        """Read on to the end of the turn."""
        ended = len(self.checker.turns)
        while len(self.checker.turns) == ended:
            await self.frame()
        return self.checker.turns[-1]

    async def turn(self, text: str | list[Json] = "hello", **fields: object) -> Json:
        """Run a turn to its end and return the response object."""
        await self.create(text, **fields)
        answer = await self.answer()
        assert answer.response is not None, answer.error
        return answer.response

    async def refusal(self, text: str | list[Json] = "hello", **fields: object) -> Json:
        """Ask for a turn that is refused and return the error object."""
        await self.create(text, **fields)
        answer = await self.answer()
        assert answer.error is not None, answer.response
        return answer.error

    def unread_bytes(self) -> int:
        """Return how much the kernel holds of what the gateway has sent."""
        return unread_bytes(self.connection.transport)

    async def close_code(self, *, after_frames: bool = False) -> int:
        """Wait for the end of the connection and return its close code; 1006 is an end without a word.

        Frames before it are read, and checked, if they are expected.
        """
        try:
            while True:
                frame = await self.frame()
                assert after_frames, f"a frame instead of the end: {frame}"
        except ConnectionClosed as closed:
            return 1006 if closed.rcvd is None else int(closed.rcvd.code)


@asynccontextmanager
async def opened(
    url: str, *, key: str | None = None, through: socket.socket | None = None, lanes: Iterable[str] = ()
) -> AsyncIterator[Socket]:
    """Connect in WebSocket mode. What is not read stays in the kernel's buffers, but for a few frames."""
    address = url.replace("http", "ws", 1) + "/v1/responses"
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with connect(
        address,
        additional_headers=headers,
        compression=None,
        max_queue=2,
        max_size=None,
        ping_interval=None,
        proxy=None,
        sock=through,
    ) as connection:
        yield Socket(connection, lanes)


class Http:
    """A client over HTTP. Every answer is checked."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def send(
        self, method: str, path: str, body: Json | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Json]:
        """Send a request and return the status and the JSON of the answer."""
        async with self.session.request(method, path, json=body, headers=headers) as reply:
            answer = parse_json(await reply.text())
            if reply.status >= 400:
                check_error(answer)
            return reply.status, answer

    async def turn(self, text: str | list[Json] = "hello", **fields: object) -> Json:
        """Run a turn and return the response object."""
        status, body = await self.send("POST", "/v1/responses", {"model": "scripted", "input": text, **fields})
        assert status == 200, body
        check_response(body)
        return body

    async def refusal(self, text: str | list[Json] = "hello", **fields: object) -> tuple[int, str]:
        """Ask for a turn that is refused and return the status and the error's code."""
        status, body = await self.send("POST", "/v1/responses", {"model": "scripted", "input": text, **fields})
        assert status >= 400, body
        return status, body["error"]["code"]

    async def stream(self, text: str | list[Json] = "hello", **fields: object) -> StreamChecker:
        """Run a streamed turn to its end."""
        body = {"model": "scripted", "input": text, "stream": True, **fields}
        async with self.session.post("/v1/responses", json=body) as reply:
            assert reply.status == 200, await reply.text()
            return check_sse(await reply.read())

    async def status(self, response_id: str, method: str = "GET") -> int:
        """Return the status of a request for a stored response."""
        status, body = await self.send(method, f"/v1/responses/{response_id}")
        if status == 200 and method == "GET":
            check_response(body)
            assert body["id"] == response_id
        return status

    async def history(self, response_id: str) -> list[str]:
        """Return the texts of all items that a stored response saw, oldest first."""
        texts: list[str] = []
        page: Json = {"has_more": True, "last_id": None}
        while page["has_more"]:
            after = "" if page["last_id"] is None else f"&after={page['last_id']}"
            path = f"/v1/responses/{response_id}/input_items?order=asc&limit=100{after}"
            status, page = await self.send("GET", path)
            assert status == 200, page
            texts += [text_of(item) for item in page["data"]]
        return texts


@asynccontextmanager
async def http(url: str, *, key: str | None = None) -> AsyncIterator[Http]:
    """Open a client over HTTP."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(url, headers=headers, timeout=timeout) as session:
        yield Http(session)


def text_of(item: Json) -> str:
    """Return what an item says."""
    if item["type"] == "message":
        return "".join(part["text"] for part in item["content"])
    return str(item["arguments"] if item["type"] == "function_call" else item["output"])


def output_text(response: Json) -> str:
    """Return what a response says."""
    return "".join(text_of(item) for item in response["output"])


async def begin_post(
    url: str, text: str = "hello", *, through: socket.socket | None = None, **fields: object
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a turn over a bare HTTP connection, for clients that do not stay for the answer."""
    body = json.dumps({"model": "scripted", "input": text, **fields}).encode()
    made = through or socket.create_connection(address_of(url))
    reader, writer = await asyncio.open_connection(sock=made)
    head = f"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
    return reader, writer


async def read_body(reader: asyncio.StreamReader) -> bytes:
    """Read the body of an answer over a bare HTTP connection; raises if it is cut off (RFC 9112, 6 and 7.1)."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    _, _, length = head.partition("content-length: ")
    if length:
        return await reader.readexactly(int(length.partition("\r\n")[0]))
    chunks: list[bytes] = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    return b"".join(chunks)


def unread_bytes(transport: asyncio.BaseTransport) -> int:
    """Return how much a socket's kernel buffer holds of what its peer has sent."""
    file = transport.get_extra_info("socket").fileno()
    return int(struct.unpack("i", fcntl.ioctl(file, termios.FIONREAD, b"\0" * 4))[0])


def address_of(url: str) -> tuple[str, int]:
    """Return host and port of a URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def reset(transport: asyncio.WriteTransport) -> None:
    """Cut a TCP connection by a reset: what a crashed client's kernel sends."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def narrow(url: str) -> socket.socket:
    """Connect a socket whose kernel buffers hold little, so that not reading is felt at the other end."""
    made = socket.socket()
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        made.setsockopt(socket.SOL_SOCKET, option, SMALL_BUFFER_BYTES)
    made.connect(address_of(url))
    made.setblocking(False)
    return made

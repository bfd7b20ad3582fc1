"""Agents that speak to a listener in raw bytes, so that a test sees and decides every one of them; and what answers."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

from segue.http.heads import Line, ReplyHead
from segue.peer_credentials.lookup import peer_users
from segue.sidecar.agent_access import AgentAccess
from segue.sidecar.agent_request import AgentRequest
from segue.sidecar.listener import Listener, ListenerLimits

Handler = Callable[[AgentRequest], Awaitable[None]]

OK = ReplyHead(200, b"OK", (Line(b"content-TYPE", b"text/plain"),))
GET = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"


def sized(body: bytes) -> ReplyHead:
    return ReplyHead(200, b"OK", (Line(b"Content-Length", b"%d" % len(body)),))


async def echo(request: AgentRequest) -> None:
    body = request.body or b"nothing"
    await request.start(sized(body))
    await request.send(body)
    await request.end()


class RawAgent:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, count: int) -> bytes:
        return await self.reader.readexactly(count)

    async def until(self, end: bytes) -> bytes:
        return await self.reader.readuntil(end)

    async def rest(self) -> bytes:
        return await self.reader.read()

    def hang_up(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        connection: socket.socket = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Listening:
    """A listener while it runs."""

    def __init__(self, listener: Listener, url: str, stack: AsyncExitStack) -> None:
        self.listener = listener
        self.url = url
        self._stack = stack

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    async def connect(self, *, receive_buffer: int | None = None) -> RawAgent:
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
        except OSError:
            connection.close()
            raise
        limit = 2**16 if receive_buffer is None else receive_buffer
        agent = RawAgent(*await asyncio.open_connection(sock=connection, limit=limit))
        self._stack.callback(agent.hang_up)
        return agent

    async def ask(self, data: bytes) -> bytes:
        """Send bytes on a new connection, and return all that comes back until its end."""
        agent = await self.connect()
        await agent.send(data)
        return await agent.rest()


@asynccontextmanager
async def listening(
    handler: Handler,
    *,
    limits: ListenerLimits | None = None,
    hosts: Collection[str] = (),
    origins: Collection[str] = (),
    access: AgentAccess | None = None,
) -> AsyncIterator[Listening]:
    access = AgentAccess("user", None, peer_users()) if access is None else access
    listener = Listener(handler, access=access, hosts=hosts, origins=origins, limits=limits)
    url = await listener.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(listener.aclose)
        yield Listening(listener, url, stack)

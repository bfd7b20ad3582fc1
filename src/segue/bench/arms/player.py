"""Plays a session as its agent would: it sends each request byte for byte, reads the reply, and notes when it came.

It keeps one connection, and reads the replies that a provider, or a proxy in front of one, may send to these requests:
with a length or chunks over HTTP/1.1, as text messages over a WebSocket. It does not recover from anything. It compares
every reply with that of the session and raises an error if they differ, so a measured session is also a correct one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import msgspec
from wsproto.connection import Connection, ConnectionType
from wsproto.events import Message, TextMessage

from segue.bench.arms.baselines import request_head, socket_head
from segue.http.heads import Line
from segue.testing.recorded_session import RecordedSession, RecordedTurn

_END_OF_HEAD = b"\r\n\r\n"


class PlayedTurn(msgspec.Struct, frozen=True):
    """Seconds from the request to the first byte of the reply's body, and to the last; and when it began, by
    `time.perf_counter`.
    """

    ttft_s: float
    time_s: float
    begun_at: float = 0.0


class WrongReplyError(RuntimeError):
    """The reply was not that of the session."""


async def play(
    session: RecordedSession,
    host: str,
    port: int,
    *,
    on_turn: Callable[[int, PlayedTurn], Awaitable[None]] | None = None,
) -> list[PlayedTurn]:
    """Play the session against `host:port`; after each turn, await `on_turn` before the next begins."""
    reader, writer = await asyncio.open_connection(host, port)
    address = f"{host}:{port}".encode()
    played: list[PlayedTurn] = []
    try:
        turns = _socket_turns if session.transport == "websocket" else _http_turns
        async with aclosing(turns(session, address, reader, writer)) as done:
            async for turn in done:
                played.append(turn)
                if on_turn is not None:
                    await on_turn(len(played) - 1, turn)
    finally:
        writer.close()
        await writer.wait_closed()
    return played


async def _http_turns(
    session: RecordedSession, host: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> AsyncGenerator[PlayedTurn, None]:
    for turn in session.turns:
        begun_at = time.perf_counter()
        length = Line(b"Content-Length", b"%d" % len(turn.body))
        writer.write(request_head(turn.head, host, (length,)) + turn.body)
        body, first_at = await _read_reply(reader)
        expected = b"".join(turn.reply.events) if session.streamed else turn.reply.whole
        if body != expected:
            raise WrongReplyError(f"{len(body)} bytes came that are not the {len(expected)} expected: {body[:200]!r}")
        yield PlayedTurn(first_at - begun_at, time.perf_counter() - begun_at, begun_at)


async def _read_reply(reader: asyncio.StreamReader) -> tuple[bytes, float]:
    """Read one reply; return its body and when its first byte came."""
    head = await reader.readuntil(_END_OF_HEAD)
    if not head.startswith(b"HTTP/1.1 200 "):
        raise WrongReplyError(f"{head.decode(errors='replace')}{(await reader.read(1000)).decode(errors='replace')}")
    lowered = head.lower()
    if b"transfer-encoding: chunked" not in lowered:
        size = int(lowered.partition(b"content-length:")[2].partition(b"\r\n")[0])
        first = await reader.readexactly(min(size, 1))
        first_at = time.perf_counter()
        return first + await reader.readexactly(size - len(first)), first_at
    chunks, first_at = list[bytes](), 0.0
    while size := int(await reader.readuntil(b"\r\n"), 16):
        first_at = first_at or time.perf_counter()
        chunks.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return b"".join(chunks), first_at


async def _socket_turns(
    session: RecordedSession, host: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> AsyncGenerator[PlayedTurn, None]:
    """Upgrade in the first turn, then a message per turn."""
    connection, messages = Connection(ConnectionType.CLIENT), list[bytes]()
    for number, turn in enumerate(session.turns):
        begun_at = time.perf_counter()
        if not number:
            writer.write(socket_head(turn.head, host))
            head = await reader.readuntil(_END_OF_HEAD)
            if not head.startswith(b"HTTP/1.1 101 "):
                raise WrongReplyError(head.decode(errors="replace"))
        writer.write(connection.send(Message(data=turn.body.decode())))
        first_at = await _read_messages(turn, connection, reader, messages)
        if tuple(messages) != turn.reply.messages:
            raise WrongReplyError(f"{len(messages)} messages came that are not those expected: {messages[0][:200]!r}")
        messages.clear()
        yield PlayedTurn(first_at - begun_at, time.perf_counter() - begun_at, begun_at)


async def _read_messages(
    turn: RecordedTurn, connection: Connection, reader: asyncio.StreamReader, messages: list[bytes]
) -> float:
    """Read as many messages as the reply has; return the time at which the first bytes came."""
    parts, first_at = list[str](), 0.0
    while len(messages) < len(turn.reply.messages):
        data = await reader.read(65536)
        if not data:
            raise WrongReplyError("the socket was closed within a reply")
        first_at = first_at or time.perf_counter()
        connection.receive_data(data)
        for event in connection.events():
            if not isinstance(event, TextMessage):
                continue
            parts.append(event.data)
            if event.message_finished:
                messages.append("".join(parts).encode())
                parts.clear()
    return first_at

"""A provider that answers as no provider should. The path of a request says how; `/mixed` asks the body's model.

It writes as fast as it is read, up to a rate. Not here: who asks it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from segue.listening import stop_listening

_PIECE_BYTES = 1 << 16
_PAUSE_S = 0.1  # 0.6 MB/s on each connection: thousands of events

_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def _chunk(text: str) -> bytes:
    chunk = {"id": "1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


_WHOLE = _chunk("hello") + _chunk(" there") + b"data: [DONE]\n\n"

#: how -> what comes first, and what then comes without end
MANNERS: dict[str, tuple[bytes, bytes]] = {
    "interim": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "head": (b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n"),
    "comments": (_STREAM, b": nothing yet\n\n"),
    "events": (_STREAM, _chunk("word")),
    "line": (_STREAM + b"data: {", b'"a": "very long", '),
    "hang": (_STREAM, b""),
    "hole": (b"", b""),
}


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        head = await reader.readuntil(b"\r\n\r\n")
        manner = head.split(b" ", 2)[1].split(b"/")[1].decode()
        if manner == "hole":
            await asyncio.sleep(3600)  # its buffer fills, and then the kernel's
        body = await reader.readexactly(_length(head))
        if manner == "mixed":
            manner = json.loads(body)["model"]
        if manner == "good":
            writer.write(_STREAM + _WHOLE)
            await writer.drain()
        else:
            await _misbehave(writer, *MANNERS[manner])
    writer.close()


async def _misbehave(writer: asyncio.StreamWriter, first: bytes, unit: bytes) -> None:
    writer.write(first)
    piece = unit * (_PIECE_BYTES // len(unit)) if unit else b""
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(_PAUSE_S if piece else 1.0)
        if writer.transport.is_closing():
            return


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length: ")
    return int(rest.partition(b"\r\n")[0]) if found else 0


@asynccontextmanager
async def hostile_provider(told: Callable[[int], None]) -> AsyncIterator[None]:
    """Serve around a block; `told` gets the port."""
    server = await asyncio.start_server(_serve, "127.0.0.1", 0, limit=_PIECE_BYTES)
    told(server.sockets[0].getsockname()[1])
    try:
        yield
    finally:
        await stop_listening(server)

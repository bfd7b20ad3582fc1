"""Requests in raw bytes, for clients that behave and for those that do not. No library checks what they send, and their
own processor time is small: they share two cores with the gateway that they judge. Not here: what is sent, and when.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import msgspec

TEXT, CLOSE = 1, 8
_MASKED, _TWO_BYTES, _EIGHT_BYTES = 0x80, 126, 127
_SLICE_BYTES = 1 << 16
_NO_MASK = b"\0\0\0\0"  # changes nothing, and so costs nothing


class Network:
    """What all connections of a client go through: so many bytes in a second, each in its turn."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0

    async def carry(self, size: int) -> None:
        """Wait until so much has gone through."""
        loop = asyncio.get_running_loop()
        self._free_at = max(self._free_at, loop.time()) + size / self._bytes_per_s
        await asyncio.sleep(self._free_at - loop.time())


class Target(msgspec.Struct, frozen=True):
    """A gateway, and the key of one of its tenants; with a `pace` of 0.5 attacks repeat half as often."""

    url: str
    key: str
    pace: float = 1.0
    network: Network | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def head(self, method: str, path: str, *lines: str) -> bytes:
        """Return the head of a request."""
        common = ("Host: localhost", f"Authorization: Bearer {self.key}")
        return "\r\n".join((f"{method} {path} HTTP/1.1", *common, *lines, "", "")).encode()

    def post(self, body: bytes, path: str = "/v1/responses", *lines: str) -> bytes:
        """Return a whole request."""
        return self.head("POST", path, f"Content-Length: {len(body)}", *lines) + body

    def upgrade(self, path: str = "/v1/responses", *lines: str) -> bytes:
        """Return a request for a WebSocket."""
        asked = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
        return self.head("GET", path, *asked, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", *lines)


class Wire:
    """One connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, network: Network | None = None
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._network = network

    async def send(self, data: bytes) -> None:
        """Send bytes as fast as they are taken, and carried."""
        if self._network is None:
            self.writer.write(data)
            await self.writer.drain()
            return
        for at in range(0, len(data), _SLICE_BYTES):
            part = data[at : at + _SLICE_BYTES]
            await self._network.carry(len(part))
            self.writer.write(part)
            await self.writer.drain()

    async def reply_head(self) -> tuple[int, str]:
        """Return the status and the head of a reply."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        return int(head.split(" ", 2)[1]), head.lower()

    async def reply(self) -> tuple[int, bytes]:
        """Return the status and the body of a reply."""
        status, head = await self.reply_head()
        _, _, length = head.partition("content-length: ")
        if length:
            return status, await self.reader.readexactly(int(length.partition("\r\n")[0]))
        chunks: list[bytes] = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            chunks.append(await self.reader.readexactly(size + 2))
        await self.reader.readexactly(2)
        return status, b"".join(chunks)

    async def message(self) -> bytes:
        """Return the next message of a server's WebSocket; whatever is none ends the connection."""
        first, second = await self.reader.readexactly(2)
        size = second
        if size >= _TWO_BYTES:
            size = int.from_bytes(await self.reader.readexactly(2 if size == _TWO_BYTES else 8), "big")
        data = await self.reader.readexactly(size)
        if first & 0x0F != TEXT:
            raise ConnectionError(f"a frame that says {first}: {data[:100]!r}")
        return data

    def reset(self) -> None:
        """Go without a word."""
        self.writer.transport.abort()


def frame(data: bytes, *, opcode: int = TEXT, masked: bool = True) -> bytes:
    """Return a frame of a client's WebSocket."""
    size, bit = len(data), _MASKED if masked else 0
    if size < _TWO_BYTES:
        head = bytes([0x80 | opcode, bit | size])
    elif size < 1 << 16:
        head = bytes([0x80 | opcode, bit | _TWO_BYTES]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, bit | _EIGHT_BYTES]) + size.to_bytes(8, "big")
    return head + (_NO_MASK if masked else b"") + data


def create(**fields: object) -> bytes:
    """Return a small create of both transports."""
    return json.dumps({"type": "response.create", "model": "scripted", "input": "hi", **fields}).encode()


@asynccontextmanager
async def connected(target: Target, first: bytes = b"", *, buffer_bytes: int = 1 << 16) -> AsyncIterator[Wire]:
    """Be connected around a block; the connection is cut at its end. `buffer_bytes` may wait here to be read."""
    reader, writer = await asyncio.open_connection(*target.address, limit=buffer_bytes)
    wire = Wire(reader, writer, target.network)
    try:
        await wire.send(first)
        yield wire
    finally:
        wire.reset()
        with suppress(OSError):
            await writer.wait_closed()

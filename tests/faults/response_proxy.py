"""A proxy that knows just enough of the Responses API to fail at the right byte, in front of any server.

It forwards TCP as it is. It looks for creates on the way up, and for events on the way down, which must not be
compressed. A fault is met once: `plan` sets the next. Not here: slow links (`segue.testing.link`).
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import msgspec

_RESET = struct.pack("ii", 1, 0)
_NAMED = b'"type":"response.completed"'
#: Events are objects, or short arrays: `docs/spec/compact-events.md`. Those leave in one write, and so come whole.
_ARRAY = rb'\[(?:"[\w.-]+",)?\d+,'
_EVENT = re.compile(rb'"type":"response\.|' + _ARRAY + rb'(?:"|0,"|1,\d,\d+,(?:\d+|null),"|2,\d+,\{|3,\d+,[\[n])')
_TERMINAL = re.compile(_NAMED + rb"|" + _ARRAY + rb"3,\d+,[\[n]")
_TEXT = 1
_PAGE = b"<!doctype html><title>Please sign in</title>"
_PAGE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(_PAGE)
_READ = 64 * 1024


class ProxyFault(msgspec.Struct, frozen=True, kw_only=True):
    """Where all connections are reset: when the next create comes, before the event with this number, or inside the
    terminal event. `then` is done at that moment."""

    at: Literal["create", "event", "terminal"]
    events: int = 0
    then: Callable[[], None] | None = None


class ResponseProxy:
    """The running proxy; `target` can be changed between connections."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.port = 0
        self.serves_page = False
        """Answer upgrades with a web page."""
        self._fault: ProxyFault | None = None
        self._events = 0
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def base_url(self) -> str:
        """The address for clients of the API."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def waits(self) -> bool:
        """Whether a fault has not been met yet."""
        return self._fault is not None

    def plan(self, fault: ProxyFault) -> None:
        """Set the next fault."""
        self._fault = fault
        self._events = 0

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self._fault, self.serves_page = None, False

    def cut(self) -> None:
        """Reset all connections now."""
        for writer in tuple(self._writers):
            transport = writer.transport
            if not transport.is_closing():
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        try:
            first = await reader.read(_READ)
            upgrades = b"upgrade: websocket" in first.lower()
            if upgrades and self.serves_page:
                writer.write(_PAGE_HEAD + _PAGE)
                return
            onward = await asyncio.open_connection(*self.target)
            self._writers |= {writer, onward[1]}
            try:
                up = self._up(first, reader, onward[1], upgrades=upgrades)
                await asyncio.gather(up, self._down(onward[0], writer))
            finally:
                self._writers -= {writer, onward[1]}
                onward[1].close()
        except ConnectionError:
            pass  # reset by either end, or by a fault
        finally:
            writer.close()

    async def _up(
        self, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upgrades: bool
    ) -> None:
        begun = upgrades
        while data:
            is_create = data[0] & 0x0F == _TEXT if upgrades and not begun else data.startswith(b"POST ")
            if is_create and self._fault is not None and self._fault.at == "create":
                self._fire(self._fault)
            begun = False
            writer.write(data)
            data = await reader.read(_READ)
        writer.close()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held = b""
        while data := await reader.read(_READ):
            data, held = _split(held + data)
            if self._fault is not None and (end := self._end(data, self._fault)) is not None:
                writer.write(data[:end])
                await _sent(writer)
                self._fire(self._fault)
            writer.write(data)
        writer.write(held)
        writer.close()

    def _end(self, data: bytes, fault: ProxyFault) -> int | None:
        """Return where in this data the connection is to be reset, if it is."""
        if fault.at == "terminal":
            found = _TERMINAL.search(data)
            return None if found is None else found.end()
        if fault.at == "event":
            for event in _EVENT.finditer(data):
                if self._events == fault.events:
                    return event.start()
                self._events += 1
        return None

    def _fire(self, fault: ProxyFault) -> None:
        self._fault = None
        self.cut()
        if fault.then is not None:
            fault.then()
        raise ConnectionResetError


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Hold back an end that may be the beginning of a mark."""
    for size in range(min(len(_NAMED) - 1, len(data)), 0, -1):
        if data.endswith(_NAMED[:size]):
            return data[:-size], data[-size:]
    return data, b""


async def _sent(writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    while transport.get_write_buffer_size() and not transport.is_closing():  # noqa: ASYNC110 - a buffer tells nobody
        await asyncio.sleep(0)


@asynccontextmanager
async def proxied(host: str, port: int) -> AsyncIterator[ResponseProxy]:
    """Run a proxy in front of a server around a block."""
    proxy = ResponseProxy((host, port))
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(proxy.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

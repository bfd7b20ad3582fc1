"""The meter counts what TCP carries, exactly, and forwards it unchanged."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from segue.bench.meters import tcp
from segue.bench.meters.tcp import WireBytes, metered
from segue.peer_credentials.lookup import PeerUsers

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def doubling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each byte with two; end when the client has ended."""
    while data := await reader.read(65536):
        writer.write(data * 2)
        await writer.drain()


async def ends(reader: asyncio.StreamReader) -> bool:
    """Tell whether the connection ends, cleanly or not, without another byte."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


async def test_counts_each_way_and_per_turn() -> None:
    async with listening(doubling) as port, metered("127.0.0.1", port) as meter:
        reader, writer = await asyncio.open_connection(meter.url_host, meter.port)
        for size in (1, 1000, 100_000):
            writer.write(b"x" * size)
            assert await reader.readexactly(2 * size) == b"x" * (2 * size)
            assert meter.take() == WireBytes(size, 2 * size)
        assert meter.take() == WireBytes(0, 0)
        assert (meter.up_bytes, meter.down_bytes) == (101_001, 202_002)
        writer.close()
        await writer.wait_closed()


async def test_counts_per_connection() -> None:
    async with listening(doubling) as port, metered("127.0.0.1", port) as meter:
        for size in (10, 20):
            reader, writer = await asyncio.open_connection(meter.url_host, meter.port)
            writer.write(b"x" * size)
            await reader.readexactly(2 * size)
            writer.close()
            await writer.wait_closed()
        assert [(one.up_bytes, one.down_bytes) for one in meter.connections] == [(10, 20), (20, 40)]


async def test_passes_a_half_close_on() -> None:
    async with listening(doubling) as port, metered("127.0.0.1", port) as meter:
        reader, writer = await asyncio.open_connection(meter.url_host, meter.port)
        writer.write(b"last words")
        writer.write_eof()
        assert await reader.read() == b"last words" * 2
        writer.close()
        await writer.wait_closed()


async def test_a_reader_that_stalls_stalls_the_sender() -> None:
    stalled = asyncio.Event()

    async def unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stalled.wait()
        while await reader.read(65536):
            pass
        writer.write(b"all")

    offered = 64 * 1024 * 1024
    async with listening(unread) as port, metered("127.0.0.1", port) as meter:
        reader, writer = await asyncio.open_connection(meter.url_host, meter.port)
        writer.write(b"x" * offered)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.2)
        assert meter.up_bytes < offered
        stalled.set()
        await writer.drain()
        writer.write_eof()
        assert await reader.read() == b"all"
        assert meter.up_bytes == offered
        writer.close()
        await writer.wait_closed()


async def test_no_server_ends_the_connection() -> None:
    async with listening(doubling) as port:
        pass
    async with metered("127.0.0.1", port) as meter:
        reader, writer = await asyncio.open_connection(meter.url_host, meter.port)
        assert await ends(reader)
        writer.close()


async def test_ends_what_is_open_at_its_end() -> None:
    async with listening(doubling) as port:
        async with metered("127.0.0.1", port) as meter:
            reader, writer = await asyncio.open_connection(meter.url_host, meter.port)
            writer.write(b"x")
            await reader.readexactly(2)
        assert await ends(reader)
        writer.close()


def test_forwards_on_uvloop_too() -> None:
    """uvloop reads from a socket once, even if it was paused at once."""
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_counts_each_way_and_per_turn())
        runner.run(test_passes_a_half_close_on())
        runner.run(test_a_reader_that_stalls_stalls_the_sender())


class Noted:
    """An observer that keeps what it sees."""

    def __init__(self, seen: list[bytes]) -> None:
        self.seen = seen

    def see_up(self, data: bytes, _: float) -> None:
        self.seen.append(b"up " + data)

    def see_down(self, data: bytes, _: float) -> None:
        self.seen.append(b"down " + data)

    def see_end(self, _: float) -> None:
        self.seen.append(b"end")


async def test_an_observer_reads_along() -> None:
    seen: list[bytes] = []
    async with listening(doubling) as port, metered("127.0.0.1", port) as meter:
        meter.observe = lambda: Noted(seen)
        reader, writer = await asyncio.open_connection(meter.url_host, meter.port)
        writer.write(b"ab")
        assert await reader.readexactly(4) == b"abab"
        writer.close()
        await writer.wait_closed()
    assert seen == [b"up ab", b"down abab", b"end"]


async def test_connections_of_other_users_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server behind would take them for the meter's own."""
    answers = iter([os.geteuid(), os.geteuid() + 1])
    users = PeerUsers((lambda _: next(answers, os.geteuid()),))
    monkeypatch.setattr(tcp, "peer_users", lambda: users)
    async with listening(doubling) as port, metered("127.0.0.1", port) as meter:
        reader, writer = await asyncio.open_connection(meter.url_host, meter.port)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_connection(meter.url_host, meter.port)
        writer.write(b"a")
        assert await reader.readexactly(2) == b"aa"
        writer.close()
        assert (len(meter.connections), meter.up_bytes) == (1, 1)

"""A wire carries what is sent as it is, counts what its sockets carry, and tells setting up apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from segue.bench.arms.coded_wire import CodedWire, coded_wire, connected, end_open, listening, write_open
from segue.bench.arms.tls_coding import TlsContexts, tls_contexts
from segue.bench.meters.tcp import WireBytes
from segue.testing.link import LinkProfile

UPGRADE = b"GET /v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer an upgrade with its acceptance, and everything else with itself."""
    while data := await reader.read(65536):
        writer.write(SWITCHED if data == UPGRADE else data)
    writer.write(b"bye")


@pytest.fixture(scope="module")
def contexts() -> TlsContexts:
    return tls_contexts()


@asynccontextmanager
async def echoing(tls: TlsContexts | None, profile: LinkProfile | None = None) -> AsyncIterator[CodedWire]:
    async with listening(echo) as (host, port), coded_wire(host, port, tls=tls, profile=profile) as wire:
        yield wire


async def said(wire: CodedWire, *messages: bytes) -> bytes:
    """Say one message after the other, each when the one before it has come back; return all that came."""
    async with connected((wire.host, wire.port)) as (reader, writer):
        came = b""
        for message in messages:
            writer.write(message)
            expected = len(SWITCHED) if message == UPGRADE else len(message)
            came += await reader.readexactly(expected)
        writer.write_eof()
        return came + await reader.read()


@pytest.mark.parametrize("coded", [False, True])
async def test_carries_both_ways_to_the_end(contexts: TlsContexts, *, coded: bool) -> None:
    large = bytes(range(256)) * 4000
    async with echoing(contexts if coded else None) as wire:
        assert await said(wire, b"one", large) == b"one" + large + b"bye"
        assert wire.url == f"http://{wire.host}:{wire.port}"
        carried = wire.carried.take()
        assert wire.carried.take() == WireBytes(0, 0)
        if not coded:
            assert carried == WireBytes(3 + len(large), 3 + len(large) + 3)
            assert wire.carried.set_ups[0].up_bytes == 0
            return
        assert 3 + len(large) < carried.up_bytes < 1.02 * len(large)
        assert wire.carried.total_bytes == carried.up_bytes + carried.down_bytes
        (set_up,) = wire.carried.set_ups
        assert 200 < set_up.up_bytes < 700 < set_up.down_bytes + 300 < 2000
        assert set_up.time_s > 0


async def test_an_upgrade_belongs_to_setting_up(contexts: TlsContexts) -> None:
    async with echoing(None) as wire:
        await said(wire, UPGRADE, b"hello")
        (set_up,) = wire.carried.set_ups
        assert (set_up.up_bytes, set_up.down_bytes) == (len(UPGRADE), len(SWITCHED))
        assert wire.carried.take() == WireBytes(5, 8)
    async with echoing(contexts) as wire:
        await said(wire, UPGRADE, b"hello")
        (set_up,) = wire.carried.set_ups
        assert set_up.up_bytes > len(UPGRADE) + 200
        assert wire.carried.take().up_bytes < 100


async def test_setting_up_over_a_link_takes_a_round_trip_for_each_of_tcp_tls_and_the_upgrade(
    contexts: TlsContexts,
) -> None:
    profile = LinkProfile(rtt_s=0.02, setup_rtts=1.0)
    async with echoing(contexts, profile) as wire:
        await said(wire, b"hello")
        await said(wire, UPGRADE)
        plain, upgraded = wire.carried.set_ups
        assert plain.time_s > 0.04
        assert upgraded.time_s > 0.06


def test_nothing_is_written_to_a_connection_that_is_closed() -> None:
    """On uvloop, which commands run on: there, writing would be a RuntimeError."""
    uvloop = pytest.importorskip("uvloop")

    async def write() -> None:
        async with listening(echo) as (host, port):
            _, writer = await asyncio.open_connection(host, port)
            write_open(writer, b"x")
            writer.transport.abort()
            with pytest.raises(ConnectionResetError, match="closed"):
                write_open(writer, b"y")
            with pytest.raises(ConnectionResetError, match="closed"):
                end_open(writer)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(write())


async def test_a_server_that_is_not_there_ends_the_connection(contexts: TlsContexts) -> None:
    async with listening(echo) as (host, port):
        pass
    for tls in (None, contexts):
        async with coded_wire(host, port, tls=tls) as wire:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await said(wire, b"one")


async def test_a_break_on_one_side_is_passed_on(contexts: TlsContexts) -> None:
    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with listening(breaks) as (host, port), coded_wire(host, port, tls=contexts) as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(b"one")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


async def test_what_is_open_at_the_end_is_reset(contexts: TlsContexts) -> None:
    async with echoing(contexts) as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()

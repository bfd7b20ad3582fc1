"""The link on real sockets: exact cuts, silence, refusals and limits, on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from segue.cli.loop import run
from segue.testing.link import PLAIN, EmulatedLink, LinkProfile, Outage, linked

THIN = LinkProfile(rtt_s=0.02, up_bytes_s=2e6, down_bytes_s=2e6, slow_start=True)


class Peer:
    """What one connection brought to the server; it says "!" at once and sends back what it gets, if it echoes."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.reset = False
        self.over = asyncio.Event()


class Server:
    def __init__(self, *, echoes: bool = True, hello: bytes = b"") -> None:
        self.peers: list[Peer] = []
        self.port = 0
        self.echoes = echoes
        self.hello = hello

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer()
        self.peers.append(peer)
        try:
            writer.write(self.hello)
            while data := await reader.read(65536):
                peer.got += data
                if self.echoes:
                    writer.write(data)
                    await writer.drain()
        except ConnectionError:
            peer.reset = True
        finally:
            peer.over.set()
            writer.close()


@asynccontextmanager
async def linked_server(
    profile: LinkProfile = PLAIN, *, echoes: bool = True, hello: bytes = b""
) -> AsyncIterator[tuple[EmulatedLink, Server]]:
    ours = Server(echoes=echoes, hello=hello)
    server = await asyncio.start_server(ours.handle, "127.0.0.1", 0)
    ours.port = server.sockets[0].getsockname()[1]
    try:
        async with linked("127.0.0.1", ours.port, profile) as link:
            yield link, ours
    finally:
        server.close()
        await server.wait_closed()


async def read_until_reset(reader: asyncio.StreamReader) -> bytes:
    got = bytearray()
    try:
        while data := await reader.read(65536):
            got += data
    except ConnectionError:
        return bytes(got)
    raise AssertionError("it ended in order")


Case = Callable[[], Awaitable[None]]


def on_both_loops(case: Case) -> Callable[[str], None]:
    """Make a test of a coroutine function: once on asyncio's loop, once on uvloop, which differs in small things."""

    async def bounded() -> None:
        await asyncio.wait_for(case(), 60)

    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    def test(loop: str) -> None:
        if loop == "uvloop":
            pytest.importorskip("uvloop")
            run(bounded())
        else:
            asyncio.run(bounded())

    return test


@on_both_loops
async def test_forwards_and_counts() -> None:
    async with linked_server() as (link, server):
        reader, writer = await asyncio.open_connection(link.host, link.port)
        sent = bytes(range(256)) * 4096
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        writer.write_eof()
        assert await reader.read() == b""
        await server.peers[0].over.wait()
        assert not server.peers[0].reset
        (connection,) = link.connections
        assert (connection.up_bytes, connection.down_bytes) == (len(sent), len(sent))
        assert (link.up_bytes, link.sent_up_bytes, link.down_bytes, link.sent_down_bytes) == (len(sent),) * 4
        writer.close()
        await writer.wait_closed()


@on_both_loops
async def test_a_paced_link_forwards_the_same_bytes() -> None:
    async with linked_server(THIN) as (link, _):
        reader, writer = await asyncio.open_connection(link.host, link.port)
        sent = bytes(range(251)) * 800
        writer.write(sent)
        began = asyncio.get_running_loop().time()
        assert await reader.readexactly(len(sent)) == sent
        assert asyncio.get_running_loop().time() - began > len(sent) / 2e6
        writer.close()


@on_both_loops
async def test_cuts_after_exactly_so_many_bytes_up() -> None:
    for size in (1, 1000, 70_000, 300_000):
        async with linked_server(echoes=False) as (link, server):
            reader, writer = await asyncio.open_connection(link.host, link.port)
            cut = link.cut_after(up_bytes=size)
            writer.write(b"x" * 300_000)
            assert await read_until_reset(reader) == b""
            await asyncio.gather(cut.wait(), server.peers[0].over.wait())
            assert (len(server.peers[0].got), server.peers[0].reset) == (size, True)
            assert link.up_bytes == size
            writer.close()


@on_both_loops
async def test_cuts_after_exactly_so_many_bytes_down() -> None:
    for size in (0, 1, 4096, 150_000):
        async with linked_server(hello=b"y" * 200_000) as (link, _):
            cut = link.cut_after(down_bytes=size)
            reader, writer = await asyncio.open_connection(link.host, link.port)
            assert len(await read_until_reset(reader)) == size
            await cut.wait()
            assert link.down_bytes == size
            assert link.open_connections == 0
            writer.close()


@on_both_loops
async def test_counts_to_a_cut_from_the_call_on_and_accepts_connections_after_it() -> None:
    async with linked_server() as (link, server):
        for _ in range(3):
            reader, writer = await asyncio.open_connection(link.host, link.port)
            writer.write(b"12345")
            await reader.readexactly(5)
            cut = link.cut_after(up_bytes=2, down_bytes=1000)
            writer.write(b"12345")
            await read_until_reset(reader)
            await cut.wait()
            writer.close()
        assert [bytes(peer.got) for peer in server.peers] == [b"1234512"] * 3
        assert len(link.connections) == 3


@on_both_loops
async def test_a_cut_resets_all_connections_on_both_sides() -> None:
    async with linked_server(hello=b"!") as (link, server):
        streams = [await asyncio.open_connection(link.host, link.port) for _ in range(3)]
        for reader, _ in streams:
            await reader.readexactly(1)
        link.cut()
        for reader, writer in streams:
            assert await read_until_reset(reader) == b""
            writer.close()
        for peer in server.peers:
            await peer.over.wait()
            assert peer.reset


@on_both_loops
async def test_nothing_is_said_in_a_black_hole() -> None:
    async with linked_server() as (link, server):
        reader, writer = await asyncio.open_connection(link.host, link.port)
        leaving = await asyncio.open_connection(link.host, link.port)
        writer.write(b"before")
        await reader.readexactly(6)
        with link.silenced():
            writer.write(b"into the dark")
            leaving[1].close()
            other_reader, other_writer = await asyncio.open_connection(link.host, link.port)
            other_writer.write(b"new")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(1), 0.05)
            assert bytes(server.peers[0].got) == b"before"
            assert len(server.peers) == 2
            assert not server.peers[1].over.is_set()
        assert await reader.readexactly(13) == b"into the dark"
        assert await other_reader.readexactly(3) == b"new"
        await server.peers[1].over.wait()
        writer.close()
        other_writer.close()


@on_both_loops
async def test_refuses_and_accepts_again_on_the_same_port() -> None:
    async with linked_server() as (link, _):
        reader, writer = await asyncio.open_connection(link.host, link.port)
        async with link.refusing():
            for _ in range(3):
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection(link.host, link.port)
            writer.write(b"still here")
            await reader.readexactly(10)
        second = await asyncio.open_connection(link.host, link.port)
        second[1].write(b"again")
        assert await second[0].readexactly(5) == b"again"
        second[1].close()
        writer.close()


@on_both_loops
async def test_corrupts_one_byte() -> None:
    async with linked_server() as (link, server):
        reader, writer = await asyncio.open_connection(link.host, link.port)
        link.corrupt(up_bytes=3)
        link.corrupt(down_bytes=0)
        writer.write(b"abcdef")
        assert await reader.readexactly(6) == bytes([ord("a") ^ 0xFF]) + b"bc" + bytes([ord("d") ^ 0xFF]) + b"ef"
        assert bytes(server.peers[0].got) == b"abc" + bytes([ord("d") ^ 0xFF]) + b"ef"
        writer.write(b"abcdef")
        assert await reader.readexactly(6) == b"abcdef"
        writer.close()


@on_both_loops
async def test_nothing_moves_in_a_scheduled_outage() -> None:
    async with linked_server(LinkProfile(outages=(Outage(0.0, 0.2),))) as (link, _):
        began = asyncio.get_running_loop().time()
        reader, writer = await asyncio.open_connection(link.host, link.port)
        writer.write(b"x")
        await reader.readexactly(1)
        assert asyncio.get_running_loop().time() - began >= 0.15
        writer.close()


@on_both_loops
async def test_a_server_that_refuses_is_a_reset_for_the_client() -> None:
    async with linked_server() as (_, server):
        port = server.port
    async with linked("127.0.0.1", port) as link:
        reader, writer = await asyncio.open_connection(link.host, link.port)
        assert await read_until_reset(reader) == b""
        writer.close()


@on_both_loops
async def test_new_connections_are_diverted_and_open_ones_stay() -> None:
    async with linked_server(hello=b"home") as (link, _), linked_server(hello=b"away") as (_, other):
        reader, writer = await asyncio.open_connection(link.host, link.port)
        assert await reader.readexactly(4) == b"home"
        with link.diverted("127.0.0.1", other.port):
            other_reader, other_writer = await asyncio.open_connection(link.host, link.port)
            assert await other_reader.readexactly(4) == b"away"
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
        last_reader, last_writer = await asyncio.open_connection(link.host, link.port)
        assert await last_reader.readexactly(4) == b"home"
        for one in (writer, other_writer, last_writer):
            one.close()


@on_both_loops
async def test_open_connections_are_stranded_and_new_ones_are_served() -> None:
    async with linked_server(hello=b"home") as (link, _):
        reader, writer = await asyncio.open_connection(link.host, link.port)
        assert await reader.readexactly(4) == b"home"
        with link.stranded():
            writer.write(b"silence")
            other_reader, other_writer = await asyncio.open_connection(link.host, link.port)
            assert await other_reader.readexactly(4) == b"home"
            other_writer.write(b"spoken")
            assert await other_reader.readexactly(6) == b"spoken"
            assert [one.up_bytes for one in link.connections] == [0, 6]
        assert await reader.readexactly(7) == b"silence"
        assert [one.flights for one in link.connections] == [["down", "up", "down"], ["down", "up", "down"]]
        for one in (writer, other_writer):
            one.close()


@on_both_loops
async def test_a_slow_reader_stalls_its_writer() -> None:
    async with linked_server(hello=b"y" * 30_000_000) as (link, _):
        reader, writer = await asyncio.open_connection(link.host, link.port, limit=1024)
        await link.arrived(down_bytes=100_000)
        for _ in range(100):
            await asyncio.sleep(0)
        assert link.sent_down_bytes < 25_000_000
        await reader.readexactly(30_000_000)
        assert link.down_bytes == 30_000_000
        writer.close()


@on_both_loops
async def test_an_end_passes_one_direction_at_a_time() -> None:
    async with linked_server(THIN, echoes=False, hello=b"y" * 50_000) as (link, server):
        reader, writer = await asyncio.open_connection(link.host, link.port)
        writer.write(b"x" * 5000)
        writer.write_eof()
        assert await reader.read() == b"y" * 50_000
        assert len(server.peers[0].got) == 5000
        assert not server.peers[0].reset
        writer.close()


@on_both_loops
async def test_the_end_of_a_client_is_passed_on_as_it_was() -> None:
    async with linked_server(hello=b"!") as (link, server):
        reader, writer = await asyncio.open_connection(link.host, link.port)
        await reader.readexactly(1)
        writer.transport.abort()
        await server.peers[0].over.wait()


@on_both_loops
async def test_waits_for_what_arrives() -> None:
    async with linked_server() as (link, _):
        reader, writer = await asyncio.open_connection(link.host, link.port)
        waiting = asyncio.ensure_future(link.arrived(up_bytes=10, down_bytes=10))
        writer.write(b"x" * 9)
        await reader.readexactly(9)
        assert not waiting.done()
        writer.write(b"x")
        await waiting
        await reader.readexactly(1)
        writer.close()

"""Connections of asyncio behind httpcore's interface: what is read and written, the end, faults and TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpcore
import pytest
import trustme
import uvloop

from segue.egress.asyncio_network import AsyncioNetwork
from segue.egress.network import PushingStream
from tests.loop_clock import LoopClock

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    serving: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await handler(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.ensure_future(handle(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*serving)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[httpcore.AsyncNetworkStream]:
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    stream = await AsyncioNetwork().connect_tcp("127.0.0.1", port, 5.0, None, options)
    try:
        yield stream
    finally:
        await stream.aclose()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)


async def carry() -> None:
    """Have bytes echoed, plain and over TLS."""
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("localhost").configure_cert(theirs)
    for context in (None, theirs):
        async with served(echo, context) as port, connected(port) as tcp:
            stream = tcp if context is None else await tcp.start_tls(ours, "localhost", 5.0)
            await stream.write(b"")
            await stream.write(b"hello", 5.0)
            assert await stream.read(3, 5.0) == b"hel"
            assert stream.get_extra_info("is_readable")
            assert await stream.read(100) == b"lo"
            assert not stream.get_extra_info("is_readable")
            assert (stream.get_extra_info("ssl_object") is not None) == (context is not None)
            assert stream.get_extra_info("server_addr")[1] == port
            assert stream.get_extra_info("client_addr")[1] != port
            assert stream.get_extra_info("anything else") is None
            connection = stream.get_extra_info("socket")
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_bytes_go_both_ways() -> None:
    await carry()


def test_bytes_go_both_ways_on_uvloop_too() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(carry())


async def test_the_end_is_read_behind_all_that_came_and_can_be_told_before() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")

    async with served(hang_up) as port, connected(port) as stream:
        assert [await stream.read(100), await stream.read(100), await stream.read(100)] == [b"bye", b"", b""]
        assert stream.get_extra_info("is_readable")


async def test_a_reset_is_an_error_for_reader_and_writer() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        linger = struct.pack("ii", 1, 0)  # without a time: closing resets
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with served(reset) as port, connected(port) as stream:
        await stream.write(b"x")
        for _ in range(2):
            with pytest.raises(httpcore.ReadError):
                await stream.read(100)
        with pytest.raises(httpcore.WriteError):
            await stream.write(b"x")
        assert stream.get_extra_info("is_readable")


async def test_who_reads_while_it_is_closed_gets_an_error() -> None:
    async with served(echo) as port, connected(port) as stream:
        reading = asyncio.ensure_future(stream.read(100))
        await asyncio.sleep(0)
        await stream.aclose()
        with pytest.raises(httpcore.ReadError):
            await reading


async def test_silence_and_a_peer_that_takes_nothing_time_out() -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()

    gate = asyncio.Event()
    async with served(stall) as port, connected(port) as stream:
        with pytest.raises(httpcore.ReadTimeout):
            await stream.read(100, 0.01)
        with pytest.raises(httpcore.WriteTimeout):
            await stream.write(b"x" * 32 * 1024 * 1024, 0.01)
        gate.set()


async def test_a_writer_goes_on_when_there_is_room_and_a_reader_takes_all_of_it() -> None:
    """More than fits into any buffer on the way, each way: whoever has too much waits."""
    size = 6 * 1024 * 1024

    async with served(echo) as port, connected(port) as stream:
        writing = asyncio.ensure_future(stream.write(b"x" * size))
        got = 0
        while got < size:
            got += len(await stream.read(64 * 1024))
        await writing
        assert got == size


async def test_no_connection_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(httpcore.ConnectError):
        await AsyncioNetwork().connect_tcp("127.0.0.1", port)
    with pytest.raises(httpcore.ConnectTimeout):
        await AsyncioNetwork().connect_tcp("127.0.0.1", port, 0.0)


async def test_a_handshake_that_fails_or_takes_too_long_is_no_connection() -> None:
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(theirs)
    async with served(echo, theirs) as port, connected(port) as stream:
        with pytest.raises(httpcore.ConnectError, match="certificate"):
            await stream.start_tls(ssl.create_default_context(), "localhost", 5.0)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with served(silent) as port, connected(port) as stream:
        with pytest.raises(httpcore.ConnectTimeout):
            await stream.start_tls(ssl.create_default_context(), "localhost", 0.05)


async def test_what_comes_before_a_handshake_is_not_taken_for_what_comes_over_tls() -> None:
    """Anybody on the way could have sent it, as the answer to the first request."""
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("localhost").configure_cert(theirs)

    async def injecting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.start_tls(theirs)

    async with served(injecting) as port, connected(port) as stream:
        assert isinstance(stream, PushingStream)
        await stream.wait(5.0)
        with pytest.raises(httpcore.ConnectError, match="before the TLS handshake"):
            await stream.start_tls(ours, "localhost", 5.0)


async def test_what_comes_is_told_at_once_and_the_reader_woken_only_if_it_is_to_go_on() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, gate in enumerate(gates):
            await gate.wait()
            writer.write(b"%d" % number)

    async with served(speak) as port, connected(port) as stream:
        assert isinstance(stream, PushingStream)
        taken, told = list[bytes | None](), asyncio.Event()

        def arrived() -> bool:
            taken.append(stream.take(100))
            told.set()
            return len(taken) < 3

        stream.call_on_arrival(arrived)
        assert stream.take(100) is None
        waiting = asyncio.ensure_future(stream.wait(60.0))
        for gate in gates:
            assert not waiting.done()
            gate.set()
            await told.wait()
            told.clear()
        await waiting
        stream.call_on_arrival(None)
        assert await stream.read(100) == b""
        await stream.wait()  # the end is there already
        assert taken == [b"0", b"1", b"2"]


async def test_a_stream_that_is_passed_on_without_its_reader_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(5):
            heard.clear()
            writer.write(b"x")
            await heard.wait()
        clock.forward(60.0)
        await silent.wait()

    clock, heard, silent = LoopClock(monkeypatch), asyncio.Event(), asyncio.Event()
    async with served(trickle) as port, connected(port) as stream:
        assert isinstance(stream, PushingStream)
        loop, taken = asyncio.get_running_loop(), list[float]()

        def arrived() -> bool:
            stream.take(100)
            taken.append(loop.time())
            clock.forward(40.0)
            heard.set()
            return True

        stream.call_on_arrival(arrived)
        with pytest.raises(httpcore.ReadTimeout):
            await stream.wait(60.0)
        assert len(taken) == 5
        assert loop.time() >= taken[-1] + 60.0
        silent.set()

"""The measuring client reads turns in frames of every size, and fails on everything else."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from segue.bench.meters.websocket_client import MeasuringSocket, TurnRefusedError, connect
from segue.testing.provider import ACCEPTED, Answer, SocketAnswer, provided

DELTA = b'{"type":"response.output_text.delta","delta":"%b"}'
DONE = b'{"type":"response.output_item.done","item":{"id":"a","text":"bc"},"sequence_number":3}'
COMPLETED = b'{"type":"response.completed","response":{"id":"resp_1"}}'


@asynccontextmanager
async def answered(*messages: bytes, **how: int) -> AsyncIterator[MeasuringSocket]:
    """A connection to a server that answers each message with these."""
    answer = SocketAnswer(messages=messages, close_code=how.get("close_code"), cut_after=how.get("cut_after"))
    async with provided(lambda _: ACCEPTED, lambda _: answer) as provider:
        socket = await connect(provider.host, provider.port)
        yield socket
        socket.close()


@pytest.mark.parametrize("size", [1, 125, 126, 65535, 65536, 300_000])
async def test_reads_and_writes_frames_of_every_length(size: int) -> None:
    create = b"x" * size
    async with provided(
        lambda _: ACCEPTED, lambda message: SocketAnswer(messages=(DELTA % message.data, COMPLETED))
    ) as provider:
        socket = await connect(provider.host, provider.port)
        done = await socket.turn(create)
        assert [message.data for message in provider.messages] == [create]
        socket.close()
    assert done.events == [DELTA % create, COMPLETED]
    assert done.response_id == "resp_1"
    assert done.bytes_up == size + 4 + (2 if size < 126 else 4 if size < 65536 else 10)
    payload = sum(map(len, done.events))
    assert payload + 4 <= done.bytes_down <= payload + 20


async def test_times_are_of_the_first_text_and_of_the_last_event() -> None:
    async with answered(b'{"type":"response.created"}', DELTA % b"123", DONE, COMPLETED) as socket:
        first = await socket.turn(b"{}")
        again = await socket.turn(b"{}")
    assert 0 < first.first_s <= first.time_s
    assert first.events == again.events
    assert first.latencies_ns() == [first.arrived_ns[1] - 123]
    assert first.item_bytes() == len(b'{"id":"a","text":"bc"}')


async def test_a_turn_without_text_has_no_first_time() -> None:
    async with answered(COMPLETED) as socket:
        assert (await socket.turn(b"{}")).first_s == 0


@pytest.mark.parametrize("last", [b'{"error":{"code":"x"}}', b'{"type":"response.failed","response":{}}'])
async def test_an_error_and_a_failed_response_are_refusals(last: bytes) -> None:
    async with answered(last) as socket:
        with pytest.raises(TurnRefusedError) as refused:
            await socket.turn(b"{}")
    assert str(refused.value) == last.decode()


async def test_a_refused_upgrade_is_told_with_its_body() -> None:
    async with provided(lambda _: Answer(status=401, framing="length", pieces=(b"no such key",))) as provider:
        with pytest.raises(TurnRefusedError, match=r"(?s)401.*no such key|401"):
            await connect(provider.host, provider.port)


async def test_whatever_is_no_text_is_a_refusal() -> None:
    async with answered(close_code=1000) as socket:
        with pytest.raises(TurnRefusedError, match="not a text message"):
            await socket.turn(b"{}")


async def test_a_connection_that_ends_ends_the_turn() -> None:
    async with answered(COMPLETED, cut_after=0) as socket:
        with pytest.raises(ConnectionError):
            await socket.turn(b"{}")


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


@asynccontextmanager
async def open_on(wire: Wire) -> AsyncIterator[MeasuringSocket]:
    """A client that has shaken hands; the answer came in two pieces."""
    socket = MeasuringSocket()
    socket.connection_made(wire)
    upgrading = asyncio.ensure_future(socket.upgrade("localhost", 1))
    await asyncio.sleep(0)  # it has begun
    for piece in (b"HTTP/1.1 101 Switching ", b"Protocols\r\nUpgrade: websocket\r\n\r\n"):
        socket.data_received(piece)
    await upgrading
    assert wire.written.startswith(b"GET /v1/responses HTTP/1.1\r\nHost: localhost:1\r\n")
    wire.written.clear()
    yield socket


async def test_frames_may_come_in_any_pieces() -> None:
    long = DELTA % (b"z" * 200)
    data = struct.pack("!BBH", 0x81, 126, len(long)) + long + bytes([0x81, len(COMPLETED)]) + COMPLETED
    async with open_on(Wire()) as socket:
        running = asyncio.ensure_future(socket.turn(b"{}"))
        await asyncio.sleep(0)  # it has begun
        for piece in (data[:1], data[1:5], data[5:100], data[100:-3], data[-3:]):
            assert not running.done()
            socket.data_received(piece)
        assert (await running).events == [long, COMPLETED]


@pytest.mark.parametrize("size", [2, 300, 70_000])
async def test_what_it_sends_is_a_masked_text_that_any_server_reads(size: int) -> None:
    wire, server = Wire(), Connection(ConnectionType.SERVER)
    async with open_on(wire) as socket:
        running = asyncio.ensure_future(socket.turn(b"x" * size))
        await asyncio.sleep(0)  # it has begun
        server.receive_data(bytes(wire.written))
        assert "".join(event.data for event in server.events() if isinstance(event, TextMessage)) == "x" * size
        socket.close()
        socket.connection_lost(None)
        assert wire.aborted
        with pytest.raises(ConnectionResetError):
            await running

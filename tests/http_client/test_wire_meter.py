"""What a connection carries is counted to the byte, over real sockets."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
import pytest
import trustme

from segue.http_client.connector import DesyncSafeConnector
from segue.http_client.wire_meter import NOTHING_CARRIED, WIRE_METER, MeteredTransport, WireCount, WireMeter, meter_of
from segue.testing.provider import ACCEPTED, Answer, SocketAnswer, provided


async def test_a_request_and_its_answer_are_counted_with_their_heads() -> None:
    meter = WireMeter()
    async with (
        provided(lambda _: Answer(pieces=(b"answer",), framing="length")) as provider,
        aiohttp.ClientSession(connector=DesyncSafeConnector(meter)) as session,
    ):
        for _ in range(2):
            async with session.post(provider.url, data=b"x" * 100_000) as response:
                assert await response.read() == b"answer"
        requests = provider.requests
    assert meter.sent_bytes == sum(len(one.raw_head) + len(one.raw_body) for one in requests)
    assert meter.received_bytes == 2 * len(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer")
    assert meter.connections == 1


async def test_a_websocket_is_counted_with_its_frames_and_knows_when_a_byte_last_came() -> None:
    whole = WireMeter()
    async with (
        provided(lambda _: ACCEPTED, lambda _: SocketAnswer(messages=(b"four",))) as provider,
        aiohttp.ClientSession(connector=DesyncSafeConnector(whole)) as session,
        session.ws_connect(provider.url) as socket,
    ):
        meter = socket.get_extra_info(WIRE_METER)
        assert isinstance(meter, WireMeter)
        before = (meter.sent_bytes, meter.received_bytes)
        await socket.send_str("hello")
        await socket.receive()
        assert (meter.sent_bytes - before[0], meter.received_bytes - before[1]) == (2 + 4 + 5, 2 + 4)
        assert meter.received_at <= asyncio.get_running_loop().time()
        assert (whole.sent_bytes, whole.received_bytes) == (meter.sent_bytes, meter.received_bytes)


def test_what_was_carried_is_taken_once() -> None:
    whole = WireMeter()
    one, other = WireMeter(whole), WireMeter(whole)
    one.sent(3)
    one.received(5, 1.0)
    other.sent(7)
    assert one.take() == WireCount(3, 5)
    assert one.take() == NOTHING_CARRIED
    one.sent(1)
    assert one.take().plus(other.take()) == WireCount(8, 0)
    assert whole.take() == WireCount(11, 5)


async def test_connections_with_tls_are_counted_within_it() -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    meter = WireMeter()
    async with (
        provided(lambda _: Answer(framing="length"), ssl=server) as provider,
        aiohttp.ClientSession(connector=DesyncSafeConnector(meter)) as session,
        session.get(provider.url.replace("http", "https"), ssl=client),
    ):
        assert meter.sent_bytes == len(provider.requests[0].raw_head)
        assert meter.received_bytes == len(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def test_a_metered_transport_passes_everything_on() -> None:
    """aiohttp asks for some of this only in rare cases."""
    async with provided(lambda _: Answer()) as provider:
        loop, meter = asyncio.get_running_loop(), WireMeter()
        address = (provider.host, provider.port)
        inner, protocol = await loop.create_connection(asyncio.Protocol, *address)
        metered = MeteredTransport(inner, meter)
        assert metered.can_write_eof() is inner.can_write_eof()
        assert metered.get_protocol() is protocol
        assert metered.is_reading()
        metered.pause_reading()
        assert not inner.is_reading()
        metered.resume_reading()
        assert inner.is_reading()
        metered.set_write_buffer_limits(10, 5)
        assert metered.get_write_buffer_limits() == inner.get_write_buffer_limits() == (5, 10)
        metered.set_protocol(other := asyncio.Protocol())
        assert inner.get_protocol() is other
        metered.writelines(iter([b"ab", b"c"]))
        metered.write(memoryview(b"d"))
        metered.write_eof()
        assert metered.get_write_buffer_size() == inner.get_write_buffer_size()
        assert metered.get_extra_info("peername") == address
        assert metered.get_extra_info(WIRE_METER) is meter
        assert not metered.is_closing()
        metered.close()
        metered.abort()
        assert inner.is_closing()
    assert meter.sent_bytes == 4


@pytest.mark.parametrize("metered", [True, False])
async def test_a_connector_without_a_meter_is_aiohttps(metered: bool) -> None:
    meter = WireMeter() if metered else None
    async with (
        provided(lambda _: Answer(framing="length")) as provider,
        aiohttp.ClientSession(connector=DesyncSafeConnector(meter)) as session,
        session.get(provider.url) as response,
    ):
        assert response.status == 200


def test_a_connection_that_is_not_there_has_no_meter() -> None:
    assert meter_of(None) is None

"""One sidecar's session, on real sockets that come and go."""

from __future__ import annotations

import asyncio
import gc
import weakref

import aiohttp
import pytest

from segue.gateway.tunnel import session
from segue.gateway.tunnel.exchange import ExchangeHost, ForwardedExchange
from segue.gateway.tunnel.resources import TunnelResources
from segue.testing.provider import Answer
from segue.tunnel.client import TunnelRequest
from segue.tunnel.documents import encode_document
from segue.tunnel.events import Opened
from segue.tunnel.frames import MAX_PACKET_BYTES, SUBPROTOCOL, encode_packet
from tests.faults.gateways import until
from tests.gateway.peer import SESSION, Peer
from tests.gateway.tunnel.forwarding import GET, ok, post, running

SECRET = "a sec" + "ret"


async def test_an_exchange_goes_on_after_the_link_was_lost_in_the_middle_of_its_reply() -> None:
    gate = asyncio.Event()

    def script(_: object) -> Answer:
        return Answer(pieces=(b"first ", b"second"), gates={1: gate})

    async with running(script) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer = peer.open(post(encode_document(b"{}")))
            await peer.pump(socket)
            await asyncio.wait_for(answer.started.wait(), 20)
        gate.set()
        async with peer.connected():
            assert await answer.whole() == b"first second"
        assert len(provider.requests) == 1


async def test_a_new_connection_of_a_session_takes_the_place_of_the_old_one() -> None:
    async with running(ok) as (gateway, url, _provider):
        old, new = Peer(url), Peer(url)
        async with old.connected():
            new.end, new.checker = old.end, old.checker
            async with new.connected() as socket:
                answer, _ = await new.request(socket, TunnelRequest(GET, None))
                await asyncio.wait_for(old.closed.wait(), 20)
        assert answer.body == b"hello world"
        assert gateway.tunnel.sessions == 1


async def test_a_corrupted_packet_ends_the_link_before_anyone_acts_on_it() -> None:
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer = peer.open(TunnelRequest(GET, None))
            packet = peer.end.next_packet(asyncio.get_running_loop().time())
            assert packet is not None
            await socket.send_bytes(packet[:5] + bytes([packet[5] ^ 4]) + packet[6:])
            await asyncio.wait_for(peer.closed.wait(), 20)
            assert provider.requests == []
        async with peer.connected():
            assert await answer.whole() == b"hello world"
            assert len(provider.requests) == 1


async def test_bytes_that_are_no_packet_end_the_link() -> None:
    async with (
        running(ok) as (_, url, _provider),
        aiohttp.ClientSession() as client,
        client.ws_connect(
            f"{url}/segue/tunnel", protocols=(SUBPROTOCOL,), headers={"Segue-Session": SESSION}
        ) as socket,
    ):
        await socket.send_bytes(encode_packet([b"\x63nonsense"]))
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == 1002


async def test_a_bug_of_ours_ends_one_exchange_and_the_session_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(ok) as (gateway, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            with monkeypatch.context() as patch:

                def fail(*_: object, **__: object) -> object:
                    raise ValueError(SECRET)

                patch.setattr(gateway.tunnel.resources.egress, "open", fail)
                answer, _ = await peer.request(socket, TunnelRequest(GET, None))
                assert answer.reset is not None
            answer, replied = await peer.request(socket, TunnelRequest(GET, None))
            assert replied == b"hello world"
        sample = gateway.services.metrics.registry.get_sample_value
        assert sample("segue_tunnel_exchanges_total", {"outcome": "failed"}) == 1
        assert sample("segue_tunnel_exchanges_total", {"outcome": "completed"}) == 1
    assert "action=exchange" in caplog.text
    assert SECRET not in caplog.text


async def test_closing_the_gateway_cancels_exchanges_and_closes_the_sockets() -> None:
    def script(_: object) -> Answer:
        return Answer(before=asyncio.Event())

    async with running(script) as (gateway, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await provider.seen(1)
            assert (gateway.tunnel.sessions, gateway.tunnel.exchanges) == (1, 1)
            await gateway.tunnel.aclose()
            assert (gateway.tunnel.sessions, gateway.tunnel.exchanges) == (0, 0)
            await asyncio.wait_for(peer.closed.wait(), 20)
        await asyncio.wait_for(provider.abandoned(0), 20)


async def test_a_text_message_ends_the_socket() -> None:
    async with running(ok) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            await socket.send_str("hello")
            await asyncio.wait_for(peer.closed.wait(), 20)
            assert socket.close_code == 1003


async def test_a_message_that_is_larger_than_any_packet_ends_the_socket() -> None:
    async with running(ok) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            await socket.send_bytes(bytes(MAX_PACKET_BYTES + 2))
            await asyncio.wait_for(peer.closed.wait(), 20)
            assert socket.close_code == 1009


async def test_an_exchange_that_is_cancelled_as_it_is_opened_leaves_nothing() -> None:
    """Its task is cancelled before its first step. Nothing waits for it, and the upload holds no memory of others."""
    async with running(ok) as (gateway, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            now = asyncio.get_running_loop().time()
            peer.open(post(encode_document(b"{}")))
            opened = peer.end.next_packet(now)
            peer.end.cancel(1)
            cancelled = peer.end.next_packet(now)
            assert opened is not None
            assert cancelled is not None
            together = encode_packet([opened[:-4], cancelled[:-4]])  # without their checksums
            peer.checker.sent("up", together)
            await socket.send_bytes(together)
            _, replied = await peer.request(socket, TunnelRequest(GET, None))
            assert replied == b"hello world"
            assert len(provider.requests) == 1
            assert (gateway.tunnel.exchanges, gateway.tunnel.resources.uploads.size_bytes) == (0, 0)
        sample = gateway.services.metrics.registry.get_sample_value
        assert sample("segue_tunnel_exchanges_total", {"outcome": "cancelled"}) == 1


async def test_an_upload_that_is_cancelled_is_freed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its body may have megabytes, and no one looks for cycles soon."""
    made: list[weakref.ref[ForwardedExchange]] = []

    class Noted(ForwardedExchange):
        def __init__(self, session: ExchangeHost, resources: TunnelResources, opened: Opened) -> None:
            super().__init__(session, resources, opened)
            made.append(weakref.ref(self))

    monkeypatch.setattr(session, "ForwardedExchange", Noted)
    gc.disable()
    try:
        async with running(ok) as (gateway, url, _provider):
            peer = Peer(url)
            async with peer.connected() as socket:
                now = asyncio.get_running_loop().time()
                peer.open(post(bytes(100_000)))
                for _ in range(2):
                    packet = peer.end.next_packet(now)
                    assert packet is not None
                    peer.checker.sent("up", packet)
                    await socket.send_bytes(packet)
                await until(lambda: gateway.tunnel.exchanges == 1)
                await until(lambda: gateway.tunnel.resources.uploads.size_bytes > 0)
                peer.end.cancel(1)
                await peer.pump(socket)
                await until(lambda: gateway.tunnel.exchanges == 0)
                await asyncio.sleep(0)  # its callbacks are over
                assert [ref() for ref in made] == [None]
    finally:
        gc.enable()

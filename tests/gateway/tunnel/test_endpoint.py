"""The tunnel's endpoint, on real sockets, driven by the sidecar's end without a sidecar."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from msgspec.structs import replace

from segue.config import Config, KeyConfig, RouteConfig, ServerConfig, TunnelConfig
from segue.gateway.app import Gateway, serving
from segue.http.heads import Line, ReplyHead, RequestHead
from segue.testing.provider import Answer, Script, ScriptedProvider, gzipped, provided
from segue.tunnel.client import TunnelRequest
from segue.tunnel.documents import Base, encode_document
from segue.tunnel.frames import SUBPROTOCOL, encode_packet
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL, ScriptedUpstream
from tests.faults.gateways import until
from tests.gateway.peer import SESSION, Peer
from tests.gateway.peer import Answer as PeerAnswer

POST = RequestHead(
    b"POST",
    b"/v1/messages?beta=true",
    (Line(b"X-Api-Key", b"secret"), Line(b"accept", b"a"), Line(b"Accept", b"b"), Line(b"X-Empty", b"")),
)
GET = RequestHead(b"GET", b"/v1/models", (Line(b"Authorization", b"Bearer k"),))
KEY = KeyConfig("alice", "alice", hashlib.sha256(b"sk-alice").hexdigest())


def post(document: bytes) -> TunnelRequest:
    return TunnelRequest(POST, document)


@asynccontextmanager
async def running(
    script: Script, *, keys: list[KeyConfig] | None = None, target: str | None = None, **tunnel: object
) -> AsyncIterator[tuple[Gateway, str, ScriptedProvider]]:
    """A gateway whose tunnel leads to a provider."""
    async with provided(script) as provider:
        config = Config(
            server=ServerConfig(port=0, store="memory:"),
            tunnel=TunnelConfig(**tunnel),  # type: ignore[arg-type]  # the settings of one test
            route=[RouteConfig(path="/v1", target=target or provider.url), RouteConfig(mount="/own", target="self")],
            key=keys or [],
        )
        router = Router([ModelRule(ScriptedUpstream(), (MODEL,))])
        async with serving(config, router) as (gateway, url):
            yield gateway, url, provider


def ok(_: object) -> Answer:
    return Answer(lines=(Line(b"X-One", b"1"), Line(b"x-one", b"2")), pieces=(b"hello ", b"world"))


def error_of(answer: PeerAnswer) -> tuple[int, str]:
    assert answer.head is not None
    return answer.head.status, json.loads(answer.body)["error"]["code"]


# --- forwarding ------------------------------------------------------------------------------------------------------


async def test_a_request_reaches_the_provider_to_the_byte_and_its_reply_comes_back() -> None:
    body = b'{"model": "m",  "stream":true}'
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, replied = await peer.request(socket, post(encode_document(body)))
        (request,) = provider.requests
        host = provider.url.removeprefix("http://").encode()
        assert request.raw_head == (
            b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: " + host + b"\r\n"
            b"X-Api-Key: secret\r\naccept: a\r\nAccept: b\r\nX-Empty: \r\nContent-Length: 30\r\n\r\n"
        )
        assert request.body == body
    assert answer.head == ReplyHead(200, b"OK", (Line(b"X-One", b"1"), Line(b"x-one", b"2")))
    assert replied == b"hello world"


async def test_a_request_without_a_body_has_none_at_the_provider() -> None:
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            await peer.request(socket, TunnelRequest(GET, None))
        assert provider.requests[0].body is None
        assert b"ontent-" not in provider.requests[0].raw_head


async def test_an_empty_body_is_not_the_same_as_none() -> None:
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            await peer.request(socket, post(encode_document(b"")))
        assert b"Content-Length: 0\r\n" in provider.requests[0].raw_head


async def test_a_delta_against_the_exchange_before_is_rebuilt() -> None:
    first = json.dumps({"messages": [{"role": "user", "content": "look " * 400}]}).encode()
    second = first[:-2] + b', {"role": "user", "content": "again"}]}'
    async with running(ok) as (gateway, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            await peer.request(socket, post(encode_document(first)))
            document = encode_document(second, Base(first), 0)
            answer, _ = await peer.request(socket, post(document))
        assert [request.body for request in provider.requests] == [first, second]
        assert len(document) < 150
        assert answer.misses == 0
        assert gateway.tunnel.resources.bases.size_bytes > 0


async def test_an_unknown_base_is_missed_and_the_body_sent_again() -> None:
    body = b"y" * 1000 + b"end"
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            document = encode_document(body, Base(b"y" * 1000))
            answer, replied = await peer.request(socket, post(document), encode_document(body))
        assert (answer.misses, replied) == (1, b"hello world")
        assert [request.body for request in provider.requests] == [body]


async def test_a_wrong_digest_with_a_base_is_missed_and_without_one_refused() -> None:
    first, body = b"x" * 500, b"x" * 500 + b"news"
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            await peer.request(socket, post(encode_document(first)))
            delta = encode_document(body, Base(first), 0)
            answer, _ = await peer.request(socket, post(_spoil(delta)), encode_document(body))
            refused, _ = await peer.request(socket, post(_spoil(encode_document(body))))
        assert answer.misses == 1
        assert error_of(refused) == (400, "invalid_request")
        assert [request.body for request in provider.requests] == [first, body]


async def test_a_second_document_that_names_a_base_again_is_refused() -> None:
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            document = encode_document(b"y" * 500 + b"news", Base(b"y" * 500))
            answer, _ = await peer.request(socket, post(document), document)
        assert answer.misses == 1
        assert error_of(answer) == (400, "invalid_request")
        assert provider.requests == []


def _spoil(document: bytes) -> bytes:
    """Change a byte of the digest, which stands before the payload in every document."""
    digest_at = next(at for at in range(len(document)) if at > 2)
    return document[: digest_at + 15] + bytes([document[digest_at + 15] ^ 1]) + document[digest_at + 16 :]


async def test_a_base_of_another_tenant_is_missed() -> None:
    bob = KeyConfig("bob", "bob", hashlib.sha256(b"sk-bob").hexdigest())
    body = b"x" * 500
    async with running(ok, keys=[KEY, bob]) as (_, url, provider):
        alice, other = Peer(url), Peer(url)
        async with alice.connected({"Authorization": "Bearer sk-alice"}) as socket:
            await alice.request(socket, post(encode_document(body)))
        async with other.connected({"Authorization": "Bearer sk-bob"}) as socket:
            answer, _ = await other.request(socket, post(encode_document(body, Base(body))), encode_document(body))
        assert answer.misses == 1
        assert len(provider.requests) == 2


async def test_a_large_body_is_rebuilt_off_the_loop() -> None:
    body = bytes(range(256)) * 8000
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            await peer.request(socket, post(encode_document(body)))
        assert provider.requests[0].body == body


@pytest.mark.parametrize("size", [100_001, 3_000_000])
async def test_a_body_over_the_limit_is_refused_before_it_is_expanded(size: int) -> None:
    async with running(ok, max_body_bytes=100_000) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, _ = await peer.request(socket, post(encode_document(b"\0" * size)))
        assert error_of(answer) == (413, "request_too_large")
        assert provider.requests == []


async def test_an_encoded_reply_comes_back_decoded() -> None:
    def script(request: object) -> Answer:
        return gzipped(ok(request))

    async with running(script) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, replied = await peer.request(socket, TunnelRequest(GET, None))
    assert replied == b"hello world"
    assert answer.head is not None
    assert all(line.name.lower() != b"content-encoding" for line in answer.head.lines)


async def test_the_first_piece_of_a_stream_is_not_held_back() -> None:
    gate = asyncio.Event()

    def script(_: object) -> Answer:
        return Answer(pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate})

    async with running(script) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer = peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await answer.until(b"data: 1\n\n")
            gate.set()
            assert await answer.whole() == b"data: 1\n\ndata: 2\n\n"


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/nowhere", (404, "route_not_found")),
        (b"/v1/../etc", (400, "invalid_target")),
        (b"/v1/%2e%2e/etc", (400, "invalid_target")),
    ],
)
async def test_what_no_route_allows_is_refused(target: bytes, expected: tuple[int, str]) -> None:
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, _ = await peer.request(socket, TunnelRequest(replace(GET, target=target), None))
        assert error_of(answer) == expected
        assert provider.requests == []


async def test_a_provider_that_is_not_there_is_told_as_502() -> None:
    async with provided(ok) as gone:
        pass
    async with running(ok, target=gone.url) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, _ = await peer.request(socket, post(encode_document(b"{}")))
    assert error_of(answer) == (502, "upstream_unreachable")


async def test_a_reply_that_is_cut_is_not_taken_for_a_whole_one() -> None:
    def script(_: object) -> Answer:
        return Answer(pieces=(b"abcdef",), cut_after=3)

    async with running(script) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, _ = await peer.request(socket, TunnelRequest(GET, None))
    assert answer.reset is not None
    assert b"abcdef".startswith(answer.body)


async def test_a_cancelled_exchange_closes_the_request_at_the_provider() -> None:
    hanging = asyncio.Event()

    def script(_: object) -> Answer:
        return Answer(pieces=(b"a", b"b"), gates={1: hanging})

    async with running(script) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer = peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await asyncio.wait_for(answer.started.wait(), 20)
            peer.end.cancel(1)
            await peer.pump(socket)
            await asyncio.wait_for(provider.abandoned(0), 20)


# --- links -----------------------------------------------------------------------------------------------------------


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
            new.end = old.end
            async with new.connected() as socket:
                answer, _ = await new.request(socket, TunnelRequest(GET, None))
                await asyncio.wait_for(old.closed.wait(), 20)
        assert answer.body == b"hello world"
        assert gateway.tunnel.sessions == 1


async def test_a_session_without_a_sidecar_is_given_up_after_a_while() -> None:
    hanging = asyncio.Event()

    def script(_: object) -> Answer:
        return Answer(before=hanging)

    async with running(script, away_s=0.05) as (gateway, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await provider.seen(1)
        await asyncio.wait_for(provider.abandoned(0), 20)
        await until(lambda: not gateway.tunnel.sessions)


async def test_a_corrupted_packet_ends_the_link_before_anyone_acts_on_it() -> None:
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            peer.open(TunnelRequest(GET, None))
            packet = peer.end.next_packet(asyncio.get_running_loop().time())
            assert packet is not None
            await socket.send_bytes(packet[:5] + bytes([packet[5] ^ 4]) + packet[6:])
            await asyncio.wait_for(peer.closed.wait(), 20)
            assert provider.requests == []
        async with peer.connected():
            await asyncio.wait_for(provider.seen(1), 20)


async def test_a_drain_lets_exchanges_end_and_refuses_new_ones() -> None:
    gate = asyncio.Event()

    def script(_: object) -> Answer:
        return Answer(pieces=(b"late",), before=gate)

    async with running(script) as (gateway, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer = peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await provider.seen(1)
            draining = asyncio.create_task(gateway.drain())
            await asyncio.wait_for(peer.gone_away.wait(), 20)
            refused = peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await refused.whole()
            gate.set()
            assert await answer.whole() == b"late"
            await asyncio.wait_for(draining, 20)
    assert refused.reset is not None


# --- the way in ------------------------------------------------------------------------------------------------------


async def refused_upgrade(
    url: str, headers: dict[str, str], protocols: tuple[str, ...] = (SUBPROTOCOL,)
) -> tuple[int, str]:
    """Try to upgrade; returns the status and the error's code."""
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    keyed = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": ", ".join(protocols)}
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"{url}/segue/tunnel", headers={**upgrade, **keyed, **headers}) as response,
    ):
        return response.status, (await response.json())["error"]["code"]


async def test_another_version_is_refused_with_what_is_spoken_here() -> None:
    async with running(ok) as (_, url, _provider):
        assert await refused_upgrade(url, {"Segue-Session": SESSION}, ("segue-tunnel-9",)) == (426, "upgrade_required")


async def test_a_session_that_is_no_session_is_refused() -> None:
    async with running(ok) as (_, url, _provider):
        assert await refused_upgrade(url, {"Segue-Session": "me"}) == (426, "upgrade_required")


async def test_a_wrong_key_is_refused() -> None:
    async with running(ok, keys=[KEY]) as (_, url, _provider):
        wrong = {"Segue-Session": SESSION, "Authorization": "Bearer sk-bob"}
        assert await refused_upgrade(url, wrong) == (401, "invalid_api_key")


async def test_a_foreign_page_is_refused() -> None:
    async with running(ok) as (_, url, _provider):
        page = {"Segue-Session": SESSION, "Origin": "https://evil.example"}
        assert await refused_upgrade(url, page) == (403, "forbidden_origin")


async def test_no_more_sessions_than_allowed() -> None:
    async with running(ok, max_sessions=1) as (_, url, _provider), Peer(url).connected():
        assert await refused_upgrade(url, {"Segue-Session": "f" * 32}) == (503, "server_overloaded")


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


# --- the gateway's own API -------------------------------------------------------------------------------------------


async def test_a_route_to_self_leads_into_the_own_api_as_the_tenant_of_the_tunnel() -> None:
    create = json.dumps({"model": "scripted", "input": "hello"}).encode()
    head = RequestHead(b"POST", b"/own/v1/responses", (Line(b"Content-Type", b"application/json"),))
    async with running(ok, keys=[KEY]) as (gateway, url, _provider):
        peer = Peer(url)
        async with peer.connected({"Authorization": "Bearer sk-alice"}) as socket:
            answer, replied = await peer.request(socket, TunnelRequest(head, encode_document(create)))
        assert answer.head is not None
        assert answer.head.status == 200
        stored = await gateway.services.store.record("alice", json.loads(replied)["id"], gateway.services.clock())
    assert stored is not None

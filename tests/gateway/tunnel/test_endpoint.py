"""The tunnel's endpoint: who may come in, and how sessions end."""

from __future__ import annotations

import asyncio
import hashlib
import json

import aiohttp
import pytest

from segue.config import KeyConfig, ServerConfig
from segue.http.heads import Line, RequestHead
from segue.testing.provider import Answer, ReceivedRequest
from segue.tunnel.client import TunnelRequest
from segue.tunnel.documents import encode_document
from segue.tunnel.frames import SUBPROTOCOL
from segue.tunnel.upgrade_headers import encode_hello
from segue.upstreams.scripted import MODEL
from tests.faults.gateways import until
from tests.gateway.peer import SESSION, Peer
from tests.gateway.tunnel.forwarding import GET, KEY, ok, running


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


async def test_a_session_that_a_draining_node_knows_goes_on_there_and_a_new_one_does_not() -> None:
    gate = asyncio.Event()

    def script(_: object) -> Answer:
        return Answer(pieces=(b"1 ", b"late"), gates={1: gate})

    async with running(script) as (gateway, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer = peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await answer.until(b"1 ")
            draining = asyncio.create_task(gateway.drain())
            await asyncio.wait_for(peer.gone_away.wait(), 20)
        peer.gone_away.clear()
        assert await refused_upgrade(url, {"Segue-Session": "f" * 32}) == (503, "server_overloaded")
        assert gateway.tunnel.sessions == 1
        async with peer.connected():
            await asyncio.wait_for(peer.gone_away.wait(), 20)
            assert not draining.done()
            gate.set()
            assert await answer.whole() == b"1 late"
            await asyncio.wait_for(draining, 20)
        assert len(provider.requests) == 1


async def test_a_session_of_another_tenant_is_not_known() -> None:
    hanging = asyncio.Event()

    def script(_: object) -> Answer:
        return Answer(before=hanging)

    bob = KeyConfig("bob", "bob", hashlib.sha256(b"sk-bob").hexdigest())
    async with running(script, keys=[KEY, bob]) as (gateway, url, provider):
        peer = Peer(url)
        async with peer.connected({"Authorization": "Bearer sk-alice"}) as socket:
            peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await provider.seen(1)
            draining = asyncio.create_task(gateway.drain())
            await asyncio.wait_for(peer.gone_away.wait(), 20)
            other = {"Segue-Session": SESSION, "Authorization": "Bearer sk-bob"}
            assert await refused_upgrade(url, other) == (503, "server_overloaded")
            hanging.set()
            await asyncio.wait_for(draining, 20)


async def test_a_drain_waits_for_replies_that_a_sidecar_has_not_got_until_it_is_given_up() -> None:
    gate = asyncio.Event()

    def script(_: object) -> Answer:
        return Answer(pieces=(b"late",), before=gate)

    async with running(script, away_s=0.5) as (gateway, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await provider.seen(1)
        draining = asyncio.create_task(gateway.drain())
        gate.set()
        await until(lambda: not gateway.tunnel.exchanges)
        await asyncio.sleep(0)
        assert not draining.done()
        await asyncio.wait_for(draining, 10)
        assert gateway.tunnel.sessions == 0


async def test_replies_that_a_drain_could_not_deliver_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    hanging = asyncio.Event()

    def script(request: ReceivedRequest) -> Answer:
        return Answer(before=hanging if request.number else None)

    async with running(script, server=ServerConfig(port=0, store="memory:", drain_s=0.2)) as (gateway, url, provider):
        peer = Peer(url, acknowledges=False)
        async with peer.connected() as socket:
            for _ in range(2):
                peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await provider.seen(2)
            await until(lambda: gateway.tunnel.exchanges == 1)  # one runs, and one is complete and not acknowledged
        await gateway.drain()
    assert caplog.messages == ["action=drain 2 exchanges of sidecars did not end in time and are cancelled"]


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


@pytest.mark.parametrize("name", [None, "", "me", "A" * 32, "f" * 31, "f" * 33])
async def test_a_session_that_is_no_session_is_refused_and_not_called_another_version(name: str | None) -> None:
    async with running(ok) as (gateway, url, _provider):
        headers = {} if name is None else {"Segue-Session": name}
        assert await refused_upgrade(url, headers) == (400, "invalid_value")
        assert gateway.tunnel.sessions == 0


async def test_an_upgrade_that_holds_the_first_packet_is_welcomed_with_its_answer() -> None:
    async with running(ok) as (gateway, url, _):
        peer = Peer(url)
        async with peer.connected(early=True) as socket:
            answer, body = await peer.request(socket, TunnelRequest(GET, None))
            assert (answer.reset, body) == (None, b"hello world")
            epoch = socket._response.headers["Segue-Epoch"]  # noqa: SLF001 - aiohttp tells them nowhere else
        assert epoch == gateway.tunnel.resources.node.epoch.hex()
        async with peer.connected(early=True) as socket:
            assert (await peer.request(socket, TunnelRequest(GET, None)))[1] == b"hello world"


@pytest.mark.parametrize("value", ["", "not base64", "A" * 5000])
async def test_a_first_packet_that_is_none_is_refused(value: str) -> None:
    async with running(ok) as (gateway, url, _):
        assert await refused_upgrade(url, {"Segue-Session": SESSION, "Segue-Hello": value}) == (400, "invalid_value")
        assert gateway.tunnel.sessions == 0


async def test_an_upgrade_that_was_given_up_and_comes_late_changes_nothing() -> None:
    """A network delivers what it has accepted. The HELLO in it does not know of what was opened since."""
    gate = asyncio.Event()

    def script(_: object) -> Answer:
        return Answer(pieces=(b"1 ", b"2"), gates={1: gate})

    async with running(script) as (_, url, provider):
        peer = Peer(url)
        now = asyncio.get_running_loop().time()
        peer.end.link_opened(now)
        stale = encode_hello(peer.end.next_packet(now) or b"")
        async with peer.connected({"Segue-Link": "2"}, early=True) as socket:
            answer = peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await answer.until(b"1 ")
            for number in ("1", "2"):
                late = {"Segue-Session": SESSION, "Segue-Link": number, "Segue-Hello": stale}
                assert await refused_upgrade(url, late) == (409, "stale_upgrade")
            gate.set()
            assert await answer.whole() == b"1 2"
        async with peer.connected({"Segue-Link": "3"}, early=True) as socket:
            assert (await peer.request(socket, TunnelRequest(GET, None)))[1] == b"1 2"
        assert len(provider.requests) == 2


@pytest.mark.parametrize("value", ["", "0", "one"])
async def test_a_link_number_that_is_none_is_refused(value: str) -> None:
    async with running(ok) as (_, url, _provider):
        assert await refused_upgrade(url, {"Segue-Session": SESSION, "Segue-Link": value}) == (400, "invalid_value")


async def test_a_bad_first_packet_ends_the_link_like_any_other() -> None:
    async with running(ok) as (_, url, _provider), aiohttp.ClientSession() as client:
        headers = {"Segue-Session": SESSION, "Segue-Hello": "AAAA"}
        async with client.ws_connect(f"{url}/segue/tunnel", protocols=(SUBPROTOCOL,), headers=headers) as socket:
            assert (await socket.receive()).data == 1002


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


TEXT = {"model": MODEL, "input": "hello"}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
HISTORY = {"model": MODEL, "input": [{"type": "message", "role": "user", "content": "hello"}]}
BEGINNING = {
    "a turn": ("responses", TEXT),
    "a stream": ("responses", TEXT | {"stream": True}),
    "a turn with a key": ("responses", TEXT | {"idempotency_key": "one"}),
    "a background turn": ("responses", TEXT | {"background": True}),
    "a turn of the Messages API": ("messages", CHAT | {"max_tokens": 9}),
    "a turn of the Chat Completions API": ("chat/completions", CHAT),
    "a count": ("responses/input_tokens", TEXT),
    "a compaction": ("responses/compact", HISTORY),
    "a compaction with a key": ("responses/compact", HISTORY | {"idempotency_key": "one"}),
    "a conversation": ("conversations", {}),
}


@pytest.mark.parametrize("what", BEGINNING)
async def test_what_a_tunnel_took_begins_though_the_gateway_drains(what: str) -> None:
    """Until its sidecar knows, it asks nobody else. What comes straight is refused: a balancer sends it elsewhere."""
    path, fields = BEGINNING[what]
    body = json.dumps(fields).encode()
    head = RequestHead(b"POST", f"/own/v1/{path}".encode(), (Line(b"Content-Type", b"application/json"),))
    async with running(ok) as (gateway, url, _), aiohttp.ClientSession(url.replace("ws", "http", 1)) as client:
        peer = Peer(url)
        async with peer.connected() as socket:
            gateway.services.drain.draining = True
            answer, _ = await peer.request(socket, TunnelRequest(head, encode_document(body)))
            assert answer.head is not None
            assert answer.head.status == 200, answer.body
            async with client.post(f"/v1/{path}", data=body) as straight:
                assert straight.status == 503
            await gateway.services.drain.wait_until_idle()

"""The whole way: an agent, a sidecar, a link that is cut, a gateway, and a provider that keeps every byte."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect

from segue.config import Config, RouteConfig, ServerConfig
from segue.gateway.app import serving
from segue.http.heads import Line
from segue.peer_credentials.lookup import PeerUsers
from segue.sidecar import app
from segue.sidecar.app import Sidecar, SidecarSettings
from segue.sidecar.base_disk_cache import BaseDiskCache
from segue.testing.link import EmulatedLink, linked
from segue.testing.provider import (
    Answer,
    MessageScript,
    Script,
    ScriptedProvider,
    SocketAnswer,
    SocketMessage,
    gzipped,
    provided,
)
from segue.tunnel.documents import Base
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL, ScriptedUpstream
from tests.sidecar import gateways
from tests.sidecar.gateways import fake_gateway
from tests.sidecar.sidecars import Running, conversation, post, running

EVENTS = Line(b"Content-Type", b"text/event-stream")


@asynccontextmanager
async def the_whole_way(
    script: Script, messages: MessageScript | None = None
) -> AsyncIterator[tuple[ScriptedProvider, EmulatedLink, Running]]:
    async with provided(script, messages) as provider:
        routes = [RouteConfig(mount="/anthropic", target=provider.url), RouteConfig(mount="/own", target="self")]
        config = Config(server=ServerConfig(port=0, store="memory:"), route=routes)
        async with serving(config, Router([ModelRule(ScriptedUpstream(), (MODEL,))])) as (_, url):
            port = urlsplit(url).port
            assert port is not None
            async with linked("127.0.0.1", port) as link, running(link.url) as sidecar:
                yield provider, link, sidecar


async def test_request_and_reply_are_what_they_would_be_without_us() -> None:
    pieces = tuple(b"data: %d\n\n" % number for number in range(50))
    answer = gzipped(Answer(lines=(EVENTS, Line(b"X-A", b"1"), Line(b"x-a", b"2")), pieces=pieces))
    async with the_whole_way(lambda _: answer) as (provider, _, sidecar):
        reply = await sidecar.post(conversation(5), target="/anthropic/v1/messages?beta=true")
        host = provider.url.removeprefix("http://").encode()
        [seen] = provider.requests
        assert seen.raw_head == (
            b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: " + host + b"\r\nX-Api-Key: k\r\n"
            b"X-Stainless-Retry-Count: 0\r\nContent-Length: %d\r\n\r\n" % len(conversation(5))
        )
        assert seen.body == conversation(5)
    head = reply.partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-A: 1\r\nx-a: 2\r\n")
    assert dechunked_pieces(reply) == b"".join(pieces)


def dechunked_pieces(reply: bytes) -> bytes:
    """The body of a reply whose chunks each end in a line end of their own."""
    rest, body = reply.partition(b"\r\n\r\n")[2], b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not int(size, 16):
            return body
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]


async def test_a_session_with_cuts_is_carried_as_deltas_and_asked_once() -> None:
    async with the_whole_way(lambda _: Answer(lines=(EVENTS,), pieces=(b"data: {}\n\n",))) as (provider, link, sidecar):
        for turn in range(1, 9):
            if turn % 2:
                link.cut_after(up_bytes=50 * turn)
            else:
                link.cut()
            assert dechunked_pieces(await sidecar.post(conversation(turn))) == b"data: {}\n\n"
        assert [one.body for one in provider.requests] == [conversation(turn) for turn in range(1, 9)]
        told = await sidecar.stats()
    assert told["base_hits"] == 7
    assert told["base_misses"] == 0
    assert told["resumes"] > 1
    assert told["tunnel_bytes_up"] < told["agent_bytes_in"] / 3


async def test_an_agent_that_hangs_up_closes_the_request_at_the_provider() -> None:
    async with the_whole_way(lambda _: Answer(delay_s=60.0)) as (provider, _, sidecar):
        agent = await sidecar.connect()
        await agent.send(post(b"{}"))
        await provider.seen(1)
        agent.hang_up()
        await provider.abandoned(0)


async def test_messages_of_a_websocket_are_byte_equal_over_cuts() -> None:
    def echo(message: SocketMessage) -> SocketAnswer:
        return SocketAnswer(messages=(b"\xc3\xa9" * 3000, message.data))

    upgrade = Answer(status=101, reason=b"Switching Protocols")
    async with the_whole_way(lambda _: upgrade, echo) as (provider, link, sidecar):
        url = sidecar.sidecar.url.replace("http", "ws") + "/anthropic/v1/responses"
        async with connect(url) as websocket:
            for number in range(6):
                link.cut()
                await websocket.send(f"é{number}" * 3000)
                assert await websocket.recv() == "é" * 3000
                assert await websocket.recv() == f"é{number}" * 3000
        assert [one.data for one in provider.messages] == [f"é{number}".encode() * 3000 for number in range(6)]
        assert len(provider.requests) == 1


async def test_the_gateways_own_api_is_reached_through_the_tunnel() -> None:
    async with the_whole_way(lambda _: Answer()) as (_, _, sidecar):
        body = json.dumps({"model": MODEL, "input": "hello"}).encode()
        reply = await sidecar.ask(
            post(body, target="/own/v1/responses").replace(b"X-Api-Key", b"Content-Type: application/json\r\nX-Api-Key")
        )
        chat = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": True}).encode()
        streamed = await sidecar.ask(post(chat, target="/own/v1/chat/completions"))
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(dechunked_pieces(reply))["status"] == "completed"
    assert dechunked_pieces(streamed).endswith(b"data: [DONE]\n\n")


async def test_stats_are_told_and_are_nobodys_request() -> None:
    async with the_whole_way(lambda _: Answer()) as (provider, link, sidecar):
        await sidecar.linked()
        await sidecar.post(b"{}")
        told = await sidecar.stats()
        assert len(provider.requests) == 1
    assert (told["exchanges"], told["link"], told["gateway"]) == (1, "up", link.url)
    assert told["rtt_s"] < 10
    assert [one["path"] for one in told["recent"]] == ["/anthropic/v1/messages"]


async def test_what_the_tunnel_counts_is_what_the_link_carried() -> None:
    async with the_whole_way(lambda _: Answer(pieces=(b"x" * 100_000,))) as (_, link, sidecar):
        await sidecar.linked()
        up, down = link.up_bytes, link.down_bytes  # of the handshake, and of the first packets
        before = sidecar.sidecar.report()
        await sidecar.post(conversation(20))
        after = sidecar.sidecar.report()
        carried = link.up_bytes - up
        assert 0 <= after.tunnel_bytes_up - before.tunnel_bytes_up - carried < 1000
        assert 0 <= link.down_bytes - down - (after.tunnel_bytes_down - before.tunnel_bytes_down) < 1000


async def test_a_sidecar_that_cannot_listen_leaves_nothing_running() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = SidecarSettings(gateways=("ws://127.0.0.1:1",), port=taken.getsockname()[1])
        with pytest.raises(OSError, match="address already in use"):
            async with Sidecar(settings):
                pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_bases_are_saved_while_it_runs(tmp_path: Path) -> None:
    settings = SidecarSettings(gateways=(), cache_directory=tmp_path / "bases", save_every_s=0.01)
    async with fake_gateway() as gateway, running(gateway.url, settings=settings) as sidecar:
        await sidecar.post(conversation(3))
        while not list((tmp_path / "bases").glob("*.base")):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)
        assert BaseDiskCache(tmp_path / "bases").list()[0].base_id == Base(conversation(3)).id


@pytest.mark.parametrize(
    ("hosts", "fields", "status"),
    [
        ((), "Host: localhost\r\n", 200),
        ((), "Host: 127.0.0.1:4748\r\n", 200),
        ((), "Host: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n", 403),
        ((), "Host: localhost\r\nVia: 1.1 proxy\r\n", 403),
        (("agents.example",), "Host: agents.example\r\n", 403),
        (("agents.example",), "Host: localhost\r\n", 403),
        (("*",), "Host: evil.example\r\n", 403),
    ],
)
async def test_the_counters_are_for_this_machine_alone(hosts: tuple[str, ...], fields: str, status: int) -> None:
    """They name what agents ask for, and how long it is; a sidecar has no keys that would let others see them."""
    settings = SidecarSettings(gateways=(), hosts=hosts)
    async with running("ws://127.0.0.1:1", settings=settings) as sidecar:
        reply = await sidecar.ask(f"GET /segue/stats HTTP/1.1\r\n{fields}Connection: close\r\n\r\n".encode())
    assert reply.startswith(b"HTTP/1.1 %d " % status)
    assert (b'"code":"forbidden_peer"' in reply) is (status == 403)


async def test_settling_waits_for_what_is_under_way_and_not_for_ever() -> None:
    gate = asyncio.Event()
    async with fake_gateway(lambda _: gateways.Answer(before=gate)) as gateway, running(gateway.url) as sidecar:
        await sidecar.sidecar.settle(20)  # nothing is
        asking = asyncio.create_task(sidecar.post(b"{}"))
        await gateway.seen(1)
        await sidecar.sidecar.settle(0)
        assert sidecar.sidecar.stats.active == 1
        gate.set()
        await sidecar.sidecar.settle(20)
        assert sidecar.sidecar.stats.active == 0
        assert (await asking).startswith(b"HTTP/1.1 200 ")


async def test_a_token_opens_every_door_and_is_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    """A request, the counters, and what is refused; the gateway and the log see the target without it."""
    caplog.set_level("INFO")
    settings = SidecarSettings(gateways=(), access="token", token="the-token-of-a-test")
    async with fake_gateway() as gateway, running(gateway.url, settings=settings) as sidecar:
        assert sidecar.sidecar.agent_url == f"{sidecar.sidecar.url}/the-token-of-a-test"
        assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 403 ")
        target = "/the-token-of-a-test/anthropic/v1/messages"
        assert (await sidecar.post(b"{}", target=target)).startswith(b"HTTP/1.1 200 ")
        ask = "GET {}/segue/stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert (await sidecar.ask(ask.format("").encode())).startswith(b"HTTP/1.1 403 ")
        counters = await sidecar.ask(ask.format("/the-token-of-a-test").encode())
        assert counters.startswith(b"HTTP/1.1 200 ")
        assert b'"/anthropic/v1/messages"' in counters
        assert [one.head.target for one in gateway.forwarded] == [b"/anthropic/v1/messages"]
    assert b"the-token" not in counters
    assert "the-token" not in caplog.text


async def test_where_users_are_not_told_every_agent_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "peer_users", lambda: PeerUsers(()))
    async with fake_gateway() as gateway, running(gateway.url) as sidecar:
        assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 403 ")
        token = sidecar.sidecar.agent_url.rpartition("/")[2]
        assert (await sidecar.post(b"{}", target=f"/{token}/anthropic/v1/messages")).startswith(b"HTTP/1.1 200 ")

"""Straight to the provider, when there is no gateway."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from msgspec.structs import replace
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from segue.egress.client import Egress
from segue.egress.websocket import OutboundWebSocket
from segue.http.heads import Line
from segue.http.routes import Route, RouteTable, parse_target
from segue.http.websocket import WebSocketMessage
from segue.protocol.problems import Problem
from segue.sidecar.connector import ConnectorSettings
from segue.sidecar.direct import DirectForwarder
from segue.sidecar.proxy import parse_proxy
from segue.testing.provider import Answer, SocketAnswer, SocketMessage, provided
from tests.sidecar.gateways import fake_gateway
from tests.sidecar.proxies import connect_proxy
from tests.sidecar.sidecars import IMPATIENT, post, running

NOWHERE = "ws://127.0.0.1:1"


def to(url: str) -> DirectForwarder:
    return DirectForwarder(Egress(), RouteTable([Route(prefix=b"/anthropic", target=parse_target(url), strip=True)]))


async def test_a_request_reaches_the_provider_to_the_byte_and_its_reply_the_agent() -> None:
    lines = (Line(b"X-One", b"1"), Line(b"x-one", b"2"))
    async with provided(lambda _: Answer(status=201, reason=b"Made", lines=lines, pieces=(b"a", b"b"))) as provider:
        async with running(NOWHERE, settings=IMPATIENT, direct=to(provider.url)) as sidecar:
            answer = await sidecar.post(b"{}", target="/anthropic/v1/%6d?x=%zz")
            told = await sidecar.stats()
        host = provider.url.removeprefix("http://").encode()
        assert [one.raw_head for one in provider.requests] == [
            b"POST /v1/%6d?x=%zz HTTP/1.1\r\nHost: " + host + b"\r\nX-Api-Key: k\r\nX-Stainless-Retry-Count: 0\r\n"
            b"Content-Length: 2\r\n\r\n"
        ]
        assert provider.requests[0].body == b"{}"
    assert answer.startswith(b"HTTP/1.1 201 Made\r\nX-One: 1\r\nx-one: 2\r\nTransfer-Encoding: chunked\r\n")
    assert (told["direct"], told["recent"][0]["outcome"], told["recent"][0]["status"]) == (1, "direct", 201)
    assert told["agent_bytes_in"] + told["agent_bytes_out"] == 0  # the tunnel carried nothing


async def test_it_is_not_for_a_gateway_that_refuses_us() -> None:
    async with provided(lambda _: Answer()) as provider, fake_gateway() as gateway:
        gateway.refusal = Problem("invalid_api_key", "no such key")
        async with running(gateway.url, direct=to(provider.url)) as sidecar:
            assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 401 ")
        assert provider.requests == []


async def test_it_is_for_when_something_else_answers_in_place_of_the_gateway() -> None:
    async with provided(lambda _: Answer()) as provider, fake_gateway() as gateway:
        gateway.between = lambda: web.Response(status=403, text="<html>")
        async with running(gateway.url, settings=IMPATIENT, direct=to(provider.url)) as sidecar:
            assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")
        assert [one.body for one in provider.requests] == [b"{}"]


async def test_it_takes_the_proxy_that_leads_to_gateways() -> None:
    """Else nothing would get out of a network whose only way out it is."""
    async with connect_proxy(1) as proxy:
        proxy.refusal = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
        told = parse_proxy(f"127.0.0.1:{proxy.port}")
        settings = replace(IMPATIENT, direct=True, connector=ConnectorSettings(proxy=told))
        async with running(NOWHERE, settings=settings) as sidecar:
            answer = await sidecar.post(b"{}", target="/anthropic/v1/messages")
        assert [head.split(b"\r\n")[0] for head in proxy.asked] == [b"CONNECT api.anthropic.com:443 HTTP/1.1"]
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"does not connect to api.anthropic.com:443 (status 403)" in answer


async def test_a_provider_that_is_not_there_is_told() -> None:
    async with running(NOWHERE, settings=IMPATIENT, direct=to("http://127.0.0.1:1")) as sidecar:
        answer = await sidecar.post(b"{}")
        unknown = await sidecar.post(b"{}", target="/elsewhere")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"upstream_unreachable" in answer
    assert b"x-should-retry" not in answer + unknown
    assert unknown.startswith(b"HTTP/1.1 404 ")


async def test_a_request_that_the_provider_may_have_carried_out_must_not_be_repeated() -> None:
    async with (
        provided(lambda _: Answer(cut_before_head=True)) as provider,
        running(NOWHERE, settings=IMPATIENT, direct=to(provider.url)) as sidecar,
    ):
        answer = await sidecar.post(b"{}")
    assert b'"code":"upstream_closed"' in answer
    assert b"\r\nx-should-retry: false\r\n" in answer


async def test_an_agent_that_hangs_up_closes_the_request_at_the_provider() -> None:
    async with (
        provided(lambda _: Answer(delay_s=60.0)) as provider,
        running(NOWHERE, settings=IMPATIENT, direct=to(provider.url)) as sidecar,
    ):
        agent = await sidecar.connect()
        await agent.send(post(b"{}"))
        await provider.seen(1)
        agent.hang_up()
        await provider.abandoned(0)


async def test_a_websocket_goes_straight_too_and_so_does_its_refusal() -> None:
    script = lambda request: Answer(status=101 if request.target == b"/ok" else 426)  # noqa: E731 - one line says it
    echo = lambda message: SocketAnswer(messages=(message.data, b"two"), close_code=4000, close_reason="done")  # noqa: E731 - as above
    async with (
        provided(script, echo) as provider,
        running(NOWHERE, settings=IMPATIENT, direct=to(provider.url)) as sidecar,
    ):
        url = sidecar.sidecar.url.replace("http", "ws") + "/anthropic"
        async with connect(f"{url}/ok") as socket:
            await socket.send("one")
            assert [await socket.recv(), await socket.recv()] == ["one", "two"]
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (4000, "done")
        with pytest.raises(InvalidStatus, match="426"):
            async with connect(f"{url}/no"):
                pass


async def test_a_websocket_is_closed_or_cut_by_either_end() -> None:
    def script(message: SocketMessage) -> SocketAnswer:
        return SocketAnswer(messages=(b"one", b"two"), cut_after=1 if message.data == b"cut" else None)

    upgrade = Answer(status=101)
    async with (
        provided(lambda _: upgrade, script) as provider,
        running(NOWHERE, settings=IMPATIENT, direct=to(provider.url)) as sidecar,
    ):
        url = sidecar.sidecar.url.replace("http", "ws") + "/anthropic/v1"
        async with connect(url) as socket:
            await socket.send("cut")
            assert await socket.recv() == "one"
            with pytest.raises(ConnectionClosedError):
                await socket.recv()
        async with connect(url) as socket:
            await socket.send("go on")
            assert [await socket.recv(), await socket.recv()] == ["one", "two"]
            await socket.close(4001, "bye")
            assert (socket.close_code, socket.close_reason) == (4001, "bye")
        await sidecar.finished(2)
        told = await sidecar.stats()
    assert [one["outcome"] for one in told["recent"]] == ["direct", "direct"]


async def test_a_fault_of_ours_on_the_way_up_cuts_the_websocket_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def send(_socket: OutboundWebSocket, _message: WebSocketMessage) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(OutboundWebSocket, "send", send)
    async with (
        provided(lambda _: Answer(status=101), lambda _: SocketAnswer()) as provider,
        running(NOWHERE, settings=IMPATIENT, direct=to(provider.url)) as sidecar,
        connect(sidecar.sidecar.url.replace("http", "ws") + "/anthropic/v1") as socket,
    ):
        await socket.send("one")
        with pytest.raises(ConnectionClosedError):
            await asyncio.wait_for(socket.recv(), 20)
        await sidecar.finished(1)
    assert "RuntimeError" in caplog.text

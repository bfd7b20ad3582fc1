"""A gateway from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from pathlib import Path

import aiohttp
import pytest

from segue.config import Config, ListenerConfig, ServerConfig
from segue.gateway.app import Gateway, serving
from segue.gateway.user_socket import bind_socket, connect_socket
from segue.stores.interface import StoreError
from segue.stores.memory import MemoryStore
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import Say, ScriptedTurn, ScriptedUpstream, Wait
from tests.faults.clients import address_of, begin_post, http, opened, read_body
from tests.faults.doubles import BrokenStore, Gated
from tests.faults.gateways import until


class Recorded(ScriptedUpstream):
    """An upstream that notes what is asked of it, and may refuse to start."""

    def __init__(self, *, starts: bool) -> None:
        super().__init__()
        self._starts = starts
        self.asked: list[str] = []

    async def start(self) -> None:
        """Start, or fail as a damaged model does."""
        self.asked.append("start")
        if not self._starts:
            raise RuntimeError("it does not start")

    async def aclose(self) -> None:
        """Note it."""
        self.asked.append("close")


async def test_upstreams_that_had_started_are_closed_when_another_does_not_start() -> None:
    """A local model's thread would keep the process alive."""
    good, bad, late = Recorded(starts=True), Recorded(starts=False), Recorded(starts=True)
    router = Router([ModelRule(upstream, (name,)) for name, upstream in (("a", good), ("b", bad), ("c", late))])
    with pytest.raises(RuntimeError, match="does not start"):
        await Gateway.open(Config(server=ServerConfig(store="memory:")), router)
    assert (good.asked, bad.asked, late.asked) == (["start", "close"], ["start"], [])


async def test_what_had_started_is_closed_when_a_file_of_the_configuration_cannot_be_used(tmp_path: Path) -> None:
    upstream = Recorded(starts=True)
    server = ServerConfig(store="memory:", audit_log=str(tmp_path / "none" / "audit.jsonl"))
    with pytest.raises(OSError, match="No such file"):
        await Gateway.open(Config(server=server), Router([ModelRule(upstream, ("a",))]))
    assert upstream.asked == ["start", "close"]


def router(upstream: ScriptedUpstream) -> Router:
    return Router([ModelRule(upstream, ("*",))])


def config(**server: object) -> Config:
    return Config(server=ServerConfig(port=0, store="memory:", **server))  # type: ignore[arg-type]  # settings of one test


async def test_every_address_is_listened_on_with_its_profile(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "segue.gateway")
    listeners = [ListenerConfig(port=0, profile="serial")]
    gateway = await Gateway.open(
        Config(server=ServerConfig(port=0, store="memory:"), listener=listeners), router(Gated())
    )
    try:
        url = await gateway.listen()
        assert gateway.urls[0] == url
        for address, profile in zip(gateway.urls, ("openai", "serial"), strict=True):
            async with http(address) as client:
                assert (await client.send("GET", "/segue/capabilities"))[1]["profile"] == profile
            assert f"action=listen url={address} profile={profile}" in caplog.messages
    finally:
        await gateway.aclose()


async def test_on_a_users_socket_it_serves_the_user_and_is_idle_when_nobody_is_there(tmp_path: Path) -> None:
    path = tmp_path / "s"
    gateway = await Gateway.open(config(), router(ScriptedUpstream()))
    try:
        seen = [gateway.idle]  # it does not listen yet
        await gateway.listen_for_user(bind_socket(path))
        assert gateway.urls == []  # no port
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client:
            async with client.get("http://localhost/healthz") as reply:
                assert reply.status == 200
            async with client.ws_connect("http://localhost/v1/responses"):
                seen.append(gateway.idle)
        await until(lambda: gateway.idle)
        assert seen == [True, False]
        await gateway.drain()
        assert connect_socket(path) is None
    finally:
        await gateway.aclose()


async def test_an_ipv6_address_is_written_in_brackets() -> None:
    gateway = await Gateway.open(config(host="::1"), router(ScriptedUpstream()))
    try:
        assert (await gateway.listen()).startswith("http://[::1]:")
    except OSError:
        pytest.skip("there is no IPv6 here")
    finally:
        await gateway.aclose()


async def test_a_drain_lets_running_turns_end_and_closes_the_ports() -> None:
    upstream = Gated()
    async with serving(config(), router(upstream)) as (gateway, url):
        reader, writer = await begin_post(url)
        async with opened(url) as socket:
            await until(lambda: gateway.services.drain.busy == 2)
            draining = asyncio.create_task(gateway.drain())
            assert await socket.close_code(after_frames=True) == 1012
        async with http(url) as client:
            assert await client.refusal() == (503, "server_overloaded")
        assert not draining.done()
        upstream.gate.set()
        assert b'"status":"completed"' in await read_body(reader)
        await draining
        await gateway.drain()
        with pytest.raises(aiohttp.ClientConnectionError):
            async with http(url) as client:
                await client.turn()
        writer.close()


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SIDECAR = f"Sec-WebSocket-Protocol: segue-tunnel-1\r\nSegue-Session: {'0' * 32}\r\n"


@pytest.mark.parametrize(
    ("request_line", "fields", "status", "says"),
    [
        ("POST /v1/responses", "Content-Length: 2\r\n", 503, "The gateway is shutting down. Send the request again."),
        ("GET /v1/responses", UPGRADE, 503, "The gateway is shutting down. Try again."),
        ("GET /segue/tunnel", UPGRADE + SIDECAR, 503, "The gateway is shutting down. Try again."),
        ("GET /readyz", "", 503, '{"status":"draining"}'),
        ("GET /healthz", "", 200, '{"status":"ok"}'),
        ("GET /v1/responses/resp_0", "", 404, "response_not_found"),
    ],
)
async def test_while_a_gateway_drains_every_new_connection_is_answered_and_closed(
    request_line: str, fields: str, status: int, says: str
) -> None:
    upstream = Gated()
    async with serving(config(), router(upstream)) as (gateway, url):
        running, writer = await begin_post(url)
        await until(lambda: gateway.services.drain.busy == 1)
        draining = asyncio.create_task(gateway.drain())
        await until(lambda: gateway.services.drain.draining)
        reader, asking = await asyncio.open_connection(*address_of(url))
        asking.write(f"{request_line} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())
        asking.write(b"{}" if request_line.startswith("POST") else b"")
        reply = (await asyncio.wait_for(reader.read(), 20)).decode()
        assert reply.startswith(f"HTTP/1.1 {status} ")
        assert says in reply
        assert "\r\nConnection: close\r\n" in reply
        assert ("\r\nRetry-After: 1\r\n" in reply) is (status == 503 and "readyz" not in request_line)
        assert not draining.done()
        upstream.gate.set()
        await read_body(running)
        await asyncio.wait_for(draining, 20)
        for each in (writer, asking):
            each.close()


async def test_a_drain_that_is_cut_short_closes_the_ports_all_the_same() -> None:
    upstream = Gated()
    async with serving(config(), router(upstream)) as (gateway, url):
        _, writer = await begin_post(url)
        await until(lambda: gateway.services.drain.busy == 1)
        draining = asyncio.create_task(gateway.drain())
        await until(lambda: gateway.services.drain.draining)
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address_of(url))
        writer.close()


async def test_a_drain_gives_up_on_turns_that_do_not_end(caplog: pytest.LogCaptureFixture) -> None:
    upstream = ScriptedUpstream([ScriptedTurn((Say(("x",)), Wait(asyncio.Event())))])
    async with serving(config(drain_s=0.05), router(upstream)) as (gateway, url):
        _, writer = await begin_post(url)
        await until(lambda: upstream.started == 1)
        await gateway.drain()
    assert "action=drain 1 turns did not end in time" in caplog.text
    assert upstream.cancelled == 1
    writer.close()


async def test_expired_responses_are_swept_at_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "segue.gateway")
    async with serving(config(retention_s=0.01, sweep_interval_s=0.01), router(ScriptedUpstream())) as (gateway, url):
        async with http(url) as client:
            await client.turn()
        await until(lambda: "action=sweep expired=1" in caplog.messages)
        assert (await gateway.services.store.size()).records == 0


async def test_a_sweep_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    store = BrokenStore("sweep")
    gateway = Gateway(config(sweep_interval_s=0.001), router(ScriptedUpstream()), store, time.time)
    try:
        await gateway.listen()
        await until(lambda: store.refusals > 2)
    finally:
        await gateway.aclose()
    assert "action=sweep error='the disk is on fire'" in caplog.messages


async def test_a_gateway_that_never_listened_can_be_drained_and_closed() -> None:
    upstream = Recorded(starts=True)
    gateway = await Gateway.open(config(), router(upstream))
    await gateway.drain()
    assert not gateway.services.drain.draining
    await gateway.aclose()
    assert upstream.asked == ["start", "close"]


@pytest.mark.parametrize("steps", range(8))
async def test_closing_the_ports_leaves_no_socket_open(steps: int) -> None:
    """However far the drain has come when somebody connects."""
    async with serving(config(), router(ScriptedUpstream())) as (gateway, url):
        draining = asyncio.create_task(gateway.drain())
        for _ in range(steps):
            await asyncio.sleep(0)
        with socket.socket() as client:
            client.connect_ex(address_of(url))
            await draining
            await gateway.aclose()


async def test_what_can_be_released_is_released_though_something_else_cannot() -> None:
    """A store that is not closed keeps its file locked."""

    class Stubborn(ScriptedUpstream):
        async def aclose(self) -> None:
            raise RuntimeError("it does not end")

    store, others = MemoryStore(), [Recorded(starts=True) for _ in range(2)]
    router = Router([ModelRule(one, ["m"]) for one in (others[0], Stubborn(), others[1])])
    gateway = await Gateway.open(Config(), router, store=store)
    with pytest.raises(RuntimeError, match="it does not end"):
        await gateway.aclose()
    assert [one.asked for one in others] == [["start", "close"]] * 2
    with pytest.raises(StoreError, match="the store is closed"):
        await store.size()

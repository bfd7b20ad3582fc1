"""Links by ssh: the same WebSocket over an ssh that may be cut."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
from aiohttp import web

from segue.protocol.problems import Problem
from segue.sidecar import dial_race
from segue.sidecar import dialer as dialer_module
from segue.sidecar.app import SidecarSettings
from segue.sidecar.connector import (
    ConnectorSettings,
    GatewayRefusedError,
    GatewayUnreachableError,
    LinkIntroduction,
    TunnelSocket,
    connected,
)
from segue.sidecar.dialer import Dialer, check_gateway
from segue.sidecar.link_status import LinkTimeouts
from segue.sidecar.tls_sessions import ResumingContext
from segue.testing.link import EmulatedLink, linked
from segue.tunnel.frames import SUBPROTOCOL
from tests.sidecar.gateways import Answer, FakeGateway, fake_gateway
from tests.sidecar.proxies import relay
from tests.sidecar.sidecars import running
from tests.sidecar.ssh_machines import READY, SshDouble

URL = "ssh://me@box"
SESSION = "0" * 32


def relaying_to(gateway: FakeGateway) -> str:
    """What the far side's `segue` does, in bash: it relays to a gateway."""
    return f"exec 3<>/dev/tcp/127.0.0.1/{gateway.port}; {READY}; cat <&3 & exec cat >&3"


def dialer(key: str | None = None) -> Dialer:
    return Dialer(ConnectorSettings(key=key, connect_s=30.0), ResumingContext())


def test_addresses_of_all_kinds_are_checked() -> None:
    for good in ("ssh://me@box:22", "wss://box", "ws://127.0.0.1:1"):
        check_gateway(good)
    for bad in ("ssh://-x", "ssh://box/path", "ftp://box"):
        with pytest.raises(ValueError, match="is not the address of a"):
            check_gateway(bad)


def test_it_needs_a_key_that_can_be_sent() -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        dialer(key="sk-1\n")


async def test_a_link_by_ssh_is_the_same_websocket_without_a_key(box: SshDouble) -> None:
    async with fake_gateway() as gateway:
        box.install(relaying_to(gateway), interpreter="/bin/bash")
        async with dialer(key="sk-1").link(URL, SESSION) as link:
            assert not link.closed
        [upgrade] = gateway.upgrades
        assert (upgrade["host"], upgrade["sec-websocket-protocol"]) == ("localhost", SUBPROTOCOL)
        assert upgrade["segue-session"] == SESSION
        assert "authorization" not in upgrade
    assert box.running() == []


async def test_the_first_link_uses_what_was_prepared(box: SshDouble) -> None:
    async with fake_gateway() as gateway:
        box.install(relaying_to(gateway), interpreter="/bin/bash")
        links = dialer()
        await links.prepare(URL, attended=False)
        await links.prepare("wss://gateway.invalid", attended=True)  # there is nothing to prepare
        for count in (1, 2):
            async with links.link(URL, SESSION):
                assert len(box.processes) == count
        await links.prepare(URL, attended=False)
        await links.aclose()
    assert len(box.processes) == 3
    assert box.running() == []


async def test_only_what_a_person_must_mend_is_a_refusal(box: SshDouble) -> None:
    with pytest.raises(GatewayRefusedError, match="not installed") as refused:
        await dialer().prepare(URL, attended=False)
    assert refused.value.code == "segue_gateway_refused"
    box.answer("echo 'ssh: Connection refused' >&2; exit 255")
    with pytest.raises(GatewayUnreachableError, match="Connection refused"):
        async with dialer().link(URL, SESSION):
            pytest.fail("there is no link")


async def test_a_relay_that_ends_at_once_is_no_link(box: SshDouble) -> None:
    box.install(READY)
    with pytest.raises(GatewayUnreachableError):
        async with dialer().link(URL, SESSION):
            pytest.fail("there is no link")


async def test_a_cut_ssh_is_a_pause_and_no_address_of_a_node_leads_elsewhere(box: SshDouble) -> None:
    gate = asyncio.Event()
    answer = Answer(pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate})
    async with fake_gateway(lambda _: answer) as gateway:
        gateway.address = b"ws://127.0.0.1:1"
        box.install(relaying_to(gateway), interpreter="/bin/bash")
        settings = SidecarSettings(
            gateways=(), connector=ConnectorSettings(connect_s=30.0), timeouts=LinkTimeouts(wait_s=60.0)
        )
        async with running(URL, settings=settings) as sidecar:
            replying = asyncio.get_running_loop().create_task(sidecar.post(b"{}"))
            await gateway.seen(1)
            box.cut()
            await sidecar.unlinked()
            gate.set()
            assert (await replying).endswith(b"2\n\n\r\n0\r\n\r\n")
            told = msgspec.json.decode(msgspec.json.encode(sidecar.sidecar.report()))
        assert (told["gateway"], told["link"], told["resumes"]) == (URL, "up", 1)
        assert len(gateway.forwarded) == 1
    assert box.running() == []


# --- several connections for one link --------------------------------------------------------------------------------


@asynccontextmanager
async def deaf_port(gateway: FakeGateway, back: asyncio.Event) -> AsyncIterator[int]:
    """A port that drops the first packet of each connection, as an outage does, until the network is `back`.

    Linux drops what does not fit into the queue of a listening socket.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    filling = socket.create_connection(listener.getsockname())

    async def come_back() -> None:
        await back.wait()
        listener.accept()[0].close()
        async with await asyncio.start_server(partial(relay, gateway.port), sock=listener):
            await asyncio.Event().wait()

    coming = asyncio.get_running_loop().create_task(come_back())
    try:
        yield listener.getsockname()[1]
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        filling.close()
        listener.close()


@pytest.fixture
def quick_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_race, "INTERVAL_S", 0.1)
    monkeypatch.setattr(dial_race, "LATE_S", 0.2)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse what does not fit into a queue")
@pytest.mark.usefixtures("quick_rivals")
async def test_a_network_that_is_back_is_noticed_before_tcp_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP repeats the first packet of a connection after a second, and then after two and four."""
    begun, opened, back = 0, list[int](), asyncio.Event()

    @asynccontextmanager
    async def counted(*how: Any, **more: Any) -> AsyncIterator[TunnelSocket]:  # noqa: ANN401 - passed on as they are
        nonlocal begun
        begun += 1
        number = begun
        if number == 3:
            back.set()
        async with connected(*how, **more) as link:
            opened.append(number)
            yield link

    monkeypatch.setattr(dialer_module, "connected", counted)
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    async with fake_gateway() as gateway, deaf_port(gateway, back) as port:
        async with dialer().link(f"ws://127.0.0.1:{port}", SESSION, is_wanted=lambda: True) as link:
            assert not link.closed
        assert len(gateway.upgrades) == 1
    assert len(opened) == 1
    assert opened[0] > 1
    assert begun <= 2 + (loop.time() - began_at) / dial_race.INTERVAL_S


@pytest.mark.usefixtures("quick_rivals")
async def test_a_connection_whose_answer_is_late_gives_way_to_the_next_one() -> None:
    async with fake_gateway() as gateway, linked("127.0.0.1", gateway.port) as link, AsyncExitStack() as stranded:

        async def strand_first() -> LinkIntroduction:
            if len(link.connections) == 1:
                stranded.enter_context(link.stranded())
            return LinkIntroduction(len(link.connections), b"")

        async with dialer().link(link.url, SESSION, strand_first, is_wanted=lambda: True) as opened:
            assert not opened.closed
        assert len(gateway.upgrades) == 1
        assert len(link.connections) >= 2


@pytest.mark.usefixtures("quick_rivals")
async def test_when_nothing_waits_one_connection_is_tried() -> None:
    settings = ConnectorSettings(connect_s=0.5)
    async with fake_gateway() as gateway, linked("127.0.0.1", gateway.port) as link:
        with link.silenced():
            with pytest.raises(GatewayUnreachableError, match="no answer within"):
                async with Dialer(settings, ResumingContext()).link(link.url, SESSION):
                    pytest.fail("there is no link")
            assert len(link.connections) == 1


async def test_a_change_of_the_network_begins_another_connection_at_once() -> None:
    async with fake_gateway() as gateway, linked("127.0.0.1", gateway.port) as link:
        links = dialer()
        with link.silenced():
            opening = asyncio.get_running_loop().create_task(opened_by(links, link.url))
            await until_connected(link, 1)
            links.network_changed()
            await until_connected(link, 2)
        await opening
        links.network_changed()  # nothing is being connected
        assert len(link.connections) == 2


async def test_a_failure_is_told_and_ends_its_rivals() -> None:
    async with fake_gateway() as gateway, linked("127.0.0.1", gateway.port) as link:
        gateway.between = lambda: web.Response(status=404)
        links = dialer()
        with link.silenced():
            opening = asyncio.get_running_loop().create_task(opened_by(links, link.url))
            await until_connected(link, 1)
            links.network_changed()
            await until_connected(link, 2)
        with pytest.raises(GatewayUnreachableError, match="404"):
            await opening
        gateway.between = None
        gateway.refusal = Problem("invalid_api_key", "who are you?")
        with pytest.raises(GatewayRefusedError):
            await opened_by(links, link.url)


async def opened_by(links: Dialer, url: str) -> None:
    async with links.link(url, SESSION):
        pass


async def until_connected(link: EmulatedLink, count: int) -> None:
    while len(link.connections) < count:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.005)

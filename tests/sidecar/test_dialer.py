"""Links by ssh: the same WebSocket over an ssh that may be cut."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from segue.sidecar.app import SidecarSettings
from segue.sidecar.connector import ConnectorSettings, GatewayRefusedError, GatewayUnreachableError
from segue.sidecar.dialer import Dialer, check_gateway
from segue.sidecar.link_status import LinkTimeouts
from segue.sidecar.tls_sessions import ResumingContext
from segue.tunnel.frames import SUBPROTOCOL
from tests.sidecar.gateways import Answer, FakeGateway, fake_gateway
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

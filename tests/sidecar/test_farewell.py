"""Sidecars that leave, and sessions that are left: their gateways keep nothing for them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from segue.sidecar import farewell
from segue.sidecar.app import SidecarSettings
from segue.sidecar.connector import TunnelSocket
from segue.sidecar.link_status import LinkTimeouts
from segue.testing.link import LinkProfile, linked
from tests.sidecar.agents import RawAgent
from tests.sidecar.gateways import Answer, FakeGateway, fake_gateway
from tests.sidecar.sidecars import Running, post, running

PATIENT = SidecarSettings(gateways=(), timeouts=LinkTimeouts(wait_s=60.0))


@asynccontextmanager
async def draining_with_a_reply_to_come(gate: asyncio.Event) -> AsyncIterator[tuple[FakeGateway, Running, RawAgent]]:
    """A gateway that drains, and a sidecar that has moved to another one; the reply goes on when the gate opens."""
    answer = Answer(pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate})
    async with (
        fake_gateway(lambda _: answer) as gateway,
        fake_gateway() as another,
        running(gateway.url, another.url, settings=PATIENT) as sidecar,
    ):
        agent = await sidecar.connect()
        await agent.send(post(b"{}"))
        await agent.until(b"data: 1\n\n\r\n")
        gateway.drain()
        await another.until(lambda: len(another.upgrades) == 1)
        await sidecar.linked()
        yield gateway, sidecar, agent


async def test_a_session_that_is_left_says_goodbye_and_waits_until_it_was_heard() -> None:
    gate = asyncio.Event()
    async with draining_with_a_reply_to_come(gate) as (gateway, _, agent):
        gate.set()
        assert (await agent.rest()).endswith(b"data: 2\n\n\r\n0\r\n\r\n")
        await asyncio.wait_for(gateway.until(lambda: bool(gateway.close_codes)), 20)
        assert gateway.close_codes == [1000]
        [session] = gateway.sessions.values()
        assert len(session.end) == 0


def break_off_goodbye(monkeypatch: pytest.MonkeyPatch, gate: asyncio.Event) -> None:
    """Cut the link instead of sending the first packet after the gate was opened."""
    send = TunnelSocket.send

    async def break_off(self: TunnelSocket, packet: bytes) -> None:
        if gate.is_set():
            monkeypatch.setattr(TunnelSocket, "send", send)
            self.abort()
            raise ConnectionResetError
        await send(self, packet)

    monkeypatch.setattr(TunnelSocket, "send", break_off)


async def test_a_goodbye_that_broke_off_is_said_on_another_link(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()
    async with draining_with_a_reply_to_come(gate) as (gateway, _, agent):
        break_off_goodbye(monkeypatch, gate)
        gate.set()
        assert (await agent.rest()).endswith(b"data: 2\n\n\r\n0\r\n\r\n")
        await asyncio.wait_for(gateway.until(lambda: len(gateway.close_codes) == 2), 20)
        [session] = gateway.sessions.values()
        assert len(session.end) == 0
        assert gateway.close_codes == [1006, 1000]


async def test_a_session_that_is_left_looks_for_a_gateway_that_is_gone_only_so_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(farewell, "FAREWELLS", 2)
    gate = asyncio.Event()
    async with draining_with_a_reply_to_come(gate) as (gateway, sidecar, agent):
        gateway.between = lambda: web.Response(status=404)
        break_off_goodbye(monkeypatch, gate)
        gate.set()
        assert (await agent.rest()).endswith(b"data: 2\n\n\r\n0\r\n\r\n")
        await asyncio.wait_for(sidecar.alone(), 20)
        assert len(gateway.upgrades) <= 1 + 2


async def test_a_sidecar_that_leaves_has_its_goodbye_heard_over_a_slow_link() -> None:
    gate = asyncio.Event()
    answer = Answer(pieces=(b"data: 1\n\n", random.Random(7).randbytes(60_000)), gates={1: gate})
    profile = LinkProfile(rtt_s=0.2, down_bytes_s=100_000)
    async with fake_gateway(lambda _: answer) as gateway, linked("127.0.0.1", gateway.port, profile) as link:
        async with running(link.url, settings=PATIENT) as sidecar:
            agent = await sidecar.connect()
            await agent.send(post(b"{}"))
            await agent.until(b"data: 1\n\n\r\n")
            gate.set()
        await asyncio.wait_for(gateway.until(lambda: bool(gateway.close_codes)), 20)
        assert gateway.close_codes == [1000]
        [session] = gateway.sessions.values()
        assert len(session.end) == 0

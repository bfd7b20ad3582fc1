"""Which session carries what: at a node that drains, and at one that forwards nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from segue.sidecar.arriving_reply import Ending
from segue.sidecar.connector import ConnectorSettings
from segue.sidecar.dialer import Dialer
from segue.sidecar.session import AgentExchange, GatewaySession
from segue.sidecar.session_pool import SessionPool
from segue.sidecar.stats import Stats
from segue.tunnel.client import TunnelRequest
from segue.tunnel.events import ExchangeReset, ReplyEnded
from tests.sidecar.exchanges import PATIENT
from tests.sidecar.exchanges import post as head_of_post
from tests.sidecar.gateways import Answer, FakeGateway, fake_gateway
from tests.sidecar.sidecars import post, running

CHUNKED_END = b"0\r\n\r\n"
REQUEST = TunnelRequest(head_of_post(), None)


@asynccontextmanager
async def pooled(*gateways: FakeGateway) -> AsyncIterator[SessionPool]:
    urls = [gateway.url for gateway in gateways]
    pool = SessionPool(urls, Dialer(ConnectorSettings()), stats=Stats(), timeouts=PATIENT)
    pool.start()
    try:
        yield pool
    finally:
        await pool.aclose()


async def ending_of(exchange: AgentExchange) -> Ending:
    async with asyncio.timeout(20):
        while exchange.ending is None:
            exchange.changed.clear()
            await exchange.changed.wait()
    return exchange.ending


async def left(session: GatewaySession, socket: web.WebSocketResponse) -> None:
    """Wait until a session is over, and its gateway has seen that."""
    while not (session.over and socket.closed):  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.005)


async def linked_again(gateway: FakeGateway, count: int) -> None:
    """Wait until a gateway has had more links than so many."""
    await gateway.until(lambda: len(gateway.upgrades) > count)


@pytest.mark.parametrize("gateways", [[], ["wss://good.example.com", "ftp://no"], ["wss://host:99999"]])
def test_it_needs_addresses_of_gateways(gateways: list[str]) -> None:
    with pytest.raises(ValueError, match=r"address of a gateway|out of range"):
        SessionPool(gateways, Dialer(ConnectorSettings()), stats=Stats())


def test_nothing_can_be_opened_before_the_start() -> None:
    pool = SessionPool(["ws://127.0.0.1:1"], Dialer(ConnectorSettings()), stats=Stats())
    with pytest.raises(AssertionError, match="start"):
        pool.open(REQUEST)


async def test_what_waits_for_a_link_is_counted_until_it_has_gone() -> None:
    async with fake_gateway() as gateway, pooled(gateway) as pool:
        exchange = pool.open(REQUEST)
        assert pool.queued == 1
        await ending_of(exchange)
        assert pool.queued == 0


async def test_what_a_draining_node_did_not_take_goes_to_the_next() -> None:
    async with fake_gateway() as first, fake_gateway() as second:
        gate = asyncio.Event()
        first.script = lambda _: Answer(pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate})
        async with running(first.url, second.url) as sidecar:
            agent = await sidecar.connect()
            await agent.send(post(b"{}"))
            await agent.until(b"data: 1\n\n\r\n")
            first.drain()
            await second.until(lambda: bool(second.upgrades))
            assert b"data: {}" in await sidecar.post(b"[]")
            gate.set()
            assert (await agent.rest()).endswith(b"data: 2\n\n\r\n" + CHUNKED_END)  # what ran goes on where it is
        assert ([one.body for one in first.forwarded], [one.body for one in second.forwarded]) == ([b"{}"], [b"[]"])


async def test_a_draining_node_is_left_when_everything_there_has_ended() -> None:
    gate = asyncio.Event()
    async with (
        fake_gateway(lambda _: Answer(before=gate)) as first,
        fake_gateway() as second,
        pooled(first, second) as pool,
    ):
        old = pool.open(REQUEST)
        await first.seen(1)
        [at_first] = first.sessions.values()
        first.drain()
        await second.until(lambda: bool(second.upgrades))
        new = pool.open(REQUEST)
        assert old.session.draining
        assert (new.session is pool.current, old.session is pool.current) == (True, False)
        assert await ending_of(new) == ReplyEnded(new.handle)
        assert at_first.socket is not None
        assert not at_first.socket.closed
        gate.set()
        assert await ending_of(old) == ReplyEnded(old.handle)
        await left(old.session, at_first.socket)
        assert pool.current is new.session


async def test_after_the_last_gateway_comes_the_first_again() -> None:
    async with fake_gateway() as first, fake_gateway() as second, pooled(first, second) as pool:
        assert isinstance(await ending_of(pool.open(REQUEST)), ReplyEnded)
        for there, then in ((first, second), (second, first)):
            count = len(then.upgrades)
            there.drain()
            await linked_again(then, count)
            assert isinstance(await ending_of(pool.open(REQUEST)), ReplyEnded)
            assert len(then.forwarded) == count + 1


async def test_what_a_node_did_not_forward_is_opened_once_more_and_no_more() -> None:
    async with fake_gateway() as gateway, pooled(gateway) as pool:
        gateway.takes_nothing = True
        exchange = pool.open(REQUEST)
        first = exchange.handle
        ending = await ending_of(exchange)
        assert isinstance(ending, ExchangeReset)
        assert (ending.code, exchange.reopened, exchange.handle > first) == ("not_forwarded", True, True)
        assert gateway.forwarded == []


async def test_a_gateway_that_takes_nothing_at_all_is_overloaded() -> None:
    async with fake_gateway() as gateway, running(gateway.url) as sidecar:
        await sidecar.linked()
        gateway.takes_nothing = True
        answer = await sidecar.post(b"{}")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "segue_overloaded"
        assert gateway.forwarded == []


async def test_what_was_given_up_meanwhile_is_not_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    take_rejected = GatewaySession.take_rejected

    async with fake_gateway() as gateway, pooled(gateway) as pool:

        def give_up(session: GatewaySession) -> list[AgentExchange]:
            rejected = take_rejected(session)
            for exchange in rejected:
                session.cancel(exchange)
                gateway.takes_nothing = False
            return rejected

        monkeypatch.setattr(GatewaySession, "take_rejected", give_up)
        gateway.takes_nothing = True
        rejected = pool.open(REQUEST)
        ending = await ending_of(rejected)
        assert isinstance(ending, ExchangeReset)
        assert ending.code == "cancelled"
        assert isinstance(await ending_of(pool.open(REQUEST)), ReplyEnded)
        assert len(gateway.forwarded) == 1

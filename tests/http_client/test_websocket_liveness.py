"""A server at the other end of a WebSocket is pinged while it is silent, and given up if it shows no life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from yarl import URL

from segue.http_client.connector import DesyncSafeConnector
from segue.http_client.websocket_liveness import watch_liveness
from segue.http_client.websocket_opening import OpenedWebSocket, open_websocket
from segue.http_client.wire_meter import WireMeter
from segue.testing.provider import ACCEPTED, ScriptedProvider, SocketAnswer, provided
from tests.loop_clock import LoopClock


@asynccontextmanager
async def opened(answer: SocketAnswer) -> AsyncIterator[tuple[ScriptedProvider, OpenedWebSocket]]:
    connector = DesyncSafeConnector(WireMeter())
    async with provided(lambda _: ACCEPTED, lambda _: answer) as provider:
        one = await open_websocket(
            lambda middlewares: aiohttp.ClientSession(
                connector=connector, connector_owner=False, middlewares=middlewares
            ),
            URL(provider.url),
            patience_s=20.0,
            max_message_bytes=1000,
        )
        try:
            yield provider, one
        finally:
            one.abort()
            await connector.close()


def watch(one: OpenedWebSocket, heartbeat_s: float) -> asyncio.Task[None]:
    return asyncio.create_task(
        watch_liveness(one, heartbeat_s, is_over=lambda: one.socket.closed, is_reading=lambda: True)
    )


async def test_a_server_that_answers_pings_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = LoopClock(monkeypatch)
    async with opened(SocketAnswer()) as (_, one):
        watching, reading = watch(one, 60.0), asyncio.create_task(one.socket.receive())
        for _ in range(3):
            await asyncio.sleep(0)  # it looks
            before = one.meter.received_bytes
            clock.forward(60.0)
            async with asyncio.timeout(20):
                while one.meter.received_bytes == before:  # noqa: ASYNC110 - a pong tells nobody
                    await asyncio.sleep(0.001)
        assert not watching.done()
        watching.cancel()
        reading.cancel()


async def test_a_server_that_shows_no_life_is_given_up() -> None:
    """While it waits at the gate, the scripted server answers no pings either."""
    async with opened(SocketAnswer(messages=(b"x",), gates={0: asyncio.Event()})) as (provider, one):
        await one.socket.send_str("hi")
        watching = watch(one, 0.05)
        received = await one.socket.receive()
        await watching
        await provider.abandoned(0)
    assert received.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}


async def test_nobody_is_given_up_while_nothing_is_read() -> None:
    """After three silent intervals a server that is heard would be dead."""
    looks, looked = 0, asyncio.Event()

    def is_reading() -> bool:
        nonlocal looks
        looks += 1
        if looks == 6:
            looked.set()
        return False

    async with opened(SocketAnswer(messages=(b"x",), gates={0: asyncio.Event()})) as (_, one):
        await one.socket.send_str("hi")
        watching = asyncio.create_task(watch_liveness(one, 0.02, is_over=lambda: False, is_reading=is_reading))
        await looked.wait()
        assert not watching.done()
        watching.cancel()

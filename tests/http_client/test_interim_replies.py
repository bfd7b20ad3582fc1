"""Interim replies are skipped, and a server that sends nothing else is given up at once."""

from __future__ import annotations

import asyncio
from time import thread_time

import aiohttp
import pytest

from segue.http_client.connector import DesyncSafeConnector
from segue.http_client.interim_replies import MOST_INTERIM
from segue.http_client.wire_meter import WireMeter
from tests.upstreams.provider import Exchange, Play, providing

INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def writes(*pieces: bytes) -> Play:
    async def play(exchange: Exchange) -> None:
        for piece in pieces:
            await exchange.send(piece)
            await asyncio.sleep(0)

    return play


async def ask(play: Play, meter: WireMeter | None) -> tuple[int, bytes]:
    async with (
        providing(play) as provider,
        aiohttp.ClientSession(connector=DesyncSafeConnector(meter)) as session,
        session.post(provider.url, data=b"x") as response,
    ):
        return response.status, await response.read()


@pytest.mark.parametrize("metered", [True, False])
async def test_some_are_skipped(metered: bool) -> None:
    meter = WireMeter() if metered else None
    assert await ask(writes(INTERIM * 2 + REPLY), meter) == (200, b"hi")
    assert await ask(writes(*[INTERIM] * MOST_INTERIM, REPLY), meter) == (200, b"hi")


@pytest.mark.parametrize("pieces", [[INTERIM * 200_000], [INTERIM] * 100, [INTERIM * 5] * 20])
async def test_without_end_they_are_an_error_at_once(pieces: list[bytes]) -> None:
    """However they are cut, and in little processor time."""
    before = thread_time()
    with pytest.raises(aiohttp.ClientError):
        await ask(writes(*pieces), None)
    assert thread_time() - before < 1.0

"""The sockets of one upstream: who gets which, and when they are closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from segue.dialects.responses.held_context import SentInput
from segue.protocol.ids import ENTROPY_BYTES, ResponseId, new_response_id
from segue.testing.provider import SocketAnswer
from segue.upstreams.provider_socket import SocketLane
from segue.upstreams.socket_lanes import IdleLimits, SocketOwner
from segue.upstreams.socket_pool import SocketPool
from tests.upstreams.opened_sockets import OWNER, SocketOpener, accepting

BOB = SocketOwner("bob", b"m")


def response_id(number: int) -> ResponseId:
    return new_response_id(number.to_bytes(ENTROPY_BYTES, "big"))


@asynccontextmanager
async def pooled(limits: IdleLimits | None = None) -> AsyncIterator[tuple[SocketPool, SocketOpener]]:
    async with accepting(SocketAnswer()) as (opener, _):
        pool = SocketPool(limits or IdleLimits())
        try:
            yield pool, opener
        finally:
            await pool.aclose()


async def until_there_are(pool: SocketPool, count: int) -> None:
    async with asyncio.timeout(20):
        while len(pool) != count:  # noqa: ASYNC110 - the end of a socket tells nobody
            await asyncio.sleep(0)


async def test_the_socket_of_a_response_is_for_the_turn_that_continues_it() -> None:
    async with pooled() as (pool, opener):
        socket = pool.add(await opener.open(), OWNER)
        pool.give_back(socket, response_id(1))
        assert pool.take_free(OWNER) is None
        assert pool.take_held("ann", response_id(2), OWNER) == "unknown"
        assert pool.take_held("bob", response_id(1), BOB) == "unknown"
        assert pool.take_held("ann", response_id(1), SocketOwner("ann", b"n")) == "settings"
        assert pool.take_held("ann", response_id(1), OWNER) is socket
        assert pool.take_held("ann", response_id(1), OWNER) == "unknown"
        pool.give_back(socket, None)
        assert pool.take_free(BOB) is None
        assert pool.take_free(OWNER) is socket
        assert len(pool) == 1


async def test_where_no_more_may_wait_a_socket_takes_another_chain() -> None:
    async with pooled(IdleLimits(max_idle=1)) as (pool, opener):
        socket = pool.add(await opener.open(), OWNER)
        socket.held = SentInput("v", 1, 0, b"", 0).answered("up_1")
        pool.give_back(socket, response_id(1))
        taken = pool.take_free(OWNER)
        assert taken is socket
        assert taken.held is None
        assert pool.take_held("ann", response_id(1), OWNER) == "expired"


async def test_of_a_response_whose_socket_is_gone_it_is_known_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.upstreams.socket_lanes.MOST_LOST", 1)
    async with pooled(IdleLimits(max_idle=1)) as (pool, opener):
        dropped, evicted, kept = [pool.add(await opener.open(), OWNER) for _ in range(3)]
        pool.give_back(dropped, response_id(1))
        dropped.socket.drop()
        assert pool.take_held("ann", response_id(1), OWNER) == "disconnected"
        pool.give_back(dropped, response_id(1))
        assert pool.idle == 0, "it is over"
        pool.give_back(evicted, response_id(2))
        pool.give_back(kept, response_id(3))
        assert pool.take_held("ann", response_id(2), OWNER) == "expired"
        assert pool.take_held("ann", response_id(1), OWNER) == "unknown", "that is long ago"
        await until_there_are(pool, 1)


async def test_a_socket_that_waits_for_too_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.upstreams.socket_pool._SWEEP_S", 0.01)
    async with pooled(IdleLimits(idle_s=0.03)) as (pool, opener):
        for number in range(2):
            pool.give_back(pool.add(await opener.open(), OWNER), response_id(number))
        running = pool.add(await opener.open(), OWNER)
        await until_there_are(pool, 1)
        assert running.socket.end is None
        assert pool.take_held("ann", response_id(0), OWNER) == "expired"


async def test_a_socket_that_is_too_old_gets_no_turn() -> None:
    async with pooled(IdleLimits(age_s=0.05)) as (pool, opener):
        socket = pool.add(await opener.open(), OWNER)
        pool.give_back(socket, response_id(1))
        deadline = asyncio.get_running_loop().time() + 0.05
        while asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - it is about time
            await asyncio.sleep(0.01)
        assert pool.take_held("ann", response_id(1), OWNER) == "expired"


async def test_what_is_forgotten_is_closed() -> None:
    async with pooled() as (pool, opener):
        sockets: list[SocketLane] = []
        for number, owner in enumerate((OWNER, OWNER, BOB)):
            sockets.append(pool.add(await opener.open(), owner))
            pool.give_back(sockets[-1], response_id(number))
        pool.forget("ann", [response_id(0), response_id(2), response_id(7)])
        assert pool.idle == 2
        pool.forget_tenant("bob")
        assert pool.idle == 1
        await until_there_are(pool, 1)
        assert pool.take_held("ann", response_id(0), OWNER) == "unknown"

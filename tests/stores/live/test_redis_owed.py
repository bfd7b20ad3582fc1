"""What Redis has not heard is said until it has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from segue.stores.live import redis_owed
from segue.stores.live.interface import LiveUnavailable
from segue.stores.live.redis_owed import OwedCalls
from tests.stores.live.live_nodes import until


class Server:
    """Something that may be away, and notes what it hears."""

    def __init__(self) -> None:
        self.away = False
        self.heard: list[str] = []
        self.asked = 0

    def call(self, name: str) -> Callable[[], Awaitable[object]]:
        async def say() -> None:
            self.asked += 1
            if self.away:
                raise LiveUnavailable("away")
            self.heard.append(name)

        return say


async def test_what_is_heard_at_once_is_not_owed() -> None:
    server, owed = Server(), OwedCalls()
    await owed.make_or_owe(server.call("a"))
    assert (server.heard, len(owed)) == (["a"], 0)
    await owed.aclose()


async def test_what_was_not_heard_is_said_in_order_once_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_owed, "_AGAIN_S", 0.001)
    server, owed = Server(), OwedCalls()
    server.away = True
    for name in "abc":
        await owed.make_or_owe(server.call(name))
    await until(lambda: server.asked > 5)
    server.away = False
    await until(lambda: not len(owed))
    assert server.heard == ["a", "b", "c"]


async def test_a_call_whose_caller_is_cancelled_is_made_again() -> None:
    server, owed, never = Server(), OwedCalls(), asyncio.Event()
    answered = server.call("a")

    async def hang_at_first() -> object:
        if not never.is_set():
            await never.wait()
        return await answered()

    asking = asyncio.create_task(owed.make_or_owe(hang_at_first))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    never.set()
    await until(lambda: not len(owed))
    assert server.heard == ["a"]


async def test_what_is_owed_ends_with_the_gateway() -> None:
    server, owed = Server(), OwedCalls()
    server.away = True
    owed.owe(server.call("a"))
    await asyncio.sleep(0)
    await owed.aclose()
    assert not server.heard

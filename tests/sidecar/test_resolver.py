"""Addresses of gateways are remembered, and a look-up that hangs holds nobody up for longer than it must."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from segue.sidecar import resolver
from segue.sidecar.resolver import MOST_LOOKUPS, RememberingResolver


def at(address: str) -> list[ResolveResult]:
    return [ResolveResult(hostname="a.test", host=address, port=443, family=socket.AF_INET, proto=6, flags=0)]


class Lookup(AbstractResolver):
    """Each look-up is answered when the test does so."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[list[ResolveResult]]] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]

    async def close(self) -> None:
        pass


class Resolving:
    """A resolver whose look-ups are in the test's hands."""

    def __init__(self) -> None:
        self.lookup = Lookup()
        self.resolver = RememberingResolver(self.lookup)

    async def begin(self) -> asyncio.Task[list[ResolveResult]]:
        """Begin to ask, as far as that goes without an answer."""
        task = asyncio.get_running_loop().create_task(self.resolver.resolve("a.test", 443))
        await self.settle()
        return task

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def answer(self, number: int, address: str) -> None:
        self.lookup.asked[number].set_result(at(address))
        await self.settle()


async def test_what_is_remembered_is_used_at_once_and_looked_up_again_for_the_next_time() -> None:
    on = Resolving()
    first = await on.begin()
    await on.answer(0, "192.0.2.1")
    assert await first == at("192.0.2.1")
    assert (await on.begin()).result() == at("192.0.2.1")
    assert (await on.begin()).result() == at("192.0.2.1")
    assert len(on.lookup.asked) == 2
    await on.answer(1, "192.0.2.2")
    assert (await on.begin()).result() == at("192.0.2.2")
    on.lookup.asked[2].set_exception(OSError("no name server"))
    await on.settle()
    assert (await on.begin()).result() == at("192.0.2.2")
    await on.resolver.close()


async def test_another_look_up_is_begun_beside_one_that_hangs_and_the_first_answer_counts() -> None:
    on = Resolving()
    tasks = [await on.begin() for _ in range(MOST_LOOKUPS + 1)]
    assert len(on.lookup.asked) == MOST_LOOKUPS
    await on.answer(1, "192.0.2.1")
    assert [task.done() for task in tasks] == [False, True, True]  # the first one asked before there was a second
    await on.resolver.close()
    assert not tasks[0].done() or tasks[0].cancelled()
    for task in tasks:
        task.cancel()


async def test_when_all_look_ups_have_failed_the_last_error_is_raised() -> None:
    on = Resolving()
    first, second = await on.begin(), await on.begin()
    on.lookup.asked[0].set_exception(OSError("first"))
    await on.settle()
    assert not second.done()
    on.lookup.asked[1].set_exception(OSError("second"))
    with pytest.raises(OSError, match="second"):
        await second
    with pytest.raises(OSError, match="first"):
        await first
    await on.resolver.close()


async def test_what_is_old_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "REMEMBERED_S", 0.0)
    on = Resolving()
    await on.begin()
    await on.answer(0, "192.0.2.1")
    assert not (await on.begin()).done()
    await on.answer(1, "192.0.2.2")
    await on.resolver.close()


async def test_only_so_many_names_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "_MAX_NAMES", 1)
    on = Resolving()
    await on.begin()
    await on.answer(0, "192.0.2.1")
    other = asyncio.get_running_loop().create_task(on.resolver.resolve("b.test", 443))
    await on.settle()
    await on.answer(1, "192.0.2.9")
    await other
    assert not (await on.begin()).done()
    await on.resolver.close()


async def test_by_itself_it_asks_the_system() -> None:
    named = RememberingResolver()
    [found, *_] = await named.resolve("127.0.0.1", 443)
    assert (found["host"], found["port"]) == ("127.0.0.1", 443)
    await named.close()

"""What Redis has not heard is said until it has."""

from __future__ import annotations

import asyncio

import pytest

from segue.stores.live import owed_work
from segue.stores.live.interface import LiveUnavailable
from segue.stores.live.owed_work import OwedWork
from tests.stores.live.live_nodes import until


class Server:
    """Something that may be away, and notes what it hears."""

    def __init__(self) -> None:
        self.away = False
        self.heard: list[str] = []
        self.asked = 0

    async def hear(self, name: str) -> None:
        self.asked += 1
        if self.away:
            raise LiveUnavailable("away")
        self.heard.append(name)


async def test_what_is_heard_at_once_is_not_owed() -> None:
    server = Server()
    owed = OwedWork(server.hear)
    assert await owed.do_or_owe("a")
    assert (server.heard, len(owed)) == (["a"], 0)
    await owed.aclose()


async def test_what_was_not_heard_is_said_in_order_once_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed_work, "_AGAIN_S", 0.001)
    server = Server()
    owed = OwedWork(server.hear)
    server.away = True
    for name in "abc":
        assert not await owed.do_or_owe(name)
    assert list(owed) == ["a", "b", "c"]
    await until(lambda: server.asked > 5)
    server.away = False
    await until(lambda: not len(owed))
    assert server.heard == ["a", "b", "c"]


async def test_a_call_whose_caller_is_cancelled_is_made_again() -> None:
    server, never = Server(), asyncio.Event()

    async def hang_at_first(name: str) -> None:
        if not never.is_set():
            await never.wait()
        await server.hear(name)

    owed = OwedWork(hang_at_first)
    asking = asyncio.create_task(owed.do_or_owe("a"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    never.set()
    await until(lambda: not len(owed))
    assert server.heard == ["a"]


async def test_what_is_owed_ends_with_the_gateway() -> None:
    server = Server()
    owed = OwedWork(server.hear)
    server.away = True
    owed.owe("a")
    await asyncio.sleep(0)
    await owed.aclose()
    assert not server.heard


async def test_what_fails_for_another_reason_stays_owed_behind_the_rest(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(owed_work, "_AGAIN_S", 0.001)
    monkeypatch.setattr(owed_work, "_FAILED_AGAIN_S", 0.001)
    server, works = Server(), False

    async def hear(name: str) -> None:
        if name == "bad" and not works and not server.away:
            raise RuntimeError(name)
        await server.hear(name)

    owed, server.away = OwedWork(hear), True
    for name in ("bad", "a", "b"):
        assert not await owed.do_or_owe(name)
    server.away = False
    await until(lambda: server.heard == ["a", "b"])
    assert list(owed) == ["bad"]
    works = True
    await until(lambda: not len(owed))
    assert "RuntimeError" in caplog.text
    await owed.aclose()

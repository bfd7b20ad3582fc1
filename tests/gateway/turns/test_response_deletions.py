"""A response is deleted once, and its deletion is repeated until every gateway has confirmed it."""

from __future__ import annotations

import asyncio
import gc

import pytest

from segue.gateway.turns.node_deletions import NodeDeletions
from segue.gateway.turns.response_deletions import ResponseDeletions
from segue.protocol.problems import Refused
from segue.stores.live.interface import LiveUnavailable, Notice
from segue.stores.live.memory import SingleNode
from tests.gateway.parts import TENANT, create, ident, parts, respond


class _AwayOnce(SingleNode):
    """A node that cannot tell the others anything at first."""

    def __init__(self) -> None:
        super().__init__(b"e", address="", started_at=0.0)
        self.told: list[Notice] = []
        self.away = True

    async def tell(self, notice: Notice) -> None:
        if self.away:
            raise LiveUnavailable
        self.told.append(notice)


async def test_a_repeat_waits_for_the_confirmation_that_was_missing() -> None:
    async with parts() as services:
        response_id = ident(await respond(services, create()))
        nodes = _AwayOnce()
        notices = NodeDeletions(nodes)
        deletions = ResponseDeletions(services.store, services.parents, notices, clock=services.clock)
        with pytest.raises(Refused):
            await deletions.delete(TENANT, response_id)
        assert await services.store.record(TENANT, response_id, services.clock()) is None
        assert not services.cache.has_turn(TENANT, response_id)
        nodes.away = False
        assert await deletions.delete(TENANT, response_id), "it is not said that there is none"
        assert nodes.told[0] == Notice("deleted", TENANT, (response_id,))
        assert not await deletions.delete("bob", response_id)
        assert nodes.told[-1] == Notice("deleted", "bob", (response_id,)), "another gateway may have deleted it"
        await notices.aclose()


class _SlowlyAway(_AwayOnce):
    """One that learns late that it cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.gate = asyncio.Event(), asyncio.Event()

    async def tell(self, notice: Notice) -> None:
        self.asked.set()
        await self.gate.wait()
        await super().tell(notice)


async def test_a_deletion_that_nobody_waits_for_fails_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # what other tests have left is not told of here
    caplog.clear()
    async with parts() as services:
        response_id = ident(await respond(services, create()))
        nodes = _SlowlyAway()
        notices = NodeDeletions(nodes)
        deletions = ResponseDeletions(services.store, services.parents, notices, clock=services.clock)
        asking = asyncio.create_task(deletions.delete(TENANT, response_id))
        await nodes.asked.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        nodes.gate.set()
        while deletions.running:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        del asking
        gc.collect()
        assert "never retrieved" not in caplog.text
        await notices.aclose()

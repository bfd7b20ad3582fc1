"""Kept turns whose beginning or end goes wrong: nobody waits for ever, and nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from segue.gateway.turns.background import BackgroundResponses, BackgroundSettings
from segue.protocol.problems import Refused
from segue.stores.event_logs import LogTaken, OwnerGone
from segue.stores.idempotency_keys import Claim, MemoryClaims
from segue.stores.interface import StoreError
from segue.upstreams.scripted import ScriptedUpstream
from tests.faults.doubles import BrokenStore, SlowStore
from tests.gateway.parts import TENANT, caller, collect, create, nothing, parts, response
from tests.gateway.turns.test_background import begin, follow, kept, turns_ended, waiting


class _SlowClaims(MemoryClaims):
    """Keys that are claimed, and whose answer takes a while."""

    def __init__(self) -> None:
        super().__init__()
        self.claimed = asyncio.Event()
        self.answers = asyncio.Event()

    async def claim(self, tenant: str, key: str, claim: Claim, now: float, *, repeats: bool = False) -> Claim:
        found = await super().claim(tenant, key, claim, now, repeats=repeats)
        self.claimed.set()
        await self.answers.wait()
        return found


async def test_who_leaves_while_a_key_is_claimed_leaves_nothing() -> None:
    """Otherwise a repeat would follow a log that nobody writes, for ever."""
    async with parts() as services:
        claims = _SlowClaims()
        background = BackgroundResponses(
            services.executor,
            logs=services.event_logs,
            claims=claims,
            grace=services.grace,
            settings=BackgroundSettings(1.0, 1.0, 10),
            memory=services.memory,
            metrics=services.metrics,
            drain=services.drain,
        )
        leaving = asyncio.create_task(background.create(kept(key="k"), caller(services)))
        await claims.claimed.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert await services.event_logs.drop_tenant(TENANT) == 0
        claims.answers.set()
        async with asyncio.timeout(20):
            response_id = await background.create(kept(key="k"), caller(services))
            events = await collect(background.follow(TENANT, response_id, -1))
        assert events[-1].type == "response.completed"
        await background.aclose()


async def test_followers_are_told_the_end_though_what_is_unwanted_cannot_be_deleted() -> None:
    """A response that was forgotten elsewhere while it was stored is deleted then; the store may fail just then."""
    store = SlowStore("append", works_first=False)
    async with parts(store=store) as services:
        response_id = await begin(services, kept())
        following = asyncio.create_task(follow(services, response_id))
        await store.reached.wait()
        services.background.delete_when_stored(TENANT, response_id)
        broken = StoreError("the disk is on fire")

        async def delete(*_: object) -> bool:
            raise broken

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "delete", delete)
            store.gate.set()
            async with asyncio.timeout(20):
                events = await following
        assert events[-1].type == "response.completed"
        await turns_ended(services)


async def test_a_lost_turn_is_not_judged_while_the_store_cannot_be_read() -> None:
    """The same is said at every door: a socket must not be closed for it."""
    store = BrokenStore("record")
    async with parts(store=store) as services:

        def lost(*_: object) -> AsyncGenerator[Any, None]:
            return nothing(OwnerGone(None, 1))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(services.event_logs, "follow", lost)
            with pytest.raises(Refused) as caught:
                await follow(services, services.executor.new_id(kept()))
        assert caught.value.problem.code == "store_error"


async def test_a_background_turn_that_breaks_off_has_failed_for_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client was told that it runs."""
    gate = asyncio.Event()

    async def broken(*_: object) -> None:
        raise ValueError

    async with parts(ScriptedUpstream([waiting(gate)])) as services:
        response_id = await begin(services, create(background=True))
        monkeypatch.setattr(services.event_logs, "wait_for_room", broken)
        gate.set()
        await turns_ended(services)
        events = await follow(services, response_id)
        assert await services.background.latest(TENANT, response_id) == events[-1]
    assert response(events[-1])["status"] == "failed"
    assert response(events[-1])["error"]["code"] == "server_error"


async def test_a_background_turn_that_another_gateway_has_ended_is_not_ended_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def taken(*_: object) -> None:
        raise LogTaken

    async with parts(ScriptedUpstream([waiting(asyncio.Event())])) as services:
        response_id = await begin(services, create(background=True))
        monkeypatch.setattr(services.event_logs, "append", taken)
        await services.background.cancel(TENANT, response_id)
        assert services.background.running == 0
        assert await services.background.latest(TENANT, response_id) is None


@pytest.mark.parametrize("cancels", [True, False])
async def test_a_log_that_cannot_be_written_any_more_keeps_no_follower(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, cancels: bool
) -> None:
    """Whether its turn is cancelled, or goes on."""
    gate = asyncio.Event()

    async def broken(*_: object) -> None:
        raise ValueError

    async with parts(ScriptedUpstream([waiting(gate)])) as services:
        response_id = await begin(services, create(background=True))
        following = asyncio.create_task(follow(services, response_id))
        monkeypatch.setattr(services.event_logs, "append", broken)
        if cancels:
            await services.background.cancel(TENANT, response_id)
        gate.set()
        async with asyncio.timeout(20):
            with pytest.raises(Refused):
                await following
        await turns_ended(services)
        assert services.event_logs.size_bytes == 0
    assert "action=end" in caplog.text

"""An erasure leaves nothing of a tenant, whatever runs meanwhile, and nothing of others is touched."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from segue.gateway.services import Services
from segue.gateway.turns.conversation_transfer import ConversationTransfer
from segue.gateway.turns.erasure import Erasure, ErasureReceipt
from segue.protocol.conversations import NewConversation
from segue.protocol.problems import Refused
from segue.protocol.request_size import DEFAULT_LIMITS
from segue.stores.interface import StoreError, StoreSize
from segue.stores.live.interface import LiveUnavailable, Notice
from segue.stores.live.memory import SingleNode
from segue.upstreams.scripted import Say, ScriptedTurn, ScriptedUpstream, Wait, say
from tests.faults.doubles import BrokenStore, SlowStore
from tests.gateway.parts import TENANT, Clock, caller, collect, create, ident, parts, respond

SLOT = ("connection", "")


def erasure(services: Services) -> Erasure:
    return Erasure(services.executor, services.background, services.grace, len)


async def erase(services: Services, before: float | None = None, tenant: str = TENANT) -> ErasureReceipt:
    return await erasure(services).erase(tenant, before)


async def gone(services: Services, response_id: str, tenant: str = TENANT) -> bool:
    asked = create(previous_response_id=response_id)
    try:
        await collect(services.executor.run(asked, caller(services, tenant)).events())
    except Refused as refused:
        return refused.problem.code == "previous_response_not_found"
    return False


async def run(services: Services, **fields: Any) -> asyncio.Task[dict[str, Any]]:  # noqa: ANN401 - fields of a request
    """Begin a turn."""
    task = asyncio.create_task(respond(services, create(**fields)))
    await asyncio.sleep(0)
    return task


async def test_everything_of_a_tenant_goes_and_nothing_of_others() -> None:
    """The receipt says what it was; the digest is that of the ids."""
    clock = Clock()
    async with parts(clock=clock) as services:
        mine = [ident(await respond(services, create())) for _ in range(2)]
        child = ident(await respond(services, create(previous_response_id=mine[0])))
        by_lane = caller(services, slot=SLOT, places=[SLOT])
        unstored = await respond(services, create(store=False), by_lane)
        theirs = await respond(services, create(), caller(services, "bob"))
        receipt = await erasure(services).erase(TENANT, None, with_ids=True)
        ids = sorted([*mine, child])
        assert receipt == ErasureReceipt(
            tenant=TENANT,
            before=None,
            begun_at=clock.now,
            ended_at=clock.now,
            responses=3,
            ids_sha256=hashlib.sha256("".join(f"{one}\n" for one in ids).encode()).hexdigest(),
            ids=ids,
            memory=receipt.memory,
            left=StoreSize(0, 0),
        )
        assert (receipt.memory.turns, receipt.memory.bases) == (4, len(TENANT))
        assert services.cache.tenant_bytes(TENANT) == 0
        assert all([await gone(services, one) for one in (*ids, unstored["id"])])
        assert not await gone(services, theirs["id"], "bob")
        assert (await erase(services)).responses == 0
        assert not await gone(services, (await respond(services, create()))["id"]), "what comes after is kept"


async def test_what_is_younger_stays() -> None:
    """And memory too: a conversation goes on, with the items that it needs."""
    clock = Clock()
    async with parts(clock=clock) as services:
        old = await respond(services, create("first"))
        clock.now += 10
        young = await respond(services, create(previous_response_id=old["id"]))
        receipt = await erase(services, clock.now)
        assert (receipt.responses, receipt.left.records, receipt.before) == (1, 1, clock.now)
        assert await gone(services, old["id"])
        assert not await gone(services, young["id"])
        assert receipt.memory.turns == 0


@pytest.mark.parametrize("store", [True, False])
async def test_a_turn_that_runs_meanwhile_leaves_nothing(store: bool) -> None:
    """It would store what it continues once more: its client is told that it was not stored."""
    gate = asyncio.Event()
    script = (say("one"), ScriptedTurn((Say(("two",)), Wait(gate))))
    async with parts(ScriptedUpstream(script)) as services:
        parent = await respond(services, create("secret"))
        by_lane = caller(services, slot=SLOT, places=[SLOT])
        asked = create(previous_response_id=parent["id"], store=store)
        turn = asyncio.create_task(respond(services, asked, by_lane))
        await asyncio.sleep(0.01)
        await erase(services)
        gate.set()
        ended = await turn
        assert ended["status"] == ("failed" if store else "completed")
        assert ended["error"] is None or ended["error"]["code"] == "store_error"
        assert ended["usage"] is not None, "it has cost that all the same"
        assert await services.store.size() == StoreSize(0, 0)
        assert services.cache.size_bytes == 0, "it cannot be continued either"


@pytest.mark.parametrize("works_first", [False, True])
async def test_a_turn_that_is_being_stored_leaves_nothing(works_first: bool) -> None:
    """Whether its record reaches the store before the erasure or behind it."""
    store = SlowStore("append", works_first=works_first)
    async with parts(store=store) as services:
        turn = await run(services)
        await store.reached.wait()
        await erase(services)
        store.gate.set()
        assert (await turn)["status"] == "failed"
        assert (await store.size()).records == 0
        assert services.cache.size_bytes == 0


async def test_a_turn_that_begins_meanwhile_and_finds_what_is_erased_is_not_stored() -> None:
    """The store deletes in steps: a parent may still be there."""
    store = SlowStore("erase", works_first=False)
    async with parts(store=store) as services:
        parent = await respond(services, create("secret"))
        erasing = asyncio.create_task(erase(services))
        await store.reached.wait()
        gate = asyncio.Event()
        slow = ScriptedUpstream([ScriptedTurn((Wait(gate), Say(("x",))))])
        services.router.replace([type(services.router.rules[0])(slow, ["*"])])
        turn = await run(services, previous_response_id=parent["id"])
        store.gate.set()
        await erasing
        gate.set()
        assert (await turn)["status"] == "failed"
        assert await services.store.size() == StoreSize(0, 0)


async def test_kept_turns_their_events_and_keys_go() -> None:
    """One that runs is stopped."""
    gate = asyncio.Event()
    script = (say("one"), ScriptedTurn((Say(("two",)), Wait(gate))))
    async with parts(ScriptedUpstream(script)) as services:
        ended = create(stream=True, segue={"idempotency_key": "k"}, store=False)
        by = caller(services)
        first = await services.background.create(ended, by)
        await collect(services.background.follow(TENANT, first, -1))
        running = await services.background.create(create(stream=True, segue={"resume": True}), by)
        receipt = await erase(services)
        assert (receipt.memory.event_logs, services.background.running) == (1, 0)
        assert services.event_logs.size_bytes == 0
        for one in (first, running):
            with pytest.raises(Refused):
                await collect(services.background.follow(TENANT, one, -1))
        assert services.cache.size_bytes == 0


async def test_an_import_that_runs_meanwhile_leaves_nothing() -> None:
    store = SlowStore("append", works_first=True)
    async with parts() as source, parts(store=store) as services:
        made = await respond(source, create())

        def transfer(of: Services) -> ConversationTransfer:
            executor = of.executor
            return ConversationTransfer(
                of.store,
                executor.storage_quota,
                limits=DEFAULT_LIMITS,
                retention_s=9.0,
                clock=of.clock,
                entropy=executor.entropy,
                erasures=executor.erasures,
            )

        file = await transfer(source).export(TENANT, ident(made))
        importing = asyncio.create_task(transfer(services).take_in(TENANT, file))
        await store.reached.wait()
        await erase(services)
        store.gate.set()
        with pytest.raises(Refused) as caught:
            await importing
        assert caught.value.problem.code == "store_error"
        assert (await store.size()).records == 0


async def test_a_store_that_fails_is_told_and_memory_is_empty_all_the_same() -> None:
    async with parts(store=BrokenStore("erase")) as services:
        await respond(services, create())
        with pytest.raises(StoreError):
            await erase(services)
        assert services.cache.size_bytes == 0


async def test_one_erasure_runs_at_a_time() -> None:
    store = SlowStore("erase", works_first=False)
    async with parts(store=store) as services:
        one = erasure(services)
        first, second = (asyncio.create_task(one.erase(TENANT, None)) for _ in range(2))
        await store.reached.wait()
        store.gate.set()
        assert [(await task).responses for task in (first, second)] == [0, 0]


async def test_conversations_go_and_are_counted() -> None:
    """All, or with a time those that nobody has changed since: the others keep what they hold."""
    clock = Clock()
    async with parts(clock=clock) as services:
        conversations = services.executor.conversations
        old = (await conversations.create(TENANT, NewConversation())).id
        used = (await conversations.create(TENANT, NewConversation())).id
        await respond(services, create("a", conversation=old))
        await respond(services, create("b", conversation=used))
        clock.now += 10
        await respond(services, create("c", conversation=used))
        receipt = await erase(services, before=clock.now)
        assert (receipt.responses, receipt.conversations, receipt.left.records) == (2, 1, 1)
        assert await services.store.conversation(TENANT, old) is None
        assert len(await conversations.links(TENANT, used)) == 2
        receipt = await erase(services)
        assert (receipt.responses, receipt.conversations) == (1, 1)
        assert receipt.left == StoreSize(0, 0)


async def test_an_erasure_goes_on_when_who_asked_for_it_leaves() -> None:
    """The store finishes it anyway, and memory must not keep what the store has lost."""
    store, clock = SlowStore("erase", works_first=True), Clock()
    async with parts(store=store, clock=clock) as services:
        made = await respond(services, create())
        clock.now += 10
        asking = asyncio.create_task(erase(services, before=clock.now))
        await store.reached.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        store.gate.set()
        async with asyncio.timeout(20):
            while not await gone(services, made["id"]):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.001)


async def test_an_erasure_that_is_sent_again_is_confirmed_once_every_gateway_has_felt_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first one was not: then the second finds nothing in the store, which proves nothing."""
    clock, away = Clock(), True

    async def tell(self: SingleNode, notice: Notice) -> None:
        if away:
            raise LiveUnavailable

    monkeypatch.setattr(SingleNode, "tell", tell)
    async with parts(clock=clock) as services:
        made = ident(await respond(services, create()))
        clock.now += 10
        for _ in range(2):
            with pytest.raises(Refused, match="not every gateway"):
                await erase(services, before=clock.now)
        away = False
        async with asyncio.timeout(20):
            while services.executor.deletions.is_owed(TENANT, made):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        assert (await erase(services, before=clock.now)).responses == 0

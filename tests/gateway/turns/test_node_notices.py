"""What was deleted at another node cannot be found here any more."""

from __future__ import annotations

import asyncio

import pytest

from segue.gateway.services import Services
from segue.gateway.turns import node_notices
from segue.gateway.turns.erasure import Erasure
from segue.gateway.turns.node_notices import NodeNotices
from segue.protocol.problems import Refused
from segue.stores.live.interface import Notice
from segue.stores.live.memory import SingleNode
from segue.upstreams.scripted import Say, ScriptedTurn, ScriptedUpstream, Wait
from tests.faults.doubles import SlowStore
from tests.gateway.parts import TENANT, caller, create, ident, parts, respond, response


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


async def told(services: Services, notice: Notice) -> None:
    erasure = Erasure(services.executor, services.background, services.grace, len)
    await NodeNotices(services.executor, services.background, erasure).act(notice)


async def test_a_deletion_elsewhere_is_felt_in_memory() -> None:
    async with parts() as services:
        first, second = [ident(await respond(services, create(text))) for text in ("a", "b")]
        await services.store.delete(TENANT, first, services.clock())  # another node did it
        assert (await services.parents.find(TENANT, first, ())).id == first, "nobody has told"
        await told(services, Notice("deleted", TENANT, (first,)))
        with pytest.raises(Refused):
            await services.parents.find(TENANT, first, ())
        assert (await services.parents.find(TENANT, second, ())).id == second


async def test_a_deletion_elsewhere_that_found_nothing_ends_no_response_of_a_connection() -> None:
    slot = ("connection", "lane")
    async with parts() as services:
        made = ident(await respond(services, create(store=False), caller(services, slot=slot)))
        await told(services, Notice("deleted", TENANT, (made,)))
        assert (await services.parents.find(TENANT, made, [slot])).id == made


async def test_a_node_that_may_have_missed_something_reads_the_store_again() -> None:
    async with parts() as services:
        first, second = [ident(await respond(services, create(text))) for text in ("a", "b")]
        await services.store.delete(TENANT, first, services.clock())
        await services.distrust_memory()
        with pytest.raises(Refused):
            await services.parents.find(TENANT, first, ())
        assert (await services.parents.find(TENANT, second, ())).id == second


def running(gate: asyncio.Event) -> ScriptedUpstream:
    return ScriptedUpstream([ScriptedTurn((Say(("one",)), Wait(gate), Say(("two",))))])


async def test_a_turn_that_is_cancelled_elsewhere_ends_here(gate: asyncio.Event) -> None:
    async with parts(running(gate)) as services:
        response_id = await services.background.create(create(background=True), caller(services))
        await told(services, Notice("cancelled", TENANT, (response_id, "resp_unknown")))
        latest = await services.background.latest(TENANT, response_id)
        assert latest is not None
        assert response(latest)["status"] == "cancelled"


async def test_a_turn_that_is_forgotten_elsewhere_leaves_nothing_here(gate: asyncio.Event) -> None:
    async with parts(running(gate)) as services:
        response_id = await services.background.create(create(background=True), caller(services))
        await told(services, Notice("forgotten", TENANT, (response_id,)))
        assert await services.background.latest(TENANT, response_id) is None
        assert services.background.running == 0


async def test_a_turn_that_is_being_stored_is_deleted_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_notices, "_END_S", 0.01)
    store = SlowStore("append", works_first=False)
    async with parts(store=store) as services:
        response_id = await services.background.create(create(background=True), caller(services))
        await store.reached.wait()
        await told(services, Notice("forgotten", TENANT, (response_id,)))
        store.gate.set()
        async with asyncio.timeout(20):
            while services.background.running:  # noqa: ASYNC110 - a turn that nobody follows tells nobody of its end
                await asyncio.sleep(0.001)
        assert await store.record(TENANT, response_id, services.clock()) is None


async def test_an_erasure_elsewhere_is_felt_here(gate: asyncio.Event) -> None:
    async with parts(running(gate)) as services:
        response_id = await services.background.create(create(background=True), caller(services))
        erasures = services.executor.erasures(TENANT)
        await told(services, Notice("erased", TENANT))
        assert services.executor.erasures(TENANT) > erasures
        assert await services.background.latest(TENANT, response_id) is None
        assert services.background.running == 0


async def test_who_hears_a_notice_does_not_tell_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node would tell all others of a turn that runs at none of them but one."""
    told_again: list[Notice] = []

    async def tell(self: SingleNode, notice: Notice) -> None:
        told_again.append(notice)

    async def elsewhere(*_: object) -> bool:
        return True

    monkeypatch.setattr(SingleNode, "tell", tell)
    async with parts() as services:
        monkeypatch.setattr(services.event_logs, "runs_elsewhere", elsewhere)
        response_id = services.executor.new_id(create())
        await told(services, Notice("forgotten", TENANT, (response_id,)))
        await told(services, Notice("cancelled", TENANT, (response_id,)))
        assert told_again == []
        await services.background.cancel(TENANT, response_id)
        assert told_again == [Notice("cancelled", TENANT, (response_id,))]


async def test_what_goes_wrong_with_a_notice_is_raised(gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the node knows that it may show what was deleted, and drops its memory."""

    async def drop(*_: object) -> None:
        raise RuntimeError("a bug")

    async with parts(running(gate)) as services:
        response_id = await services.background.create(create(background=True), caller(services))
        with monkeypatch.context() as patch:
            patch.setattr(services.event_logs, "drop", drop)
            with pytest.raises(RuntimeError, match="a bug"):
                await told(services, Notice("forgotten", TENANT, (response_id,)))

"""Where a parent is looked for, in which order, and what a connection holds of its own."""

from __future__ import annotations

import asyncio

import pytest

from segue.gateway.services import Services
from segue.history.chains import Turn
from segue.protocol.ids import ENTROPY_BYTES, ResponseId, new_response_id
from segue.protocol.problems import Refused
from segue.upstreams.scripted import ScriptedUpstream, say
from tests.faults.doubles import BrokenStore, SlowStore
from tests.gateway.parts import TENANT, Clock, create, ident, metric, parts, respond

SLOT = ("connection", "")


def turn(number: int = 1, *, stored: bool = False, expires_at: float | None = None) -> Turn:
    name = new_response_id(bytes([number]) * ENTROPY_BYTES, None)
    return Turn(
        id=name, parent=None, input=(b"{}",), output=(), calls=frozenset(), stored=stored, expires_at=expires_at
    )


def hits(services: Services) -> dict[str, float]:
    levels = ("connection", "process", "store")
    return {level: metric(services, "segue_continuation_hits_total", level=level) for level in levels}


# --- finding ---------------------------------------------------------------------------------------------------------


async def test_the_callers_places_come_before_the_process_and_the_store() -> None:
    async with parts() as services:
        made = await respond(services, create())
        shared = services.cache.find_shared(TENANT, ident(made), services.clock())
        assert shared is not None
        services.cache.put_slot(TENANT, SLOT, shared)
        assert await services.parents.find(TENANT, made["id"], [("other", ""), SLOT]) is shared
        assert hits(services) == {"connection": 1, "process": 0, "store": 0}
        assert await services.parents.find(TENANT, made["id"], []) is shared
        assert hits(services) == {"connection": 1, "process": 1, "store": 0}
        services.cache.forget(TENANT, ident(made))
        assert (await services.parents.find(TENANT, made["id"], [SLOT])).id == made["id"]
        assert hits(services) == {"connection": 1, "process": 1, "store": 1}


async def test_a_chain_that_was_read_is_in_memory_for_the_next_turn() -> None:
    async with parts(ScriptedUpstream([say("a"), say("b")])) as services:
        parent = await respond(services, create())
        child = await respond(services, create(previous_response_id=parent["id"]))
        services.cache.forget(TENANT, ident(child))
        services.cache.forget(TENANT, ident(parent))
        read = await services.parents.find(TENANT, child["id"], [])
        assert read.parent is not None
        assert read.parent.id == parent["id"]
        assert services.cache.find_shared(TENANT, ident(parent), services.clock()) is read.parent
        assert await services.parents.find(TENANT, child["id"], []) is read


@pytest.mark.parametrize("wanted", ["resp_none", "", "\ud800", "conv_1"])
async def test_an_unknown_id_is_refused_by_its_name(wanted: str) -> None:
    async with parts() as services:
        with pytest.raises(Refused) as caught:
            await services.parents.find(TENANT, wanted, [SLOT])
        assert caught.value.problem.code == "previous_response_not_found"
        assert metric(services, "segue_continuation_misses_total") == 1


async def test_the_parent_of_another_tenant_is_unknown() -> None:
    async with parts() as services:
        made = await respond(services, create())
        with pytest.raises(Refused) as caught:
            await services.parents.find("bob", made["id"], [])
        assert caught.value.problem.code == "previous_response_not_found"


async def test_an_expired_parent_is_unknown_in_memory_too() -> None:
    clock = Clock()
    async with parts(clock=clock, retention_s=60) as services:
        made = await respond(services, create())
        clock.now += 60
        with pytest.raises(Refused):
            await services.parents.find(TENANT, made["id"], [])
        assert services.cache.size_bytes == 0


async def test_a_store_that_cannot_be_read_is_not_an_unknown_parent(caplog: pytest.LogCaptureFixture) -> None:
    async with parts(store=BrokenStore("chain")) as services:
        with pytest.raises(Refused) as caught:
            await services.parents.find(TENANT, turn().id, [])
        assert caught.value.problem.code == "store_error"
        assert metric(services, "segue_continuation_misses_total") == 0
    assert "action=load" in caplog.text


async def test_a_parent_that_is_deleted_while_it_is_read_does_not_stay_in_memory() -> None:
    """The turn that asked goes on, as one does whose parent is deleted later."""
    store = SlowStore("chain", works_first=True)
    async with parts(store=store) as services:
        made = await respond(services, create())
        services.cache.forget(TENANT, ident(made))
        reading = asyncio.create_task(services.parents.find(TENANT, made["id"], []))
        await store.reached.wait()
        assert await services.executor.delete(TENANT, ident(made))
        store.gate.set()
        assert (await reading).id == made["id"]
        assert services.cache.find_shared(TENANT, ident(made), services.clock()) is None
        assert services.cache.size_bytes == 0


# --- the slots of a connection ---------------------------------------------------------------------------------------


async def test_a_lanes_own_slot_is_looked_into_first_then_the_others() -> None:
    async with parts() as services:
        slots = services.parents.connection(TENANT)
        assert slots.places("a", 1, None) == (), "nothing to look for"
        slots.lane("b")
        grace = services.grace.slot(TENANT, "resp_x")
        assert slots.places("a", 1, "resp_x") == [slots.lane("a"), slots.lane("b"), grace]
        assert slots.places("b", 2, "resp_x") == [slots.lane("b"), slots.lane("a"), grace]
        assert services.parents.connection(TENANT).lane("a") != slots.lane("a")
        assert slots.places("b", 3, None, refers=True) == [slots.lane("b"), slots.lane("a")]


async def test_unstored_turns_are_told_from_the_newest_down_to_what_is_stored() -> None:
    """Of each chain in these places; an empty place has none."""
    async with parts() as services:
        root = turn(1, stored=True)
        middle = Turn(id=turn(2).id, parent=root, input=(), output=(), calls=frozenset(), stored=False)
        tip = Turn(id=turn(3).id, parent=middle, input=(), output=(), calls=frozenset(), stored=False)
        services.cache.put_slot(TENANT, SLOT, tip)
        services.cache.put_slot(TENANT, ("connection", "b"), root)
        places = [("connection", "empty"), ("connection", "b"), SLOT]
        assert list(services.parents.unstored(places)) == [tip, middle]


async def test_looking_a_turn_up_does_not_count_as_a_continuation() -> None:
    async with parts() as services:
        made = await respond(services, create())
        shared = services.cache.find_shared(TENANT, ident(made), services.clock())
        assert await services.parents.look_up(TENANT, ident(made)) is shared
        services.cache.forget(TENANT, ident(made))
        read = await services.parents.look_up(TENANT, ident(made))
        assert read is not None
        assert read.id == made["id"]
        assert await services.parents.look_up("bob", ident(made)) is None
        assert hits(services) == {"connection": 0, "process": 0, "store": 0}


async def test_the_parent_of_a_fork_is_held_until_the_forks_turn_is_over() -> None:
    """Its own lane goes on meanwhile."""
    async with parts() as services:
        slots, parent = services.parents.connection(TENANT), turn(1)
        services.cache.put_slot(TENANT, slots.lane("a"), parent)
        slots.hold_for_fork("b", 7, parent.id)
        services.cache.put_slot(TENANT, slots.lane("a"), turn(2))
        assert await services.parents.find(TENANT, parent.id, slots.places("b", 7, parent.id)) is parent
        with pytest.raises(Refused):
            await services.parents.find(TENANT, parent.id, slots.places("b", 8, parent.id))
        slots.release_fork(7)
        slots.release_fork(7)
        with pytest.raises(Refused):
            await services.parents.find(TENANT, parent.id, slots.places("b", 7, parent.id))


async def test_nothing_is_held_for_what_is_no_fork_or_is_found_by_its_id() -> None:
    async with parts() as services:
        slots = services.parents.connection(TENANT)
        own, stored = turn(1), turn(2, stored=True)
        services.cache.put_slot(TENANT, slots.lane("a"), own)
        services.cache.put_slot(TENANT, slots.lane("b"), stored)
        before = services.cache.size_bytes
        slots.hold_for_fork("a", 1, own.id)
        slots.hold_for_fork("a", 2, stored.id)
        slots.hold_for_fork("a", 3, "resp_unknown")
        assert [len(slots.places("a", number, "resp_x")) for number in (1, 2, 3)] == [3, 3, 3]
        slots.close(None)
        assert before > 0
        assert services.cache.size_bytes == 0


async def test_a_kept_turn_becomes_the_latest_of_the_lane_that_followed_it() -> None:
    async with parts() as services:
        slots, unstored = services.parents.connection(TENANT), turn(1)
        services.grace.retain(TENANT, unstored, services.clock() + 60)
        slots.adopt("a", unstored.id)
        assert services.cache.peek_slot(slots.lane("a")) is unstored
        made = await respond(services, create())
        slots.adopt("a", made["id"])
        latest = services.cache.peek_slot(slots.lane("a"))
        assert latest is not None
        assert latest.id == made["id"]
        slots.adopt("a", "resp_unknown")
        assert services.cache.peek_slot(slots.lane("a")) is None


async def test_a_lane_forgets_a_response_only_if_it_is_its_latest() -> None:
    async with parts() as services:
        slots, latest = services.parents.connection(TENANT), turn(1)
        services.cache.put_slot(TENANT, slots.lane("a"), latest)
        services.grace.retain(TENANT, latest, services.clock() + 60)
        slots.evict("a", "resp_other")
        slots.evict("b", latest.id)
        assert services.cache.peek_slot(slots.lane("a")) is latest
        slots.evict("a", latest.id)
        assert services.cache.size_bytes == 0, "in its grace period neither"


async def test_a_closed_connection_holds_nothing() -> None:
    async with parts() as services:
        slots = services.parents.connection(TENANT)
        services.cache.put_slot(TENANT, slots.lane("a"), turn(1))
        slots.hold_for_fork("b", 1, turn(1).id)
        services.cache.put_slot(TENANT, slots.lane("b"), turn(2, stored=True))
        slots.close(None)
        assert services.cache.size_bytes == 0


async def test_with_a_grace_period_the_unstored_turns_of_a_connection_outlive_it() -> None:
    clock = Clock()
    async with parts(clock=clock) as services:
        slots, unstored, stored = services.parents.connection(TENANT), turn(1), turn(2, stored=True)
        services.cache.put_slot(TENANT, slots.lane("a"), unstored)
        services.cache.put_slot(TENANT, slots.lane("b"), stored)
        slots.lane("c")
        slots.close(clock.now + 30)
        later = services.parents.connection(TENANT)
        assert await services.parents.find(TENANT, unstored.id, later.places("", 1, unstored.id)) is unstored
        assert services.cache.peek_slot(services.grace.slot(TENANT, stored.id)) is None
        clock.now += 30
        services.grace.purge()
        assert services.cache.size_bytes == 0


async def test_the_upstreams_are_told_what_ends_with_a_connection() -> None:
    told: list[ResponseId] = []

    class Told(ScriptedUpstream):
        def forget(self, tenant: str, response_ids: list[ResponseId]) -> None:
            told.extend(response_ids)

    async with parts(Told()) as services:
        slots, latest, refused = services.parents.connection(TENANT), turn(1), turn(2)
        services.cache.put_slot(TENANT, slots.lane(""), latest)
        slots.note_unstored(latest.id)
        slots.note_unstored(refused.id)
        adopted = turn(3)
        services.grace.retain(TENANT, adopted, services.clock() + 60)
        slots.adopt("a", adopted.id)
        assert told == []
        slots.close(None)
    assert told == [latest.id, refused.id], "the adopted one is still in its grace period"

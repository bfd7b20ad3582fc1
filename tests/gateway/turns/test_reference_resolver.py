"""Where the items are looked for that a request refers to, what that costs, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from segue.gateway.services import Services
from segue.gateway.turns import reference_resolver
from segue.history.chains import Turn
from segue.history.records import ChainLink
from segue.protocol.ids import ResponseId, item_id
from segue.protocol.items import Input, split
from segue.protocol.problems import Problem, Refused
from segue.stores.memory import MemoryStore
from segue.testing.store_conformance import sample_id, sample_record
from segue.upstreams.scripted import CallTool, ScriptedTurn, ScriptedUpstream, say
from tests.faults.doubles import BrokenStore
from tests.gateway.parts import TENANT, Clock, caller, create, ident, parts, respond

SLOT = ("connection", "")


class CountingStore(MemoryStore):
    """A store that counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.chains: list[ResponseId] = []
        self.searches: list[str] = []

    async def chain(self, tenant: str, response_id: ResponseId, now: float) -> list[ChainLink] | None:
        self.chains.append(response_id)
        return await super().chain(tenant, response_id, now)

    async def find_item(self, tenant: str, item_id: str, now: float) -> ResponseId | None:
        self.searches.append(item_id)
        return await super().find_item(tenant, item_id, now)


def refer(*idents: str) -> Input:
    """An input of references."""
    asked = create(input=[{"type": "item_reference", "id": one} for one in idents])
    return asked.input


async def resolve(
    services: Services,
    *idents: str,
    tenant: str = TENANT,
    parent: Turn | None = None,
    places: Sequence[tuple[str, str]] = (),
) -> list[bytes]:
    resolver = services.executor.resolver
    return list((await resolver.resolve(tenant, refer(*idents), parent=parent, places=places)).items)


@contextmanager
def refused(code: str, param: str) -> Iterator[list[Problem]]:
    problems: list[Problem] = []
    with pytest.raises(Refused) as caught:
        yield problems
    problems.append(caught.value.problem)
    assert (problems[0].code, problems[0].param) == (code, param)


async def output_of(services: Services, response_id: ResponseId) -> list[bytes]:
    record = await services.store.record(TENANT, response_id, services.clock())
    assert record is not None
    return list(record.output)


# --- where an item is found ------------------------------------------------------------------------------------------


async def test_items_of_stored_responses_are_found_in_memory() -> None:
    """What it made, and what it took in, by the id that a listing shows."""
    store = CountingStore()
    async with parts(ScriptedUpstream([say("one")]), store=store) as services:
        made = await respond(services, create("hi"))
        (message,) = await output_of(services, ident(made))
        assert await resolve(services, made["output"][0]["id"]) == [message]
        (given,) = await resolve(services, item_id("msg", ident(made), 0x8000))
        assert split(b"[" + given + b"]") == [given]
        assert b'"hi"' in given
        assert (store.chains, store.searches) == ([], [])


async def test_what_was_said_before_costs_one_read_of_the_store() -> None:
    """A client that refers to everything names last what the newest response made; that one took in the rest."""
    store = CountingStore()
    async with parts(ScriptedUpstream([say(str(n)) for n in range(5)]), store=store) as services:
        idents: list[str] = []
        responses: list[ResponseId] = []
        for _ in range(5):
            references: list[object] = [{"id": one} for one in idents]
            made = await respond(services, create(input=[*references, {"role": "user", "content": "on"}]))
            idents.append(made["output"][0]["id"])
            responses.append(ident(made))
        assert store.chains == [], "all of it was in memory"
        for response_id in responses:
            services.cache.forget(TENANT, response_id)
        assert services.cache.size_bytes == 0
        assert len(await resolve(services, *idents)) == 5
        assert store.chains == responses[-1:]
        await resolve(services, *idents)
        assert store.chains == responses[-1:], "it is in memory now"


async def test_each_response_is_read_once() -> None:
    """However many of its items are referred to."""
    store = CountingStore()
    async with parts(store=store) as services:
        for name in ("a", "b"):
            await store.append(sample_record(name, tenant=TENANT, made=[f"{name}1", f"{name}2"], expires_at=2e9))
        assert len(await resolve(services, "a1", "b1", "a2", "b2", "a1")) == 4
        assert sorted(store.chains) == sorted([sample_id("a"), sample_id("b")])
        assert store.searches == ["b2", "a2"]


async def test_an_item_with_an_id_of_our_form_may_come_from_somewhere_else() -> None:
    """As from another gateway of this kind behind this one."""
    theirs = item_id("msg", sample_id("theirs"), 0)
    async with parts() as services:
        await services.store.append(sample_record("ours", tenant=TENANT, made=[theirs], expires_at=2e9))
        assert len(await resolve(services, theirs)) == 1


async def test_the_chain_that_is_continued_has_its_items_already() -> None:
    """Those of unstored turns too; nothing is looked for in the store."""
    store = CountingStore()
    async with parts(ScriptedUpstream([say("a"), say("b"), say("c")]), store=store) as services:
        by = caller(services, slot=SLOT, places=[SLOT])
        first = await respond(services, create(store=False), by)
        second = await respond(services, create(store=False, previous_response_id=first["id"]), by)
        parent = services.cache.peek_slot(SLOT)
        idents = [made["output"][0]["id"] for made in (first, second)]
        assert parent is not None
        assert parent.parent is not None
        outputs = [*parent.parent.output, *parent.output]
        assert await resolve(services, *idents, parent=parent) == outputs, "the executor leaves out what is a repeat"
        third = await respond(
            services, create(input=[{"id": one} for one in idents], store=False, previous_response_id=second["id"]), by
        )
        history = services.cache.peek_slot(SLOT)
        assert history is not None
        assert (history.id, history.input) == (third["id"], ())
        assert (store.chains, store.searches) == ([], [])


async def test_unstored_turns_of_the_connection_are_looked_through_from_the_newest() -> None:
    """Without their being continued."""
    async with parts(ScriptedUpstream([say("a"), say("b")])) as services:
        by = caller(services, slot=SLOT, places=[SLOT])
        first = await respond(services, create(store=False), by)
        second = await respond(services, create(store=False, previous_response_id=first["id"]), by)
        idents = [made["output"][0]["id"] for made in (first, second)]
        assert len(await resolve(services, *idents, places=[("other", ""), SLOT])) == 2
        with refused("item_not_found", "input[1].id"):
            await resolve(services, *idents)


async def test_a_turn_takes_the_calls_of_what_it_refers_to() -> None:
    """An answer to a call that is referred to has its call, in this turn and in those that continue it."""
    upstream = ScriptedUpstream([ScriptedTurn((CallTool("c1", "look", "{}"),)), say("done"), say("again")])
    async with parts(upstream) as services:
        made = await respond(services, create())
        answer = {"type": "function_call_output", "call_id": "c1", "output": "found"}
        reference = {"type": "item_reference", "id": made["output"][0]["id"]}
        second = await respond(services, create(input=[reference, answer]))
        third = await respond(services, create(input=[answer], previous_response_id=second["id"]))
        assert third["status"] == "completed"
        with refused("tool_call_not_found", "input[0].call_id"):
            await respond(services, create(input=[answer, reference]))


# --- what is refused -------------------------------------------------------------------------------------------------


async def test_an_unknown_item_is_named_with_a_way_out() -> None:
    store = CountingStore()
    async with parts(store=store) as services:
        with refused("item_not_found", "input[0].id") as problems:
            await resolve(services, "msg_1")
        assert problems[0].message == (
            "Item with id 'msg_1' not found. Items can be referred to while the response that they belong to is stored "
            "(store: true). Send the item itself in place of the reference."
        )
        with refused("item_not_found", "input[1].id"):
            await resolve(services, "msg_1", item_id("msg", sample_id("nowhere"), 0))
        store.searches.clear()
        with refused("item_not_found", "input[0].id"):
            await resolve(services, "x" * 257)
        assert store.searches == [], "no item is found by an id of this length"


async def test_a_place_that_a_response_does_not_have_is_not_found() -> None:
    """The response is there, but not such an item."""
    async with parts() as services:
        made = await respond(services, create())
        with refused("item_not_found", "input[0].id"):
            await resolve(services, item_id("msg", ident(made), 77))


async def test_another_tenants_item_is_not_found() -> None:
    """By whatever id, in memory and in the store."""
    async with parts() as services:
        made = await respond(services, create(input=[{"role": "user", "content": "hi", "id": "own"}]))
        for one in (made["output"][0]["id"], item_id("msg", ident(made), 0x8000), "own"):
            with refused("item_not_found", "input[0].id"):
                await resolve(services, one, tenant="bob")
        assert len(await resolve(services, "own")) == 1


async def test_items_of_deleted_and_expired_responses_are_not_found() -> None:
    """At once, in memory too."""
    clock = Clock()
    async with parts(ScriptedUpstream([say("a"), say("b")]), clock=clock, retention_s=60) as services:
        gone = await respond(services, create(input=[{"role": "user", "content": "hi", "id": "own"}]))
        late = await respond(services, create())
        await services.executor.delete(TENANT, ident(gone))
        for one in (gone["output"][0]["id"], "own"):
            with refused("item_not_found", "input[0].id"):
                await resolve(services, one)
        assert len(await resolve(services, late["output"][0]["id"])) == 1
        clock.now += 60
        with refused("item_not_found", "input[0].id"):
            await resolve(services, late["output"][0]["id"])


async def test_an_unstored_item_does_not_get_into_a_stored_response() -> None:
    """It must not be written outside memory, by whatever turn."""
    async with parts(ScriptedUpstream([say("a"), say("b")])) as services:
        by = caller(services, slot=SLOT, places=[SLOT])
        made = await respond(services, create(store=False), by)
        references = [{"id": made["output"][0]["id"]}]
        with refused("item_not_found", "input[0].id"):
            await respond(services, create(input=references), by)
        assert (await respond(services, create(input=references, store=False), by))["status"] == "completed"


@pytest.mark.parametrize("method", ["chain", "find_item"])
async def test_a_store_that_cannot_be_read_is_not_an_unknown_item(
    caplog: pytest.LogCaptureFixture, method: str
) -> None:
    async with parts(store=BrokenStore(method)) as services:
        with pytest.raises(Refused) as caught:
            await resolve(services, item_id("msg", sample_id("a"), 0) if method == "chain" else "msg_1")
        assert caught.value.problem.code == "store_error"
    assert f"action={'load' if method == 'chain' else method}" in caplog.text
    assert "msg_1" not in caplog.text, "a client's id may be content"


async def test_what_is_referred_to_counts_as_much_as_what_is_sent() -> None:
    """A short reference must not bring in, and store again, more than a message may hold."""
    async with parts(ScriptedUpstream([say("a"), say("b")]), max_message_bytes=3000) as services:
        first, second = [await respond(services, create("x" * 1500)) for _ in range(2)]
        one, two = (item_id("msg", ident(made), 0x8000) for made in (first, second))
        assert len(await resolve(services, one)) == 1
        with refused("invalid_value", "input") as problems:
            await resolve(services, one, two)
        assert "more than 3,000 bytes" in problems[0].message


async def test_only_so_many_responses_are_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_resolver, "MAX_RESPONSES", 3)
    async with parts(ScriptedUpstream([say(str(n)) for n in range(4)])) as services:
        idents = [(await respond(services, create()))["output"][0]["id"] for _ in range(4)]
        assert len(await resolve(services, *idents[:3])) == 3
        with refused("invalid_value", "input") as problems:
            await resolve(services, *idents)
        assert "more than 3 responses" in problems[0].message

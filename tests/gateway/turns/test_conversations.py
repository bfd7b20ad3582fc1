"""Conversations in turns: what a turn in one continues, who is refused meanwhile, what the store and memory keep."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from segue.config import Config, LimitsConfig
from segue.gateway.services import Services
from segue.history.conversations import ConversationHead, ConversationMove, ConversationStep
from segue.history.records import ChainLink, Record
from segue.protocol.conversations import NewConversation
from segue.protocol.ids import FIRST_INPUT_NUMBER, ConversationId, chain_tag, derived_item_id, message_id
from segue.protocol.items import Input, parse_input
from segue.protocol.problems import Problem, Refused
from segue.stores.interface import StoreError
from segue.stores.memory import MemoryStore
from segue.testing.store_samples import sample_step
from segue.upstreams.scripted import Fail, Refuse, Say, ScriptedTurn, ScriptedUpstream, Wait, call, say
from tests.faults.gateways import until
from tests.gateway.parts import TENANT, Clock, caller, collect, create, ident, parts, respond, response

USER_B = {"role": "user", "content": "b"}
UNKNOWN = ConversationId("conv_" + "0" * 40)


def items(*texts: str) -> Input:
    return parsed([{"role": "user", "content": text} for text in texts])


def parsed(values: list[Any]) -> Input:
    given = parse_input(json.dumps(values).encode())
    assert isinstance(given, Input)
    return given


async def begin(services: Services, *texts: str, tenant: str = TENANT) -> ConversationId:
    new = NewConversation(items(*texts) if texts else Input())
    return (await services.executor.conversations.create(tenant, new)).id


async def texts_of(services: Services, conversation_id: str) -> list[str]:
    """What the items of a conversation say, the oldest first."""
    links = await services.executor.conversations.links(TENANT, conversation_id)
    values = [json.loads(item) for link in links for item in (*link.input, *link.output)]
    return [value["content"] if isinstance(value["content"], str) else value["content"][0]["text"] for value in values]


async def refusal(call: Awaitable[object]) -> Problem:
    with pytest.raises(Refused) as caught:
        await call
    return caught.value.problem


def seen(model: ScriptedUpstream, number: int = -1) -> list[str]:
    """What the model saw of a request."""
    values = [json.loads(item) for item in model.requests[number].history.items()]
    return [value["content"] if isinstance(value["content"], str) else value["content"][0]["text"] for value in values]


async def test_a_turn_continues_what_its_conversation_holds_and_joins_it() -> None:
    """Input and output; the response names the conversation and no parent, and all ids carry one tag."""
    model = ScriptedUpstream([say("one"), say("two"), say("fork")])
    async with parts(model) as services:
        talk = await begin(services, "begun")
        first = await respond(services, create("a", conversation=talk))
        assert (first["conversation"], first["previous_response_id"]) == ({"id": talk}, None)
        assert chain_tag(ident(first)) == chain_tag(talk)
        second = await respond(services, create("b", conversation={"id": talk}))
        assert seen(model) == ["begun", "a", "one", "b"]
        assert await texts_of(services, talk) == ["begun", "a", "one", "b", "two"]
        fork = await respond(services, create("c", previous_response_id=second["id"]))
        assert seen(model) == ["begun", "a", "one", "b", "two", "c"]
        assert "conversation" not in fork
        assert await texts_of(services, talk) == ["begun", "a", "one", "b", "two"]


async def test_a_response_of_a_conversation_can_be_continued_as_a_thread() -> None:
    """All that the conversation held then is the history of the message."""
    async with parts() as services:
        talk = await begin(services, "x")
        made = ident(await respond(services, create("a", conversation=talk, instructions="Be brief.")))
        anchor = await services.threads.find(TENANT, message_id(made))
        assert (anchor.turn.id, anchor.turn.depth) == (made, 2)
        assert bytes(anchor.context.system) == b'"Be brief."'


async def test_a_turn_that_fails_or_is_refused_leaves_nothing() -> None:
    model = ScriptedUpstream(
        [ScriptedTurn((Fail(),)), ScriptedTurn((Refuse(Problem("upstream_error", "no")),)), say("one")]
    )
    async with parts(model) as services:
        talk = await begin(services)
        failed = await respond(services, create("a", conversation=talk))
        assert failed["status"] == "failed"
        assert (await refusal(respond(services, create("b", conversation=talk)))).code == "upstream_error"
        assert await texts_of(services, talk) == []
        await respond(services, create("c", conversation=talk))
        assert await texts_of(services, talk) == ["c", "one"]


async def test_one_at_a_time_changes_a_conversation() -> None:
    """Whoever comes meanwhile is told so, and counted; with its last event the turn lets others in."""
    event = asyncio.Event()
    model = ScriptedUpstream([ScriptedTurn((Wait(event),)), say("next")])
    async with parts(model) as services:
        talk, conversations = await begin(services, "x"), services.executor.conversations
        run = services.executor.run(create("a", conversation=talk), caller(services))
        async with aclosing(run.events()) as batches:
            await anext(batches)
            changes = (
                respond(services, create("b", conversation=talk)),
                conversations.add(TENANT, talk, items("c")),
                conversations.remove(TENANT, talk, "msg_1"),
                conversations.delete(TENANT, talk),
            )
            for change in changes:
                problem = await refusal(change)
                assert (problem.code, problem.param) == ("conversation_locked", "conversation")
            assert (await conversations.find(TENANT, talk)).id == talk
            assert len(await conversations.links(TENANT, talk)) == 1
            event.set()
            while run.finished is None:
                await anext(batches)
            await respond(services, create("d", conversation=talk))
        assert (await texts_of(services, talk))[-2:] == ["d", "next"]


async def test_a_turn_that_is_stopped_lets_others_in() -> None:
    event = asyncio.Event()
    async with parts(ScriptedUpstream([ScriptedTurn((Wait(event),)), say("one")])) as services:
        talk = await begin(services)
        batches = services.executor.run(create("a", conversation=talk), caller(services)).events()
        await anext(batches)
        await batches.aclose()
        await respond(services, create("b", conversation=talk))
        assert await texts_of(services, talk) == ["b", "one"]


async def test_a_turn_whose_conversation_another_gateway_has_changed_meanwhile_says_so() -> None:
    event, store = asyncio.Event(), MemoryStore()
    slow, quick = ScriptedUpstream([ScriptedTurn((Wait(event), Say(("one",))))]), ScriptedUpstream([say("two")])
    async with parts(slow, store=store) as one, parts(quick, store=store) as two:
        talk = await begin(one)
        running = asyncio.create_task(respond(one, create("a", conversation=talk)))
        await until(lambda: slow.started == 1)
        await respond(two, create("b", conversation=talk))
        event.set()
        failed = await running
        assert (failed["status"], failed["error"]["code"]) == ("failed", "conversation_locked")
        assert await texts_of(two, talk) == ["b", "two"]


async def test_unknown_and_foreign_conversations_look_the_same() -> None:
    async with parts() as services:
        conversations, hers = services.executor.conversations, await begin(services, "x")
        for who, ident_ in ((TENANT, UNKNOWN), ("bob", hers), (TENANT, "conv_1")):
            calls = (
                conversations.find(who, ident_),
                conversations.links(who, ident_),
                conversations.describe(who, ident_, b"{}"),
                conversations.delete(who, ident_),
                conversations.add(who, ident_, items("y")),
                conversations.remove(who, ident_, "msg_1"),
            )
            for call_ in calls:
                problem = await refusal(call_)
                assert (problem.code, problem.message) == (
                    "conversation_not_found",
                    f"Conversation with id '{ident_}' not found.",
                )
        for who, ident_ in ((TENANT, UNKNOWN), ("bob", hers)):
            problem = await refusal(respond(services, create("a", conversation=ident_), caller(services, who)))
            assert (problem.code, problem.param) == ("conversation_not_found", "conversation")


async def test_without_items_there_is_nothing_to_ask() -> None:
    """An empty input is fine as soon as the conversation holds something."""
    async with parts() as services:
        talk = await begin(services)
        asked = create(input=[], conversation=talk)
        assert (await refusal(respond(services, asked))).code == "missing_required_parameter"
        await services.executor.conversations.add(TENANT, talk, items("x"))
        assert (await respond(services, asked))["status"] == "completed"


async def test_items_are_added_once_and_taken_out() -> None:
    async with parts(ScriptedUpstream([say("one"), say("two")])) as services:
        talk, conversations = await begin(services, "a"), services.executor.conversations
        named = parsed([{"type": "message", "role": "user", "content": "b", "id": "msg_b"}])
        assert await conversations.add(TENANT, talk, named) is not None
        assert await conversations.add(TENANT, talk, named) is None
        await respond(services, create("c", conversation=talk))
        head = await conversations.remove(TENANT, talk, "msg_b")
        assert head.id == talk
        assert await texts_of(services, talk) == ["a", "c", "one"]
        assert (await refusal(conversations.remove(TENANT, talk, "msg_b"))).code == "item_not_found"
        await respond(services, create("d", conversation=talk))
        assert await texts_of(services, talk) == ["a", "c", "one", "d", "two"]


async def test_an_output_needs_its_call() -> None:
    """In the conversation, or among what is added. A call has one output."""
    async with parts(ScriptedUpstream([call("c1", "f")])) as services:
        talk, conversations = await begin(services), services.executor.conversations
        output = {"type": "function_call_output", "call_id": "c1", "output": "1"}
        problem = await refusal(conversations.add(TENANT, talk, parsed([output])))
        assert (problem.code, problem.param) == ("tool_call_not_found", "items[0].call_id")
        await respond(services, create("a", conversation=talk))
        assert await conversations.add(TENANT, talk, parsed([output])) is not None
        assert (await refusal(conversations.add(TENANT, talk, parsed([{**output, "output": "2"}])))).code == (
            "invalid_value"
        )


async def test_items_may_be_references() -> None:
    async with parts() as services:
        talk, conversations = await begin(services), services.executor.conversations
        made = await respond(services, create("a"))
        reference = [{"type": "item_reference", "id": made["output"][0]["id"]}]
        step = await conversations.add(TENANT, talk, parsed(reference))
        assert step is not None
        assert json.loads(step.input[0]) == made["output"][0]


async def test_a_conversation_outlives_its_responses() -> None:
    """No expiry and no deletion of a response takes an item from it."""
    clock = Clock()
    model = ScriptedUpstream([say("one"), say("two"), say("three")])
    async with parts(model, clock=clock, retention_s=100) as services:
        talk = await begin(services, "x")
        first = await respond(services, create("a", conversation=talk))
        second = await respond(services, create("b", conversation=talk))
        assert await services.executor.delete(TENANT, ident(second))
        clock.now += 101
        assert await services.executor.sweep() == 1
        await respond(services, create("c", conversation=talk))
        assert seen(model) == ["x", "a", "one", "b", "two", "c"]
        assert (await refusal(respond(services, create("d", previous_response_id=first["id"])))).code == (
            "previous_response_not_found"
        )


async def test_the_newest_turn_is_read_from_the_store_once() -> None:
    """Steps and expired responses are held in memory too, as long as nothing else moves the conversation."""
    store = _CountingStore()
    async with parts(store=store) as services:
        conversations = services.executor.conversations
        talk = await begin(services, "a")
        for _ in range(2):
            assert await conversations.newest(TENANT, talk) is not None
        assert store.chains == 1
        await conversations.add(TENANT, talk, items("b"))
        turn = await conversations.newest(TENANT, talk)
        assert turn is not None
        assert (turn.depth, store.chains) == (2, 1)
        await respond(services, create("c", conversation=talk))
        await respond(services, create("d", conversation=talk))
        assert store.chains == 1


class _CountingStore(MemoryStore):
    chains = 0

    async def conversation_chain(
        self, tenant: str, conversation_id: ConversationId, now: float
    ) -> list[ChainLink] | None:
        self.chains += 1
        return await super().conversation_chain(tenant, conversation_id, now)


async def test_a_turn_of_an_erased_conversation_has_failed() -> None:
    """Neither the turn nor what is added meanwhile is kept."""
    event = asyncio.Event()
    async with parts(ScriptedUpstream([ScriptedTurn((Wait(event),))])) as services:
        talk = await begin(services, "x")
        batches = services.executor.run(create("a", conversation=talk), caller(services)).events()
        await anext(batches)
        services.executor.note_erasure(TENANT)
        assert await services.store.erase_conversations(TENANT, None) == 1
        event.set()
        assert response((await collect(batches))[-1])["status"] == "failed"


async def test_what_is_written_during_an_erasure_is_gone() -> None:
    store = _ErasingStore()
    async with parts(store=store) as services:
        store.services = services
        talk = await begin(services)
        store.erasing = True
        conversations = services.executor.conversations
        assert (await refusal(conversations.add(TENANT, talk, items("b")))).code == "store_error"
        assert (await refusal(begin(services, "c"))).code == "store_error"
        assert (await services.store.tenant_size(TENANT)).size_bytes == 0


class _ErasingStore(MemoryStore):
    erasing = False
    services: Services

    def note(self) -> None:
        self.services.executor.note_erasure(TENANT)

    async def move_conversation(self, tenant: str, conversation_id: ConversationId, move: ConversationMove) -> None:
        await super().move_conversation(tenant, conversation_id, move)
        self.note()

    async def create_conversation(self, head: ConversationHead, step: ConversationStep | None = None) -> None:
        await super().create_conversation(head, step)
        if self.erasing:
            self.note()


async def test_a_store_that_fails_is_told() -> None:
    """As is one in which another gateway has moved the conversation."""
    store = _FailingStore()
    async with parts(store=store) as services:
        conversations, talk = services.executor.conversations, await begin(services)
        step = sample_step("theirs")
        await MemoryStore.move_conversation(
            store, TENANT, talk, ConversationMove(from_id=None, step=step, at=services.clock())
        )
        store.stale = True
        assert (await refusal(conversations.add(TENANT, talk, items("b")))).code == "conversation_locked"
        assert (await respond(services, create("a", conversation=talk)))["error"]["code"] == "conversation_locked"
        store.failing = True
        for attempt in (conversations.add(TENANT, talk, items("b")), begin(services)):
            assert (await refusal(attempt)).code == "store_error"
        assert (await refusal(conversations.find(TENANT, talk))).code == "store_error"


class _FailingStore(MemoryStore):
    stale = failing = False

    async def conversation(self, tenant: str, conversation_id: ConversationId) -> ConversationHead | None:
        if self.failing:
            raise StoreError("away")
        head = await super().conversation(tenant, conversation_id)
        return msgspec.structs.replace(head, turn_id=None) if head is not None and self.stale else head

    async def create_conversation(self, head: ConversationHead, step: ConversationStep | None = None) -> None:
        if self.failing:
            raise StoreError("away")
        await super().create_conversation(head, step)


async def test_what_a_tenant_may_store_bounds_conversations_too() -> None:
    """Their items count, and so does each of them."""
    async with parts() as services:
        services.rules.quotas.replace(Config(limits=LimitsConfig(stored_bytes=1000)))
        conversations, talk = services.executor.conversations, await begin(services)
        await conversations.add(TENANT, talk, items("x" * 1000))
        for attempt in (
            conversations.add(TENANT, talk, items("y")),
            conversations.describe(TENANT, talk, b"{}"),
            begin(services),
            respond(services, create("a", conversation=talk)),
        ):
            assert (await refusal(attempt)).code == "insufficient_quota"
        await conversations.delete(TENANT, talk)
        await begin(services)


async def test_a_kept_turn_has_its_conversation() -> None:
    """A background turn, found again by its key; its id carries the conversation's tag."""
    async with parts() as services:
        talk = await begin(services)
        asked = create("a", conversation=talk, segue={"idempotency_key": "k"})
        made = [await services.background.create(asked, caller(services)) for _ in range(2)]
        assert made[0] == made[1]
        assert chain_tag(made[0]) == chain_tag(talk)
        await collect(services.background.follow(TENANT, made[0], -1))
        assert len(await services.executor.conversations.links(TENANT, talk)) == 1
        other = create("a", conversation=await begin(services), segue={"idempotency_key": "k"})
        assert (await refusal(services.background.create(other, caller(services)))).code == "idempotency_key_reused"


async def test_repeats_of_a_turn_join_its_conversation_once() -> None:
    """While it runs and after it. One that found the conversation locked has its key back, and runs when it is free."""
    gate = asyncio.Event()
    model = ScriptedUpstream([ScriptedTurn((Wait(gate), *say("one").steps)), say("two")])
    async with parts(model) as services:
        talk = await begin(services)
        first, other = (create(text, conversation=talk, segue={"idempotency_key": text}) for text in ("a", "b"))
        running = [asyncio.ensure_future(services.background.create(first, caller(services))) for _ in range(3)]
        await until(lambda: bool(model.requests))
        assert (await refusal(services.background.create(other, caller(services)))).code == "conversation_locked"
        gate.set()
        (made,) = set(await asyncio.gather(*running))
        await collect(services.background.follow(TENANT, made, -1))
        assert await services.background.create(first, caller(services)) == made
        second = await services.background.create(other, caller(services))
        await collect(services.background.follow(TENANT, second, -1))
        assert await texts_of(services, talk) == ["a", "one", "b", "two"]
        assert len(model.requests) == 2
        await services.executor.conversations.delete(TENANT, talk)
        assert await services.background.create(first, caller(services)) == made, "it has its answer"
        anew = create("a", conversation=talk)
        assert (await refusal(respond(services, anew))).code == "conversation_not_found"


async def test_the_record_is_that_of_any_response() -> None:
    async with parts() as services:
        talk = await begin(services, "x")
        made = await respond(services, create("a", conversation=talk))
        record = await services.store.record(TENANT, ident(made), services.clock())
        assert isinstance(record, Record)
        assert json.loads(record.response().whole()) == made


async def test_what_was_compacted_stays_so_in_a_conversation() -> None:
    """Whether the conversation is in memory, was read again, or has an item more."""
    model = ScriptedUpstream([say("one"), say("summary"), *[say("then")] * 3])
    async with parts(model) as services:
        talk, conversations = await begin(services), services.executor.conversations
        await respond(services, create("a", conversation=talk))
        await respond(services, create(input=[USER_B, {"type": "compaction_trigger"}], conversation=talk))
        await conversations.add(TENANT, talk, items("added"))
        await respond(services, create("c", conversation=talk))
        compacted = seen(model)
        assert "one" not in compacted
        assert compacted[-2:] == ["added", "c"]
        services.cache.drop_tenant(TENANT)
        await respond(services, create("d", conversation=talk))
        assert seen(model) == [*compacted, "then", "d"]
        links = await conversations.links(TENANT, talk)
        added = find_item_id(links, b"added")
        await conversations.remove(TENANT, talk, added)
        await respond(services, create("e", conversation=talk))
        assert seen(model) == [*(text for text in compacted if text != "added"), "then", "d", "then", "e"]


async def test_what_an_item_changes_holds_for_later_turns() -> None:
    """An item that brings settings has them for all that comes behind it, also if it was added without a response."""
    model = ScriptedUpstream([say("one"), say("two")])
    async with parts(model) as services:
        talk, conversations = await begin(services), services.executor.conversations
        update = {"type": "configuration_update", "reasoning": {"effort": "low"}}
        await conversations.add(TENANT, talk, parsed([update]))
        for text in ("a", "b"):
            await respond(services, create(text, conversation=talk))
            assert model.requests[-1].settings.reasoning == {"effort": "low"}
            services.cache.drop_tenant(TENANT)


def find_item_id(links: Sequence[ChainLink], text: bytes) -> str:
    """Return the derived id of the item that says this."""
    return next(
        derived_item_id("message", link.id, FIRST_INPUT_NUMBER + place)
        for link in links
        for place, item in enumerate(link.input)
        if text in item
    )


async def test_empty_conversations_count_at_once() -> None:
    """The store is asked only now and then: many could be made meanwhile, and they do not expire."""
    limits = {"limits": {"stored_bytes": 1000}}
    async with parts(tables=limits) as services:
        conversations = services.executor.conversations
        for _ in range(4):
            await conversations.create(TENANT, NewConversation())
        with pytest.raises(Refused) as caught:
            await conversations.create(TENANT, NewConversation())
    assert caught.value.problem.code == "insufficient_quota"

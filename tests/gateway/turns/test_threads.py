"""Message threads in memory: who may continue what, and for how long."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from segue.config import Config
from segue.gateway.services import Services
from segue.gateway.turns.threads import Anchor, ThreadRules
from segue.protocol.ids import ResponseId, message_id
from segue.protocol.problems import Refused
from segue.protocol.requests import Create, ThreadContext
from segue.upstreams.scripted import Say, ScriptedTurn, ScriptedUpstream, Truncate, say
from tests.gateway.parts import TENANT, Clock, caller, collect, create, ident, parts, respond

SYSTEM = ThreadContext(Raw(b'"S"'))


async def begin(services: Services, asked: Create | None = None, tenant: str = TENANT) -> ResponseId:
    """Run the first turn of a thread in memory; return its id."""
    threads = services.threads
    asked = asked or msgspec.structs.replace(create(store=False), thread=SYSTEM)
    response_id = services.executor.new_id(asked)
    run = services.executor.run(asked, caller(services, tenant, slot=threads.slot(tenant, response_id)), response_id)
    await collect(threads.follow(run, tenant, None))
    return response_id


async def refusal(services: Services, wanted: str, tenant: str = TENANT) -> str:
    with pytest.raises(Refused) as caught:
        await services.threads.find(tenant, wanted)
    return caught.value.problem.code


async def test_a_message_is_found_under_both_its_names_and_by_its_tenant_alone() -> None:
    async with parts() as services:
        response_id = await begin(services)
        for name in (response_id, message_id(response_id)):
            anchor = await services.threads.find(TENANT, name)
            assert (anchor.turn.id, anchor.context) == (response_id, SYSTEM)
            assert await refusal(services, name, "bob") == "thread_not_found"
        assert services.threads.places(TENANT, message_id(response_id))
        assert services.threads.places("bob", response_id) == ()
        assert services.threads.places(TENANT, None) == ()


async def test_a_message_is_held_for_a_while_after_each_use() -> None:
    clock = Clock()
    async with parts(clock=clock, thread_s=60) as services:
        response_id = await begin(services)
        clock.now += 59
        async with services.threads.claim(TENANT, await services.threads.find(TENANT, response_id)):
            pass
        clock.now += 59
        await services.threads.find(TENANT, response_id)
        clock.now += 2
        assert await refusal(services, response_id) == "thread_not_found"


async def test_a_claim_keeps_others_away_until_its_turn_has_ended() -> None:
    """And no longer, also if its reply is still being written: another one may have claimed the message by then."""
    async with parts() as services:
        threads = services.threads
        anchor = await threads.find(TENANT, await begin(services))
        async with threads.claim(TENANT, anchor) as claim:
            with pytest.raises(Refused) as caught:
                async with threads.claim(TENANT, anchor):
                    raise AssertionError
            assert caught.value.problem.code == "thread_continue_in_flight"
            asked = msgspec.structs.replace(create(store=False), thread=SYSTEM, previous_response_id=anchor.turn.id)
            response_id = services.executor.new_id(asked)
            by = caller(services, slot=threads.slot(TENANT, response_id), places=threads.places(TENANT, anchor.turn.id))
            run = services.executor.run(asked, by, response_id)
            await collect(threads.follow(run, TENANT, claim))
            other = threads.claim(TENANT, anchor)
            await other.__aenter__()
        with pytest.raises(Refused):
            async with threads.claim(TENANT, anchor):
                raise AssertionError
        await other.__aexit__(None, None, None)
        async with threads.claim(TENANT, anchor):
            pass


async def test_a_message_is_continued_once_where_threads_may_not_fork() -> None:
    async with parts(thread_forks=False) as services:
        anchor = await services.threads.find(TENANT, await begin(services))
        async with services.threads.claim(TENANT, anchor):
            pass  # it failed: nothing continues the message
        anchor.turn.continued = True
        with pytest.raises(Refused) as caught:
            async with services.threads.claim(TENANT, anchor):
                raise AssertionError
        assert caught.value.problem.code == "thread_already_continued"


async def test_the_store_tells_that_a_stored_message_was_continued() -> None:
    """Whatever was forgotten meanwhile."""
    async with parts(ScriptedUpstream([say("a")] * 2), thread_forks=False) as services:
        first = ident(await respond(services, create()))
        async with services.threads.claim(TENANT, await services.threads.find(TENANT, first)):
            pass
        await respond(services, create(previous_response_id=first))
        anchor = await services.threads.find(TENANT, first)
        with pytest.raises(Refused) as caught:
            async with services.threads.claim(TENANT, anchor):
                raise AssertionError
        assert caught.value.problem.code == "thread_already_continued"


async def test_a_stored_response_has_the_context_of_its_request() -> None:
    async with parts(ScriptedUpstream([say("a")] * 2)) as services:
        tool: dict[str, Any] = {"type": "function", "name": "f", "parameters": None, "strict": None}
        answer = await respond(services, create(instructions="I", tools=[tool, {"type": "web_search"}]))
        anchor = await services.threads.find(TENANT, ident(answer))
        assert json.loads(bytes(anchor.context.system)) == "I"
        assert json.loads(bytes(anchor.context.tools)) == [
            {"name": "f", "input_schema": {"type": "object", "properties": {}}}
        ]
        bare = await services.threads.find(TENANT, ident(await respond(services, create())))
        assert bare.context == ThreadContext()


async def test_an_unstored_response_without_a_thread_is_no_message() -> None:
    async with parts() as services:
        response_id = await begin(services, create(store=False))
        assert await refusal(services, response_id) == "thread_not_found"


async def test_a_turn_that_a_filter_cut_is_not_kept() -> None:
    """Its client drops it, and begins anew."""
    async with parts(ScriptedUpstream([ScriptedTurn((Say(("x",)), Truncate("content_filter")))])) as services:
        assert await refusal(services, await begin(services)) == "thread_not_found"


@pytest.mark.parametrize(
    ("server", "tenant", "stores"),
    [("memory", None, False), ("durable", None, True), ("durable", "memory", False), ("memory", "durable", True)],
)
async def test_each_tenant_says_where_its_threads_are_kept(server: str, tenant: str | None, stores: bool) -> None:
    tables = [] if tenant is None else [{"name": TENANT, "threads": tenant}]
    config = msgspec.convert({"server": {"threads": server}, "tenant": [{"name": "bob"}, *tables]}, Config)
    async with parts() as services:
        services.threads.rules = ThreadRules.of(config)
        assert services.threads.stores(TENANT) is stores
        assert services.threads.stores("carol") is (server == "durable")


@pytest.mark.parametrize("threads", [None, "memory", "durable"])
async def test_no_thread_of_a_tenant_with_zero_retention_is_stored(threads: str | None) -> None:
    table = {"name": TENANT, "zero_retention": True, "threads": threads}
    config = msgspec.convert({"server": {"threads": "durable"}, "tenant": [table]}, Config)
    async with parts() as services:
        services.threads.rules = ThreadRules.of(config)
        assert not services.threads.stores(TENANT)
        assert services.threads.stores("bob")


async def test_an_anchor_is_a_turn_and_what_its_thread_keeps() -> None:
    async with parts() as services:
        anchor = await services.threads.find(TENANT, await begin(services))
        assert anchor == Anchor(anchor.message_id, anchor.turn, SYSTEM)

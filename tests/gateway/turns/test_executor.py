"""One turn from request to record: what is yielded when, and what is left of turns that go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from segue.history.records import Record
from segue.protocol.events import Ended, Event, OutputWriter
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem, Refused
from segue.protocol.responses import usage
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import Fail, Refuse, Say, ScriptedTurn, ScriptedUpstream, Truncate, Wait, say
from tests.faults.doubles import BrokenStore, Model, SlowStore
from tests.gateway.parts import (
    TENANT,
    Clock,
    caller,
    collect,
    create,
    ident,
    metric,
    nothing,
    parts,
    respond,
    response,
)

SLOT = ("connection", "")
SECRET = "a sec" + "ret"


def refuse(code: str = "rate_limit_exceeded") -> ScriptedTurn:
    return ScriptedTurn((Refuse(Problem(code, "not now")),))  # type: ignore[arg-type]  # one of ours


async def problem_of(batches: AsyncGenerator[Sequence[Event], None]) -> Problem:
    with pytest.raises(Refused) as caught:
        await collect(batches)
    return caught.value.problem


class Forgetful(ScriptedUpstream):
    """A model that is told of responses that are gone."""

    def __init__(self, script: Sequence[ScriptedTurn] | None = None) -> None:
        super().__init__(script)
        self.forgotten: list[ResponseId] = []

    def forget(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        assert tenant == TENANT
        self.forgotten += response_ids


# --- turns that end well ---------------------------------------------------------------------------------------------


async def test_a_stored_turn_is_in_the_store_before_its_terminal_event() -> None:
    clock = Clock()
    async with parts(ScriptedUpstream([say("hel", "lo")]), clock=clock, retention_s=60) as services:
        run = services.executor.run(create("hi"), caller(services))
        seen: list[str] = []
        record: Record | None = None
        async for batch in run.events():
            seen += [event.type for event in batch]
            assert run.response_id is not None
            record = await services.store.record(TENANT, run.response_id, clock.now)
            assert (record is not None) is (seen[-1] == "response.completed")
        assert seen[:2] == ["response.created", "response.in_progress"]
        assert seen[-1] == "response.completed"
        assert run.committing
        assert record is not None
        assert (record.created_at, record.expires_at, record.parent_id) == (clock.now, clock.now + 60, None)
        assert run.finished is not None
        assert record.response() == run.finished.response
    assert metric(services, "segue_turns_total", transport="websocket", outcome="completed") == 1


async def test_the_text_of_a_stored_turn_does_not_wait_for_the_disk() -> None:
    store = SlowStore("append", works_first=False)
    async with parts(store=store) as services:
        events = services.executor.run(create("hi"), caller(services)).events()
        first = await anext(events)
        assert [event.type for event in first][-1] == "response.output_item.done"
        assert not store.reached.is_set()
        store.gate.set()
        assert [event.type for event in await anext(events)] == ["response.completed"]
        await events.aclose()


async def test_a_continuation_sees_the_items_of_its_parent_and_is_its_child() -> None:
    upstream = ScriptedUpstream([say("one"), say("two")])
    async with parts(upstream) as services:
        parent = await respond(services, create("a"))
        child = await respond(services, create("b", previous_response_id=parent["id"]))
        assert child["previous_response_id"] == parent["id"]
        (record,) = [await services.store.record(TENANT, ident(child), services.clock())]
        assert record is not None
        assert record.parent_id == parent["id"]
    first, second = upstream.requests
    assert second.history.parent is not None
    assert list(second.history.items())[:1] == list(first.history.items())
    assert len(list(second.history.items())) == 3
    assert first.held is second.held is True


async def test_an_unstored_turn_is_nowhere_but_in_its_slot() -> None:
    upstream = ScriptedUpstream()
    async with parts(upstream) as services:
        made = await respond(services, create(store=False), caller(services, slot=SLOT))
        turn = services.cache.peek_slot(SLOT)
        assert turn is not None
        assert (turn.id, turn.stored, turn.expires_at) == (made["id"], False, None)
        assert await services.store.record(TENANT, ident(made), services.clock()) is None
        services.cache.drop_slot(SLOT)
        assert services.cache.size_bytes == 0
        await respond(services, create(store=False))
        assert services.cache.size_bytes == 0, "over HTTP nobody holds it"


async def test_a_turn_may_be_cut_short_and_is_still_a_parent() -> None:
    async with parts(ScriptedUpstream([ScriptedTurn((Say(("half",)), Truncate())), say("on")])) as services:
        made = await respond(services, create())
        assert (made["status"], made["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert (await respond(services, create(previous_response_id=made["id"])))["status"] == "completed"


async def test_a_warm_up_generates_nothing_and_is_a_parent() -> None:
    upstream = ScriptedUpstream([say("real")])
    async with parts(upstream) as services:
        warm = await respond(services, create("context", generate=False))
        assert (warm["status"], warm["output"]) == ("completed", [])
        await respond(services, create("go", previous_response_id=warm["id"]))
    assert [request.response_id for request in upstream.prefilled] == [warm["id"]]
    assert len(list(upstream.requests[0].history.items())) == 2


async def test_an_upstream_that_cannot_prefill_is_left_alone_by_a_warm_up() -> None:
    class Plain:
        models = ("m",)

        async def start(self) -> None: ...

        def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
            raise AssertionError

        async def aclose(self) -> None: ...

    async with parts(Plain()) as services:
        assert (await respond(services, create(generate=False)))["status"] == "completed"


# --- turns that do not begin -----------------------------------------------------------------------------------------


async def test_a_model_that_nobody_offers_is_refused() -> None:
    async with parts(models=["other"]) as services:
        problem = await problem_of(services.executor.run(create(), caller(services)).events())
    assert problem.code == "model_not_found"


async def test_a_stored_turn_cannot_continue_an_unstored_one() -> None:
    async with parts() as services:
        by = caller(services, slot=SLOT, places=[SLOT])
        made = await respond(services, create(store=False), by)
        run = services.executor.run(create(previous_response_id=made["id"]), by)
        assert (await problem_of(run.events())).code == "store_mismatch"
        assert (await respond(services, create(previous_response_id=made["id"], store=False), by))["status"] == (
            "completed"
        )


async def test_an_answer_to_a_call_that_was_never_made_is_refused() -> None:
    answer = [{"type": "function_call_output", "call_id": "c", "output": "1"}]
    upstream = ScriptedUpstream()
    async with parts(upstream) as services:
        run = services.executor.run(create(input=answer), caller(services))
        problem = await problem_of(run.events())
    assert (problem.code, problem.param) == ("tool_call_not_found", "input[0].call_id")
    assert upstream.started == 0


async def test_what_an_upstream_refuses_is_refused_and_leaves_nothing() -> None:
    async with parts(ScriptedUpstream([refuse()])) as services:
        run = services.executor.run(create(), caller(services, slot=SLOT))
        assert await problem_of(run.events()) == Problem("rate_limit_exceeded", "not now")
        assert services.cache.size_bytes == 0
        assert (await services.store.size()).records == 0
        assert metric(services, "segue_turns_total", transport="websocket", outcome="refused") == 1


async def test_a_background_turn_that_is_refused_has_failed() -> None:
    """Its client has the response already, and reads there what became of it."""
    async with parts(ScriptedUpstream([refuse()])) as services:
        made = await respond(services, create(background=True))
    assert (made["status"], made["error"]) == ("failed", {"code": "rate_limit_exceeded", "message": "not now"})


async def test_an_upstream_that_raises_before_its_first_batch_is_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    async with parts(Model(lambda _: nothing(ValueError(SECRET)))) as services:
        problem = await problem_of(services.executor.run(create(), caller(services)).events())
    assert problem.code == "server_error"
    assert "ValueError" in caplog.text
    assert SECRET not in caplog.text


# --- turns that go wrong ---------------------------------------------------------------------------------------------


async def stop_short(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
    yield OutputWriter(request.response_id).text("half")


async def explode_late(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
    yield OutputWriter(request.response_id).text("half")
    raise ValueError(SECRET)


async def refuse_late(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
    yield OutputWriter(request.response_id).text("half")
    raise Refused(Problem("upstream_timeout", "too slow"))


async def cancel_within(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
    yield OutputWriter(request.response_id).text("half")
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("play", "code"),
    [
        (stop_short, "upstream_protocol_error"),
        (explode_late, "server_error"),
        (refuse_late, "upstream_timeout"),
        (cancel_within, "server_error"),
    ],
)
async def test_a_turn_whose_upstream_breaks_has_failed_and_is_no_parent(play: object, code: str) -> None:
    async with parts(Model(play)) as services:  # type: ignore[arg-type]  # one of the plays above
        made = await respond(services, create(), caller(services, slot=SLOT))
        assert (made["status"], made["error"]["code"]) == ("failed", code)
        assert services.cache.size_bytes == 0
        assert (await services.store.size()).records == 0


async def test_an_upstream_that_ends_in_a_failure_has_its_words_passed_on() -> None:
    async with parts(ScriptedUpstream([ScriptedTurn((Say(("x",)), Fail("bored", "No.")))])) as services:
        made = await respond(services, create())
    assert (made["status"], made["error"]) == ("failed", {"code": "bored", "message": "No."})


async def test_a_turn_that_cannot_be_stored_has_failed_and_its_upstream_is_told() -> None:
    upstream = Forgetful()
    async with parts(upstream, store=BrokenStore("append")) as services:
        made = await respond(services, create())
        assert (made["status"], made["error"]["code"]) == ("failed", "store_error")
        (scope,) = services.rules.quotas.scopes(caller(services).principal)
        assert scope.counts.input_tokens == made["usage"]["input_tokens"] > 0, "it has run, and has cost that"
        assert services.cache.size_bytes == 0
    assert upstream.forgotten == [made["id"]]


async def test_a_cancelled_turn_stops_its_upstream_and_can_be_told_as_cancelled() -> None:
    gate = asyncio.Event()
    upstream = Forgetful([ScriptedTurn((Say(("x",)), Wait(gate)))])
    async with parts(upstream) as services:
        run = services.executor.run(create(background=True), caller(services))
        assert run.end_early(Ended("cancelled")) is None, "it has not begun"
        events = run.events()
        await anext(events)
        await anext(events)
        await events.aclose()
        assert upstream.cancelled == 1
        finished = run.end_early(Ended("cancelled"))
        assert finished is not None
        assert response(finished.terminal)["status"] == "cancelled"
        assert metric(services, "segue_turns_total", transport="websocket", outcome="cancelled") == 1
        assert upstream.forgotten == [], "the upstream never came to its end"


async def test_cancelling_the_task_that_reads_a_turn_ends_it() -> None:
    gate = asyncio.Event()
    upstream = ScriptedUpstream([ScriptedTurn((Say(("x",)), Wait(gate)))])
    async with parts(upstream) as services:
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in services.executor.run(create(), caller(services)).events():
                begun.set()

        task = asyncio.create_task(read())
        while not upstream.started:  # noqa: ASYNC110 - the turn has yielded nothing yet
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert upstream.cancelled == 1


async def test_what_an_upstream_raises_when_it_is_stopped_comes_too_late(caplog: pytest.LogCaptureFixture) -> None:
    async def bad_loser(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        try:
            writer = OutputWriter(request.response_id)
            yield [*writer.text("x"), *writer.end_item(), Ended("completed", usage(1, 1))]
        finally:
            raise ValueError(SECRET)

    async with parts(Model(bad_loser)) as services:
        assert (await respond(services, create()))["status"] == "completed"
    assert "action=stop error=ValueError" in caplog.text


async def test_a_child_whose_parent_was_deleted_meanwhile_is_stored_as_a_root() -> None:
    gate = asyncio.Event()
    upstream = ScriptedUpstream([say("one"), ScriptedTurn((Say(("two",)), Wait(gate)))])
    async with parts(upstream) as services:
        parent = await respond(services, create("a"))
        task = asyncio.create_task(respond(services, create("b", previous_response_id=parent["id"])))
        while upstream.started < 2:  # noqa: ASYNC110 - the turn has yielded nothing yet
            await asyncio.sleep(0)
        assert await services.executor.delete(TENANT, ident(parent))
        gate.set()
        child = await task
        chain = await services.store.chain(TENANT, ident(child), services.clock())
        assert chain is not None
        assert len(chain) == 1
        assert len(chain[0].input) == 3, "its own items, and those of the parent before them"


# --- what is gone ----------------------------------------------------------------------------------------------------


async def test_a_deleted_response_is_gone_from_store_memory_and_upstream() -> None:
    upstream = Forgetful()
    async with parts(upstream) as services:
        made = await respond(services, create())
        assert not await services.executor.delete("bob", ident(made))
        assert services.cache.size_bytes > 0
        assert await services.executor.delete(TENANT, ident(made))
        assert services.cache.size_bytes == 0
        assert not await services.executor.delete(TENANT, ident(made))
    assert upstream.forgotten == [made["id"]]


async def test_a_deletion_goes_on_when_its_caller_is_gone() -> None:
    store = SlowStore("delete", works_first=True)
    async with parts(store=store) as services:
        made = await respond(services, create())
        task = asyncio.create_task(services.executor.delete(TENANT, ident(made)))
        await store.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        store.gate.set()
        while services.cache.size_bytes:  # noqa: ASYNC110 - the deletion has no caller any more
            await asyncio.sleep(0)


async def test_a_sweep_removes_what_has_expired_everywhere() -> None:
    clock, upstream = Clock(), Forgetful()
    async with parts(upstream, clock=clock, retention_s=60) as services:
        old = await respond(services, create("old"))
        clock.now += 59
        young = await respond(services, create("young"))
        assert await services.executor.sweep() == 0
        clock.now += 2
        assert await services.executor.sweep() == 1
        assert upstream.forgotten == [old["id"]]
        assert await services.store.record(TENANT, ident(young), clock.now) is not None


async def test_an_id_made_before_is_the_one_of_the_turn_and_shares_its_parents_tag() -> None:
    async with parts() as services:
        parent = await respond(services, create())
        asked = create(previous_response_id=parent["id"])
        response_id = services.executor.new_id(asked)
        events = await collect(services.executor.run(asked, caller(services), response_id).events())
        assert response(events[-1])["id"] == response_id
        assert services.executor.new_id(create()) != response_id


# --- counting --------------------------------------------------------------------------------------------------------


async def test_an_input_is_counted_with_its_history_and_nothing_is_kept() -> None:
    upstream = ScriptedUpstream([say("one")])
    async with parts(upstream) as services:
        made = await respond(services, create("hello"))
        held = services.cache.size_bytes
        alone = await services.executor.count_input(create("and now?"), caller(services))
        asked = create("and now?", previous_response_id=made["id"])
        assert await services.executor.count_input(asked, caller(services)) > alone
        assert (services.cache.size_bytes, upstream.started) == (held, 1)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "gpt-0"}, "model_not_found"),
        ({"previous_response_id": "resp_1"}, "previous_response_not_found"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": ""}]}, "tool_call_not_found"),
    ],
)
async def test_a_turn_that_could_not_begin_is_not_counted(fields: dict[str, Any], code: str) -> None:
    async with parts(models=["m"]) as services:
        with pytest.raises(Refused) as caught:
            await services.executor.count_input(create(**{"text": "x", **fields}), caller(services))
        assert caught.value.problem.code == code


async def test_an_upstream_that_cannot_count_is_told_as_that() -> None:
    class Mute:
        models = ("m",)
        stream = ScriptedUpstream.stream
        start = ScriptedUpstream.start
        aclose = ScriptedUpstream.aclose

    async with parts(Mute()) as services:
        with pytest.raises(Refused) as caught:
            await services.executor.count_input(create(), caller(services))
        problem = caught.value.problem
        assert (problem.code, problem.param) == ("unsupported_parameter", "model")


async def test_a_turn_whose_upstream_is_replaced_while_its_history_is_read_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with parts(ScriptedUpstream([say("sum")])) as services:
        made = await respond(services, create(input=[{"role": "user", "content": "x"}, {"type": "compaction_trigger"}]))
        executor = services.executor
        view = executor.compactions.view

        async def view_slowly(*given: Any, **named: Any) -> object:  # noqa: ANN401 - passed on as they are
            seen = await view(*given, **named)
            monkeypatch.setattr(executor, "router", Router([ModelRule(ScriptedUpstream(), ("*",))]))
            return seen

        monkeypatch.setattr(executor.compactions, "view", view_slowly)
        with pytest.raises(Refused) as caught:
            await respond(services, create(input=[*made["output"], {"role": "user", "content": "x"}]))
    assert caught.value.problem.code == "server_overloaded"


async def test_a_turn_is_counted_out_though_its_client_leaves_twice_while_its_upstream_is_stopped() -> None:
    """What stops the upstream may take a while, and is cancelled itself when the gateway stops."""
    stopping, never = asyncio.Event(), asyncio.Event()

    async def slow_to_stop(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        try:
            yield OutputWriter(request.response_id).text("one")
        finally:
            stopping.set()
            await never.wait()

    async with parts(Model(slow_to_stop), tables={"limits": {"turns": 1}}) as services:
        events = services.executor.run(create(store=False), caller(services)).events()
        await anext(events)
        closing = asyncio.create_task(events.aclose())
        await stopping.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        (upstream,) = services.router.upstreams
        async with asyncio.timeout(20):
            await services.executor.upstream_use.until_idle(upstream)
        assert (await respond(services, create(store=False)))["status"] == "completed"
    assert metric(services, "segue_turns_total", transport="websocket", outcome="cancelled") == 1

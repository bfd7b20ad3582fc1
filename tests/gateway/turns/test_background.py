"""Kept turns: who may follow them, how long they run on, and what becomes of their idempotency keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack

import pytest

from segue.gateway.services import Services
from segue.protocol.events import Event, OutputWriter
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Code, Problem, Refused
from segue.protocol.requests import Create
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.scripted import Fail, Refuse, Say, ScriptedTurn, ScriptedUpstream, Wait, say
from tests.faults.doubles import Model, SlowStore
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

NEVER = 1e6
SECRET = "a sec" + "ret"


def kept(text: str = "hello", *, key: str | None = None, **fields: object) -> Create:
    """A request for a turn that outlives its client."""
    segue: dict[str, object] = {"resume": True} if key is None else {"idempotency_key": key}
    return create(text, segue=segue, stream=True, **fields)


def waiting(gate: asyncio.Event) -> ScriptedTurn:
    return ScriptedTurn((Say(("one",)), Wait(gate), Say(("two",))))


async def begin(services: Services, asked: Create, tenant: str = TENANT) -> ResponseId:
    return await services.background.create(asked, caller(services, tenant))


async def refusal(services: Services, asked: Create) -> Problem:
    with pytest.raises(Refused) as caught:
        await begin(services, asked)
    return caught.value.problem


async def follow(services: Services, response_id: str, after: int = -1, tenant: str = TENANT) -> list[Event]:
    return await collect(services.background.follow(tenant, response_id, after))


async def is_gone(batches: AsyncGenerator[Sequence[Event], None]) -> bool:
    with pytest.raises(Refused) as caught:
        await collect(batches)
    return caught.value.problem.code == "response_events_gone"


async def turns_ended(services: Services) -> None:
    async with asyncio.timeout(20):
        while services.background.running:  # noqa: ASYNC110 - a turn that nobody follows tells nobody of its end
            await asyncio.sleep(0.001)


# --- following -------------------------------------------------------------------------------------------------------


async def test_a_client_reads_its_turn_from_the_log_and_may_read_it_again() -> None:
    async with parts(ScriptedUpstream([say("hel", "lo")])) as services:
        response_id = await begin(services, kept())
        events = await follow(services, response_id)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert response(events[-1])["id"] == response_id
        assert await follow(services, response_id) == events
        assert await follow(services, response_id, 3) == events[4:]
        await turns_ended(services)
        assert await follow(services, response_id, events[-1].sequence_number) == []


async def test_several_clients_follow_one_turn_while_it_runs() -> None:
    gate = asyncio.Event()
    upstream = ScriptedUpstream([waiting(gate)])
    async with parts(upstream) as services:
        response_id = await begin(services, kept())
        followers = [asyncio.create_task(follow(services, response_id, after)) for after in (-1, 1)]
        gate.set()
        first, second = await asyncio.gather(*followers)
    assert second == first[2:]
    assert upstream.started == 1


async def test_a_resume_is_counted_by_whether_it_found_anything() -> None:
    async with parts() as services:
        response_id = await begin(services, kept())
        found = await collect(services.background.resume(TENANT, response_id, 2))
        assert found[0].sequence_number == 3
        assert await is_gone(services.background.resume(TENANT, "resp_unknown", -1))
        assert await is_gone(services.background.resume("bob", response_id, -1)), "another tenant's"
        assert metric(services, "segue_resumes_total", outcome="found") == 1
        assert metric(services, "segue_resumes_total", outcome="gone") == 2


async def test_a_fast_model_does_not_outrun_its_first_client() -> None:
    """The log may be smaller than the answer: what nobody has read yet must not be dropped."""
    async with parts(ScriptedUpstream(deltas=200, pace_s=1e-9), event_log_bytes=4096) as services:
        response_id = await begin(services, kept())
        for _ in range(100):
            await asyncio.sleep(0)
        events = await follow(services, response_id)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert len(events) > 200


async def test_the_state_of_a_turn_is_that_of_its_latest_event() -> None:
    gate = asyncio.Event()
    async with parts(ScriptedUpstream([waiting(gate)])) as services:
        response_id = await begin(services, create(background=True))
        latest = await services.background.latest(TENANT, response_id)
        assert latest is not None
        assert response(latest)["status"] == "in_progress"
        gate.set()
        await turns_ended(services)
        latest = await services.background.latest(TENANT, response_id)
        assert latest is not None
        assert response(latest)["status"] == "completed"
        assert await services.background.latest("bob", response_id) is None


async def test_what_is_not_an_id_has_no_events() -> None:
    async with parts() as services:
        assert await is_gone(services.background.follow(TENANT, "nonsense", -1))


# --- running on ------------------------------------------------------------------------------------------------------


async def test_a_turn_that_nobody_follows_is_stopped_after_a_while_and_leaves_nothing() -> None:
    gate = asyncio.Event()
    upstream = ScriptedUpstream([waiting(gate)])
    async with parts(upstream, resume_s=0.001) as services:
        response_id = await begin(services, kept())
        await turns_ended(services)
        assert upstream.cancelled == 1
        assert await services.background.latest(TENANT, response_id) is None
        assert services.event_logs.size_bytes == services.cache.size_bytes == 0


async def test_a_follower_that_comes_in_time_keeps_a_turn_running() -> None:
    gate = asyncio.Event()
    async with parts(ScriptedUpstream([waiting(gate)]), resume_s=NEVER) as services:
        response_id = await begin(services, kept())
        first = services.background.follow(TENANT, response_id, -1)
        await anext(first)
        await first.aclose()
        second = services.background.follow(TENANT, response_id, -1)
        await anext(second)
        gate.set()
        assert (await collect(second))[-1].type == "response.completed"


async def test_a_background_turn_runs_to_its_end_without_anybody() -> None:
    gate = asyncio.Event()
    async with parts(ScriptedUpstream([waiting(gate)]), resume_s=0.001) as services:
        response_id = await begin(services, create(background=True))
        await asyncio.sleep(0.01)
        assert services.background.running == 1
        gate.set()
        await turns_ended(services)
        assert (await follow(services, response_id))[-1].type == "response.completed"
        assert services.drain.busy == 0


async def test_a_client_that_leaves_before_its_turn_has_begun_does_not_stop_it_at_once() -> None:
    asked, gate = asyncio.Event(), asyncio.Event()

    async def slow(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        asked.set()
        await gate.wait()
        async for batch in ScriptedUpstream().stream(request):
            yield batch

    async with parts(Model(slow), resume_s=NEVER) as services:
        task = asyncio.create_task(begin(services, kept()))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        await turns_ended(services)
        assert (await services.store.size()).records == 1


async def test_only_so_many_turns_are_kept_at_once() -> None:
    gate = asyncio.Event()
    async with parts(ScriptedUpstream([waiting(gate), say("x")]), max_kept=1) as services:
        first = await begin(services, create(background=True))
        problem = await refusal(services, kept(key="k"))
        assert problem.code == "server_overloaded"
        gate.set()
        await turns_ended(services)
        assert await begin(services, kept(key="k")) != first, "its key was given back"


async def test_an_unstored_kept_turn_can_be_continued_as_long_as_its_events_are_kept() -> None:
    clock = Clock()
    async with parts(clock=clock, events_s=60) as services:
        response_id = await begin(services, kept(store=False))
        await follow(services, response_id)
        await turns_ended(services)
        places = services.parents.connection(TENANT).places("", 1, response_id)
        assert (await services.parents.find(TENANT, response_id, places)).stored is False
        clock.now += 60
        services.grace.purge()
        with pytest.raises(Refused):
            await services.parents.find(TENANT, response_id, places)


async def test_events_and_keys_are_dropped_when_their_time_has_come() -> None:
    clock = Clock()
    async with parts(clock=clock, events_s=0.002) as services:
        response_id = await begin(services, kept(key="k"))
        await follow(services, response_id)
        await turns_ended(services)
        await asyncio.sleep(0.01)
        assert services.event_logs.size_bytes > 0, "by the clock of the gateway it is not time"
        clock.now += 1
        async with asyncio.timeout(20):
            while services.event_logs.size_bytes:  # noqa: ASYNC110 - the timer tells nobody
                await asyncio.sleep(0.001)
        assert await is_gone(services.background.follow(TENANT, response_id, -1))
        assert await begin(services, kept(key="k")) != response_id


async def test_closing_stops_everything_and_tells_who_waits() -> None:
    async def never(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        await asyncio.Event().wait()
        yield ()

    gate = asyncio.Event()
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(parts(Model(never, ScriptedUpstream([waiting(gate)]).stream)))
        waits = asyncio.create_task(begin(services, kept()))
        while not services.background.running:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        accepted = await begin(services, create(background=True))
        await services.background.aclose()
        with pytest.raises(Refused) as caught:
            await waits
        assert caught.value.problem.code == "server_overloaded"
        assert services.background.running == 0
        last = await services.background.latest(TENANT, accepted)
        assert last is not None
        assert response(last)["status"] == "failed", "other gateways may be asked for it"
        assert response(last)["error"]["code"] == "server_overloaded"
        assert await services.event_logs.drop_tenant(TENANT) == 1, "nothing else is left"


async def test_a_turn_that_is_stopped_before_its_first_step_is_told_to_who_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The task of a turn that is cancelled so early would run nothing of its code."""
    upstream = ScriptedUpstream()
    async with parts(upstream) as services:
        background = services.background
        new_id, made = services.executor.new_id, list[ResponseId]()

        def note_id(asked: Create) -> ResponseId:
            made.append(new_id(asked))
            return made[-1]

        monkeypatch.setattr(services.executor, "new_id", note_id)

        async def cancel_at_once() -> None:
            await background.cancel(TENANT, made[-1])

        for stop in (background.aclose, cancel_at_once):
            async with asyncio.timeout(20):
                beginning, stopping = asyncio.create_task(begin(services, kept(key="k"))), asyncio.create_task(stop())
                with pytest.raises(Refused) as caught:
                    await beginning
                await stopping
            assert caught.value.problem.code == "server_overloaded"
            assert (background.running, services.event_logs.size_bytes, services.drain.busy) == (0, 0, 0)
        assert upstream.started == 0
        response_id = await begin(services, kept(key="k"))
        assert (await follow(services, response_id))[-1].type == "response.completed", "the key is free"


@pytest.mark.parametrize("step", ["end", "drop"])
async def test_a_turn_that_is_at_its_end_is_not_stopped_once_more(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Its followers would wait for ever."""
    gate, reached, go = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with parts(ScriptedUpstream([waiting(gate)])) as services:
        logs = services.event_logs
        original = getattr(logs, step)

        async def slow(*given: object) -> None:
            reached.set()
            await go.wait()
            await original(*given)

        monkeypatch.setattr(logs, step, slow)
        asked = create(background=True, stream=True) if step == "end" else kept()
        response_id = await begin(services, asked)
        following = asyncio.create_task(follow(services, response_id))
        if step == "end":
            gate.set()
            ending = asyncio.create_task(services.background.cancel(TENANT, response_id))
        else:
            ending = asyncio.create_task(services.background.aclose())
        async with asyncio.timeout(20):
            await reached.wait()
            again = asyncio.create_task(services.background.aclose())
            await asyncio.sleep(0)
            go.set()
            await asyncio.gather(ending, again)
            (ended,) = await asyncio.gather(following, return_exceptions=True)
        assert isinstance(ended, Refused) if step == "drop" else isinstance(ended, list)
        assert services.background.running == 0


# --- repeats of turns that ran and came to nothing -------------------------------------------------------------------


def repeat(services: Services, text: str = "hello") -> Create:
    """A create that its client sends again, because it does not know what became of the first."""
    return create(text, segue={"idempotency_key": "k", "epoch": services.epoch.hex()}, stream=True)


async def test_a_repeat_of_a_turn_that_failed_gets_its_failure() -> None:
    """The model ran: a client that did not see the failure must not pay for another run without knowing."""
    failed = ScriptedTurn((Say(("half of",)), Fail()))
    upstream = ScriptedUpstream([failed, say("x"), say("y")])
    async with parts(upstream) as services:
        first = await begin(services, kept(key="k"))
        events = await follow(services, first)
        assert events[-1].type == "response.failed"
        await turns_ended(services)
        assert await begin(services, repeat(services)) == first
        assert await follow(services, first) == events
        assert upstream.started == 1
        second = await begin(services, kept(key="k"))
        assert second != first, "who does not ask about a run of before begins a new one"
        assert await begin(services, repeat(services)) == second
        assert (await follow(services, second))[-1].type == "response.completed"


async def test_a_repeat_of_a_turn_that_was_dropped_is_told_that_it_is_gone() -> None:
    """It ran on for a while without a follower, and was stopped."""
    upstream = ScriptedUpstream([waiting(asyncio.Event()), say("x")])
    async with parts(upstream, resume_s=0.001) as services:
        first = await begin(services, kept(key="k"))
        await turns_ended(services)
        assert await begin(services, repeat(services)) == first
        assert await is_gone(services.background.follow(TENANT, first, -1))
        assert await begin(services, repeat(services, "another request")) != first
        assert upstream.started == 2


@pytest.mark.parametrize(("code", "runs"), [("rate_limit_exceeded", 1), ("upstream_error", 0)])
async def test_a_repeat_of_a_turn_that_was_refused_begins_its_own_if_nothing_ran(code: Code, runs: int) -> None:
    refused = ScriptedTurn((Refuse(Problem(code, "not now")),))
    upstream = ScriptedUpstream([refused, say("x")])
    async with parts(upstream) as services:
        assert (await refusal(services, kept(key="k"))).code == code
        again = await begin(services, repeat(services))
        if runs:
            assert (await follow(services, again))[-1].type == "response.completed"
        else:
            assert await is_gone(services.background.follow(TENANT, again, -1))
        assert upstream.started == runs


async def test_what_repeats_are_told_is_kept_as_long_as_events() -> None:
    clock = Clock()
    upstream = ScriptedUpstream([ScriptedTurn((Say(("half of",)), Fail())), say("x")])
    async with parts(upstream, clock=clock, events_s=60) as services:
        first = await begin(services, kept(key="k"))
        await follow(services, first)
        await turns_ended(services)
        clock.now += 60
        assert await begin(services, repeat(services)) != first


# --- beginnings that fail --------------------------------------------------------------------------------------------


async def test_a_turn_that_is_refused_leaves_no_log_and_no_key() -> None:
    refused = ScriptedTurn((Refuse(Problem("rate_limit_exceeded", "not now")),))
    async with parts(ScriptedUpstream([refused, say("x")])) as services:
        assert (await refusal(services, kept(key="k"))).code == "rate_limit_exceeded"
        assert services.event_logs.size_bytes == 0
        response_id = await begin(services, kept(key="k"))
        assert (await follow(services, response_id))[-1].type == "response.completed"


async def test_a_bug_of_ours_leaves_no_client_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with parts() as services:

        async def full(tenant: str, response_id: ResponseId) -> None:
            raise ValueError(SECRET)

        monkeypatch.setattr(services.event_logs, "wait_for_room", full)
        assert (await refusal(services, kept())).code == "server_error"
        assert services.background.running == 0
    assert "action=keep" in caplog.text
    assert SECRET not in caplog.text


# --- cancelling and deleting -----------------------------------------------------------------------------------------


async def test_a_cancelled_turn_ends_as_a_response_that_was_cancelled() -> None:
    gate = asyncio.Event()
    async with parts(ScriptedUpstream([waiting(gate)])) as services:
        response_id = await begin(services, create(background=True))
        await services.background.cancel(TENANT, response_id)
        events = await follow(services, response_id)
        made = response(events[-1])
        assert (made["status"], made["error"]) == ("cancelled", None)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        await services.background.cancel(TENANT, response_id)
        await services.background.cancel("bob", response_id)


async def test_a_cancelled_turn_releases_its_idempotency_key() -> None:
    """The next request with the key makes a response of its own, instead of getting one that came to nothing."""
    gate = asyncio.Event()
    async with parts(ScriptedUpstream([waiting(gate)] * 2)) as services:
        first = await begin(services, kept(key="k", background=True))
        assert await begin(services, kept(key="k", background=True)) == first
        await services.background.cancel(TENANT, first)
        gate.set()
        second = await begin(services, kept(key="k", background=True))
        assert second != first
        assert (await follow(services, second))[-1].type == "response.completed"


async def test_a_failed_turn_releases_its_idempotency_key() -> None:
    failing = ScriptedTurn((Say(("x",)), Fail()))
    async with parts(ScriptedUpstream([failing, say("x")])) as services:
        first = await begin(services, kept(key="k"))
        assert (await follow(services, first))[-1].type == "response.failed"
        await turns_ended(services)
        assert await begin(services, kept(key="k")) != first


async def test_a_turn_that_is_being_stored_is_not_cancelled() -> None:
    store = SlowStore("append", works_first=False)
    async with parts(store=store) as services:
        response_id = await begin(services, create(background=True))
        await store.reached.wait()
        cancelling = asyncio.create_task(services.background.cancel(TENANT, response_id))
        await asyncio.sleep(0)
        store.gate.set()
        await cancelling
        assert (await follow(services, response_id))[-1].type == "response.completed"


async def test_a_turn_can_be_cancelled_before_its_upstream_has_answered() -> None:
    asked = asyncio.Event()

    async def silent(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        asked.set()
        await asyncio.Event().wait()
        yield OutputWriter(request.response_id).text("x")

    async with parts(Model(silent)) as services:
        response_id = await begin(services, create(background=True))
        await asked.wait()
        await services.background.cancel(TENANT, response_id)
        events = await follow(services, response_id)
        assert response(events[-1])["status"] == "cancelled"
        assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_a_running_turn_that_is_deleted_is_stopped_and_forgotten() -> None:
    gate = asyncio.Event()
    upstream = ScriptedUpstream([waiting(gate)])
    async with parts(upstream) as services:
        response_id = await begin(services, create(background=True))
        assert await services.background.forget(TENANT, response_id)
        assert not await services.background.forget(TENANT, response_id)
        assert upstream.cancelled == 1
        assert services.background.running == 0
        assert services.event_logs.size_bytes == services.cache.size_bytes == 0


async def test_a_turn_that_is_being_stored_is_deleted_after_it() -> None:
    """Otherwise the store would keep what its client had deleted."""
    store = SlowStore("append", works_first=False)
    async with parts(store=store) as services:
        response_id = await begin(services, create(background=True))
        await store.reached.wait()
        forgetting = asyncio.create_task(services.background.forget(TENANT, response_id))
        await asyncio.sleep(0)
        store.gate.set()
        assert await forgetting
        assert await services.executor.delete(TENANT, response_id)
        assert services.cache.size_bytes == 0


async def test_an_ended_turn_that_is_deleted_cannot_be_resumed() -> None:
    async with parts() as services:
        response_id = await begin(services, kept(store=False))
        await follow(services, response_id)
        await turns_ended(services)
        assert await services.background.forget(TENANT, response_id)
        assert await is_gone(services.background.follow(TENANT, response_id, -1))
        assert services.cache.size_bytes == 0


# --- idempotency keys ------------------------------------------------------------------------------------------------


async def test_the_same_request_with_the_same_key_makes_no_second_response() -> None:
    upstream = ScriptedUpstream([say("x")])
    async with parts(upstream) as services:
        first = await begin(services, kept(key="k"))
        events = await follow(services, first)
        assert await begin(services, kept(key="k")) == first
        assert await follow(services, first) == events
        assert metric(services, "segue_repeated_creates_total") == 1
    assert upstream.started == 1


async def test_another_request_with_the_same_key_is_refused() -> None:
    async with parts(ScriptedUpstream([say("x"), say("y")])) as services:
        first = await begin(services, kept("one", key="k"))
        assert (await refusal(services, kept("two", key="k"))).code == "idempotency_key_reused"
        assert await begin(services, kept("two", key="k"), "bob") != first, "a key belongs to its tenant"


async def test_requests_that_come_together_with_one_key_share_a_turn() -> None:
    gate = asyncio.Event()

    async def slow(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        await gate.wait()
        async for batch in ScriptedUpstream().stream(request):
            yield batch

    async with parts(Model(slow)) as services:
        both = [asyncio.create_task(begin(services, kept(key="k"))) for _ in range(2)]
        while not services.background.running:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        gate.set()
        first, second = await asyncio.gather(*both)
        assert first == second


async def test_a_request_that_waited_for_a_refused_turn_begins_its_own() -> None:
    gate = asyncio.Event()

    async def refuse_late(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        await gate.wait()
        async for batch in nothing(Refused(Problem("rate_limit_exceeded", "not now"))):
            yield batch

    async with parts(Model(refuse_late)) as services:
        first = asyncio.create_task(begin(services, kept(key="k")))
        while not services.background.running:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        second = asyncio.create_task(begin(services, kept(key="k")))
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(Refused):
            await first
        assert (await follow(services, await second))[-1].type == "response.completed"


async def test_a_kept_turn_continues_what_its_connection_holds() -> None:
    """Though its own turn goes into a slot that outlives the connection."""
    upstream = ScriptedUpstream([say("one"), say("two")])
    async with parts(upstream) as services:
        slots = services.parents.connection(TENANT)
        made = await respond(services, create(store=False), caller(services, slot=slots.lane("")))
        asked = kept(store=False, previous_response_id=made["id"])
        by = caller(services, slot=slots.lane(""), places=slots.places("", 1, made["id"]))
        response_id = await services.background.create(asked, by)
        await follow(services, response_id)
        await turns_ended(services)
        held = services.cache.peek_slot(services.grace.slot(TENANT, response_id))
        assert held is not None
        assert held.parent is services.cache.peek_slot(slots.lane(""))
        assert ident(made) == held.parent.id if held.parent is not None else False

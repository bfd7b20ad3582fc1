"""Several gateways over one store and one Redis: what one runs is not run by another, and all see what is live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from segue.gateway.services import Services
from segue.gateway.turns.erasure import Erasure
from segue.protocol.conversations import NewConversation
from segue.protocol.events import Event
from segue.protocol.ids import ResponseId, message_id
from segue.protocol.items import Input
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import Create, ThreadContext
from segue.stores.interface import Store
from segue.stores.live.live_url import parse_live_url
from segue.stores.live.redis_live import RedisLive
from segue.stores.live.redis_nodes import LEASE_S, RedisNodes
from segue.stores.memory import MemoryStore
from segue.upstreams.scripted import Fail, Say, ScriptedTurn, ScriptedUpstream, Wait, say
from tests.faults.gateways import until
from tests.gateway.parts import NO_TABLES, TENANT, caller, collect, create, ident, parts, respond, response
from tests.stores.live.live_nodes import NodeClock, end_lease, end_places
from tests.stores.live.redis_servers import RedisServer, discard, temporary_server
from tests.strategies import examples

pytestmark = pytest.mark.redis


def keyed(text: str = "hello", *, key: str = "k", **fields: object) -> Create:
    epoch = {"epoch": fields.pop("epoch")} if "epoch" in fields else {}
    return create(text, segue={"idempotency_key": key, **epoch}, stream=True, **fields)


@asynccontextmanager
async def gateways(
    url: str,
    *upstreams: ScriptedUpstream,
    lease_s: float = LEASE_S,
    call_s: float = 2.0,
    clocks: Sequence[NodeClock] = (),
    resume_s: float = 60.0,
    tables: Mapping[str, object] = NO_TABLES,
) -> AsyncIterator[list[Services]]:
    """Run a gateway for each upstream, over one store."""
    store: Store = MemoryStore()
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                parts(
                    upstream,
                    store=store,
                    live=RedisLive(
                        parse_live_url(url),
                        node=f"{number:016x}",
                        address=f"http://node-{number}",
                        started_at=float(number),
                        lease_s=lease_s,
                        call_s=call_s,
                        monotonic=clocks[number] if clocks else None,
                    ),
                    resume_s=resume_s,
                    tables=tables,
                )
            )
            for number, upstream in enumerate(upstreams)
        ]


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    server = temporary_server()
    yield server
    discard(server)


async def begin(services: Services, asked: Create) -> ResponseId:
    return await services.background.create(asked, caller(services))


async def follow(services: Services, response_id: str, after: int = -1) -> list[Event]:
    return await collect(services.background.follow(TENANT, response_id, after))


async def refusal(services: Services, asked: Create) -> Problem:
    with pytest.raises(Refused) as caught:
        await begin(services, asked)
    return caught.value.problem


async def test_creates_with_one_key_at_several_nodes_run_once(live_url: str) -> None:
    upstreams = [ScriptedUpstream([say("one"), say("two")]) for _ in range(3)]
    async with gateways(live_url, *upstreams) as nodes:
        ids = await asyncio.gather(*(begin(nodes[number % 3], keyed()) for number in range(12)))
        assert len(set(ids)) == 1
        assert sum(upstream.started for upstream in upstreams) == 1


async def test_a_key_with_another_request_is_refused_at_every_node(live_url: str) -> None:
    async with gateways(live_url, ScriptedUpstream(), ScriptedUpstream()) as (one, two):
        await begin(one, keyed())
        assert (await refusal(two, keyed("another"))).code == "idempotency_key_reused"


async def test_the_epoch_is_that_of_all_nodes(live_url: str) -> None:
    async with gateways(live_url, ScriptedUpstream(), ScriptedUpstream()) as (one, two):
        assert one.nodes.epoch == two.nodes.epoch
        assert one.epoch != two.epoch, "a tunnel resumes at its own node"
        two.check_epoch(keyed(epoch=one.nodes.epoch.hex()))


async def test_a_repeat_that_meets_the_loss_of_all_keys_after_it_was_let_in_runs_nothing(live_url: str) -> None:
    upstream = ScriptedUpstream()
    async with gateways(live_url, upstream) as (one,):
        before = keyed(epoch="0123456789abcdef")  # it was the epoch when the request came
        assert (await refusal(one, before)).code == "epoch_changed"
        assert upstream.started == 0
        response_id = await begin(one, keyed(epoch=one.nodes.epoch.hex()))
        assert await begin(one, keyed()) == response_id, "the key was free"


async def test_without_redis_nothing_begins_that_is_to_outlive_its_node_and_all_else_goes_on(live_url: str) -> None:
    upstream = ScriptedUpstream()
    async with gateways(live_url, upstream) as (one,):
        assert one.live is not None
        await one.live.aclose()
        problems = [await refusal(one, asked) for asked in (keyed(), background())]
        assert ([problem.code for problem in problems], upstream.started) == (["store_error"] * 2, 0)
        assert await collect(one.executor.run(create(), caller(one)).events())


async def test_a_turn_that_failed_gives_its_key_back_to_all(live_url: str) -> None:
    gate = asyncio.Event()
    first = ScriptedUpstream([ScriptedTurn((Say(("a",)), Wait(gate)))])
    second = ScriptedUpstream()
    async with gateways(live_url, first, second) as (one, two):
        response_id = await begin(one, keyed())
        await one.background.forget(TENANT, response_id)
        assert await begin(two, keyed()) != response_id
        assert second.started == 1


# --- conversations ---------------------------------------------------------------------------------------------------


async def talk_at(services: Services) -> str:
    return (await services.executor.conversations.create(TENANT, NewConversation(Input()))).id


async def run_turn(services: Services, text: str, talk: str) -> list[Event]:
    return await collect(services.executor.run(create(text, conversation=talk), caller(services)).events())


async def test_a_second_turn_in_a_conversation_is_refused_before_any_model_runs(live_url: str) -> None:
    gate = asyncio.Event()
    first, second = ScriptedUpstream([ScriptedTurn((Say(("a",)), Wait(gate)))]), ScriptedUpstream([say("b")])
    async with gateways(live_url, first, second) as (one, two):
        talk = await talk_at(one)
        running = asyncio.create_task(run_turn(one, "1", talk))
        await until(lambda: first.started == 1)
        for change in (
            lambda: run_turn(two, "2", talk),
            lambda: two.executor.conversations.delete(TENANT, talk),
            lambda: two.executor.conversations.add(TENANT, talk, Input()),
            lambda: two.executor.conversations.remove(TENANT, talk, "msg_1"),
        ):
            with pytest.raises(Refused) as caught:
                await change()
            assert caught.value.problem.code == "conversation_locked"
        assert second.started == 0
        gate.set()
        assert (await running)[-1].type == "response.completed"
        assert (await run_turn(two, "2", talk))[-1].type == "response.completed"


async def test_when_the_end_of_a_turn_is_seen_any_node_can_go_on(live_url: str) -> None:
    """A client sends the next turn as soon as it has the terminal event."""
    models = [ScriptedUpstream([say("x")] * 4) for _ in range(3)]
    async with gateways(live_url, *models) as nodes:
        talk = await talk_at(nodes[0])
        for number in range(9):
            batches = nodes[number % 3].executor.run(create("t", conversation=talk), caller(nodes[number % 3])).events()
            async for batch in batches:
                if batch[-1].type == "response.completed":
                    break
            assert await nodes[(number + 1) % 3].executor.conversations.add(TENANT, talk, Input()) is None
            await batches.aclose()


async def test_the_conversation_of_a_dead_node_is_free(live_url: str) -> None:
    first = ScriptedUpstream([ScriptedTurn((Say(("a",)), Wait(asyncio.Event())))])
    async with gateways(live_url, first, ScriptedUpstream([say("b")])) as (one, two):
        talk = await talk_at(one)
        running = asyncio.create_task(run_turn(one, "1", talk))
        await until(lambda: first.started == 1)
        assert one.live is not None
        await one.live.nodes.aclose()
        assert (await run_turn(two, "2", talk))[-1].type == "response.completed"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_node_that_was_taken_for_dead_adds_nothing_to_a_conversation(live_url: str) -> None:
    """Though the turn that took its place is not stored yet."""
    gates = [asyncio.Event(), asyncio.Event()]
    models = [ScriptedUpstream([ScriptedTurn((Say(("a",)), Wait(gate)))]) for gate in gates]
    clock = NodeClock()
    async with gateways(live_url, *models, clocks=[clock, NodeClock()]) as (one, two):
        talk = await talk_at(one)
        running = [asyncio.create_task(run_turn(one, "1", talk))]
        await until(lambda: models[0].started == 1)
        assert isinstance(one.nodes, RedisNodes)
        one.nodes.stand_still()
        clock.forward(LEASE_S)
        await end_lease(live_url, one.nodes.id)
        assert await two.nodes.is_gone(one.nodes.id)
        running.append(asyncio.create_task(run_turn(two, "2", talk)))
        await until(lambda: models[1].started == 1)
        gates[0].set()
        late = await running[0]
        assert (late[-1].type, response(late[-1])["error"]["code"]) == ("response.failed", "conversation_locked")
        gates[1].set()
        assert (await running[1])[-1].type == "response.completed"


async def test_without_redis_the_turns_of_a_conversation_go_on_and_the_store_has_the_last_word(
    own_server: RedisServer,
) -> None:
    gate = asyncio.Event()
    models = [ScriptedUpstream([ScriptedTurn((Say(("a",)), Wait(gate)))]), ScriptedUpstream([say("b")])]
    async with gateways(own_server.url(), *models) as (one, two):
        talk = await talk_at(one)
        own_server.kill()
        running = asyncio.create_task(run_turn(one, "1", talk))
        await until(lambda: models[0].started == 1)
        assert (await run_turn(two, "2", talk))[-1].type == "response.completed"
        gate.set()
        late = response((await running)[-1])
        assert (late["status"], late["error"]["code"]) == ("failed", "conversation_locked")


# --- limits of what is under way -------------------------------------------------------------------------------------


async def test_turns_at_once_are_limited_over_all_nodes_and_a_dead_one_frees_its_own(live_url: str) -> None:
    gate = asyncio.Event()
    held = ScriptedUpstream([ScriptedTurn((Say(("a",)), Wait(gate)))] * 2)
    models = [held, ScriptedUpstream([ScriptedTurn((Say(("b",)), Wait(gate)))] * 3)]
    async with gateways(live_url, *models, tables={"limits": {"turns": 3}}) as (one, two):
        running = [asyncio.create_task(respond(node, create())) for node in (one, one, two)]
        await until(lambda: held.started == 2 and models[1].started == 1)
        for node in (one, two):
            with pytest.raises(Refused, match="3 turns are under way"):
                await respond(node, create())
        assert (held.started, models[1].started) == (2, 1)
        assert isinstance(one.nodes, RedisNodes)
        one.nodes.stand_still()  # and its sweeper with it: it says nothing any more
        while True:
            await end_places(live_url, one.nodes.id)
            late = asyncio.create_task(respond(two, create()))
            started = asyncio.create_task(until(lambda: models[1].started == 2))
            await asyncio.wait([late, started], return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                break
            started.cancel()
            assert isinstance(late.exception(), Refused)
            await asyncio.sleep(0.05)
        gate.set()
        assert {answer["status"] for answer in await asyncio.gather(*running, late)} == {"completed"}


async def test_without_redis_each_node_limits_its_own_turns(own_server: RedisServer) -> None:
    gate = asyncio.Event()
    models = [ScriptedUpstream([ScriptedTurn((Say(("a",)), Wait(gate)))]) for _ in range(2)]
    async with gateways(own_server.url(), *models, tables={"limits": {"turns": 1}}) as nodes:
        own_server.kill()
        running = [asyncio.create_task(respond(node, create())) for node in nodes]
        await until(lambda: all(model.started for model in models))
        for node in nodes:
            with pytest.raises(Refused, match="1 turns are under way"):
                await respond(node, create())
        gate.set()
        await asyncio.gather(*running)


# --- message threads -------------------------------------------------------------------------------------------------


async def test_one_request_at_a_time_continues_a_message_at_whatever_node(live_url: str) -> None:
    async with gateways(live_url, ScriptedUpstream([say("a")]), ScriptedUpstream([say("b")])) as (one, two):
        first = ident(await respond(one, create()))
        anchors = [await node.threads.find(TENANT, first) for node in (one, two)]
        async with one.threads.claim(TENANT, anchors[0]):
            with pytest.raises(Refused) as caught:
                async with two.threads.claim(TENANT, anchors[1]):
                    raise AssertionError
            assert caught.value.problem.code == "thread_continue_in_flight"
        async with two.threads.claim(TENANT, anchors[1]):
            pass


async def test_a_durable_thread_goes_on_at_any_node_with_its_system_and_tools(live_url: str) -> None:
    context = ThreadContext(msgspec.Raw(b'"Be brief."'))
    async with gateways(live_url, ScriptedUpstream([say("a")]), ScriptedUpstream([say("b")])) as (one, two):
        asked = msgspec.structs.replace(create("hello"), thread=context)
        first = ident(await respond(one, asked))
        anchor = await two.threads.find(TENANT, message_id(first))
        assert (anchor.turn.stored, anchor.context) == (True, context)
        asked = msgspec.structs.replace(create("more", previous_response_id=first), thread=context)
        async with two.threads.claim(TENANT, anchor) as claim:
            run = two.executor.run(asked, caller(two))
            run.response_id = two.executor.new_id(asked)
            await collect(two.threads.follow(run, TENANT, claim))
        assert (await one.threads.find(TENANT, run.response_id)).turn.parent is not None


async def test_a_thread_in_memory_is_unknown_at_other_nodes_so_that_clients_send_it_whole(live_url: str) -> None:
    async with gateways(live_url, ScriptedUpstream([say("a")]), ScriptedUpstream()) as (one, two):
        asked = msgspec.structs.replace(create("hello", store=False), thread=ThreadContext())
        response_id = one.executor.new_id(asked)
        run = one.executor.run(asked, caller(one, slot=one.threads.slot(TENANT, response_id)), response_id)
        await collect(one.threads.follow(run, TENANT, None))
        assert (await one.threads.find(TENANT, response_id)).turn.id == response_id
        with pytest.raises(Refused) as caught:
            await two.threads.find(TENANT, response_id)
        assert caught.value.problem.code == "thread_not_found"


async def test_a_message_that_another_node_has_continued_meanwhile_is_continued_once(live_url: str) -> None:
    models = [ScriptedUpstream([say("a"), say("b")]), ScriptedUpstream([say("c")])]
    async with gateways(live_url, *models) as (one, two):
        for node in (one, two):
            node.threads.rules = msgspec.structs.replace(node.threads.rules, forks=False)
        first = ident(await respond(one, create()))
        anchor = await two.threads.find(TENANT, first)
        await respond(one, create(previous_response_id=first))
        with pytest.raises(Refused) as caught:
            async with two.threads.claim(TENANT, anchor):
                raise AssertionError
        assert caught.value.problem.code == "thread_already_continued"


async def test_a_repeat_at_another_node_of_a_turn_that_failed_after_it_ran_runs_nothing(live_url: str) -> None:
    failing = ScriptedTurn((Say(("half of",)), Fail()))
    first, second = ScriptedUpstream([failing]), ScriptedUpstream()
    async with gateways(live_url, first, second) as (one, two):
        asked = keyed(epoch=one.nodes.epoch.hex())
        response_id = await begin(one, asked)
        events = await follow(one, response_id)
        await one.background.settled(TENANT, response_id)
        assert events[-1].type == "response.failed"
        assert await begin(two, asked) == response_id
        assert await follow(two, response_id) == events
        assert second.started == 0
        assert await begin(two, keyed()) != response_id, "who does not ask about a run of before begins a new one"


# --- event logs ------------------------------------------------------------------------------------------------------


def background(text: str = "hello") -> Create:
    return create(text, background=True)


async def test_any_node_follows_and_resumes_a_turn_that_runs_at_another(live_url: str) -> None:
    gate = asyncio.Event()
    running = ScriptedUpstream([ScriptedTurn((Say(("one",)), Wait(gate), Say(("two",))))])
    async with gateways(live_url, running, ScriptedUpstream()) as (one, two):
        response_id = await begin(one, background())
        following = [asyncio.create_task(follow(two, response_id, after)) for after in (-1, 1)]
        await asyncio.sleep(0.03)
        gate.set()
        whole, rest = await asyncio.gather(*following)
        assert whole == await follow(one, response_id)
        assert rest == whole[2:]
        assert whole[-1].type == "response.completed"
        assert (await two.background.latest(TENANT, response_id)) == whole[-1]


async def test_who_is_told_of_a_turn_can_ask_any_node_for_it(live_url: str) -> None:
    turns = 10
    running = ScriptedUpstream([ScriptedTurn((Say(("one",)), Wait(asyncio.Event()))) for _ in range(turns)])
    async with gateways(live_url, running, ScriptedUpstream()) as (one, two):
        for _ in range(turns):
            response_id = await begin(one, background())
            latest = await two.background.latest(TENANT, response_id)
            assert latest is not None
            assert response(latest)["status"] in {"queued", "in_progress"}


async def test_a_turn_that_may_be_resumed_begins_without_redis_too(live_url: str) -> None:
    async with gateways(live_url, ScriptedUpstream([say("one")])) as (one,):
        assert one.live is not None
        await one.live.aclose()
        response_id = await begin(one, create(segue={"resume": True}, stream=True))
        assert (await follow(one, response_id))[-1].type == "response.completed"


async def test_a_repeat_at_another_node_gets_the_stream_of_the_first(live_url: str) -> None:
    async with gateways(live_url, ScriptedUpstream([say("a", "b")]), ScriptedUpstream()) as (one, two):
        response_id = await begin(one, keyed())
        assert await begin(two, keyed()) == response_id
        there, here = await asyncio.gather(follow(two, response_id), follow(one, response_id))
        assert there == here


async def test_a_dead_node_leaves_turns_that_have_failed_and_keys_that_say_so(live_url: str) -> None:
    running = ScriptedUpstream([ScriptedTurn((Say(("one",)), Wait(asyncio.Event())))])
    async with gateways(live_url, running, ScriptedUpstream()) as (one, two):
        response_id = await begin(one, keyed())
        following = asyncio.create_task(follow(two, response_id))
        await asyncio.sleep(0.05)
        await one.nodes.aclose()  # as if it was killed: nobody ends its turns
        events = await following
        assert events[-1].type == "response.failed"
        assert b"segue_outcome_unknown" in events[-1].data
        assert await begin(two, keyed()) == response_id, "the model may have run: it is not run again"
        assert await two.background.latest(TENANT, response_id) == events[-1]
        assert two.metrics.registry.get_sample_value("segue_repeated_creates_total") == 1


# --- deletions -------------------------------------------------------------------------------------------------------


async def stored(services: Services) -> ResponseId:
    return ident(await respond(services, create()))


async def is_found(services: Services, response_id: str) -> bool:
    try:
        await services.parents.find(TENANT, response_id, ())
    except Refused:
        return False
    return True


async def test_what_one_node_deletes_no_other_shows_from_memory(live_url: str) -> None:
    async with gateways(live_url, ScriptedUpstream(), ScriptedUpstream(), ScriptedUpstream()) as nodes:
        _, two, three = nodes
        response_id = await stored(nodes[0])
        assert [await is_found(node, response_id) for node in nodes] == [True] * 3
        assert await two.executor.delete(TENANT, response_id)
        assert [node.cache.has_turn(TENANT, response_id) for node in nodes] == [False] * 3
        assert [await is_found(node, response_id) for node in nodes] == [False] * 3
        assert not await three.executor.delete(TENANT, response_id)


async def test_what_a_node_deleted_that_died_before_it_told_is_gone_after_a_repeat(live_url: str) -> None:
    async with gateways(live_url, ScriptedUpstream(), ScriptedUpstream(), ScriptedUpstream()) as (one, two, three):
        response_id = await stored(one)
        assert await is_found(two, response_id)
        assert await one.store.delete(TENANT, response_id, one.clock())
        await one.nodes.aclose()  # as if it was killed
        assert await is_found(two, response_id), "from memory"
        assert not await three.executor.delete(TENANT, response_id), "there is nothing to be deleted"
        assert not await is_found(two, response_id)


async def test_a_node_that_stands_still_delays_a_deletion_and_trusts_nothing_afterwards(live_url: str) -> None:
    clocks = [NodeClock(), NodeClock()]
    async with gateways(live_url, ScriptedUpstream(), ScriptedUpstream(), clocks=clocks) as (one, two):
        response_id = await stored(one)
        assert await is_found(two, response_id)
        assert isinstance(two.nodes, RedisNodes)
        two.nodes.stand_still()
        deleting = asyncio.create_task(one.executor.delete(TENANT, response_id))
        async with Redis.from_url(live_url) as client:
            while not await client.exists("segue:{nodes}:notices:number"):  # noqa: ASYNC110 - a server elsewhere sets no event here
                await asyncio.sleep(0.005)
        assert not deleting.done()
        clocks[1].forward(LEASE_S)
        await end_lease(live_url, two.nodes.id)
        assert await deleting
        assert not two.nodes.held
        assert two.cache.has_turn(TENANT, response_id)
        assert not await is_found(two, response_id)


async def test_a_deletion_without_redis_is_refused_and_nothing_is_deleted(live_url: str) -> None:
    async with gateways(live_url, ScriptedUpstream()) as (one,):
        response_id = await stored(one)
        assert one.live is not None
        await one.live.aclose()
        with pytest.raises(Refused):
            await one.executor.delete(TENANT, response_id)
        assert await is_found(one, response_id)


async def test_any_node_cancels_and_forgets_a_turn_that_runs_at_another(live_url: str) -> None:
    running = ScriptedUpstream([ScriptedTurn((Say(("one",)), Wait(asyncio.Event()))) for _ in range(2)])
    async with gateways(live_url, running, ScriptedUpstream()) as (one, two):
        cancelled, forgotten = await begin(one, background()), await begin(one, background())
        await two.background.cancel(TENANT, cancelled)
        latest = await two.background.latest(TENANT, cancelled)
        assert latest is not None
        assert response(latest)["status"] == "cancelled"
        assert await two.background.forget(TENANT, forgotten)
        assert await two.background.latest(TENANT, forgotten) is None
        assert one.background.running == 0


async def test_the_events_of_a_response_that_another_node_deletes_go_too(live_url: str) -> None:
    async with gateways(live_url, ScriptedUpstream(), ScriptedUpstream()) as (one, two):
        response_id = await begin(one, background())
        events = await follow(one, response_id)
        assert await follow(two, response_id) == events
        await two.background.forget(TENANT, response_id)
        assert await two.executor.delete(TENANT, response_id)
        for node in (one, two):
            assert await node.background.latest(TENANT, response_id) is None
            with pytest.raises(Refused):
                await follow(node, response_id)


async def test_a_node_that_may_have_missed_a_deletion_reads_events_from_redis(live_url: str) -> None:
    async with gateways(live_url, ScriptedUpstream()) as (one,):
        response_id = await begin(one, background())
        events = await follow(one, response_id)
        await one.background.settled(TENANT, response_id)
        await one.background.distrust()
        assert one.event_logs.size_bytes == 0
        assert await follow(one, response_id) == events


async def test_an_erasure_is_felt_at_every_node(live_url: str) -> None:
    running = ScriptedUpstream([say("one"), ScriptedTurn((Say(("one",)), Wait(asyncio.Event())))])
    async with gateways(live_url, running, ScriptedUpstream()) as (one, two):
        response_id = await stored(one)
        turn = await begin(one, background())
        erasure = Erasure(two.executor, two.background, two.grace, len)
        receipt = await erasure.erase(TENANT, None)
        assert receipt.responses == 1
        assert one.background.running == 0
        assert one.cache.size_bytes == 0
        assert not await is_found(one, response_id)
        assert await one.background.latest(TENANT, turn) is None
        again = [await stored(two), await stored(two)]
        assert (await erasure.erase(TENANT, one.clock() + 1)).responses == 2
        assert [await is_found(one, made) for made in again] == [False, False]


# --- whatever happens ------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from(["create", "repeat", "delete", "find", "lose"]), st.integers(0, 2), st.integers(0, 2)),
    min_size=4,
    max_size=14,
)


@settings(max_examples=examples(12))
@given(STEPS)
def test_whatever_happens_no_key_runs_twice_and_nothing_deleted_is_shown(
    redis_server: RedisServer, steps: list[tuple[str, int, int]]
) -> None:
    asyncio.run(_go_through(redis_server, steps))


async def _go_through(server: RedisServer, steps: list[tuple[str, int, int]]) -> None:
    """Take steps at three gateways: keyed creates, deletions, look-ups, and leases that are lost for good."""
    url = server.url(server.take_database())
    upstreams = [ScriptedUpstream() for _ in range(3)]
    keys: dict[int, ResponseId] = {}
    made: list[ResponseId] = []
    deleted: set[str] = set()
    async with gateways(url, *upstreams) as nodes:
        for what, where, which in steps:
            node = nodes[where]
            match what:
                case "create":
                    made.append(await stored(node))
                case "repeat" if node.nodes.held:
                    asked = keyed(f"text {which}", key=f"k{which}", background=True)
                    try:
                        response_id = await begin(node, asked)
                    except Refused as refused:  # its node is gone
                        told = refused.problem.code
                        assert (told, which in keys) == ("segue_outcome_unknown", True)
                    else:
                        assert keys.setdefault(which, response_id) == response_id
                case "delete" if made and node.nodes.held:
                    response_id = made[which % len(made)]
                    assert await node.executor.delete(TENANT, response_id) == (response_id not in deleted)
                    deleted.add(response_id)
                case "lose":
                    await node.nodes.aclose()
                case _:
                    pass
            for response_id in made:
                assert await is_found(node, response_id) == (response_id not in deleted)
        started = sum(upstream.started for upstream in upstreams)
        assert len(made) <= started <= len(made) + len(keys), "a turn in the background may be about to begin"

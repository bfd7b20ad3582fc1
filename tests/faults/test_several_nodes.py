"""Several gateways over one store and one Redis: what one runs is not run by another, and all see what is live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.gateway.services import Services
from segue.gateway.turns.erasure import Erasure
from segue.protocol.events import Event
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import Create
from segue.stores.interface import Store
from segue.stores.live.live_url import parse_live_url
from segue.stores.live.redis_live import RedisLive
from segue.stores.live.redis_nodes import RedisNodes
from segue.stores.memory import MemoryStore
from segue.upstreams.scripted import Say, ScriptedTurn, ScriptedUpstream, Wait, say
from tests.gateway.parts import TENANT, caller, collect, create, ident, parts, respond, response
from tests.stores.live.redis_servers import RedisServer
from tests.strategies import examples

pytestmark = pytest.mark.redis


def keyed(text: str = "hello", *, key: str = "k", **fields: object) -> Create:
    epoch = {"epoch": fields.pop("epoch")} if "epoch" in fields else {}
    return create(text, segue={"idempotency_key": key, **epoch}, stream=True, **fields)


@asynccontextmanager
async def gateways(
    url: str, *upstreams: ScriptedUpstream, lease_s: float = 9.0, call_s: float = 2.0, resume_s: float = 60.0
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
                    ),
                    resume_s=resume_s,
                )
            )
            for number, upstream in enumerate(upstreams)
        ]


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


async def test_without_redis_nothing_with_a_key_begins_and_all_else_goes_on(live_url: str) -> None:
    upstream = ScriptedUpstream()
    async with gateways(live_url, upstream) as (one,):
        assert one.live is not None
        await one.live.aclose()
        problem = await refusal(one, keyed())
        assert (problem.code, upstream.started) == ("store_error", 0)
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


async def test_a_node_that_stands_still_delays_a_deletion_and_trusts_nothing_afterwards(live_url: str) -> None:
    async with gateways(live_url, ScriptedUpstream(), ScriptedUpstream(), lease_s=0.4) as (one, two):
        response_id = await stored(one)
        assert await is_found(two, response_id)
        assert isinstance(two.nodes, RedisNodes)
        two.nodes.stand_still()
        assert await one.executor.delete(TENANT, response_id)
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

"""Turns of several chains on one socket: each has its own lane, its own end, and nobody's else."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from segue.protocol.items import user_message
from segue.protocol.problems import Refused
from segue.testing.response_events import said
from segue.testing.responses_faults import AgeLimit, Cut, ErrorAt, FailAt, HoldAt
from segue.testing.responses_rules import OPENAI, CreateRefusal
from segue.testing.responses_server import ScriptedResponsesServer, responding
from segue.upstreams.socket_lanes import IdleLimits
from segue.upstreams.websocket import WebSocketUpstream
from tests.upstreams.socket_turns import Conversation, connected, id_of, prompts

FOUR = IdleLimits(lanes=4)


def places(server: ScriptedResponsesServer) -> list[tuple[int | None, Any]]:
    """On which connection and in which lane each create came."""
    return [(create.connection, create.create.get("stream_id")) for create in server.creates]


async def begin(server: ScriptedResponsesServer, *chains: Conversation) -> list[asyncio.Task[Any]]:
    """Begin a turn of each chain, one after the other; each is seen by the provider before the next one begins."""
    tasks = []
    for chain in chains:
        before = len(server.creates)
        tasks.append(asyncio.create_task(chain.run()))
        await server.seen(before + 1)
    return tasks


async def until_rested(one: WebSocketUpstream, idle: int = 1) -> None:
    async with asyncio.timeout(20):
        while one.sockets.idle != idle:  # noqa: ASYNC110 - the end of a turn that nobody reads tells nobody
            await asyncio.sleep(0)


async def test_turns_that_run_at_once_share_sockets_and_chains_stay_in_their_lanes() -> None:
    gate = asyncio.Event()
    async with responding(OPENAI) as server, connected(server, limits=FOUR) as one:
        server.plan(*[HoldAt(gate=gate)] * 20)
        chains = [Conversation(one, parent=None) for _ in range(20)]
        running = [asyncio.create_task(chain.run(user_message(str(at)))) for at, chain in enumerate(chains)]
        await server.seen(20)
        assert sorted(places(server)) == [(socket, str(lane)) for socket in range(5) for lane in range(4)]
        gate.set()
        await asyncio.gather(*running)
        first = {
            create.create["input"][-1]["content"][0]["text"]: place
            for create, place in zip(server.creates, places(server), strict=True)
        }
        for at, chain in enumerate(chains):
            await chain.run(user_message(str(at)))
            assert places(server)[-1] == first[str(at)]
            assert prompts(server.executions)[-1] == chain.items[:-1]
        assert (len(server.upgrades), one.sockets.idle, one.sockets.held) == (5, 5, 20)
    assert one.continuations.hits == 20


async def test_each_turn_in_a_lane_costs_the_same_bytes_at_any_depth() -> None:
    async with responding(OPENAI, model=lambda _: [said("Yes.")]) as server, connected(server, limits=FOUR) as one:
        chains = [Conversation(one), Conversation(one)]
        for _ in range(50):
            await asyncio.gather(*(chain.run() for chain in chains))
    assert len({len(create.body) for create in server.creates[2:]}) == 1
    assert len(server.upgrades) == 1
    assert one.continuations.hits == 98


async def test_a_cut_gives_each_turn_its_own_end() -> None:
    """One has said something, one may have run, and what waits goes on with everything."""
    async with responding(OPENAI) as server, connected(server, limits=FOUR) as one:
        waits, begun, silent = (Conversation(one) for _ in range(3))
        await waits.run()
        server.plan(HoldAt(gate=asyncio.Event(), events=4), HoldAt(gate=asyncio.Event(), events=0))
        first, second = await begin(server, begun, silent)
        server.cut()
        assert (await first).status == "failed"
        with pytest.raises(Refused) as caught:
            await second
        assert (caught.value.problem.code, caught.value.problem.repeat) == ("upstream_unreachable", "paid")
        assert len(server.creates) == 3, "nothing was sent again"
        await waits.run()
        assert prompts(server.executions)[-1] == waits.items[:-1]
    assert dict(one.continuations.replays) == {"disconnected": 1}


async def test_a_socket_that_breaks_under_many_turns_has_broken_once() -> None:
    """Else one cut would send the turns of the next minutes over HTTP."""
    async with responding(OPENAI) as server, connected(server, limits=FOUR) as one:
        server.plan(*[HoldAt(gate=asyncio.Event(), events=4)] * 4)
        running = await begin(server, *(Conversation(one) for _ in range(4)))
        server.cut()
        await asyncio.gather(*running)
        await Conversation(one).run()
    assert [create.transport for create in server.creates] == ["websocket"] * 5


async def test_a_turn_that_is_given_up_runs_to_its_end_unread_and_its_neighbours_go_on() -> None:
    """The provider has no message that stops it; its lane is free when it has ended."""
    gate, held = asyncio.Event(), asyncio.Event()
    async with responding(OPENAI) as server, connected(server, limits=IdleLimits(lanes=2)) as one:
        chain, leaver = Conversation(one), Conversation(one)
        server.plan(HoldAt(gate=held, events=4), HoldAt(gate=gate, events=4))
        running, left = await begin(server, chain, leaver)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        other = await begin(server, Conversation(one))
        held.set()
        assert (await running).status == "completed"
        await other[0]
        assert places(server) == [(0, "0"), (0, "1"), (1, "0")], "its lane is not free yet"
        gate.set()
        await until_rested(one, 2)
        await chain.run()
        await Conversation(one).run()
        assert places(server)[3:] == [(0, "0"), (0, "1")]
    assert one.continuations.hits == 1


async def test_a_turn_that_runs_unread_for_too_long_ends_with_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not before its neighbours have ended."""
    monkeypatch.setattr("segue.upstreams.socket_pool._SWEEP_S", 0.01)
    held = asyncio.Event()
    async with responding(OPENAI) as server, connected(server, limits=IdleLimits(lanes=2, unread_s=0.0)) as one:
        server.plan(HoldAt(gate=held, events=4), HoldAt(gate=asyncio.Event(), events=4))
        running, left = await begin(server, Conversation(one), Conversation(one))
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        async with asyncio.timeout(20):
            while one.sockets._lanes._sockets[1].retired is False:  # noqa: ASYNC110, SLF001 - it tells nobody
                await asyncio.sleep(0)
        held.set()
        assert (await running).status == "completed"
        await server.abandoned()
        await Conversation(one).run()
        assert places(server)[-1] == (1, "0")


async def test_an_error_is_about_its_own_lane() -> None:
    bad = CreateRefusal(status=400, code="context_length_exceeded", message="Too long.", param="input")
    async with responding(OPENAI) as server, connected(server, limits=FOUR) as one:
        chain, other = Conversation(one), Conversation(one)
        await asyncio.gather(chain.run(), other.run())
        server.plan(ErrorAt(refusal=bad))
        assert (await chain.refused()).code == "context_length_exceeded"
        server.plan(FailAt(events=3))
        assert (await Conversation(one).run()).status == "failed"
        await other.run()
        await chain.run()
        assert {socket for socket, _ in places(server)} == {0}
    assert (one.continuations.hits, dict(one.continuations.replays)) == (1, {"unknown": 1})


@pytest.mark.parametrize("status", [500, 503])
async def test_after_an_error_of_the_server_no_turn_begins_on_its_socket(status: int) -> None:
    """It may be about to close it. Who runs goes on."""
    gate = asyncio.Event()
    bad = CreateRefusal(status=status, code="server_error", message="Oh.")
    async with responding(OPENAI) as server, connected(server, limits=FOUR, retry={"attempts": 1}) as one:
        server.plan(HoldAt(gate=gate, events=4), ErrorAt(refusal=bad))
        running = await begin(server, Conversation(one))
        await Conversation(one).refused()
        await Conversation(one).run()
        assert places(server)[-1][0] == 1
        gate.set()
        assert (await running[0]).status == "completed"
        async with asyncio.timeout(20):
            while len(one.sockets) > 1:  # noqa: ASYNC110 - the end of a socket tells nobody
                await asyncio.sleep(0)


async def test_a_limit_of_age_moves_chains_between_their_turns() -> None:
    gate = asyncio.Event()
    async with responding(OPENAI) as server, connected(server, limits=FOUR) as one:
        chain, other = Conversation(one), Conversation(one)
        await chain.run()
        server.plan(HoldAt(gate=gate, events=4), AgeLimit())
        running = await begin(server, other)
        await chain.run()
        assert prompts(server.executions)[-1] == chain.items[:-1]
        gate.set()
        await running[0]
        assert [socket for socket, _ in places(server)] == [0, 0, 0, 1]
    assert dict(one.continuations.replays) == {"expired": 1}


async def test_what_is_forgotten_is_taken_from_its_lane_and_its_neighbours_stay() -> None:
    async with responding(OPENAI) as server, connected(server, limits=FOUR, warms_up=True) as one:
        chain, gone = Conversation(one), Conversation(one)
        await asyncio.gather(chain.run(), gone.run())
        one.forget("ann", [id_of(gone.parent)])
        await server.seen(3)
        await until_rested(one)
        cleared = server.creates[-1].create
        assert (cleared["generate"], "previous_response_id" in cleared) == (False, False)
        await chain.run()
        await gone.run()
        assert len(server.upgrades) == 1
        one.forget("ann", [id_of(chain.parent), id_of(gone.parent)])
        await server.left()
    assert (one.continuations.hits, dict(one.continuations.replays)) == (1, {"unknown": 1})


async def test_what_a_provider_cannot_be_told_to_forget_goes_with_its_socket() -> None:
    async with responding(OPENAI) as server, connected(server, limits=FOUR) as one:
        chain, gone = Conversation(one), Conversation(one)
        await asyncio.gather(chain.run(), gone.run())
        one.forget("ann", [id_of(gone.parent)])
        await server.left()
        await chain.run()
    assert dict(one.continuations.replays) == {"expired": 1}


async def test_a_slow_reader_does_not_stop_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may fall behind for a while; then its turn fails, and says why."""
    monkeypatch.setattr("segue.upstreams.provider_socket._QUEUE_BYTES", 500)
    monkeypatch.setattr("segue.upstreams.provider_socket._MOST_QUEUED_BYTES", 5000)
    gate = asyncio.Event()
    async with (
        responding(OPENAI, model=lambda _: [said("word " * 400)]) as server,
        connected(server, limits=FOUR) as one,
    ):
        server.plan(HoldAt(gate=gate, events=3))
        slow = one.stream(Conversation(one).request())
        await anext(slow)
        other = Conversation(one)
        running = asyncio.create_task(other.run())
        gate.set()
        assert (await running).status == "completed"
        batches = [batch async for batch in slow]
        failed = batches[-1][-1]
        assert "more slowly" in str(failed)
        assert (await other.run()).status == "completed"
        assert {socket for socket, _ in places(server)} == {0}


@pytest.mark.parametrize("lanes", [None, 1])
async def test_lanes_are_not_guessed(lanes: int | None) -> None:
    """A server of which nothing is known gets one turn at a time on each socket, without a name."""
    gate = asyncio.Event()
    async with responding(OPENAI) as server, connected(server, limits=IdleLimits(lanes=lanes)) as one:
        server.plan(HoldAt(gate=gate), HoldAt(gate=gate))
        running = await begin(server, Conversation(one), Conversation(one))
        gate.set()
        await asyncio.gather(*running)
    assert places(server) == [(0, None), (1, None)]


async def test_turns_at_once_ask_a_server_without_websockets_once() -> None:
    async with responding(msgspec.structs.replace(OPENAI, upgrades=False)) as server, connected(server) as one:
        await asyncio.gather(*(Conversation(one).run() for _ in range(3)))
    assert len(server.upgrades) == 1
    assert one.fallbacks == {"no_websocket": 3}


async def test_turns_whose_socket_cannot_be_opened_do_not_wait_for_each_other() -> None:
    async with responding(OPENAI) as server, connected(server, limits=FOUR) as one:
        server.plan_upgrades(*[Cut(at="create")] * 2)
        problems = await asyncio.gather(*(Conversation(one).run() for _ in range(3)), return_exceptions=True)
        assert all(not isinstance(problem, BaseException) for problem in problems)

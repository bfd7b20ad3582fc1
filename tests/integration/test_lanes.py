"""Lanes on a real connection: turns at the same time, forks, what a failure does to whom, and the bounds; and what a
connection without lanes does instead.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from segue.protocol.problems import Problem
from segue.testing.protocol_checker import Json, StreamChecker
from segue.upstreams.scripted import Fail, Refuse, Say, ScriptedTurn, Wait, say
from tests.integration.clients import Socket
from tests.integration.gateway import Running, Start

BUSY = Problem("upstream_error", "The provider is busy.")


def held(more: asyncio.Event, text: str = "held") -> ScriptedTurn:
    """A turn that says something, then waits."""
    return ScriptedTurn((Say((text,)), Wait(more)))


def texts(turn: StreamChecker) -> list[str]:
    """What a turn said."""
    assert turn.response is not None, turn.error
    return [part["text"] for item in turn.response["output"] for part in item["content"]]


def ident(turn: StreamChecker) -> str:
    assert turn.response is not None, turn.error
    return str(turn.response["id"])


def code(turn: StreamChecker) -> str:
    assert turn.error is not None
    return str(turn.error["code"])


async def until(socket: Socket, kind: str, lane: str | None = None) -> Json:
    """Receive up to an event of a lane."""
    while True:
        frame = await socket.frame()
        if frame["type"] == kind and frame.get("stream_id") == lane:
            return frame


def inputs(gateway: Running) -> list[list[str]]:
    """The texts that the model was shown, by turn, in the order in which the turns began."""
    return [
        [item["content"] if isinstance(item["content"], str) else item["content"][0]["text"] for item in items]
        for items in gateway.seen()
    ]


# ----------------------------------------------------------------------------------------------------- at the same time


async def test_turns_of_several_lanes_run_at_the_same_time(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(held(more, "one"), held(more, "two"), say("three"))
    socket = await gateway.socket(lanes="ab")
    await socket.create(input="1", stream_id="a", store=False)
    await until(socket, "response.output_text.delta", "a")
    await socket.create(input="2", stream_id="b", store=False)
    await until(socket, "response.output_text.delta", "b")
    await socket.create(input="3", store=False)
    assert texts(await socket.turn()) == ["three"]
    more.set()
    turns = await socket.turns(2)
    assert {lane: texts(turn) for lane, turn in turns.items()} == {"a": ["one"], "b": ["two"]}
    for lane, turn in turns.items():
        assert {frame["stream_id"] for frame in turn.frames} == {lane}


async def test_one_lane_is_first_in_first_out(start: Start) -> None:
    gateway = await start(*(say(str(number)) for number in range(5)))
    socket = await gateway.socket(lanes=["main"])
    for number in range(5):
        await socket.create(input=str(number), stream_id="main")
    assert [texts(await socket.turn()) for _ in range(5)] == [[str(number)] for number in range(5)]
    assert inputs(gateway) == [[str(number)] for number in range(5)]


async def test_the_seventeenth_turn_waits_for_one_to_end(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(*(held(more) for _ in range(16)), say("late"))
    lanes = [str(number) for number in range(17)]
    socket = await gateway.socket(lanes=lanes)
    for lane in lanes:
        await socket.create(input=lane, stream_id=lane)
    for _ in range(16 * 5):
        await socket.frame()
    assert gateway.upstream.started == 16
    more.set()
    turns = await socket.turns(17)
    assert texts(turns["16"]) == ["late"]


async def test_a_connection_has_32_names(start: Start) -> None:
    gateway = await start(*(say("ok") for _ in range(34)))
    lanes = [f"lane-{number}" for number in range(33)]
    socket = await gateway.socket(lanes=lanes)
    for lane in lanes[:32]:
        assert texts(await socket.ask(input="hi", stream_id=lane)) == ["ok"]
    refused = await socket.ask(input="hi", stream_id=lanes[32])
    assert code(refused) == "websocket_stream_limit_reached"
    assert json.loads(socket.last)["stream_id"] == lanes[32]
    assert texts(await socket.ask(input="hi", stream_id=lanes[0])) == ["ok"]
    assert texts(await socket.ask(input="hi")) == ["ok"]


@pytest.mark.parametrize("name", ["", "a b", "a" * 257, 7])
async def test_a_bad_name_is_refused_without_one(start: Start, name: object) -> None:
    gateway = await start(say("ok"))
    socket = await gateway.socket()
    refused = await socket.ask(input="hi", stream_id=name)
    assert (code(refused), "stream_id" in json.loads(socket.last)) == ("invalid_stream_id", False)
    assert texts(await socket.ask(input="hi", stream_id=None)) == ["ok"]


async def test_an_error_of_a_lane_leaves_the_others_alone(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(held(more, "calm"), ScriptedTurn((Refuse(BUSY),)), ScriptedTurn((Say(("x",)), Fail())))
    socket = await gateway.socket(lanes="ab")
    await socket.create(input="1", stream_id="a", store=False)
    await until(socket, "response.output_text.delta", "a")
    for fields, expected in (({"input": 7}, "invalid_type"), ({"input": "2"}, "upstream_error")):
        refused = await socket.ask(stream_id="b", store=False, **fields)
        assert (code(refused), json.loads(socket.last)["stream_id"]) == (expected, "b")
    failed = await socket.ask(input="3", stream_id="b", store=False)
    assert failed.response is not None
    assert failed.response["status"] == "failed"
    more.set()
    assert texts(await socket.turn()) == ["calm"]


# ---------------------------------------------------------------------------------------------------------------- forks


@pytest.mark.parametrize("store", [True, False])
async def test_a_fork_and_its_source_go_on_side_by_side(start: Start, store: bool) -> None:
    gateway = await start(*(say(text) for text in ("root", "left", "right", "left 2", "right 2")))
    socket = await gateway.socket(lanes=["main", "fork"])
    root = ident(await socket.ask(input="1", stream_id="main", store=store))
    right = ident(await socket.ask(input="3", stream_id="fork", previous_response_id=root, store=store))
    left = ident(await socket.ask(input="2", stream_id="main", previous_response_id=root, store=store))
    await socket.ask(input="5", stream_id="fork", previous_response_id=right, store=store)
    await socket.ask(input="4", stream_id="main", previous_response_id=left, store=store)
    assert inputs(gateway) == [
        ["1"],
        ["1", "root", "3"],
        ["1", "root", "2"],
        ["1", "root", "3", "left", "5"],
        ["1", "root", "2", "right", "4"],
    ]


async def test_a_fork_that_waits_keeps_its_parent_while_the_source_lane_goes_on(start: Start) -> None:
    more, later = asyncio.Event(), asyncio.Event()
    gateway = await start(say("root"), held(more, "next"), held(later, "busy"), say("fork"))
    socket = await gateway.socket(lanes=["main", "fork"])
    root = ident(await socket.ask(input="1", stream_id="main", store=False))
    await socket.create(input="2", stream_id="main", previous_response_id=root, store=False)
    await until(socket, "response.output_text.delta", "main")
    await socket.create(input="3", stream_id="fork", store=False)
    await until(socket, "response.output_text.delta", "fork")
    await socket.create(input="4", stream_id="fork", previous_response_id=root, store=False)
    await socket.send("{")
    assert code(await socket.turn()) == "invalid_json"  # so the fork has been accepted
    more.set()
    assert texts(await socket.turn()) == ["next"]
    later.set()
    assert [texts(await socket.turn()) for _ in range(2)] == [["busy"], ["fork"]]
    assert inputs(gateway)[-1] == ["1", "root", "4"]


@pytest.mark.parametrize("failing", [ScriptedTurn((Say(("x",)), Fail())), ScriptedTurn((Refuse(BUSY),))])
async def test_a_fork_that_waits_keeps_its_parent_when_the_source_lane_fails(
    start: Start, failing: ScriptedTurn
) -> None:
    more = asyncio.Event()
    gateway = await start(say("root"), held(more), failing, say("fork"), max_in_flight=1)
    socket = await gateway.socket(lanes=["main", "fork", "other"])
    root = ident(await socket.ask(input="1", stream_id="main", store=False))
    await socket.create(input="2", store=False)
    await until(socket, "response.output_text.delta")
    await socket.create(input="3", stream_id="main", previous_response_id=root, store=False)
    await socket.create(input="4", stream_id="fork", previous_response_id=root, store=False)
    assert code(await socket.ask(input=7, stream_id="other")) == "invalid_type"  # so the fork has been accepted
    more.set()
    turns = await socket.turns(3)
    assert texts(turns["fork"]) == ["fork"]
    assert inputs(gateway)[-1] == ["1", "root", "4"]
    again = await socket.ask(input="5", stream_id="main", previous_response_id=root, store=False)
    assert code(again) == "previous_response_not_found"


async def test_a_fork_that_fails_leaves_the_parent_to_its_lane(start: Start) -> None:
    gateway = await start(say("root"), ScriptedTurn((Refuse(BUSY),)), ScriptedTurn((Fail(),)), say("fine"))
    socket = await gateway.socket(lanes=["main", "fork"])
    root = ident(await socket.ask(input="1", stream_id="main", store=False))
    for _ in range(2):
        await socket.ask(input="2", stream_id="fork", previous_response_id=root, store=False)
    turn = await socket.ask(input="3", stream_id="main", previous_response_id=root, store=False)
    assert texts(turn) == ["fine"]


async def test_a_lane_that_has_moved_on_has_only_its_latest(start: Start) -> None:
    gateway = await start(say("1"), say("2"))
    socket = await gateway.socket(lanes="ab")
    first = ident(await socket.ask(input="1", stream_id="a", store=False))
    await socket.ask(input="2", stream_id="a", previous_response_id=first, store=False)
    for lane in "ab":
        refused = await socket.ask(input="3", stream_id=lane, previous_response_id=first, store=False)
        assert code(refused) == "previous_response_not_found"


async def test_a_lane_without_a_parent_starts_anew(start: Start) -> None:
    gateway = await start(say("1"), say("2"))
    socket = await gateway.socket(lanes="a")
    await socket.ask(input="1", stream_id="a", store=False)
    await socket.ask(input="2", stream_id="a", store=False)
    assert inputs(gateway) == [["1"], ["2"]]


async def test_a_running_response_of_another_lane_is_no_parent_yet(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(held(more))
    socket = await gateway.socket(lanes="ab")
    await socket.create(input="1", stream_id="a", store=False)
    running = (await until(socket, "response.created", "a"))["response"]["id"]
    refused = await socket.ask(input="2", stream_id="b", previous_response_id=running, store=False)
    assert code(refused) == "previous_response_not_found"
    more.set()
    await socket.turn()


async def test_a_lost_connection_cancels_all_lanes_and_leaves_nothing(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(say("root"), held(more), held(more), held(more))
    socket = await gateway.socket(lanes="abc")
    root = ident(await socket.ask(input="1", stream_id="a", store=False))
    for lane in "abc":
        await socket.create(input="2", stream_id=lane, previous_response_id=root, store=False)
        await until(socket, "response.output_text.delta", lane)
    socket.vanish()
    await gateway.gateway.drain()
    assert gateway.upstream.cancelled == 3
    assert gateway.gateway.services.cache.size_bytes == 0


# -------------------------------------------------------------------------------------------------- the profile serial


async def test_serial_runs_one_turn_at_a_time_and_refuses_names(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(held(more, "one"), say("two"), profile="serial")
    socket = await gateway.socket()
    await socket.create(input="1", store=False)
    await until(socket, "response.output_text.delta")
    await socket.create(input="2", store=False)
    await socket.create(input="3", stream_id="a")
    assert gateway.upstream.started == 1
    more.set()
    assert texts(await socket.turn()) == ["one"]
    assert texts(await socket.turn()) == ["two"]
    refused = await socket.turn()
    assert refused.error is not None
    assert (refused.error["code"], refused.error["param"]) == ("unsupported_parameter", "stream_id")


async def test_serial_keeps_one_response(start: Start) -> None:
    gateway = await start(say("1"), say("2"), profile="serial")
    socket = await gateway.socket()
    first = ident(await socket.ask(input="1", store=False))
    second = ident(await socket.ask(input="2", store=False))
    refused = await socket.ask(input="3", previous_response_id=first, store=False)
    assert code(refused) == "previous_response_not_found"
    assert code(await socket.ask(input=7, previous_response_id=second, store=False)) == "invalid_type"

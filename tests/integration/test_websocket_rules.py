"""The rules of WebSocket mode where OpenAI's service is silent, R1 to R11, one by one. The number of a rule is in the
name of each test that shows it; what a rule says is in `RULES`.
"""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from segue.protocol.problems import Problem
from segue.testing.protocol_checker import Json, StreamChecker
from segue.upstreams.scripted import Fail, Refuse, Say, ScriptedTurn, Truncate, Wait, say
from tests.integration.clients import Socket
from tests.integration.gateway import Start

RULES = {
    1: "What is no message is answered with a nested error 400, the connection stays; a binary one closes it, 1003.",
    2: "First JSON, then type, then stream_id, then the number of names; the body when it is the request's turn.",
    3: "Each response counts its events from 0.",
    4: "At its age limit a connection refuses new turns, lets running ones end, says why, and closes with 1001.",
    5: "Only an error or response.failed in the parent's own lane evicts it.",
    6: "A lane keeps its latest response; the profile serial keeps the latest of the connection.",
    7: "Without lanes turns run one after the other, and a stream_id is refused.",
    8: "A message larger than the limit closes the connection with 1009.",
    9: "A steer is answered with response.steer.failed, never with a bare error.",
    10: "stream and stream_options are ignored; background is refused.",
    11: "A client that is gone stops its turns; what was completed and stored stays.",
}
BUSY = Problem("upstream_error", "The provider is busy.")
FAILURES = {
    "refused": ScriptedTurn((Refuse(BUSY),)),
    "failed": ScriptedTurn((Say(("x",)), Fail())),
    "incomplete": ScriptedTurn((Say(("x",)), Truncate())),
}


def ident(turn: StreamChecker) -> str:
    assert turn.response is not None, turn.error
    return str(turn.response["id"])


def code(turn: StreamChecker) -> str | None:
    return None if turn.error is None else str(turn.error["code"])


async def chained(socket: Socket, parent: str, **fields: object) -> StreamChecker:
    return await socket.ask(**{"input": "next", "store": False, "previous_response_id": parent, **fields})


def test_every_rule_is_shown() -> None:
    shown = {name.split("_")[1] for name in dir(sys.modules[__name__]) if name.startswith("test_r")}
    assert shown == {f"r{number}" for number in RULES}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("{", "invalid_json"),
        ("[]", "invalid_json"),
        ("7", "invalid_json"),
        ('{"type":"response.cancel"}', "unknown_event_type"),
        ('{"model":"scripted","input":"hi"}', "missing_required_parameter"),
    ],
)
async def test_r1_what_is_no_message_is_answered_and_the_connection_stays(
    start: Start, message: str, expected: str
) -> None:
    socket = await (await start(say("still here"))).socket()
    await socket.send(message)
    assert code(await socket.turn()) == expected
    frame = json.loads(socket.last)
    assert (frame["status"], frame["error"]["type"], "stream_id" in frame) == (400, "invalid_request_error", False)
    assert (await socket.ask(input="hi")).response is not None


async def test_r1_a_binary_message_closes_the_connection(start: Start) -> None:
    socket = await (await start()).socket()
    await socket.send(b'{"type":"response.create","model":"scripted","input":"hi"}')
    assert await socket.closing() == 1003


@pytest.mark.parametrize(
    ("fields", "expected", "lane"),
    [
        ({"type": "response.cancel", "stream_id": "no name"}, "unknown_event_type", None),
        ({"type": "response.create", "stream_id": "no name", "input": 7}, "invalid_stream_id", None),
        ({"type": "response.create", "stream_id": "b", "input": 7}, "websocket_stream_limit_reached", "b"),
        ({"type": "response.create", "stream_id": "a", "input": 7}, "invalid_type", "a"),
    ],
)
async def test_r2_a_message_is_looked_at_in_this_order(
    start: Start, fields: Json, expected: str, lane: str | None
) -> None:
    socket = await (await start(max_lanes=1)).socket(lanes="ab")
    # A bad body uses up the only name there is.
    assert code(await socket.ask(input=7, stream_id="a")) == "invalid_type"
    await socket.send({"model": "scripted", **fields})
    assert code(await socket.turn()) == expected
    assert json.loads(socket.last).get("stream_id") == lane


async def test_r2_a_bad_body_is_told_when_it_is_its_turn(start: Start) -> None:
    more = asyncio.Event()
    socket = await (await start(ScriptedTurn((Wait(more), Say(("one",)))))).socket()
    await socket.create(input="hi")
    await socket.create(input=7)
    more.set()
    assert [code(await socket.turn()) for _ in range(2)] == [None, "invalid_type"]


async def test_r3_each_response_counts_its_events_from_0(start: Start) -> None:
    more = asyncio.Event()
    held = ScriptedTurn((Say(("a", "b")), Wait(more), Say(("c",))))
    socket = await (await start(held, held, say("x"))).socket(lanes="ab")
    for lane in "ab":
        await socket.create(input="hi", stream_id=lane)
    await socket.create(input="hi")
    await socket.turn()
    more.set()
    turns = [await socket.turn() for _ in range(2)]
    for turn in turns:
        assert [frame["sequence_number"] for frame in turn.frames] == list(range(len(turn.frames)))


async def test_r4_an_old_connection_refuses_ends_says_and_closes(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(ScriptedTurn((Say(("a",)), Wait(more))), max_age_s=0.3)
    socket = await gateway.socket(lanes="ab")
    await socket.create(input="hi", stream_id="a", store=False)
    for _ in range(5):
        await socket.frame()
    last: str | None = None
    while last is None:  # turns that make nothing, until one is too late
        last = code(await socket.ask(generate=False, stream_id="b", store=False))
    assert (last, json.loads(socket.last)["stream_id"]) == ("websocket_connection_limit_reached", "b")
    more.set()
    assert (await socket.turn()).response is not None
    assert code(await socket.turn()) == "websocket_connection_limit_reached"
    assert "stream_id" not in json.loads(socket.last)
    assert await socket.closing() == 1001


@pytest.mark.parametrize(("how", "evicts"), [("refused", True), ("failed", True), ("incomplete", False)])
async def test_r5_a_failure_in_the_same_lane_evicts_the_parent(start: Start, how: str, evicts: bool) -> None:
    gateway = await start(say("root"), FAILURES[how], *() if evicts else (say("again"),))
    socket = await gateway.socket(lanes="a")
    root = ident(await socket.ask(input="hi", store=False, stream_id="a"))
    cut = await chained(socket, root, stream_id="a")
    again = await chained(socket, root if evicts else ident(cut), stream_id="a")
    assert code(again) == ("previous_response_not_found" if evicts else None)


@pytest.mark.parametrize("how", ["refused", "failed"])
async def test_r5_a_failure_in_another_lane_does_not(start: Start, how: str) -> None:
    socket = await (await start(say("root"), FAILURES[how], say("again"))).socket(lanes="ab")
    root = ident(await socket.ask(input="hi", store=False, stream_id="a"))
    await chained(socket, root, stream_id="b")
    assert code(await chained(socket, root, stream_id="a")) is None


async def test_r5_an_error_before_the_body_is_understood_does_not(start: Start) -> None:
    socket = await (await start(say("root"), say("again"))).socket()
    root = ident(await socket.ask(input="hi", store=False))
    assert code(await chained(socket, root, input=7)) == "invalid_type"
    assert code(await chained(socket, root)) is None


async def test_r6_each_lane_keeps_its_latest_response(start: Start) -> None:
    socket = await (await start(*(say(str(number)) for number in range(5)))).socket(lanes="ab")
    first = ident(await socket.ask(input="1", store=False, stream_id="a"))
    other = ident(await socket.ask(input="2", store=False, stream_id="b"))
    second = ident(await chained(socket, first, stream_id="a"))
    assert code(await chained(socket, first, stream_id="a")) == "previous_response_not_found"
    assert code(await chained(socket, other, stream_id="b")) is None
    assert code(await chained(socket, second, stream_id="a")) is None


async def test_r6_serial_keeps_the_latest_of_the_connection(start: Start) -> None:
    socket = await (await start(say("1"), say("2"), say("3"), profile="serial")).socket()
    first = ident(await socket.ask(input="1", store=False))
    second = ident(await socket.ask(input="2", store=False))
    assert code(await chained(socket, first)) == "previous_response_not_found"
    assert code(await chained(socket, second)) is None


async def test_r7_without_lanes_a_name_is_refused_and_turns_queue(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(ScriptedTurn((Wait(more),)), say("2"), profile="serial")
    socket = await gateway.socket()
    await socket.create(input="1", store=False)
    await socket.create(input="2", store=False)
    await socket.create(input="3", store=False, stream_id="a")
    await socket.frame()
    assert gateway.upstream.started == 1
    more.set()
    assert [code(await socket.turn()) for _ in range(3)] == [None, None, "unsupported_parameter"]
    frame = json.loads(socket.last)
    assert (frame["status"], frame["error"]["param"], "stream_id" in frame) == (400, "stream_id", False)


async def test_r8_a_message_that_is_too_large_closes_the_connection(start: Start) -> None:
    socket = await (await start(say("ok"), max_message_bytes=4096)).socket()
    fits = {"type": "response.create", "model": "scripted", "input": ""}
    fits["input"] = "x" * (4096 - len(json.dumps(fits)))
    await socket.send(json.dumps(fits))
    assert (await socket.turn()).response is not None
    await socket.send(json.dumps({**fits, "input": fits["input"] + "x"}))
    assert await socket.closing() == 1009


@pytest.mark.parametrize("stream_id", [None, "a"])
async def test_r9_a_steer_gives_its_input_back(start: Start, stream_id: str | None) -> None:
    more = asyncio.Event()
    socket = await (await start(ScriptedTurn((Say(("x",)), Wait(more))))).socket(lanes="a")
    await socket.create(input="hi", **({} if stream_id is None else {"stream_id": stream_id}))
    target = (await socket.frame())["response"]["id"]
    parts = [{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "stop"}]}]
    await socket.send({"type": "response.steer", "previous_response_id": target, "input": parts})
    frame = await socket.frame()
    while frame["type"] != "response.steer.failed":
        frame = await socket.frame()
    assert (frame["error"]["code"], frame.get("stream_id")) == ("invalid_input", stream_id)
    assert frame["steer"] == {"input": parts, "previous_response_id": target}
    more.set()
    assert (await socket.turn()).response is not None


async def test_r10_what_belongs_to_http_is_ignored(start: Start) -> None:
    socket = await (await start(say("1"), say("2"))).socket()
    for stream in (True, False):
        turn = await socket.ask(input="hi", stream=stream, stream_options={"include_obfuscation": True})
        assert len(turn.frames) == 9


async def test_r10_a_background_turn_is_refused(start: Start) -> None:
    socket = await (await start()).socket()
    turn = await socket.ask(input="hi", background=True)
    assert turn.error is not None
    assert (turn.error["code"], turn.error["param"]) == ("unsupported_parameter", "background")


async def test_r11_a_client_that_is_gone_stops_its_turns_and_keeps_what_is_stored(start: Start) -> None:
    never = asyncio.Event()
    held = ScriptedTurn((Say(("x",)), Wait(never)))
    gateway = await start(say("root"), held, held, say("again"))
    socket = await gateway.socket(lanes="ab")
    root = ident(await socket.ask(input="hi", stream_id="a"))
    running = []
    for lane in "ab":
        await socket.create(input="more", previous_response_id=root, stream_id=lane)
        running.append((await socket.frame())["response"]["id"])
        for _ in range(4):
            await socket.frame()
    socket.vanish()
    http = await gateway.http()
    while gateway.upstream.cancelled < 2:
        await http.request("GET", "/healthz")
    for lost in running:
        assert (await http.request("GET", f"/v1/responses/{lost}")).status == 404
    assert (await http.create(input="again", previous_response_id=root)).status == 200

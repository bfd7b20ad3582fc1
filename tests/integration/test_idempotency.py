"""A create with a key can be sent again: the answer is the response that was made, or is being made, not another."""

from __future__ import annotations

import asyncio

import pytest

from segue.protocol.problems import Problem
from segue.testing.protocol_checker import Json, StreamChecker
from segue.upstreams.scripted import Fail, Refuse, Say, ScriptedTurn, Wait, say
from tests.integration.gateway import Start, key

BUSY = Problem("upstream_error", "The provider is busy.")
KEYED = {"segue": {"idempotency_key": "order-1"}}


def held(more: asyncio.Event) -> ScriptedTurn:
    return ScriptedTurn((Say(("be", "fore ")), Wait(more), Say(("af", "ter"))))


def ident(turn: StreamChecker) -> str:
    assert turn.response is not None, turn.error
    return str(turn.response["id"])


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_finished_create_is_answered_again(start: Start, store: bool, stream: bool) -> None:
    gateway = await start(say("once"))
    http = await gateway.http()
    fields: Json = {"input": "1", "store": store, **KEYED}
    first = (await http.create(**fields)).body
    again = (await http.stream(**fields)).response if stream else (await http.create(**fields)).body
    assert again == first
    assert gateway.upstream.started == 1


async def test_a_running_create_is_joined_from_its_first_event(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(held(more))
    http, socket = await gateway.http(), await gateway.socket()
    begun = await http.begin(5, input="1", store=False, **KEYED)
    await socket.create(input="1", store=False, **KEYED)
    assert (await socket.frame())["response"]["id"] == begun[0]["response"]["id"]
    others = [asyncio.create_task(http.stream(input="1", store=False, **KEYED)) for _ in range(3)]
    more.set()
    turns = [await socket.turn(), *[await other for other in others]]
    assert {ident(turn) for turn in turns} == {begun[0]["response"]["id"]}
    assert gateway.upstream.started == 1


async def test_creates_at_the_same_moment_make_one_response(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(ScriptedTurn((Wait(more), Say(("one",)))))
    http = await gateway.http()
    together = [asyncio.create_task(http.create(input="1", **KEYED)) for _ in range(5)]
    while not gateway.upstream.started:
        await http.request("GET", "/healthz")
    more.set()
    assert len({(await one).body["id"] for one in together}) == 1


async def test_a_lost_connection_repeats_its_create_and_goes_on(start: Start) -> None:
    """The unstored response is the latest of the new connection's lane."""
    more = asyncio.Event()
    gateway = await start(held(more), say("next"))
    lost = await gateway.socket(lanes="a")
    await lost.create(input="1", stream_id="a", store=False, **KEYED)
    await lost.frame()
    lost.vanish()
    more.set()
    socket = await gateway.socket(lanes="b")
    turn = await socket.ask(input="1", stream_id="b", store=False, **KEYED)
    await socket.ask(input="2", stream_id="b", store=False, previous_response_id=ident(turn))
    assert [len(items) for items in gateway.seen()] == [1, 3]


async def test_the_header_is_the_same_as_the_field(start: Start) -> None:
    gateway = await start(say("once"))
    http = await gateway.http()
    body = {"model": "scripted", "input": "1"}
    headers = {"Idempotency-Key": "order-1"}
    first = await http.request("POST", "/v1/responses", data=body, headers=headers)
    assert (await http.create(input="1", **KEYED)).body == first.body
    for bad in ("k" * 256, ""):
        reply = await http.request("POST", "/v1/responses", data=body, headers={"Idempotency-Key": bad})
        assert (reply.status, reply.error["param"]) == (400, "Idempotency-Key")


async def test_another_request_with_the_same_key_is_refused(start: Start) -> None:
    gateway = await start(say("once"), say("bob's"), keys=[key("alice"), key("bob")])
    alice, bob = await gateway.http("sk-alice"), await gateway.http("sk-bob")
    await alice.create(input="1", **KEYED)
    for fields in ({"input": "2"}, {"input": "1", "store": False}, {"input": "1", "temperature": 1}):
        reply = await alice.create(**fields, **KEYED)
        assert (reply.status, reply.error["code"]) == (422, "idempotency_key_reused")
    assert (await bob.create(input="2", **KEYED)).status == 200


@pytest.mark.parametrize(
    "broken", [ScriptedTurn((Refuse(BUSY),)), ScriptedTurn((Fail(),)), ScriptedTurn((Say(("x",)), Fail()))]
)
async def test_a_create_that_came_to_nothing_can_be_tried_again(start: Start, broken: ScriptedTurn) -> None:
    gateway = await start(broken, say("fine"))
    http = await gateway.http()
    assert (await http.create(input="1", **KEYED)).status == 400, "the model may have run: nobody asks again unasked"
    assert (await http.create(input="1", **KEYED)).status == 200


async def test_who_joined_a_create_that_is_refused_tries_for_itself(start: Start) -> None:
    gateway = await start(ScriptedTurn((Refuse(BUSY),)), say("fine"))
    http = await gateway.http()
    replies = await asyncio.gather(*(http.create(input="1", **KEYED) for _ in "ab"))
    assert sorted(reply.status for reply in replies) == [200, 400]


async def test_a_key_is_free_again_after_its_time(start: Start) -> None:
    gateway = await start(say("once"), say("twice"), events_s=0.01)
    http = await gateway.http()
    first = (await http.create(input="1", **KEYED)).body["id"]
    while gateway.gateway.services.event_logs.size_bytes:
        await http.request("GET", "/healthz")
    assert (await http.create(input="1", **KEYED)).body["id"] != first

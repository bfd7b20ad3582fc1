"""Streams that break and are resumed, over HTTP and over WebSocket: exactly the missing events, then the live ones, and
no second call of the model. And what is kept of a lost connection's unstored responses.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from segue.testing.protocol_checker import Json, StreamChecker
from segue.upstreams.scripted import Fail, Say, ScriptedTurn, Wait, say
from tests.integration.clients import Cut, Socket
from tests.integration.gateway import Running, Start, key

RESUMABLE = {"segue": {"resume": True}}
UNKNOWN = f"resp_{'0' * 40}"


def held(more: asyncio.Event) -> ScriptedTurn:
    """A turn that says something, waits, and says the rest."""
    return ScriptedTurn((Say(("be", "fore ")), Wait(more), Say(("af", "ter"))))


def said(turn: StreamChecker) -> str:
    assert turn.response is not None, turn.error
    return "".join(part["text"] for item in turn.response["output"] for part in item["content"])


def code(turn: StreamChecker) -> str:
    assert turn.error is not None, turn.response
    return str(turn.error["code"])


async def frames_of(socket: Socket, count: int) -> list[Json]:
    return [await socket.frame() for _ in range(count)]


async def gone(gateway: Running, connections: int = 0) -> None:
    """Wait until the gateway knows that a connection was lost."""
    http = await gateway.http()
    while gateway.gateway.services.drain.connections > connections:
        await http.request("GET", "/healthz")


# ----------------------------------------------------------------------------------------------------------------- HTTP


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("seen", [1, 2, 4, 6])
async def test_a_stream_that_broke_goes_on_where_it_was(start: Start, store: bool, seen: int) -> None:
    more = asyncio.Event()
    gateway = await start(held(more))
    http = await gateway.http()
    begun = await http.begin(seen, input="1", store=store, **RESUMABLE)
    ident = begun[0]["response"]["id"]
    resumed = asyncio.create_task(http.rest(ident, begun[-1]["sequence_number"]))
    more.set()
    assert said(Cut(begun).whole(await resumed)) == "before after"
    assert (gateway.upstream.started, gateway.upstream.cancelled) == (1, 0)
    assert (await http.request("GET", f"/v1/responses/{ident}")).status == (200 if store else 404)


async def test_who_does_not_ask_for_it_has_nothing_to_resume(start: Start) -> None:
    gateway = await start(say("x"), held(asyncio.Event()))
    http = await gateway.http()
    ident = (await http.create(input="1")).body["id"]
    reply = await http.request("GET", f"/v1/responses/{ident}?stream=true")
    assert (reply.status, reply.error["code"]) == (410, "response_events_gone")
    begun = await http.begin(3, input="1")
    while not gateway.upstream.cancelled:
        await http.request("GET", "/healthz")
    assert (await http.request("GET", f"/v1/responses/{begun[0]['response']['id']}?stream=true")).status == 410


async def test_resumes_and_repeats_are_counted(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(held(more))
    http = await gateway.http()
    fields: Json = {"input": "1", "segue": {"idempotency_key": "k"}}
    begun = await http.begin(3, **fields)
    assert gateway.metric("segue_kept_turns") == 1
    assert gateway.metric("segue_event_log_bytes") > 0
    more.set()
    await http.rest(begun[0]["response"]["id"], 2)
    await http.create(**fields)
    assert (await http.request("GET", f"/v1/responses/{UNKNOWN}?stream=true")).status == 410
    counted = {outcome: gateway.metric("segue_resumes_total", outcome=outcome) for outcome in ("found", "gone")}
    assert counted == {"found": 1, "gone": 1}
    assert (gateway.metric("segue_repeated_creates_total"), gateway.metric("segue_kept_turns")) == (1, 0)


async def test_a_turn_that_nobody_comes_back_for_is_stopped(start: Start) -> None:
    gateway = await start(held(asyncio.Event()), resume_s=0.05)
    http = await gateway.http()
    begun = await http.begin(3, input="1", **RESUMABLE)
    while not gateway.upstream.cancelled:
        await http.request("GET", "/healthz")
    ident = begun[0]["response"]["id"]
    assert (await http.request("GET", f"/v1/responses/{ident}?stream=true")).status == 410


async def test_a_turn_that_is_followed_is_not_stopped(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(held(more), resume_s=0.05)
    http = await gateway.http()
    begun = await http.begin(3, input="1", **RESUMABLE)
    resumed = asyncio.create_task(http.rest(begun[0]["response"]["id"], 2))
    asyncio.get_running_loop().call_later(0.15, more.set)
    assert said(Cut(begun).whole(await resumed)) == "before after"


async def test_events_that_are_kept_no_longer_are_gone(start: Start) -> None:
    gateway = await start(say("x"), events_s=0.01)
    http = await gateway.http()
    ident = (await http.create(input="1", **RESUMABLE)).body["id"]
    while (await http.request("GET", f"/v1/responses/{ident}?stream=true&starting_after=999")).status != 410:
        pass
    while gateway.gateway.services.event_logs.size_bytes:
        await http.request("GET", "/healthz")
    assert (await http.request("GET", f"/v1/responses/{ident}")).status == 200


async def test_events_that_a_full_log_has_dropped_are_gone(start: Start) -> None:
    more, done = asyncio.Event(), asyncio.Event()
    texts = ("x" * 100,) * 100
    gateway = await start(ScriptedTurn((Wait(more), Say(texts), Wait(done), Say(texts))), event_log_bytes=8000)
    http = await gateway.http()
    begun = await http.begin(2, input="1", **RESUMABLE)
    ident = begun[0]["response"]["id"]
    more.set()
    while not gateway.upstream.started:
        pass
    done.set()
    while (await http.request("GET", f"/v1/responses/{ident}")).body["status"] != "completed":
        pass
    assert (await http.request("GET", f"/v1/responses/{ident}?stream=true&starting_after=1")).status == 410


async def test_a_resumable_turn_may_be_answered_whole(start: Start) -> None:
    gateway = await start(say("hello"), ScriptedTurn((Say(("x",)), Fail())))
    http = await gateway.http()
    reply = await http.create(input="1", **RESUMABLE)
    assert (reply.status, reply.body["background"]) == (200, False)
    assert "segue" not in reply.body
    assert (await http.create(input="1", **RESUMABLE)).status == 400


# ------------------------------------------------------------------------------------------------------------ WebSocket


@pytest.mark.parametrize("lane", [None, "b"])
@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("seen", [1, 4, 6])
async def test_a_lost_connection_loses_nothing(start: Start, lane: str | None, store: bool, seen: int) -> None:
    more = asyncio.Event()
    gateway = await start(held(more), say("next"))
    lost = await gateway.socket(lanes="a")
    await lost.create(input="1", stream_id="a", store=store, **RESUMABLE)
    begun = await frames_of(lost, seen)
    lost.vanish()
    await gone(gateway)
    socket = await gateway.socket(lanes="b")
    resuming = asyncio.create_task(socket.resume(begun, lane))
    more.set()
    turn = await resuming
    assert said(turn) == "before after"
    assert (gateway.upstream.started, gateway.upstream.cancelled) == (1, 0)
    named = {} if lane is None else {"stream_id": lane}
    await socket.ask(input="2", store=store, previous_response_id=begun[0]["response"]["id"], **named)
    assert [len(items) for items in gateway.seen()] == [1, 3]


async def test_a_turn_that_ended_meanwhile_can_be_had_too(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(held(more), say("next"))
    lost = await gateway.socket()
    await lost.create(input="1", store=False, **RESUMABLE)
    begun = await frames_of(lost, 3)
    lost.vanish()
    await gone(gateway)
    more.set()
    socket = await gateway.socket()
    assert said(await socket.resume(begun)) == "before after"
    parent = begun[0]["response"]["id"]
    assert said(await socket.ask(input="2", store=False, previous_response_id=parent)) == "next"


async def test_a_connection_that_did_not_ask_is_cancelled_as_ever(start: Start) -> None:
    gateway = await start(held(asyncio.Event()))
    lost = await gateway.socket()
    await lost.create(input="1", store=False)
    begun = await frames_of(lost, 3)
    lost.vanish()
    await gone(gateway)
    assert gateway.upstream.cancelled == 1
    socket = await gateway.socket()
    await socket.send({"type": "segue.resume", "response_id": begun[0]["response"]["id"], "starting_after": 2})
    assert code(await socket.turn()) == "response_events_gone"


async def test_frames_of_who_asks_and_who_does_not_are_alike(start: Start) -> None:
    gateway = await start(say("hello"), say("hello"))
    socket = await gateway.socket()
    asked = await socket.ask(input="1", store=False, **RESUMABLE)
    plain = await socket.ask(input="1", store=False)
    for one, other in zip(asked.frames, plain.frames, strict=True):
        assert one.keys() == other.keys()
        assert one.get("response", {}).keys() == other.get("response", {}).keys()


@pytest.mark.parametrize("number", [8, 99])
async def test_what_is_not_to_come_is_not_waited_for(start: Start, number: int) -> None:
    gateway = await start(say("x"), say("y"))
    socket = await gateway.socket(lanes="a")
    ident = (await socket.ask(input="1", **RESUMABLE)).frames[0]["response"]["id"]
    await socket.send({"type": "segue.resume", "response_id": ident, "starting_after": number, "stream_id": "a"})
    assert code(await socket.turn()) == "response_events_gone"
    assert json.loads(socket.last)["stream_id"] == "a"
    assert said(await socket.ask(input="2", stream_id="a", previous_response_id=ident)) == "y"


@pytest.mark.parametrize("ident", [UNKNOWN, "resp_1", ""])
async def test_what_is_unknown_or_anothers_is_gone(start: Start, ident: str) -> None:
    more = asyncio.Event()
    gateway = await start(held(more), keys=[key("alice"), key("bob")])
    alice, bob = await gateway.socket("sk-alice"), await gateway.socket("sk-bob")
    await alice.create(input="1", store=False, **RESUMABLE)
    theirs = (await alice.frame())["response"]["id"]
    for name in (ident, theirs):
        await bob.send({"type": "segue.resume", "response_id": name})
        assert code(await bob.turn()) == "response_events_gone"
    more.set()
    assert said(await alice.turn()) == "before after"
    refused = await bob.ask(input="2", store=False, previous_response_id=theirs)
    assert code(refused) == "previous_response_not_found"


async def test_a_background_turn_can_be_followed_on_a_socket(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(held(more), say("next"))
    http, socket = await gateway.http(), await gateway.socket(lanes="a")
    ident = (await http.create(input="1", background=True)).body["id"]
    await socket.send({"type": "segue.resume", "response_id": ident, "stream_id": "a"})
    more.set()
    assert said(await socket.turn()) == "before after"
    assert said(await socket.ask(input="2", stream_id="a", previous_response_id=ident)) == "next"
    assert gateway.metric("segue_continuation_hits_total", level="connection") == 1


async def test_a_failed_continuation_evicts_what_was_kept(start: Start) -> None:
    gateway = await start(say("x"), ScriptedTurn((Say(("x",)), Fail())))
    socket = await gateway.socket()
    ident = (await socket.ask(input="1", store=False, **RESUMABLE)).frames[0]["response"]["id"]
    assert (await socket.ask(input="2", store=False, previous_response_id=ident)).response is not None
    for _ in range(2):
        assert code(await socket.ask(input="3", store=False, previous_response_id=ident)) == (
            "previous_response_not_found"
        )


# ---------------------------------------------------------------------------------------------------------------- grace


@pytest.mark.parametrize("grace_s", [0.0, 60.0])
async def test_unstored_responses_of_a_lost_connection_can_be_continued_if_configured(
    start: Start, grace_s: float
) -> None:
    gateway = await start(say("1"), say("2"), *[say("next")] * (2 if grace_s else 0), grace_s=grace_s)
    lost = await gateway.socket(lanes="a")
    idents = [
        (await lost.ask(input="1", store=False, **fields)).frames[0]["response"]["id"]
        for fields in ({}, {"stream_id": "a"})
    ]
    lost.vanish()
    await gone(gateway)
    socket, http = await gateway.socket(), await gateway.http()
    for ident in idents:
        turn = await socket.ask(input="2", store=False, previous_response_id=ident)
        if grace_s:
            assert said(turn) == "next"
        else:
            assert code(turn) == "previous_response_not_found"
        over_http = await http.create(input="2", store=False, previous_response_id=ident)
        assert over_http.error["code"] == "previous_response_not_found"


async def test_the_grace_ends_and_is_its_tenants_own(start: Start) -> None:
    gateway = await start(say("1"), keys=[key("alice"), key("bob")], grace_s=0.2)
    lost = await gateway.socket("sk-alice")
    ident = (await lost.ask(input="1", store=False)).frames[0]["response"]["id"]
    lost.vanish()
    await gone(gateway)
    bob = await gateway.socket("sk-bob")
    assert code(await bob.ask(input="2", store=False, previous_response_id=ident)) == "previous_response_not_found"
    while gateway.gateway.services.cache.size_bytes:
        await bob.ask(generate=False, store=False, input=7)
    alice = await gateway.socket("sk-alice")
    assert code(await alice.ask(input="2", store=False, previous_response_id=ident)) == "previous_response_not_found"

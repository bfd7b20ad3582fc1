"""Background turns: they run without their client, can be looked at, followed, cancelled and deleted."""

from __future__ import annotations

import asyncio

import pytest

from segue.protocol.problems import Problem
from segue.upstreams.scripted import MODEL, Fail, Refuse, Say, ScriptedTurn, Truncate, Wait, say
from tests.integration.clients import Cut, Http
from tests.integration.gateway import Running, Start, key

UNKNOWN = f"resp_{'0' * 40}"


def held(more: asyncio.Event, *after: str) -> ScriptedTurn:
    """A turn that says something, waits, and says the rest."""
    return ScriptedTurn((Say(("be", "fore ")), Wait(more), Say(after or ("after",))))


async def state(http: Http, ident: str) -> str:
    reply = await http.request("GET", f"/v1/responses/{ident}")
    assert reply.status == 200
    return str(reply.body["status"])


async def until_ended(gateway: Running, http: Http, ident: str) -> str:
    """Wait for the end of a turn, and say how it ended."""
    await http.rest(ident)
    return await state(http, ident)


async def test_a_background_turn_is_answered_at_once_and_runs_on(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(held(more), say("next"))
    http = await gateway.http()
    reply = await http.create(input="1", background=True)
    assert (reply.status, reply.body["status"], reply.body["background"]) == (200, "in_progress", True)
    ident = reply.body["id"]
    assert await state(http, ident) == "in_progress"
    more.set()
    assert await until_ended(gateway, http, ident) == "completed"
    done = await http.request("GET", f"/v1/responses/{ident}")
    assert done.body["output"][0]["content"][0]["text"] == "before after"
    assert done.body["background"] is True
    assert (await http.create(input="2", previous_response_id=ident)).status == 200
    assert [len(items) for items in gateway.seen()] == [1, 3]


@pytest.mark.parametrize("after", [None, 0, 3, 6])
async def test_its_stream_can_be_read_again_from_any_event(start: Start, after: int | None) -> None:
    more = asyncio.Event()
    gateway = await start(held(more))
    http = await gateway.http()
    ident = (await http.create(input="1", background=True)).body["id"]
    before = asyncio.create_task(http.rest(ident, after))
    more.set()
    live = await before
    again = await http.rest(ident, after)
    assert live == again
    assert [frame["sequence_number"] for frame in live] == list(range(0 if after is None else after + 1, 11))
    everything = await http.rest(ident)
    assert Cut(everything[: 11 - len(live)]).whole(live).response is not None


async def test_a_client_that_streams_may_go_away(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(held(more))
    http = await gateway.http()
    begun = await http.begin(5, input="1", background=True)
    more.set()
    rest = await http.rest(begun[0]["response"]["id"], begun[-1]["sequence_number"])
    turn = Cut(begun).whole(rest)
    assert turn.response is not None
    assert turn.response["output"][0]["content"][0]["text"] == "before after"
    assert (gateway.upstream.started, gateway.upstream.cancelled) == (1, 0)


async def test_a_background_turn_can_be_cancelled_again_and_again(start: Start) -> None:
    gateway = await start(held(asyncio.Event()))
    http = await gateway.http()
    ident = (await http.create(input="1", background=True)).body["id"]
    following = asyncio.create_task(http.rest(ident))
    while len(gateway.upstream.requests) < 1:
        await state(http, ident)
    for _ in range(2):
        reply = await http.request("POST", f"/v1/responses/{ident}/cancel")
        assert (reply.status, reply.body["status"], reply.body["output"]) == (200, "cancelled", [])
    assert gateway.upstream.cancelled == 1
    assert await state(http, ident) == "cancelled"
    turn = Cut([]).whole(await following)
    assert turn.response is not None
    assert turn.response["status"] == "cancelled"
    assert (await http.create(input="2", previous_response_id=ident)).error["code"] == "previous_response_not_found"


async def test_what_has_ended_is_not_cancelled(start: Start) -> None:
    gateway = await start(say("done"), say("done"), events_s=0.001)
    http = await gateway.http()
    ident = (await http.create(input="1", background=True)).body["id"]
    while await state(http, ident) != "completed":
        pass
    assert (await http.request("POST", f"/v1/responses/{ident}/cancel")).body["status"] == "completed"
    other = (await http.create(input="1")).body["id"]
    assert (await http.request("POST", f"/v1/responses/{other}/cancel")).error["code"] == "response_not_cancellable"
    for unknown in (UNKNOWN, "resp_1"):
        assert (await http.request("POST", f"/v1/responses/{unknown}/cancel")).error["code"] == "response_not_found"


BUSY = Problem("upstream_error", "The provider is busy.")


@pytest.mark.parametrize(
    ("script", "status", "stored"),
    [
        (ScriptedTurn((Say(("x",)), Fail())), "failed", False),
        (ScriptedTurn((Refuse(BUSY),)), "failed", False),
        (ScriptedTurn((Say(("x",)), Truncate())), "incomplete", True),
    ],
)
async def test_how_a_background_turn_ended_can_be_asked_for(
    start: Start, script: ScriptedTurn, status: str, stored: bool
) -> None:
    gateway = await start(script)
    http = await gateway.http()
    ident = (await http.create(input="1", background=True)).body["id"]
    assert await until_ended(gateway, http, ident) == status
    size = await gateway.gateway.services.store.size()
    assert size.records == stored


async def test_what_can_be_refused_before_it_begins_is_refused(start: Start) -> None:
    gateway = await start()
    http = await gateway.http()
    assert (await http.create(input="1", background=True, model="gpt-0")).error["code"] == "model_not_found"
    refused = await http.create(input="1", background=True, previous_response_id=UNKNOWN)
    assert refused.error["code"] == "previous_response_not_found"
    assert (await http.create(input="1", background=True, store=False)).error["param"] == "background"
    assert gateway.gateway.services.cache.size_bytes == 0


async def test_deleting_stops_and_forgets(start: Start) -> None:
    gateway = await start(held(asyncio.Event()), say("done"))
    http = await gateway.http()
    running = (await http.create(input="1", background=True)).body["id"]
    while not gateway.upstream.requests:
        await state(http, running)
    done = (await http.create(input="2", background=True)).body["id"]
    assert await until_ended(gateway, http, done) == "completed"
    for ident in (running, done):
        assert (await http.request("DELETE", f"/v1/responses/{ident}")).body["deleted"] is True
        for path in ("", "?stream=true"):
            reply = await http.request("GET", f"/v1/responses/{ident}{path}")
            assert reply.status == (410 if path else 404)
        assert (await http.request("DELETE", f"/v1/responses/{ident}")).status == 404
    assert gateway.upstream.cancelled == 1


async def test_it_is_its_tenants_own(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(held(more), keys=[key("alice"), key("bob")])
    alice, bob = await gateway.http("sk-alice"), await gateway.http("sk-bob")
    ident = (await alice.create(input="1", background=True)).body["id"]
    for method, path, status in (
        ("GET", "", 404),
        ("GET", "?stream=true", 410),
        ("POST", "/cancel", 404),
        ("DELETE", "", 404),
    ):
        foreign = await bob.request(method, f"/v1/responses/{ident}{path}")
        unknown = await bob.request(method, f"/v1/responses/{UNKNOWN}{path}")
        assert (foreign.status, foreign.error["code"]) == (status, unknown.error["code"])
    more.set()
    assert await until_ended(gateway, alice, ident) == "completed"


@pytest.mark.parametrize("after", ["x", "-2", "1.5", "", "9" * 30])
async def test_a_bad_number_is_refused(start: Start, after: str) -> None:
    http = await (await start()).http()
    reply = await http.request("GET", f"/v1/responses/{UNKNOWN}?stream=true&starting_after={after}")
    assert (reply.status, reply.error["param"]) == (400, "starting_after")


async def test_the_number_of_turns_that_are_kept_is_bounded(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(held(more), max_kept=1)
    http = await gateway.http()
    ident = (await http.create(input="1", background=True)).body["id"]
    reply = await http.create(input="2", background=True)
    assert (reply.status, reply.error["code"], reply.headers["Retry-After"]) == (503, "server_overloaded", "1")
    more.set()
    await http.rest(ident)


async def test_a_tenant_that_keeps_all_turns_locks_no_other_out(start: Start) -> None:
    """Beyond the bound, those below their even share may still begin some."""
    more = asyncio.Event()
    gateway = await start(*[held(more)] * 6, max_kept=4, keys=[key("alice"), key("bob")])
    alice, bob = await gateway.http("sk-alice"), await gateway.http("sk-bob")
    begun = [(alice, await alice.create(input="hi", background=True)) for _ in range(4)]
    assert (await alice.create(input="one more", background=True)).status == 503
    begun += [(bob, await bob.create(input="hi", background=True)) for _ in range(2)]
    assert (await bob.create(input="one more", background=True)).status == 503
    assert {reply.status for _, reply in begun} == {200}
    more.set()
    for client, reply in begun:
        await client.rest(reply.body["id"])


async def test_a_shutdown_waits_for_background_turns(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(held(more), store="memory:")
    http = await gateway.http()
    ident = (await http.create(input="1", background=True)).body["id"]
    draining = asyncio.create_task(gateway.gateway.drain())
    await asyncio.sleep(0)
    more.set()
    await draining
    record = await gateway.gateway.services.store.record("local", ident, gateway.gateway.services.clock())
    assert record is not None


async def test_the_openai_sdk_polls_cancels_and_resumes(start: Start) -> None:
    from openai import AsyncOpenAI

    more = asyncio.Event()
    gateway = await start(held(more), held(asyncio.Event()))
    tap = await gateway.tap()
    async with AsyncOpenAI(base_url=f"{tap.url}/v1", api_key="x", max_retries=0) as client:
        stream = await client.responses.create(model=MODEL, input="1", background=True, stream=True)
        cursor, ident = -1, ""
        async for event in stream:
            cursor = event.sequence_number
            if event.type == "response.created":
                ident = event.response.id
            if event.type == "response.output_text.delta":
                break
        more.set()
        words = [
            event.delta
            async for event in await client.responses.retrieve(ident, stream=True, starting_after=cursor)
            if event.type == "response.output_text.delta"
        ]
        assert words == ["fore ", "after"]
        await stream.close()
        assert (await client.responses.retrieve(ident)).output_text == "before after"
        other = await client.responses.create(model=MODEL, input="2", background=True)
        assert other.status == "in_progress"
        assert (await client.responses.cancel(other.id)).status == "cancelled"
    tap.judge()
    assert tap.streams == 2

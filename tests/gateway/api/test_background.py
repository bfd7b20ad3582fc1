"""Kept turns over HTTP, as a client sees them."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from segue.testing.protocol_checker import Json, check_sse
from segue.upstreams.scripted import Fail, Say, ScriptedTurn, ScriptedUpstream, Wait, say
from tests.faults.clients import Http, http, output_text
from tests.faults.gateways import listening, until

UNKNOWN = "resp_" + "0" * 48
RESUME = {"resume": True}


def waiting(gate: asyncio.Event) -> ScriptedTurn:
    return ScriptedTurn((Say(("one",)), Wait(gate), Say(("two",))))


async def frames(client: Http, response_id: str, after: int | str) -> list[str]:
    path = f"/v1/responses/{response_id}?stream=true&starting_after={after}"
    async with client.session.get(path) as reply:
        assert reply.status == 200, await reply.text()
        return (await reply.text()).split("\n\n")


async def error_of(client: Http, method: str, path: str) -> tuple[int, str]:
    status, body = await client.send(method, path)
    return status, str(body["error"]["code"])


async def ended(client: Http, response_id: str) -> Json:
    async with asyncio.timeout(20):
        while True:
            _, body = await client.send("GET", f"/v1/responses/{response_id}")
            if body["status"] not in {"queued", "in_progress"}:
                return body
            await asyncio.sleep(0.001)


async def test_a_background_turn_is_answered_at_once_and_can_be_polled() -> None:
    gate = asyncio.Event()
    async with listening(ScriptedUpstream([waiting(gate)])) as local, http(local.url) as client:
        begun = await client.turn(background=True)
        assert begun["status"] == "in_progress"
        gate.set()
        made = await ended(client, begun["id"])
        assert (made["status"], output_text(made)) == ("completed", "onetwo")


async def test_a_turn_with_a_key_is_answered_when_it_has_ended() -> None:
    async with listening(ScriptedUpstream([say("x")])) as local, http(local.url) as client:
        made = await client.turn(segue={"idempotency_key": "k"})
        assert output_text(made) == "x"
        assert await client.turn(segue={"idempotency_key": "k"}) == made


async def test_a_kept_turn_that_failed_is_an_error_unless_it_is_in_the_background() -> None:
    failing = ScriptedTurn((Say(("x",)), Fail("bored", "No.")))
    async with listening(ScriptedUpstream([failing, failing])) as local, http(local.url) as client:
        assert await client.refusal(segue=RESUME) == (400, "upstream_error")
        begun = await client.turn(background=True, store=True)
        assert (await ended(client, begun["id"]))["error"] == {"code": "bored", "message": "No."}


async def test_a_stream_can_be_taken_up_after_any_event() -> None:
    async with listening(ScriptedUpstream([say("hel", "lo")])) as local, http(local.url) as client:
        body = {"model": "m", "input": "x", "stream": True, "segue": RESUME}
        async with client.session.post("/v1/responses", json=body) as reply:
            data = await reply.read()
        whole = data.decode().split("\n\n")
        checked = check_sse(data).response
        assert checked is not None
        assert await frames(client, checked["id"], -1) == whole
        assert await frames(client, checked["id"], 2) == whole[3:]
        assert await frames(client, checked["id"], len(whole) - 3) == ["data: [DONE]", ""]
        assert (await client.session.get(f"/v1/responses/{checked['id']}?stream=true")).status == 200


@pytest.mark.parametrize("after", ["", "x", "-2", "--1", "1" * 13, "\u00b2"])
async def test_an_event_that_has_no_number_is_refused(after: str) -> None:
    async with listening() as local, http(local.url) as client:
        made = await client.turn()
        path = f"/v1/responses/{made['id']}?stream=true&starting_after={after}"
        assert await error_of(client, "GET", path) == (400, "invalid_value")


async def test_events_that_are_not_kept_are_gone() -> None:
    async with listening() as local, http(local.url) as client:
        made = await client.turn()
        assert await error_of(client, "GET", f"/v1/responses/{made['id']}?stream=true") == (
            410,
            "response_events_gone",
        )


async def test_a_client_that_goes_away_leaves_a_resumable_turn_running() -> None:
    gate = asyncio.Event()
    upstream = ScriptedUpstream([waiting(gate)])
    async with listening(upstream) as local, http(local.url) as client:
        body = {"model": "m", "input": "x", "stream": True, "segue": RESUME}
        async with aiohttp.ClientSession(local.url) as session, session.post("/v1/responses", json=body) as reply:
            first = (await reply.content.readuntil(b"\n\n")).decode()
        response_id = first.partition('"id":"')[2].partition('"')[0]
        gate.set()
        assert (await frames(client, response_id, -1))[0] == first.strip()
        assert upstream.cancelled == 0


async def test_a_background_turn_can_be_cancelled_once() -> None:
    upstream = ScriptedUpstream([waiting(asyncio.Event())])
    async with listening(upstream) as local, http(local.url) as client:
        begun = await client.turn(background=True)
        status, made = await client.send("POST", f"/v1/responses/{begun['id']}/cancel")
        assert (status, made["status"]) == (200, "cancelled")
        assert await client.send("POST", f"/v1/responses/{begun['id']}/cancel") == (200, made)
        await until(lambda: upstream.cancelled == 1)


async def test_a_background_turn_that_has_ended_is_left_by_a_cancellation() -> None:
    """Also when only the store still knows it."""
    async with listening(events_s=0.001) as local, http(local.url) as client:
        made = await ended(client, (await client.turn(background=True))["id"])
        await until(lambda: local.gateway.services.event_logs.size_bytes == 0)
        assert await client.send("POST", f"/v1/responses/{made['id']}/cancel") == (200, made)


async def test_only_a_background_turn_can_be_cancelled() -> None:
    async with listening() as local, http(local.url) as client:
        made = await client.turn()
        path = f"/v1/responses/{made['id']}/cancel"
        assert await error_of(client, "POST", path) == (400, "response_not_cancellable")
        assert await error_of(client, "POST", f"/v1/responses/{UNKNOWN}/cancel") == (404, "response_not_found")


async def test_an_unstored_turn_that_runs_cannot_be_read_but_deleted() -> None:
    upstream = ScriptedUpstream([waiting(asyncio.Event())])
    async with listening(upstream) as local, http(local.url) as client:
        body = {"model": "m", "input": "x", "stream": True, "store": False, "segue": RESUME}
        async with client.session.post("/v1/responses", json=body) as reply:
            first = (await reply.content.readuntil(b"\n\n")).decode()
            response_id = first.partition('"id":"')[2].partition('"')[0]
            assert await client.status(response_id) == 404
            assert (await client.send("DELETE", f"/v1/responses/{response_id}"))[0] == 200
            with pytest.raises(aiohttp.ClientError):
                await reply.read()
        assert upstream.cancelled == 1


async def test_a_turn_that_is_not_streamed_survives_a_client_that_does_not_wait_for_it() -> None:
    gate = asyncio.Event()
    upstream = ScriptedUpstream([waiting(gate)])
    async with listening(upstream) as local, http(local.url) as client:
        body = {"model": "m", "input": "x", "segue": {"idempotency_key": "k"}}
        with pytest.raises(TimeoutError):
            await client.session.post("/v1/responses", json=body, timeout=aiohttp.ClientTimeout(0.2))
        gate.set()
        made = await client.turn("x", model="m", segue={"idempotency_key": "k"})
        assert output_text(made) == "onetwo"
        assert upstream.started == 1

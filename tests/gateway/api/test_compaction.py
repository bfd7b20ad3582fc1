"""`POST /v1/responses/compact`, as a client sees it."""

from __future__ import annotations

import asyncio

import pytest

from segue.protocol.problems import Problem
from segue.testing.protocol_checker import Json
from segue.upstreams.scripted import Fail, Refuse, Say, ScriptedTurn, ScriptedUpstream, Truncate, Wait, say
from tests.faults.clients import Http, http, output_text
from tests.faults.gateways import listening, until

PATH = "/v1/responses/compact"


def user(text: str) -> Json:
    return {"role": "user", "content": text}


async def compact(client: Http, **fields: object) -> tuple[int, Json]:
    return await client.send("POST", PATH, {"model": "scripted", **fields})


async def test_a_new_conversation_begins_with_the_window() -> None:
    upstream = ScriptedUpstream([say("hello"), say("Ann was greeted"), say("Ann")])
    async with listening(upstream) as local, http(local.url) as client:
        first = await client.turn("I am Ann.")
        status, window = await compact(client, previous_response_id=first["id"], input="Who am I?")
        assert status == 200
        assert window.keys() == {"id", "object", "created_at", "output", "usage"}
        assert window["object"] == "response.compaction"
        said, asked, item = window["output"]
        assert {name: said[name] for name in ("type", "status", "role")} == {
            "type": "message",
            "status": "completed",
            "role": "user",
        }
        assert said["content"] == [{"type": "input_text", "text": "I am Ann."}]
        assert asked["content"][0]["text"] == "Who am I?"
        assert item["type"] == "compaction"
        assert len({one["id"] for one in window["output"]}) == 3
        assert window["usage"]["output_tokens"] == len("Ann was greeted") // 4
        assert output_text(await client.turn(window["output"])) == "Ann"
        sample = local.gateway.services.metrics.registry.get_sample_value
        assert sample("segue_turns_total", {"transport": "http", "outcome": "completed"}) == 3
        labels = {"transport": "http", "kind": "endpoint", "outcome": "completed"}
        assert sample("segue_compactions_total", labels) == 1
    told = [item.decode() for item in upstream.requests[2].history.items()]
    assert len(told) == 3
    assert "Ann was greeted" in told[2]


async def test_nothing_is_stored_and_the_id_is_no_parent() -> None:
    async with listening(ScriptedUpstream([say("sum")])) as local, http(local.url) as client:
        _, window = await compact(client, input="x", store=True)
        assert await client.refusal(previous_response_id=window["id"]) == (400, "previous_response_not_found")
        assert await client.status(window["id"]) == 404
        assert (await local.gateway.services.store.size()).records == 0


async def test_items_keep_the_ids_and_parts_that_they_have() -> None:
    given = {"id": "msg_1", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
    async with listening(ScriptedUpstream([say("sum")])) as local, http(local.url) as client:
        _, window = await compact(client, input=[given, {"type": "compaction_trigger"}])
        assert window["output"][0] == {**given, "status": "completed"}


@pytest.mark.parametrize(
    ("turn", "refusal"),
    [
        (ScriptedTurn((Refuse(Problem("rate_limit_exceeded", "not now")),)), (429, "rate_limit_exceeded")),
        (ScriptedTurn((Fail("rate_limit_exceeded", "not now"),)), (429, "rate_limit_exceeded")),
        (ScriptedTurn((Say(("half",)), Truncate())), (400, "upstream_error")),
    ],
)
async def test_a_compaction_that_comes_to_nothing_is_an_error(turn: ScriptedTurn, refusal: tuple[int, str]) -> None:
    """What may have been paid for has a status that no client repeats."""
    async with listening(ScriptedUpstream([turn])) as local, http(local.url) as client:
        status, body = await compact(client, input="x")
        assert (status, body["error"]["code"]) == refusal


@pytest.mark.parametrize(
    ("body", "param"), [({"input": "x"}, "model"), ({"model": "scripted"}, "input"), ({"model": 1}, "model")]
)
async def test_a_body_that_cannot_be_compacted_is_refused(body: Json, param: str) -> None:
    async with listening() as local, http(local.url) as client:
        status, reply = await client.send("POST", PATH, body)
        assert (status, reply["error"]["param"]) == (400, param)


async def test_a_gateway_that_drains_begins_no_compaction() -> None:
    gate = asyncio.Event()
    async with listening(ScriptedUpstream([ScriptedTurn((Wait(gate), Say(("x",))))])) as local, http(local.url) as one:
        turn = asyncio.create_task(one.turn())
        await until(lambda: bool(local.gateway.services.drain.busy))
        local.gateway.services.drain.draining = True
        assert (await compact(one, input="x"))[0] == 503
        gate.set()
        await turn


@pytest.mark.parametrize("place", ["header", "body"])
async def test_a_repeat_gets_the_same_window_and_pays_nothing(place: str) -> None:
    """While the first one runs, and after it; also if the history has gone on, or is gone."""
    gate = asyncio.Event()
    upstream = ScriptedUpstream([say("hello"), ScriptedTurn((Wait(gate), Say(("sum",))))])
    headers = {"Idempotency-Key": "k"} if place == "header" else None
    fields: Json = {"segue": {"idempotency_key": "k"}} if place == "body" else {}
    async with listening(upstream) as local, http(local.url) as client:
        first = await client.turn("I am Ann.")
        asked = {"model": "scripted", "previous_response_id": first["id"], "input": "x", **fields}
        left = asyncio.create_task(client.send("POST", PATH, asked, headers=headers))
        await until(lambda: len(upstream.requests) == 2)
        left.cancel()
        again = asyncio.create_task(client.send("POST", PATH, asked, headers=headers))
        gate.set()
        status, window = await again
        assert status == 200
        assert [one["type"] for one in window["output"]] == ["message", "message", "compaction"]
        await client.send("DELETE", f"/v1/responses/{first['id']}")
        assert await client.send("POST", PATH, asked, headers=headers) == (200, window)
        assert len(upstream.requests) == 2
        assert await client.refusal(previous_response_id=window["id"]) == (400, "previous_response_not_found")
        assert (await local.gateway.services.store.size()).records == 0


async def test_a_key_stands_for_one_request() -> None:
    """A create with the same fields is another one."""
    async with listening(ScriptedUpstream([say("sum")])) as local, http(local.url) as client:
        key = {"Idempotency-Key": "k"}
        asked: Json = {"model": "scripted", "input": [user("x"), {"type": "compaction_trigger"}], "store": False}
        assert (await client.send("POST", PATH, asked, headers=key))[0] == 200
        for path, body in ((PATH, {**asked, "input": "y"}), ("/v1/responses", asked)):
            status, reply = await client.send("POST", path, body, headers=key)
            assert (status, reply["error"]["code"]) == (422, "idempotency_key_reused")
        status, reply = await client.send("POST", PATH, asked, headers={"Idempotency-Key": "x" * 256})
        assert (status, reply["error"]["param"]) == (400, "Idempotency-Key")


async def test_a_keyed_compaction_that_fails_is_an_error() -> None:
    """Its key is free again, since nothing came of it."""
    turns = [ScriptedTurn((Fail("rate_limit_exceeded", "not now"),)), say("sum")]
    async with listening(ScriptedUpstream(turns)) as local, http(local.url) as client:
        asked, key = {"model": "scripted", "input": "x"}, {"Idempotency-Key": "k"}
        assert (await client.send("POST", PATH, asked, headers=key))[0] == 429
        assert (await client.send("POST", PATH, asked, headers=key))[0] == 200

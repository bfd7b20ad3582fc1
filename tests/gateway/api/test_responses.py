"""`/v1/responses` over HTTP, as a client sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from threading import get_ident

import aiohttp
import pytest

from segue.gateway.api.responses import show_page
from segue.history.records import ChainLink, Record
from segue.protocol.ids import ResponseId
from segue.protocol.listing import ItemRun, Page
from segue.protocol.problems import Problem
from segue.stores.memory import MemoryStore
from segue.testing.protocol_checker import Json
from segue.testing.store_samples import sample_id
from segue.upstreams.scripted import Fail, Refuse, Say, ScriptedTurn, ScriptedUpstream, Wait, call, say
from tests.faults.clients import begin_post, http, output_text, read_body
from tests.faults.gateways import listening, until

UNKNOWN = "resp_" + "0" * 48


def error_of(body: Json) -> str:
    return str(body["error"]["code"])


class LateStore(MemoryStore):
    """A store to which a response comes just after it was asked for."""

    late = False

    async def record(self, tenant: str, response_id: ResponseId, now: float) -> Record | None:
        late, self.late = self.late, False
        return None if late else await super().record(tenant, response_id, now)


# --- creating --------------------------------------------------------------------------------------------------------


async def test_a_turn_is_answered_with_its_response_object_or_with_its_events() -> None:
    async with listening(ScriptedUpstream([say("hel", "lo")] * 2)) as local, http(local.url) as client:
        assert output_text(await client.turn()) == "hello"
        assert (await client.stream()).response is not None
        sample = local.gateway.services.metrics.registry.get_sample_value
        assert sample("segue_turns_total", {"transport": "http", "outcome": "completed"}) == 1
        assert sample("segue_turns_total", {"transport": "sse", "outcome": "completed"}) == 1


async def test_a_turn_that_failed_is_an_error_by_its_status() -> None:
    """Nothing was sent yet. It may be paid for, so it is one that no client repeats."""
    async with listening(ScriptedUpstream([ScriptedTurn((Fail("bored", "No."),))])) as local, http(local.url) as client:
        assert await client.refusal() == (400, "upstream_error")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_has_its_own_status(stream: bool) -> None:
    refused = ScriptedTurn((Refuse(Problem("rate_limit_exceeded", "not now")),))
    async with listening(ScriptedUpstream([refused])) as local, http(local.url) as client:
        assert await client.refusal(stream=stream) == (429, "rate_limit_exceeded")


@pytest.mark.parametrize(
    ("data", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b'{"model": 1}', {}, 400, "invalid_type"),
        (b"{}", {"Content-Encoding": "gzip"}, 415, "unsupported_content_encoding"),
        (b"x" * 101, {}, 413, "message_too_large"),
        (b'{"model": "m", "input": "x"}', {"Idempotency-Key": "x" * 256}, 400, "invalid_value"),
        (b'{"model": "m", "input": "x"}', {"Idempotency-Key": ""}, 400, "invalid_value"),
    ],
)
async def test_a_body_that_cannot_be_a_turn_is_refused(
    data: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    async with (
        listening(max_message_bytes=100) as local,
        aiohttp.ClientSession(local.url) as client,
        client.post("/v1/responses", data=data, headers=headers, skip_auto_headers=["Accept-Encoding"]) as reply,
    ):
        assert (reply.status, error_of(await reply.json())) == (status, code)


async def test_a_body_of_unknown_length_is_refused_when_it_is_too_large() -> None:
    async def pieces() -> object:
        for _ in range(3):
            yield b"x" * 50

    async with (
        listening(max_message_bytes=100) as local,
        aiohttp.ClientSession(local.url) as client,
        client.post("/v1/responses", data=pieces()) as reply,
    ):
        assert (reply.status, error_of(await reply.json())) == (413, "message_too_large")


async def test_a_gateway_that_drains_takes_no_turn() -> None:
    async with listening() as local, http(local.url) as client:
        local.gateway.services.drain.draining = True
        assert await client.refusal() == (503, "server_overloaded")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("ended", [True, False])
async def test_a_gateway_that_drains_gives_an_idempotent_repeat_its_answer(*, stream: bool, ended: bool) -> None:
    """One that it has, or that is being made; it begins no turn for another key, and remembers none."""
    gate = asyncio.Event()
    upstream = ScriptedUpstream([ScriptedTurn((Say(("on",)), Wait(gate), Say(("ce",)))), say("twice")])
    fields = {"input": "hello", "model": "m", "stream": stream}
    async with listening(upstream) as local, http(local.url) as client:
        drain = local.gateway.services.drain

        async def post(key: str | None, **more: object) -> tuple[int, str]:
            headers = {} if key is None else {"Idempotency-Key": key}
            async with client.session.post("/v1/responses", json={**fields, **more}, headers=headers) as reply:
                return reply.status, await reply.text()

        if ended:
            gate.set()
        first = asyncio.create_task(post("k"))
        await until(lambda: drain.busy == 0 if ended else upstream.started == 1)
        if ended:
            await first
        drain.draining = True
        again = asyncio.create_task(post("k"))
        assert [(await post(key))[0] for key in ("other", None, "other")] == [503, 503, 503]
        assert (await post("k", input="another"))[0] == 422
        gate.set()
        assert await again == await first
        drain.draining = False
        assert "twice" in (await post("other"))[1], "the key is free"
    assert upstream.started == 2


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_cancels_its_turn(stream: bool) -> None:
    upstream = ScriptedUpstream([ScriptedTurn((Say(("x",)), Wait(asyncio.Event())))])
    async with listening(upstream) as local:
        _, writer = await begin_post(local.url, stream=stream)
        await until(lambda: upstream.started == 1)
        writer.close()
        await until(lambda: upstream.cancelled == 1)
        await local.rest()


async def test_the_end_of_a_reply_is_part_of_its_turn() -> None:
    """A drain waits for it."""
    async with listening() as local:
        reader, writer = await begin_post(local.url)
        assert b'"status":"completed"' in await read_body(reader)
        await until(lambda: local.gateway.services.drain.busy == 0)
        writer.close()


async def test_a_header_may_hold_the_idempotency_key_and_the_body_wins() -> None:
    upstream = ScriptedUpstream([say("one"), say("two")])
    body = {"model": "m", "input": "x"}
    async with listening(upstream) as local, aiohttp.ClientSession(local.url) as client:
        ids = []
        for key, fields in (("a", {}), ("a", {}), ("a", {"segue": {"idempotency_key": "b"}})):
            reply = await client.post("/v1/responses", json={**body, **fields}, headers={"Idempotency-Key": key})
            ids.append((await reply.json())["id"])
        first, again, other = ids
        assert first == again != other
    upstream.assert_done()


# --- stored responses ------------------------------------------------------------------------------------------------


async def test_a_stored_response_can_be_read_and_deleted() -> None:
    async with listening() as local, http(local.url) as client:
        made = await client.turn()
        assert await client.send("GET", f"/v1/responses/{made['id']}") == (200, made)
        deleted = {"id": made["id"], "object": "response", "deleted": True}
        assert await client.send("DELETE", f"/v1/responses/{made['id']}") == (200, deleted)
        assert await client.status(made["id"]) == 404
        assert await client.status(made["id"], "DELETE") == 404


async def test_a_response_that_comes_to_the_store_while_it_is_looked_for_is_found() -> None:
    """A turn whose gateway has died is dropped from the log as soon as its response is seen in the store."""
    store = LateStore()
    async with listening(store=store) as local, http(local.url) as client:
        made = await client.turn()
        store.late = True
        assert await client.send("GET", f"/v1/responses/{made['id']}") == (200, made)
        assert not store.late


@pytest.mark.parametrize("response_id", [UNKNOWN, "nonsense", "resp_%F0"])
@pytest.mark.parametrize("path", ["", "/input_items"])
async def test_an_unknown_response_is_not_found(response_id: str, path: str) -> None:
    async with listening() as local, http(local.url) as client:
        status, body = await client.send("GET", f"/v1/responses/{response_id}{path}")
        assert (status, error_of(body)) == (404, "response_not_found")


async def test_an_unstored_response_cannot_be_read() -> None:
    async with listening() as local, http(local.url) as client:
        made = await client.turn(store=False)
        assert await client.status(made["id"]) == 404


async def test_the_input_items_of_a_response_are_all_that_it_saw() -> None:
    script = [call("c", "f"), say("two")]
    answer = [{"type": "function_call_output", "call_id": "c", "output": "result"}]
    async with listening(ScriptedUpstream(script)) as local, http(local.url) as client:
        first = await client.turn("one")
        second = await client.turn(answer, previous_response_id=first["id"])
        assert await client.history(second["id"]) == ["one", "{}", "result"]
        status, body = await client.send("GET", f"/v1/responses/{second['id']}/input_items?limit=0")
        assert (status, error_of(body)) == (400, "invalid_value")
        status, body = await client.send("GET", f"/v1/responses/{second['id']}/input_items?after=item_unknown")
        assert (status, error_of(body)) == (404, "item_not_found")


@pytest.mark.parametrize("name", ["include", "include[]"])
async def test_encrypted_reasoning_is_shown_to_whom_asks_for_it(name: str) -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}
    message = {"type": "message", "role": "user", "content": "x"}
    async with listening() as local, http(local.url) as client:
        made = await client.turn([reasoning, message])
        path = f"/v1/responses/{made['id']}/input_items"
        _, hidden = await client.send("GET", path)
        _, shown = await client.send("GET", f"{path}?{name}=reasoning.encrypted_content")
        sealed = [[item.get("encrypted_content") for item in page["data"]] for page in (hidden, shown)]
        assert sealed == [[None, None], [None, "sealed"]]


# --- counting --------------------------------------------------------------------------------------------------------


async def test_the_tokens_of_an_input_are_counted_and_nothing_is_run() -> None:
    upstream = ScriptedUpstream([say("one")])
    async with listening(upstream) as local, http(local.url) as client:
        first = await client.turn("hello")
        fields = {"model": "m", "input": "hello"}
        status, alone = await client.send("POST", "/v1/responses/input_tokens", fields)
        assert (status, alone) == (
            200,
            {"object": "response.input_tokens", "input_tokens": first["usage"]["input_tokens"]},
        )
        again = {**fields, "previous_response_id": first["id"], "stream": True, "store": True}
        status, longer = await client.send("POST", "/v1/responses/input_tokens", again)
        assert status == 200
        assert longer["input_tokens"] > alone["input_tokens"]
        assert upstream.started == 1


@pytest.mark.parametrize(
    ("fields", "code"), [({"input": 7}, "invalid_type"), ({}, "missing_required_parameter"), ({"model": None}, None)]
)
async def test_a_body_that_is_no_turn_is_not_counted(fields: Json, code: str | None) -> None:
    async with listening() as local, http(local.url) as client:
        status, body = await client.send("POST", "/v1/responses/input_tokens", {"model": "m", **fields})
        assert (status, body["error"]["code"]) == (400, code or "missing_required_parameter")


async def test_the_items_of_very_many_turns_are_found_beside_the_event_loop() -> None:
    """Those of 50,000 turns take 200 ms."""
    threads: list[int] = []

    def runs_of(links: Sequence[ChainLink]) -> list[ItemRun]:
        threads.append(get_ident())
        return [ItemRun(link.input, link.id) for link in links]

    item = b'{"type":"message","role":"user","content":"x"}'
    link = ChainLink(id=sample_id("one"), expires_at=9.0, alive=True, input=(item,), output=(), calls=frozenset())
    few = await show_page([link], runs_of, Page(limit=1), encrypted=False)
    assert threads == [get_ident()]
    many = await show_page([link] * 2000, runs_of, Page(limit=1), encrypted=False)
    assert threads[1:] != [get_ident()]
    assert isinstance(few, bytes)
    assert many == few.replace(b'"has_more":false', b'"has_more":true')

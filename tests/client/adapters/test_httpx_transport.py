"""Requests of an SDK on sessions: what goes to the server, and what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from segue.client import AsyncClient
from segue.client.adapters.httpx_transport import SessionTransport
from segue.http.sse import SseReader
from segue.testing.response_events import called, said
from segue.testing.responses_faults import Cut, ErrorAt, FailAt, HoldAt
from segue.testing.responses_rules import OPENAI, CreateRefusal, playing
from segue.testing.responses_server import ScriptedResponsesServer, responding

Json = dict[str, Any]

LOOK = called("look", '{"at":"it"}', call_id="call_1")
ANSWER = {"type": "function_call_output", "call_id": "call_1", "output": "seen"}
MODEL = playing([LOOK], [said("Done.")], [said("Again.")])


class Sdk:
    """What an SDK does: it posts creates, and reads JSON or events."""

    def __init__(self, server: ScriptedResponsesServer, http: httpx2.AsyncClient) -> None:
        self.server = server
        self.http = http

    async def whole(self, given: object, **members: object) -> Json:
        reply = await self.post(given, **members)
        assert reply.status_code == 200, reply.text
        body: Json = reply.json()
        return body

    async def streamed(self, given: object, **members: object) -> list[Json]:
        reply = await self.post(given, stream=True, **members)
        assert reply.headers["content-type"] == "text/event-stream"
        return [json.loads(event.data) for event in SseReader().feed(reply.content)]

    async def post(self, given: object, **members: object) -> httpx2.Response:
        return await self.http.post("/responses", json={"model": "m", "input": given, **members})

    def sent(self, number: int) -> Json:
        return self.server.creates[number].create


@pytest.fixture
async def sdk() -> AsyncIterator[Sdk]:
    async with responding(OPENAI, model=MODEL) as server, sdk_of(server) as made:
        yield made


@asynccontextmanager
async def sdk_of(server: ScriptedResponsesServer, most_sessions: int = 64) -> AsyncIterator[Sdk]:
    async with AsyncClient(server.base_url, transport="websocket") as client:
        transport = SessionTransport(client, transport="websocket", most_sessions=most_sessions)
        async with httpx2.AsyncClient(transport=transport, base_url=server.base_url) as http:
            yield Sdk(server, http)


async def test_a_whole_history_becomes_what_is_new(sdk: Sdk) -> None:
    asked = [{"role": "user", "content": "Look."}]
    first = await sdk.whole(asked, instructions="Be short.", store=False)
    assert first["output"][0]["call_id"] == "call_1"
    second = await sdk.whole([*asked, *first["output"], ANSWER], instructions="Be long.", temperature=0.5)
    assert second["output"][0]["content"][0]["text"] == "Done."
    assert [sdk.sent(1)[name] for name in ("input", "previous_response_id")] == [[ANSWER], first["id"]]
    assert [sdk.sent(number)["instructions"] for number in (0, 1)] == ["Be short.", "Be long."]
    assert sdk.sent(1)["temperature"] == 0.5
    assert "temperature" not in sdk.sent(0)
    assert len(sdk.server.upgrades) == 1


async def test_a_response_id_finds_the_session_that_made_it(sdk: Sdk) -> None:
    first = await sdk.whole("Look.")
    second = await sdk.whole([ANSWER], previous_response_id=first["id"])
    third = await sdk.whole("And?", previous_response_id=second["id"])
    assert third["output"][0]["content"][0]["text"] == "Again."
    assert [create.create.get("previous_response_id") for create in sdk.server.creates] == [
        None,
        first["id"],
        second["id"],
    ]
    assert {create.transport for create in sdk.server.creates} == {"websocket"}


async def test_what_sessions_do_not_know_goes_on_unchanged(sdk: Sdk) -> None:
    first = await sdk.whole("Look.")
    await sdk.whole([ANSWER], previous_response_id=first["id"])
    again = await sdk.whole([ANSWER], previous_response_id=first["id"])  # its session has gone on
    assert again["output"]
    assert [create.transport for create in sdk.server.creates] == ["websocket", "websocket", "http"]
    assert (await sdk.http.get("/models")).status_code == 404
    assert (await sdk.http.post("/responses", content=b"{")).status_code == 400
    assert sdk.server.creates[-1].transport == "http"


async def test_a_stream_has_the_standard_events(sdk: Sdk) -> None:
    events = await sdk.streamed("Look.")
    assert [event["type"] for event in events][:2] == ["response.created", "response.in_progress"]
    last = events[-1]
    assert last["type"] == "response.completed"
    assert last["response"]["output"][0]["name"] == "look"
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(set(numbers))
    again = await sdk.streamed([{"role": "user", "content": "Look."}, *last["response"]["output"], ANSWER])
    assert sdk.sent(1)["input"] == [ANSWER]
    assert again[-1]["response"]["output"][0]["content"][0]["text"] == "Done."


async def test_refusals_have_the_servers_status_and_are_not_retried(sdk: Sdk) -> None:
    refusal = CreateRefusal(status=400, code="model_not_found", message="No such model.", param="model")
    sdk.server.plan(ErrorAt(refusal=refusal), ErrorAt(refusal=refusal))
    for reply in [await sdk.post("Look."), await sdk.post("Look.", stream=True)]:
        assert reply.status_code == 400
        assert reply.headers["x-should-retry"] == "false"
        error = reply.json()["error"]
        assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert len(sdk.server.creates) == 2


async def test_a_turn_that_failed_tells_so(sdk: Sdk) -> None:
    sdk.server.plan(FailAt(), FailAt(), Cut(at="events", events=3))
    reply = await sdk.post("Look.")
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "server_error")
    events = await sdk.streamed("Look.")
    assert events[-1]["type"] == "error"
    assert events[-1]["code"] == "server_error"
    cut = await sdk.streamed("Look.", store=False)
    assert cut[-1]["type"] == "error"
    assert cut[-1]["code"] == "OutcomeUnknownError"
    assert len(sdk.server.executions) == 3


async def test_a_server_that_cannot_be_reached() -> None:
    async with responding(OPENAI, model=MODEL) as server:
        pass
    async with AsyncClient(server.base_url, transport="http") as client:
        transport = SessionTransport(client, transport="http", turn_timeout_s=0.05)
        async with httpx2.AsyncClient(transport=transport, base_url=server.base_url) as http:
            with pytest.raises(httpx2.ConnectError, match="Nothing was sent"):
                await http.post("/responses", json={"model": "m", "input": "Look."})


async def test_a_stream_that_is_left_cancels_its_turn(sdk: Sdk) -> None:
    sdk.server.plan(HoldAt(gate=asyncio.Event(), events=3))
    body = {"model": "m", "input": "Look.", "stream": True, "store": False}
    async with sdk.http.stream("POST", "/responses", json=body) as reply:
        async for line in reply.aiter_lines():
            if "response.created" in line:
                break
    assert (await sdk.whole("Look."))["status"] == "completed"


async def test_conversations_that_are_given_up_are_sent_whole() -> None:
    async with responding(OPENAI, model=MODEL) as server, sdk_of(server, most_sessions=1) as sdk:
        one = await sdk.whole("One.")
        await sdk.whole("Two.")
        given = [{"role": "user", "content": "One."}, *one["output"], ANSWER]
        await sdk.whole(given)
        assert len(sdk.sent(2)["input"]) == 3
        assert "previous_response_id" not in sdk.sent(2)

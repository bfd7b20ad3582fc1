"""Steering with the openai SDK, and in front of a provider: a response is told more, and another goes on with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack

from segue.config import UpstreamConfig
from segue.http.heads import Line
from segue.testing.provider import Answer, ReceivedRequest, provided
from segue.testing.response_events import ResponseIdentity, response_events, said
from segue.testing.response_schemas import Json
from segue.upstreams.scripted import MODEL, EndItem, Say, ScriptedTurn, Wait, say
from tests.integration.clients import Socket
from tests.integration.gateway import Start
from tests.integration.providers import gateway


async def test_the_sdk_steers_a_running_response(start: Start) -> None:
    from openai import AsyncOpenAI

    gate = asyncio.Event()
    first = ScriptedTurn((Say(("one",)), EndItem(), Wait(gate), Say(("two",)), EndItem(), Wait(gate)))
    running = await start(first, say("done"))
    tap = await running.tap()
    client = AsyncOpenAI(base_url=f"{tap.url}/v1", api_key="x")
    target, reason = "", ""
    async with client, client.responses.connect() as connection:
        await connection.response.create(model=MODEL, input="go", store=False)
        async for event in connection:
            if event.type == "response.created":
                target = event.response.id
            elif event.type == "response.output_item.done" and not gate.is_set():
                await connection.response.steer(previous_response_id=target, input="more")
            elif event.type == "response.steer.accepted":
                assert event.steer.previous_response_id == target
                gate.set()
            elif event.type == "response.incomplete" and event.response.incomplete_details is not None:
                reason = str(event.response.incomplete_details.reason)
            elif event.type == "response.completed":
                assert event.response.output_text == "done"
                break
    assert reason == "steered"
    assert [len(items) for items in running.seen()] == [1, 4]


async def test_a_provider_is_hung_up_on_between_two_items() -> None:
    """What it would have said next is nobody's; the second request has what it said, and what the user said since."""
    first, never = asyncio.Event(), asyncio.Event()

    def answer(request: ReceivedRequest) -> Answer:
        create = json.loads(request.body or b"")
        outputs = (("one", "two", "three"), ("done",))[request.number]
        identity = ResponseIdentity(create=create, response_id=f"resp_{request.number}", created_at=1)
        events = response_events(identity, [{**said(text), "id": f"msg_{text}"} for text in outputs])
        lines = (Line(b"Content-Type", b"text/event-stream"),)
        if request.number:
            return Answer(lines=lines, pieces=(sse(events),))
        done = [place + 1 for place, event in enumerate(events) if event["type"] == "response.output_item.done"]
        pieces = (sse(events[: done[0]]), sse(events[done[0] : done[1]]), sse(events[done[1] :]))
        return Answer(lines=lines, pieces=pieces, gates={1: first, 2: never})

    async with provided(answer) as provider, AsyncExitStack() as stack:
        config = UpstreamConfig(name="far", dialect="responses", base_url=provider.url, models=["m"])
        socket = await stack.enter_async_context(Socket(await stack.enter_async_context(gateway(config))))
        await socket.create(model="m", input="go", store=False)
        frame = await socket.frame()
        target = frame["response"]["id"]
        while frame["type"] != "response.output_item.done":
            frame = await socket.frame()
        await socket.send({"type": "response.steer", "previous_response_id": target, "input": "more"})
        assert (await socket.frame())["type"] == "response.steer.accepted"
        first.set()
        assert [turn.response["status"] for turn in [await socket.turn(), await socket.turn()] if turn.response] == [
            "incomplete",
            "completed",
        ]
        await provider.abandoned(0)
        sent = json.loads(provider.requests[1].body or b"")["input"]
        assert [item["content"][0]["text"] for item in sent] == ["go", "one", "two", "more"]


def sse(events: Sequence[Json]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in events)

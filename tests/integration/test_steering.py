"""Steering with the openai SDK: a running response is told more, and another one goes on with it."""

from __future__ import annotations

import asyncio

from segue.upstreams.scripted import MODEL, EndItem, Say, ScriptedTurn, Wait, say
from tests.integration.gateway import Start


async def test_the_sdk_steers_a_running_response(start: Start) -> None:
    from openai import AsyncOpenAI

    gate = asyncio.Event()
    first = ScriptedTurn((Say(("one",)), EndItem(), Wait(gate), Say(("two",)), EndItem(), Wait(gate)))
    gateway = await start(first, say("done"))
    tap = await gateway.tap()
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
    assert [len(items) for items in gateway.seen()] == [1, 4]

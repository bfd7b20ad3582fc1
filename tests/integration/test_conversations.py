"""Conversations as clients use them: the openai SDK over JSON, SSE and WebSocket, several at once, and other doors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from segue.upstreams.scripted import MODEL, CallTool, Say, ScriptedTurn, Wait, say
from tests.integration.gateway import Start

TOOL: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}


def hello(text: str) -> Any:  # noqa: ANN401 - the SDK has a union of dictionaries here
    return {"type": "message", "role": "user", "content": text}


def use_the_sdk(url: str) -> None:
    import openai
    from openai import OpenAI
    from openai.types.conversations import Conversation, ConversationItemList

    with OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        talk = client.conversations.create(items=[hello("Be brief.")], metadata={"topic": "weather"})
        Conversation.model_validate(talk.to_dict(), strict=True)
        first = client.responses.create(model=MODEL, input="Oslo?", conversation=talk.id, tools=[TOOL])
        assert first.conversation is not None
        assert first.conversation.id == talk.id
        output: Any = {"type": "function_call_output", "call_id": "call_1", "output": "4"}
        with client.responses.stream(model=MODEL, input=[output], conversation={"id": talk.id}) as events:
            assert events.get_final_response().output_text == "4 degrees."
        added = client.conversations.items.create(talk.id, items=[hello("Rome is warmer.")])
        ConversationItemList.model_validate(added.to_dict(), strict=True)
        items = list(client.conversations.items.list(talk.id, limit=2, order="asc"))
        assert [item.type for item in items] == [
            *("message", "message", "message", "function_call"),
            *("function_call_output", "message", "message"),
        ]
        one = client.conversations.items.retrieve(items[-1].id, conversation_id=talk.id)
        assert one.to_dict() == items[-1].to_dict()
        assert client.conversations.items.delete(items[0].id, conversation_id=talk.id).id == talk.id
        assert client.conversations.update(talk.id, metadata={"topic": "all"}).metadata == {"topic": "all"}
        assert client.conversations.retrieve(talk.id).metadata == {"topic": "all"}
        with client.responses.connect() as connection:
            connection.response.create(model=MODEL, input="And there?", conversation=talk.id)
            last = next(event.response for event in connection if event.type == "response.completed")
            assert last.output_text == "21."
            connection.response.create(model=MODEL, input="Sure?", previous_response_id=last.id)
            forked = next(event.response for event in connection if event.type == "response.completed")
            assert forked.conversation is None
        assert client.conversations.delete(talk.id).deleted
        with pytest.raises(openai.NotFoundError) as caught:
            client.responses.create(model=MODEL, input="Gone?", conversation=talk.id)
        assert caught.value.code == "conversation_not_found"


async def test_the_sdk_uses_all_of_the_api(start: Start) -> None:
    """One conversation over every transport; the model sees all of it each time."""
    gateway = await start(
        ScriptedTurn((Say(("Let me see.",)), CallTool("call_1", "weather", "{}"))),
        say("4 degrees."),
        say("21."),
        say("Yes."),
    )
    tap = await gateway.tap()
    await asyncio.to_thread(use_the_sdk, tap.url)
    assert [len(items) for items in gateway.seen()] == [2, 5, 7, 9]


async def test_of_two_clients_at_once_one_is_told_to_wait(start: Start) -> None:
    """Over HTTP and in WebSocket mode; each create that was accepted is in the conversation once."""
    event = asyncio.Event()
    gateway = await start(ScriptedTurn((Say(("slow",)), Wait(event))), say("next"))
    http, other, socket = await gateway.http(), await gateway.http(), await gateway.socket()
    talk: Any = (await http.request("POST", "/v1/conversations", data="{}")).body["id"]
    running = asyncio.create_task(http.create(input="a", conversation=talk))
    while True:
        refused = await other.request(
            "POST", f"/v1/conversations/{talk}/items", data=json.dumps({"items": [hello("x")]})
        )
        if refused.status == 400:
            break
        await other.request("DELETE", f"/v1/conversations/{talk}/items/{refused.body['first_id']}")
    assert refused.body["error"]["code"] == "conversation_locked"
    locked = await other.create(input="b", conversation=talk)
    assert (locked.status, locked.body["error"]["code"]) == (400, "conversation_locked")
    await socket.create(input="c", conversation=talk)
    error = await socket.frame()
    assert (error["error"]["code"], error["status"]) == ("conversation_locked", 400)
    event.set()
    assert (await running).status == 200
    assert (await other.create(input="d", conversation=talk)).status == 200
    listed = await http.request("GET", f"/v1/conversations/{talk}/items?order=asc")
    assert [item["content"][0]["text"] for item in listed.body["data"]] == ["a", "slow", "d", "next"]

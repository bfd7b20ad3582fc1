"""The behaviours that the official suite of Open Responses looks for, under its own names. Everything that comes back
goes through the checker, which asks for more than the suite does. Like the suite, one test asks for all at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from openresponses_types.types import CompactResource

from segue.testing.protocol_checker import Json, StreamChecker, check_event
from tests.integration.clients import Http, Socket
from tests.integration.gateway import listening
from tests.integration.test_llm_comply import MODEL, Obliging

Behaviour: TypeAlias = Callable[[str], Awaitable[None]]

PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TOOL: Json = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}
UNKNOWN = f"resp_{'0' * 40}"


def user(text: str) -> Json:
    return {"type": "message", "role": "user", "content": text}


def assistant(text: str, **fields: object) -> Json:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}], **fields}


def check_completed(response: Json | None, kind: str = "message") -> Json:
    """The object itself was checked when it came."""
    assert response is not None
    assert response["status"] == "completed"
    assert [item["type"] for item in response["output"]] == [kind]
    return response


async def over_http(url: str, *items: Json, **fields: object) -> Json:
    async with Http(url) as http:
        reply = await http.create(model=MODEL, input=list(items), **fields)
        assert reply.status == 200
        return reply.body


async def asked(socket: Socket, given: object, **fields: object) -> StreamChecker:
    return await socket.ask(model=MODEL, store=False, input=given, **fields)


def ident(turn: StreamChecker) -> str:
    return str(check_completed(turn.response)["id"])


def code(turn: StreamChecker) -> str:
    assert turn.error is not None
    assert len(turn.frames) == 1, "a refused create is one frame"
    return str(turn.error["code"])


async def basic_response(url: str) -> None:
    check_completed(await over_http(url, user("Say hello.")))


async def assistant_phase(url: str) -> None:
    commentary, final = assistant("Let me see.", phase="commentary"), assistant("Hello.", phase="final_answer")
    check_completed(await over_http(url, commentary, final, user("Again.")))


async def response_output_phase_schema(url: str) -> None:
    """The suite checks itself here: an output message with a phase is a good event."""
    del url
    item = {**assistant("hi"), "id": "msg_1", "status": "completed", "phase": "final_answer"}
    item["content"] = [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}]
    frame: Json = {"type": "response.output_item.done", "sequence_number": 5, "output_index": 0, "item": item}
    check_event(frame, transport="sse")


async def streaming_response(url: str) -> None:
    async with Http(url) as http:
        turn = await http.stream(model=MODEL, input=[user("Count.")])
    check_completed(turn.response)


async def system_prompt(url: str) -> None:
    check_completed(await over_http(url, {"type": "message", "role": "system", "content": "Be brief."}, user("Hi.")))


async def tool_calling(url: str) -> None:
    check_completed(await over_http(url, user("How is the weather?"), tools=[TOOL]), "function_call")


async def image_input(url: str) -> None:
    parts = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": PNG}]
    check_completed(await over_http(url, {"type": "message", "role": "user", "content": parts}))


async def multi_turn(url: str) -> None:
    check_completed(await over_http(url, user("I am Ann."), assistant("Hello, Ann."), user("Who am I?")))


async def websocket_response(url: str) -> None:
    async with Socket(url) as socket:
        check_completed((await asked(socket, [user("Say hello.")])).response)


async def websocket_sequential_responses(url: str) -> None:
    async with Socket(url) as socket:
        for text in ("One.", "Two."):
            check_completed((await asked(socket, text)).response)


async def websocket_continuation(url: str) -> None:
    async with Socket(url) as socket:
        first = await asked(socket, "Remember seven.")
        second = await asked(socket, "What was it?", previous_response_id=ident(first))
        assert check_completed(second.response)["previous_response_id"] == ident(first)


async def websocket_reconnect_store_false_recovery(url: str) -> None:
    async with Socket(url) as socket:
        lost = ident(await asked(socket, "One."))
    async with Socket(url) as socket:
        assert code(await asked(socket, "Two.", previous_response_id=lost)) == "previous_response_not_found"
        check_completed((await asked(socket, [user("One."), assistant("Yes."), user("Two.")])).response)


async def websocket_previous_response_not_found(url: str) -> None:
    async with Socket(url) as socket:
        assert code(await asked(socket, "Hi.", previous_response_id=UNKNOWN)) == "previous_response_not_found"


async def websocket_failed_continuation_evicts_cache(url: str) -> None:
    output = {"type": "function_call_output", "call_id": "call_unknown", "output": "done"}
    async with Socket(url) as socket:
        first = ident(await asked(socket, "One."))
        assert code(await asked(socket, [output], previous_response_id=first)) == "tool_call_not_found"
        assert code(await asked(socket, "Two.", previous_response_id=first)) == "previous_response_not_found"


async def compacted(url: str) -> Json:
    messages = [user("I am Ann."), assistant("Hello, Ann.")]
    async with Http(url) as http:
        data = {"model": MODEL, "input": messages, "prompt_cache_key": "a-key"}
        reply = await http.request("POST", "/v1/responses/compact", data=data)
    assert reply.status == 200, reply.body
    CompactResource.model_validate(reply.body)
    return reply.body


async def compact_response(url: str) -> None:
    window = await compacted(url)
    assert window["object"] == "response.compaction"
    assert [item["type"] for item in window["output"]] == ["message", "compaction"]
    assert (window["output"][0]["role"], window["usage"]["output_tokens"]) == ("user", 5)


async def compact_missing_model(url: str) -> None:
    async with Http(url) as http:
        reply = await http.request("POST", "/v1/responses/compact", data={"input": "hi"})
        assert (reply.status, reply.error["param"]) == (400, "model")


async def websocket_compact_new_chain(url: str) -> None:
    window = await compacted(url)
    async with Socket(url) as socket:
        turn = await asked(socket, [*window["output"], user("Who am I?")], tools=[])
        assert check_completed(turn.response)["previous_response_id"] is None


BEHAVIOURS: tuple[Behaviour, ...] = (
    basic_response,
    assistant_phase,
    response_output_phase_schema,
    streaming_response,
    system_prompt,
    tool_calling,
    image_input,
    multi_turn,
    compact_response,
    compact_missing_model,
    websocket_response,
    websocket_sequential_responses,
    websocket_continuation,
    websocket_reconnect_store_false_recovery,
    websocket_previous_response_not_found,
    websocket_failed_continuation_evicts_cache,
    websocket_compact_new_chain,
)


@pytest.mark.parametrize("profile", ["openai", "serial"])
@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.__name__.replace("_", "-"))
async def test_a_behaviour(behaviour: Behaviour, profile: str) -> None:
    async with listening(Obliging(), model=MODEL, server={"profile": profile}) as (_, url):
        await behaviour(url)


@pytest.mark.parametrize("profile", ["openai", "serial"])
async def test_all_behaviours_at_once(profile: str) -> None:
    async with listening(Obliging(), model=MODEL, server={"profile": profile}) as (_, url):
        await asyncio.gather(*(behaviour(url) for behaviour in BEHAVIOURS))


def test_these_are_all_that_the_suite_has() -> None:
    assert len(BEHAVIOURS) == 17

"""The openai SDK as a client, blocking and asynchronous, over JSON, SSE and WebSocket. It builds its objects without
checking them, so everything it receives goes through a tap to the checker.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pytest
from websockets.exceptions import InvalidStatus

from segue.testing.protocol_checker import Json
from segue.upstreams.scripted import MODEL, CallTool, Say, ScriptedTurn, call, say
from tests.integration.gateway import Start, key

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI
    from openai.types.responses import Response


Request: TypeAlias = dict[str, Any]
Ask: TypeAlias = "Callable[[Request], Response]"
AskAsync: TypeAlias = "Callable[[Request], Awaitable[Response]]"
Talk: TypeAlias = "Generator[Request, Response, None]"
Transport: TypeAlias = Literal["json", "sse", "helper", "websocket"]

UNKNOWN = f"resp_{'0' * 40}"
TOOL = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
SCRIPT = (
    ScriptedTurn((Say(("Let me ", "see.")), CallTool("call_1", "weather", '{"city":"Oslo"}'))),
    say("4 degrees."),
    call("call_2", "weather", '{"city":"Rome"}'),
    say("21", " degrees."),
)

#: By transport: how many turns on a WebSocket, streams and bodies such a conversation is.
COUNTED = {"websocket": (4, 0, 0), "json": (0, 0, 4)}


def talk(*, store: bool, chained: bool) -> Talk:
    """Four turns: each asks, or answers the calls of the turn before; as deltas, or the whole history each time."""
    questions = iter(("How warm is it in Oslo?", "And in Rome?"))
    history: list[Any] = []
    calls: list[Any] = []
    parent: str | None = None
    for _ in SCRIPT:
        news: list[Any] = [{"type": "function_call_output", "call_id": c.call_id, "output": c.arguments} for c in calls]
        news = news or [{"role": "user", "content": next(questions)}]
        history += news
        request: Request = {"model": MODEL, "tools": [TOOL], "store": store, "input": news if chained else history}
        response = yield {**request, "previous_response_id": parent} if chained and parent else request
        history += response.output
        calls = [item for item in response.output if item.type == "function_call"]
        parent = response.id


def final(events: Iterator[Any]) -> Response:
    """Read events up to the completed response."""
    response: Response = next(event.response for event in events if event.type == "response.completed")
    return response


@contextmanager
def asking(client: OpenAI, transport: Transport) -> Iterator[Ask]:
    def stream(request: Request) -> Response:
        with client.responses.create(**request, stream=True) as events:
            return final(events)

    def helper(request: Request) -> Response:
        with client.responses.stream(**request) as events:
            return events.get_final_response()

    if transport == "websocket":
        with client.responses.connect() as connection:

            def send(request: Request) -> Response:
                connection.response.create(**request)
                return final(iter(connection))

            yield send
    else:
        yield {"json": lambda request: client.responses.create(**request), "sse": stream, "helper": helper}[transport]


@asynccontextmanager
async def asking_async(client: AsyncOpenAI, transport: Transport) -> AsyncIterator[AskAsync]:
    async def first(events: AsyncIterator[Any]) -> Response:
        return final(iter([event async for event in _until_completed(events)]))

    async def stream(request: Request) -> Response:
        async with await client.responses.create(**request, stream=True) as events:
            return await first(events)

    async def helper(request: Request) -> Response:
        async with client.responses.stream(**request) as events:
            return await events.get_final_response()

    if transport == "websocket":
        async with client.responses.connect() as connection:

            async def send(request: Request) -> Response:
                await connection.response.create(**request)
                return await first(aiter(connection))

            yield send
    else:
        yield {"json": lambda request: client.responses.create(**request), "sse": stream, "helper": helper}[transport]


async def _until_completed(events: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for event in events:
        yield event
        if event.type == "response.completed":
            return


def hold(url: str, transport: Transport, conversation: Talk) -> list[Response]:
    """Hold the conversation with the blocking client."""
    from openai import OpenAI

    responses: list[Response] = []
    with OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client, asking(client, transport) as ask:
        request = next(conversation, None)
        while request is not None:
            responses.append(ask(request))
            request = _go_on(conversation, responses[-1])
    return responses


async def hold_async(url: str, transport: Transport, conversation: Talk) -> list[Response]:
    """Hold the conversation with the asynchronous client."""
    from openai import AsyncOpenAI

    responses: list[Response] = []
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
    async with client, asking_async(client, transport) as ask:
        request = next(conversation, None)
        while request is not None:
            responses.append(await ask(request))
            request = _go_on(conversation, responses[-1])
    return responses


def _go_on(conversation: Talk, response: Response) -> Request | None:
    try:
        return conversation.send(response)
    except StopIteration:
        return None


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize(
    ("transport", "store", "chained"),
    [
        ("json", True, True),
        ("sse", True, True),
        ("helper", True, True),
        ("websocket", True, True),
        ("websocket", False, True),  # over HTTP an unstored response cannot be continued
        ("json", False, False),
        ("sse", False, False),
        ("helper", True, False),
        ("websocket", False, False),
    ],
)
async def test_a_conversation_with_tools(
    start: Start, transport: Transport, store: bool, chained: bool, blocking: bool
) -> None:
    gateway = await start(*SCRIPT)
    tap = await gateway.tap()
    conversation = talk(store=store, chained=chained)
    if blocking:
        responses = await asyncio.to_thread(hold, tap.url, transport, conversation)
    else:
        responses = await hold_async(tap.url, transport, conversation)
    assert [response.output_text for response in responses] == ["Let me see.", "4 degrees.", "", "21 degrees."]
    tap.judge()
    assert (tap.turns, tap.streams, tap.bodies) == COUNTED.get(transport, (0, 4, 0))
    assert [len(asked["input"]) for asked in tap.asked] == ([1, 1, 1, 1] if chained else [1, 4, 6, 8])
    assert [response["store"] for response in tap.responses] == [store] * 4
    check_history(gateway.seen()[-1], tap.responses)


def check_history(seen: list[Any], responses: list[Json]) -> None:
    """The model saw everything once and in order, with its own output as it had gone out."""
    kinds = [item.get("type", "message") for item in seen]
    calling = ["function_call", "function_call_output"]
    assert kinds == ["message", "message", *calling, "message", "message", *calling]
    assert [item["output"] for item in seen if "output" in item] == ['{"city":"Oslo"}', '{"city":"Rome"}']
    made = [item for response in responses[:-1] for item in response["output"]]
    assert [item for item in seen if "status" in item] == made


# --------------------------------------------------------------------------------------------------- stored responses


def use_the_store(url: str) -> None:
    import openai
    from openai import OpenAI

    with OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        first = client.responses.create(model=MODEL, input="How warm is it?", metadata={"a": "b"})
        second = client.responses.create(model=MODEL, input="And there?", previous_response_id=first.id)
        assert client.responses.retrieve(first.id).to_dict() == first.to_dict()
        assert client.responses.retrieve(second.id).previous_response_id == first.id
        for limit in (1, 20):
            items = list(client.responses.input_items.list(second.id, limit=limit, order="asc"))
            assert [item.to_dict()["content"] for item in items] == _contents(first)
        newest = client.responses.input_items.list(second.id).data[0]
        assert newest.to_dict()["content"] == _contents(first)[-1]
        client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError) as caught:
            client.responses.retrieve(first.id)
        assert caught.value.code == "response_not_found"
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model=MODEL, input="And here?", previous_response_id=first.id)
        assert refused.value.code == "previous_response_not_found"
        third = client.responses.create(model=MODEL, input="Still there?", previous_response_id=second.id)
        assert third.output_text == "three"
        assert [model.id for model in client.models.list()] == [MODEL]


async def use_the_store_async(url: str) -> None:
    import openai
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        first = await client.responses.create(model=MODEL, input="How warm is it?", metadata={"a": "b"})
        second = await client.responses.create(model=MODEL, input="And there?", previous_response_id=first.id)
        assert (await client.responses.retrieve(first.id)).to_dict() == first.to_dict()
        items = [item async for item in client.responses.input_items.list(second.id, limit=1, order="asc")]
        assert [item.to_dict()["content"] for item in items] == _contents(first)
        await client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.delete(first.id)
        third = await client.responses.create(model=MODEL, input="Still there?", previous_response_id=second.id)
        assert third.output_text == "three"
        assert [model.id async for model in client.models.list()] == [MODEL]


def _contents(first: Response) -> list[object]:
    asked = [[{"type": "input_text", "text": text}] for text in ("How warm is it?", "And there?")]
    return [asked[0], first.output[0].to_dict()["content"], asked[1]]


@pytest.mark.parametrize("blocking", [True, False])
async def test_stored_responses_can_be_read_continued_and_deleted(start: Start, blocking: bool) -> None:
    gateway = await start(say("one"), say("two"), say("three"))
    tap = await gateway.tap()
    if blocking:
        await asyncio.to_thread(use_the_store, tap.url)
    else:
        await use_the_store_async(tap.url)
    assert len(gateway.seen()[-1]) == 5


async def test_stored_responses_are_listed_page_by_page_as_the_sdk_lists_completions(start: Start) -> None:
    """It has no method for this list; its pages and its parameters fit."""
    from openai import AsyncOpenAI
    from openai.pagination import AsyncCursorPage
    from openai.types.responses import Response

    gateway = await start(*[say("ok")] * 5)
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="x") as client:
        made = [
            await client.responses.create(model=MODEL, input="hi", metadata={"a b": str(number % 2)})
            for number in range(5)
        ]
        listed = client.get_api_list(
            "/responses",
            page=AsyncCursorPage[Response],
            model=Response,
            options={"params": {"limit": 2, "order": "asc", "metadata": {"a b": "0"}}},
        )
        assert [response.id async for response in listed] == [made[number].id for number in (0, 2, 4)]


CALLED: list[Json] = [
    {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
    {"type": "custom_tool_call", "call_id": "call_2", "name": "edit", "input": "text"},
]
SENT: list[Json] = [
    {"role": "user", "content": "hi"},
    {"role": "developer", "content": [{"type": "input_text", "text": "hi"}]},
    {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]},
    {"role": "assistant", "content": "hello"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    *CALLED,
    {"type": "function_call_output", "call_id": "call_1", "output": "done"},
    {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "done"}]},
    {"type": "custom_tool_call_output", "call_id": "call_2", "output": "done"},
    {"type": "reasoning", "summary": []},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "AA=="},
]


@pytest.mark.parametrize("item", SENT, ids=lambda item: item.get("type", item.get("role")))
async def test_an_item_that_left_things_out_is_listed_complete(start: Start, item: Json) -> None:
    from openai.types.responses import ResponseItemList

    gateway = await start(say("ok"))
    http = await gateway.http()
    response = (await http.create(input=[*CALLED, item])).body
    query = "order=asc&include[]=reasoning.encrypted_content"
    listed = await http.request("GET", f"/v1/responses/{response['id']}/input_items?{query}")
    ResponseItemList.model_validate_json(http.last, strict=True)
    assert len({shown["id"] for shown in listed.body["data"]}) == 3
    kept = item.keys() - {"content"}
    assert {name: listed.body["data"][2][name] for name in kept} == {name: item[name] for name in kept}


async def test_a_compaction_that_a_client_sends_back_is_listed_complete(start: Start) -> None:
    from openai.types.responses import ResponseItemList

    gateway = await start(say("a summary"), say("ok"))
    http = await gateway.http()
    made = (await http.request("POST", "/v1/responses/compact", data={"model": "scripted", "input": "hi"})).body
    item = next(one for one in made["output"] if one["type"] == "compaction")
    response = (await http.create(input=[item, {"role": "user", "content": "hi"}])).body
    listed = await http.request("GET", f"/v1/responses/{response['id']}/input_items?order=asc")
    ResponseItemList.model_validate_json(http.last, strict=True)
    assert listed.body["data"][0]["encrypted_content"] == item["encrypted_content"]


# -------------------------------------------------------------------------------------------------------------- errors

REFUSALS = [
    ({"temperature": 7}, "BadRequestError", "invalid_value", "temperature"),
    ({"input": []}, "BadRequestError", "missing_required_parameter", "input"),
    ({"conversation": "conv_1"}, "NotFoundError", "conversation_not_found", "conversation"),
    ({"previous_response_id": UNKNOWN}, "BadRequestError", "previous_response_not_found", "previous_response_id"),
    ({"model": "gpt-0"}, "NotFoundError", "model_not_found", "model"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fields", "kind", "code", "param"), REFUSALS)
async def test_refusals_are_the_exceptions_that_programs_catch(
    start: Start, fields: Request, kind: str, code: str, param: str, stream: bool
) -> None:
    import openai
    from openai import AsyncOpenAI, OpenAI

    tap = await (await start()).tap()
    request: Request = {"model": MODEL, "input": "hi", "stream": stream, **fields}

    def blocking() -> None:
        with OpenAI(base_url=f"{tap.url}/v1", api_key="x", max_retries=0) as client:
            client.responses.create(**request)

    async with AsyncOpenAI(base_url=f"{tap.url}/v1", api_key="x", max_retries=0) as client:
        with pytest.raises(vars(openai)[kind]) as caught:
            await client.responses.create(**request)
    with pytest.raises(vars(openai)[kind]) as again:
        await asyncio.to_thread(blocking)
    for error in (caught.value, again.value):
        assert (error.code, error.param, error.type) == (code, param, "invalid_request_error")


async def test_a_wrong_key_is_an_authentication_error(start: Start) -> None:
    import openai
    from openai import AsyncOpenAI

    tap = await (await start(keys=[key("alice")])).tap()
    async with AsyncOpenAI(base_url=f"{tap.url}/v1", api_key="sk-bob", max_retries=0) as client:
        for attempt in (client.responses.create(model=MODEL, input="hi"), client.responses.retrieve(UNKNOWN)):
            with pytest.raises(openai.AuthenticationError) as caught:
                await attempt
            assert (caught.value.status_code, caught.value.code) == (401, "invalid_api_key")


@pytest.mark.parametrize(("fields", "kind", "code", "param"), REFUSALS)
async def test_refusals_on_a_socket_are_events_with_the_same_codes(
    start: Start, fields: Request, kind: str, code: str, param: str
) -> None:
    from openai import AsyncOpenAI

    gateway = await start(say("still here"))
    tap = await gateway.tap()
    client = AsyncOpenAI(base_url=f"{tap.url}/v1", api_key="x")
    async with client, client.responses.connect() as connection:
        await connection.response.create(**{"model": MODEL, "input": "hi", **fields})
        event = await connection.recv()
        assert event.type == "error"
        assert event.error is not None
        assert (event.error.code, event.error.param) == (code, param)
        assert event.status == {"BadRequestError": 400, "NotFoundError": 404}[kind]
        await connection.response.create(model=MODEL, input="hi")
        events = [event async for event in _until_completed(aiter(connection))]
        assert final(iter(events)).output_text == "still here"


async def test_a_failed_upgrade_tells_why(start: Start) -> None:
    from openai import AsyncOpenAI

    tap = await (await start(keys=[key("alice")])).tap()
    async with AsyncOpenAI(base_url=f"{tap.url}/v1", api_key="sk-bob") as client:
        with pytest.raises(InvalidStatus) as caught:
            await client.responses.connect().enter()
    assert caught.value.response.status_code == 401
    assert b"invalid_api_key" in (caught.value.response.body or b"")


# ------------------------------------------------------------------------------------------------------------- session


async def test_the_session_of_the_sdk_works_on_the_default_lane(start: Start) -> None:
    from openai import AsyncOpenAI
    from openai.lib.responses_websocket import (
        AsyncResponsesWebSocketSession,
        ResponsesWebSocketError,
        ResponsesWebSocketLimits,
    )

    gateway = await start(say("one"), say("two"))
    tap = await gateway.tap()
    limits = ResponsesWebSocketLimits(
        max_lanes=1, max_events_per_lane=64, max_events=64, max_bytes_per_lane=1 << 20, max_bytes=1 << 20
    )
    client = AsyncOpenAI(base_url=f"{tap.url}/v1", api_key="x")
    async with (
        client,
        client.responses.connect() as connection,
        AsyncResponsesWebSocketSession(connection, limits=limits) as session,
    ):
        lane = session.default
        await lane.send({"type": "response.create", "model": MODEL, "input": "1", "store": False})
        first = await lane.get_final_response()
        await lane.send({"type": "response.create", "model": MODEL, "input": "2", "previous_response_id": UNKNOWN})
        with pytest.raises(ResponsesWebSocketError):
            await lane.get_final_response()
        await lane.send(
            {
                "type": "response.create",
                "model": MODEL,
                "input": "2",
                "store": False,
                "previous_response_id": first.id,
            }
        )
        assert (await lane.get_final_response()).output_text == "two"
    assert [len(items) for items in gateway.seen()] == [1, 3]


async def test_a_lean_stream_is_read_as_events_that_are_known(start: Start) -> None:
    """Its typed events, not its helpers, which need every one of them. It asks for gzip by itself."""
    from openai import AsyncOpenAI

    gateway = await start(ScriptedTurn((Say(("one ", "two")), CallTool("call_1", "look", '{"at":1}'))))
    seen: list[object] = []
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:
        lean = {"segue": {"lean": True}}
        async with await client.responses.create(model=MODEL, input="hi", stream=True, extra_body=lean) as events:
            assert events.response.headers["Content-Encoding"] == "gzip"
            async for event in events:
                match event.type:
                    case "response.output_text.delta":
                        seen.append(event.delta)
                    case "response.output_item.done" if event.item.type == "message":
                        seen.append(event.item.content[0].to_dict()["text"])
                    case "response.output_item.done" if event.item.type == "function_call":
                        seen.append((event.item.call_id, event.item.arguments))
                    case "response.completed":
                        assert event.response.usage is not None
                        seen.append(event.response.output)
                    case _:
                        pass
    assert seen == ["one two", "one two", ("call_1", '{"at":1}'), []]

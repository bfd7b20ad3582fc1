"""Reasoning that only its provider can read: the provider gets it back, and clients see it only if they ask for it."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from segue.testing.response_schemas import Json
from tests.integration.clients import Http, Socket
from tests.integration.providers import Api, ModelServer, Turn, gateway, model_server, says, upstream

APIS: tuple[Api, ...] = ("messages", "responses")  # Chat Completions has nothing sealed
ASKED = {"include": ["reasoning.encrypted_content"]}
SIGNED = {"type": "thinking", "thinking": "Hm.", "signature": "signed"}
SEALED = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "Hm."}],
    "encrypted_content": "sealed",
}
USER = {"role": "user", "content": "Think."}


def thinks(api: Api) -> Turn:
    """A turn that begins with reasoning."""
    return [SIGNED if api == "messages" else SEALED, *says(api, "Hi.")]


def reasoning_of(output: list[Json]) -> Json:
    (item,) = (item for item in output if item["type"] == "reasoning")
    return item


def has_reasoning(server: ModelServer, number: int) -> bool:
    """Whether a request gives the model its reasoning back, as it was."""
    body = server.asked[number]
    if server.api == "responses":
        return SEALED in body["input"]
    return any(SIGNED in said["content"] for said in body["messages"] if said["role"] == "assistant")


@pytest.mark.parametrize("include", [{}, ASKED], ids=["not asked", "asked"])
@pytest.mark.parametrize("through", ["websocket", "sse", "json"])
@pytest.mark.parametrize("api", APIS)
async def test_it_is_shown_to_whoever_asked_and_goes_back_in_any_case(api: Api, through: str, include: Json) -> None:
    """In no event and in no response is it otherwise; the next turn sends only what is new."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(model_server(api, thinks(api), says(api, "Well.")))
        url = await stack.enter_async_context(gateway(upstream(server)))
        http, socket = await stack.enter_async_context(Http(url)), await stack.enter_async_context(Socket(url))
        fields = {"model": api, "input": [USER], **include}
        if through == "json":
            response = (await http.create(**fields)).body
        else:
            checked = await (socket.ask(**fields) if through == "websocket" else http.stream(**fields))
            assert checked.response is not None
            response = checked.response
            seen = [frame["item"] for frame in checked.frames if frame["type"].startswith("response.output_item.")]
            assert [bool(item.get("encrypted_content")) for item in seen if item["type"] == "reasoning"][-1:] == [
                bool(include)
            ]
            assert bool(include) or all("encrypted_content" not in item for item in seen)
        assert ("encrypted_content" in reasoning_of(response["output"])) == bool(include)
        await http.create(model=api, input=[USER], previous_response_id=response["id"])
    assert has_reasoning(server, 1)


@pytest.mark.parametrize("include", [{}, ASKED], ids=["not asked", "asked"])
@pytest.mark.parametrize("api", APIS)
async def test_a_stored_response_shows_it_to_whoever_asks_now(api: Api, include: Json) -> None:
    """Whatever was asked when it was made; its items likewise. The openai SDK asks in its own way."""
    from openai import AsyncOpenAI

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(model_server(api, thinks(api), says(api, "Well.")))
        url = await stack.enter_async_context(gateway(upstream(server)))
        http = await stack.enter_async_context(Http(url))
        sdk = await stack.enter_async_context(AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0))
        first = (await http.create(model=api, input=[USER], **include)).body["id"]
        second = (await http.create(model=api, input=[USER], previous_response_id=first)).body["id"]
        for query, shown in (("", False), ("?include=reasoning.encrypted_content", True), ("?include=x", False)):
            whole = (await http.request("GET", f"/v1/responses/{first}{query}")).body
            listed = (await http.request("GET", f"/v1/responses/{second}/input_items{query}")).body
            for items in (whole["output"], listed["data"]):
                assert ("encrypted_content" in reasoning_of(items)) is shown
        got = await sdk.responses.retrieve(first, include=["reasoning.encrypted_content"])
        (thought,) = (item for item in got.output if item.type == "reasoning")
        assert thought.encrypted_content


@pytest.mark.parametrize("api", APIS)
async def test_a_client_that_sends_everything_again_without_it_is_told_what_that_costs(api: Api) -> None:
    """It sends other items than the history has: the provider thinks anew, and the response says why."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(model_server(api, thinks(api), says(api, "Well.")))
        url = await stack.enter_async_context(gateway(upstream(server)))
        http = await stack.enter_async_context(Http(url))
        output = (await http.create(model=api, input=[USER])).body["output"]
        second = (await http.create(model=api, input=[USER, *output, USER])).body
        (warning,) = second["warnings"]
        assert "include: ['reasoning.encrypted_content']" in warning
    assert not has_reasoning(server, 1)

"""One conversation through all doors: begun with a response, continued as a message thread, replayed as Chat
Completions, and gone on with as a response again; with an image, a thought, and a tool. What its upstream was sent is
the conversation, each time.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest

from segue.config import UpstreamConfig
from segue.testing.response_schemas import Json
from segue.testing.responses_rules import OPENAI, playing
from segue.testing.responses_server import responding
from tests.integration.cases import CaseProvider, Said, Step, case_provider, transcript, write
from tests.integration.providers import Api, gateway, upstream
from tests.thread_service import ThreadService
from tests.upstreams.provider import providing

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
URL = f"data:image/png;base64,{PIXEL}"
QUESTION, NEXT, LAST = "crossing: How warm is it there?", "Is that cold?", "Thank you."
SCHEMA: Json = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
STEPS = [
    Step("I look.", (("call_1", {"city": "Oslo"}),), "That is Oslo."),
    Step("4 degrees."),
    Step("It is."),
    Step("Always."),
]
LIMIT = 8000
APIS: tuple[Api, ...] = ("chat", "messages", "responses")


class Walk:
    """One client that goes from door to door."""

    def __init__(self, session: aiohttp.ClientSession, model: str) -> None:
        self._session = session
        self.model = model

    async def post(self, path: str, **fields: Any) -> Json:  # noqa: ANN401 - any field
        async with self._session.post(path, json={"model": self.model, **fields}) as reply:
            body: Json = await reply.json()
            assert reply.status == 200, body
            return body

    async def respond(self, *items: Json, **fields: Any) -> Json:  # noqa: ANN401 - any field
        tools = [{"type": "function", "name": "weather", "parameters": SCHEMA}]
        include = ["reasoning.encrypted_content"]
        reasoning = {"effort": "low"}
        return await self.post(
            "/v1/responses", input=list(items), tools=tools, include=include, reasoning=reasoning, **fields
        )

    async def go_on(self, message_id: str, *blocks: Json) -> Json:
        thread = {"type": "continue", "previous_message_id": message_id}
        return await self.post(
            "/v1/messages", thread=thread, messages=[{"role": "user", "content": list(blocks)}], max_tokens=LIMIT
        )

    async def complete(self, *messages: Json) -> Json:
        tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
        body = await self.post("/v1/chat/completions", messages=list(messages), tools=tools, reasoning_effort="low")
        message: Json = body["choices"][0]["message"]
        return message


def user_item(*parts: Json) -> Json:
    return {"type": "message", "role": "user", "content": list(parts)}


def text(words: str) -> Json:
    return {"type": "input_text", "text": words}


def as_chat(response: Json) -> Json:
    """The answer of a response, as a client of Chat Completions keeps it."""
    message: Json = {"role": "assistant", "content": None}
    for index, item in enumerate(response["output"]):
        match item["type"]:
            case "reasoning":
                thought = "".join(part["text"] for part in item["summary"])
                detail = {"type": "reasoning.text", "text": thought, "signature": item["encrypted_content"]}
                message |= {"reasoning_content": thought, "reasoning_details": [{**detail, "index": index}]}
            case "message":
                message["content"] = item["content"][0]["text"]
            case _:
                function = {"name": item["name"], "arguments": item["arguments"]}
                message["tool_calls"] = [{"id": item["call_id"], "type": "function", "function": function}]
    return message


async def walk_through(session: aiohttp.ClientSession, models: Sequence[str]) -> None:
    """Hold the conversation, each step of it with one of these models."""
    walk = Walk(session, models[0])
    image = {"type": "input_image", "image_url": URL}
    first = await walk.respond(user_item(text(QUESTION), image))
    walk.model = models[1]
    output = {"type": "tool_result", "tool_use_id": "call_1", "content": "4 degrees"}
    second = await walk.go_on(first["id"], output)
    assert [block["text"] for block in second["content"]] == ["4 degrees."]
    walk.model = models[2]
    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": URL}}]
    third = await walk.complete(
        {"role": "user", "content": parts},
        as_chat(first),
        {"role": "tool", "tool_call_id": "call_1", "content": "4 degrees"},
        {"role": "assistant", "content": "4 degrees."},
        {"role": "user", "content": NEXT},
    )
    assert third["content"] == "It is."
    walk.model = models[3]
    said = {"type": "message", "role": "assistant", "content": third["content"]}
    asked = (user_item(text(NEXT)), said, user_item(text(LAST)))
    fourth = await walk.respond(*asked, previous_response_id=second["id"], store=False)  # as the thread is kept
    assert fourth["output"][-1]["content"][0]["text"] == "Always."


THOUGHT: Said = ("thought", "That is Oslo.")
ASKED: list[Said] = [("user", QUESTION), ("image", URL)]
ANSWERED: list[Said] = [
    ("assistant", "I look."),
    ("call", "call_1", json.dumps({"city": "Oslo"})),
    ("output", "call_1", "4 degrees"),
]
MORE: list[Said] = [("assistant", "4 degrees."), ("user", NEXT)]
LATEST: list[Said] = [("assistant", "It is."), ("user", LAST)]


def asked_of(server: CaseProvider) -> list[list[Said]]:
    return [transcript(server.api, body) for body in server.conversations["crossing"]]


@pytest.mark.parametrize("api", APIS)
async def test_a_conversation_goes_through_all_doors_and_its_upstream_is_sent_all_of_it(api: Api) -> None:
    """Each request holds what was said before it, once; the thought as its provider wants it back."""
    async with (
        case_provider(api, {"crossing": STEPS}) as server,
        gateway(upstream(server)) as url,
        aiohttp.ClientSession(url) as session,
    ):
        await walk_through(session, [api] * 4)
    before = [*ASKED, *([] if api == "chat" else [THOUGHT]), *ANSWERED]
    assert asked_of(server) == [ASKED, before, [*before, *MORE], [*before, *MORE, *LATEST]]
    _, *later = server.conversations["crossing"]
    if api == "messages":
        assert {body["messages"][1]["content"][0]["signature"] for body in later} == {"signed crossing_1"}
    if api == "responses":
        assert {body["input"][1]["encrypted_content"] for body in later} == {"sealed crossing_1"}


@pytest.mark.parametrize(
    ("thinker", "others"), [("messages", ("chat", "responses")), ("responses", ("messages", "chat"))]
)
async def test_each_upstream_of_a_conversation_is_sent_all_of_it(thinker: Api, others: tuple[Api, Api]) -> None:
    """A thought goes back to the one whose it is, and to nobody else."""
    one, two = others
    async with (
        case_provider(thinker, {"crossing": [STEPS[0], STEPS[3]]}) as own,
        case_provider(one, {"crossing": [STEPS[1]]}) as second,
        case_provider(two, {"crossing": [STEPS[2]]}) as third,
        gateway(*map(upstream, (own, second, third))) as url,
        aiohttp.ClientSession(url) as session,
    ):
        await walk_through(session, (thinker, one, two, thinker))
    assert asked_of(own) == [ASKED, [*ASKED, THOUGHT, *ANSWERED, *MORE, *LATEST]]
    assert asked_of(second) == [[*ASKED, *ANSWERED]]
    assert asked_of(third) == [[*ASKED, *ANSWERED, *MORE]]
    assert not any(b"segue:1:" in raw for server in (own, second, third) for raw in server.raw)


# --- providers that hold what they were sent -------------------------------------------------------------------------


class Holding(NamedTuple):
    """A provider that holds what it was sent: its settings, what its model read, and how often it was sent a part."""

    settings: Json
    read: Callable[[], list[list[Said]]]
    parts: Callable[[], int]


@asynccontextmanager
async def threaded(steps: Sequence[Step]) -> AsyncIterator[Holding]:
    """A server of Messages that keeps message threads."""

    def reply(prompt: Json) -> list[Json]:
        blocks: list[Json] = write("messages", steps[prompt["count"] - 1], f"crossing_{prompt['count']}")
        return blocks

    service = ThreadService(reply)
    async with providing(service.play) as provider:
        yield Holding(
            {"dialect": "messages", "message_threads": True, "base_url": f"{provider.url}/v1"},
            lambda: [transcript("messages", prompt) for prompt in service.prompts],
            lambda: sum(kept.continued for kept in service.kept.values()),
        )
    assert service.violations == []


@asynccontextmanager
async def connected(steps: Sequence[Step]) -> AsyncIterator[Holding]:
    """A server of Responses in WebSocket mode."""
    turns = [write("responses", step, f"crossing_{number}") for number, step in enumerate(steps, 1)]
    async with responding(OPENAI, model=playing(*turns)) as server:
        yield Holding(
            {"dialect": "responses", "transport": "websocket", "base_url": server.base_url},
            lambda: [transcript("responses", {"input": run.history}) for run in server.executions],
            lambda: sum("previous_response_id" in one.create for one in server.creates),
        )


@pytest.mark.parametrize("holding", [threaded, connected])
async def test_a_provider_that_holds_the_conversation_has_read_all_of_it(
    holding: Callable[[Sequence[Step]], Any],
) -> None:
    """It is sent what is new where it can be, and the whole conversation where a door changes what was agreed on."""
    steps = [STEPS[0], *(Step(words) for words in ("4 degrees.", "It is.", "Not to me.", "Always.", "Bye."))]
    result = {"type": "function_call_output", "call_id": "call_1", "output": "4 degrees"}
    image = {"type": "input_image", "image_url": URL}
    async with holding(steps) as provider:
        up = msgspec.convert({"name": "one", "models": ["m"], **provider.settings}, UpstreamConfig)
        async with gateway(up) as url, aiohttp.ClientSession(url) as session:
            walk = Walk(session, "m")
            first = await walk.respond(user_item(text(QUESTION), image))
            second = await walk.respond(result, previous_response_id=first["id"])
            third = await walk.go_on(second["id"], {"type": "text", "text": NEXT})
            fourth = await walk.go_on(third["id"], {"type": "text", "text": "Really?"})
            parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": URL}}]
            words = (NEXT, "It is.", "Really?", "Not to me.", LAST)
            fifth = await walk.complete(
                {"role": "user", "content": parts},
                as_chat(first),
                {"role": "tool", "tool_call_id": "call_1", "content": "4 degrees"},
                as_chat(second),
                *({"role": ("user", "assistant")[place % 2], "content": said} for place, said in enumerate(words)),
            )
            assert fifth["content"] == "Always."
            asked = (user_item(text(LAST)), {"type": "message", "role": "assistant", "content": "Always."})
            last = await walk.respond(*asked, user_item(text("Bye!")), previous_response_id=fourth["id"], store=False)
            assert last["output"][-1]["content"][0]["text"] == "Bye."
        read, sent_in_parts = provider.read(), provider.parts()
    told = [
        *(*ASKED, THOUGHT, *ANSWERED, ("assistant", "4 degrees.")),
        *(("user", NEXT), ("assistant", "It is."), ("user", "Really?"), ("assistant", "Not to me.")),
        *(("user", LAST), ("assistant", "Always."), ("user", "Bye!")),
    ]
    assert [told[: len(one)] for one in read] == read
    assert [len(one) for one in read] == [2, 6, 8, 10, 12, 14]
    assert sent_in_parts >= 2

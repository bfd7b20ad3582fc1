"""Message threads as their clients see them: what is answered, and what the model then reads."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from segue.config import Config, ServerConfig, UpstreamConfig
from segue.gateway.app import serving
from segue.testing.messages_checker import check_messages_sse
from segue.testing.provider import ReceivedRequest, ScriptedProvider, answer_with, provided
from segue.testing.replies import ReplyContext, make_reply
from segue.upstreams.interface import UpstreamRequest
from segue.upstreams.scripted import Fail, Say, ScriptedTurn, ScriptedUpstream, Wait, call, say
from tests.faults.gateways import Local, listening, until

Json = dict[str, Any]
CREATE: Json = {"type": "create"}
TOOL: Json = {"name": "t", "input_schema": {"type": "object", "properties": {}}}
UNKNOWN = "msg_" + "0" * 40


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def said(text: str) -> Json:
    return {"role": "assistant", "content": text}


def on_from(message_id: str) -> Json:
    return {"type": "continue", "previous_message_id": message_id}


class Client:
    """Somebody who speaks the Messages API."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def ask(self, thread: Json | None, *messages: Json, status: int = 200, **fields: object) -> Json:
        """Send a request; return the message, or the error."""
        body = {"model": "m", "max_tokens": 9, "messages": messages, **fields}
        body |= {} if thread is None else {"thread": thread}
        async with self._session.post("/v1/messages", json=body) as reply:
            answer: Json = await reply.json()
            assert reply.status == status, answer
            assert reply.headers["request-id"]
        return answer if status == 200 else answer["error"]

    async def refusal(self, thread: Json, *messages: Json, status: int = 400, **fields: object) -> str:
        """Return the code of a refused request of a thread."""
        error = await self.ask(thread, *messages, status=status, **fields)
        return str(error["details"]["error_code"])


@asynccontextmanager
async def door(
    *turns: ScriptedTurn,
    clock: Callable[[], float] = time.time,
    store: str = "memory:",
    **server: Any,  # noqa: ANN401 - settings of any type
) -> AsyncIterator[tuple[Client, ScriptedUpstream, Local]]:
    model = ScriptedUpstream(list(turns))
    async with (
        listening(model, clock=clock, store=store, **server) as local,
        aiohttp.ClientSession(local.url) as session,
    ):
        yield Client(session), model, local


def prompt(request: UpstreamRequest) -> tuple[str, list[str], list[object]]:
    """What the model reads: the system prompt, the names of its tools, and what was said."""
    shown: list[object] = []
    for item in map(json.loads, request.history.items()):
        content = item.get("content")
        shown.append(content[0]["text"] if content else item.get("output") or item["call_id"])
    return request.settings.instructions_text, [tool["name"] for tool in request.settings.tools], shown


# --- the exchanges that clients rely on ------------------------------------------------------------------------------


async def test_a_thread_goes_on_with_what_is_new() -> None:
    async with door(say("a1"), say("a2"), say("a3")) as (client, model, _):
        first = await client.ask(CREATE, user("u1"), system="S", tools=[TOOL])
        assert first["id"].startswith("msg_")
        assert "thread" not in first
        second = await client.ask(on_from(first["id"]), user("u2"))
        await client.ask(on_from(second["id"]), user("u3"))
        assert prompt(model.requests[1]) == ("S", ["t"], ["u1", "a1", "u2"])
        assert prompt(model.requests[2]) == ("S", ["t"], ["u1", "a1", "u2", "a2", "u3"])


@pytest.mark.parametrize("forks", [True, False])
async def test_a_message_is_continued_again_where_threads_may_fork(forks: bool) -> None:
    async with door(say("a1"), say("a2"), say("b2"), thread_forks=forks) as (client, model, _):
        first = await client.ask(CREATE, user("u1"))
        second = await client.ask(on_from(first["id"]), user("u2"))
        if not forks:
            assert await client.refusal(on_from(first["id"]), user("u2")) == "thread_already_continued"
            return
        again = await client.ask(on_from(first["id"]), user("u2"))
        assert again["id"] not in (first["id"], second["id"])
        assert prompt(model.requests[2]) == prompt(model.requests[1])


async def test_a_message_that_is_not_held_is_not_found_and_its_client_begins_anew() -> None:
    async with door(say("a1"), say("a3")) as (client, model, _):
        await client.ask(CREATE, user("u1"))
        for unknown in (UNKNOWN, "msg_zz", "x", "resp_" + "0" * 40, "msg_" + "é" * 40):
            assert await client.refusal(on_from(unknown), user("u2"), status=404) == "thread_not_found"
        await client.ask(CREATE, user("u1"), said("a1"), user("u2"))
        assert prompt(model.requests[-1])[2] == ["u1", "a1", "u2"]


async def test_two_requests_cannot_continue_a_message_at_once() -> None:
    gate = asyncio.Event()
    async with door(say("a1"), ScriptedTurn((Wait(gate), Say(("a2",)))), say("b2")) as (client, model, _):
        first = await client.ask(CREATE, user("u1"))
        running = asyncio.create_task(client.ask(on_from(first["id"]), user("u2")))
        await until(lambda: len(model.requests) == 2)
        assert await client.refusal(on_from(first["id"]), user("u2")) == "thread_continue_in_flight"
        gate.set()
        await running
        await client.ask(on_from(first["id"]), user("u2"))


async def test_what_a_thread_keeps_may_be_repeated_and_not_changed() -> None:
    billing = {"type": "text", "text": "x-anthropic-billing-header: cch=9;"}
    marked = {"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}
    async with door(say("a1"), say("a2"), say("b2")) as (client, model, _):
        first = await client.ask(CREATE, user("u1"), system="S", tools=[TOOL])
        error = await client.ask(on_from(first["id"]), user("u2"), system="T", status=400)
        assert error["details"] == {"error_code": "thread_fingerprint_mismatch"}
        assert "differing field(s): system" in error["message"]
        await client.ask(on_from(first["id"]), user("u2"), system=[billing, marked], tools=[TOOL])
        await client.ask(on_from(first["id"]), user("u2"))
        assert prompt(model.requests[1]) == prompt(model.requests[2]) == ("S", ["t"], ["u1", "a1", "u2"])


async def test_results_of_tools_belong_to_the_calls_of_the_thread() -> None:
    """What cannot be continued that way leaves the message free."""

    def result(call_id: str) -> Json:
        return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": "out"}]}

    async with door(call("toolu_1", "t", "{}"), say("a2")) as (client, model, _):
        first = await client.ask(CREATE, user("u1"), tools=[TOOL])
        error = await client.ask(on_from(first["id"]), result("toolu_2"), status=400)
        assert "details" not in error
        await client.ask(on_from(first["id"]), result("toolu_1"))
        assert prompt(model.requests[-1])[2] == ["u1", "toolu_1", "out"]


async def test_a_thread_goes_on_without_anything_new() -> None:
    async with door(say("a1"), say("a2")) as (client, model, _):
        first = await client.ask(CREATE, user("u1"))
        await client.ask(on_from(first["id"]))
        assert prompt(model.requests[-1])[2] == ["u1", "a1"]


async def test_a_reply_that_breaks_off_is_not_part_of_the_thread() -> None:
    broken = ScriptedTurn((Say(("part",)), Fail("bored", "No.")))
    async with door(say("a1"), broken, say("a2"), say("a3")) as (client, model, local):
        first = await client.ask(CREATE, user("u1"))
        body = {"model": "m", "max_tokens": 9, "messages": [user("u2")], "thread": on_from(first["id"]), "stream": True}
        async with aiohttp.ClientSession(local.url) as session, session.post("/v1/messages", json=body) as reply:
            events = await reply.text()
            assert "message_stop" not in events
            cut = json.loads(events.split("data: ")[1].split("\n")[0])["message"]["id"]
        assert await client.refusal(on_from(cut), user("x"), status=404) == "thread_not_found"
        await client.ask(on_from(first["id"]), user("u2"))
        await client.ask(CREATE, user("u1"), said("a1"), user("u2"), said("part"), user("u3"))
        assert [prompt(request)[2] for request in model.requests[2:]] == [
            ["u1", "a1", "u2"],
            ["u1", "a1", "u2", "part", "u3"],
        ]


async def test_a_client_that_goes_away_leaves_the_message_free() -> None:
    gate = asyncio.Event()
    hanging = ScriptedTurn((Say(("part",)), Wait(gate)))
    async with door(say("a1"), hanging, say("a2")) as (client, model, local):
        first = await client.ask(CREATE, user("u1"))
        body = {"model": "m", "max_tokens": 9, "messages": [user("u2")], "thread": on_from(first["id"]), "stream": True}
        async with aiohttp.ClientSession(local.url) as session, session.post("/v1/messages", json=body) as reply:
            await reply.content.readuntil(b"part")
            reply.close()
        await local.gateway.services.executor.upstream_use.until_idle(model)
        await client.ask(on_from(first["id"]), user("u2"))
        assert prompt(model.requests[-1])[2] == ["u1", "a1", "u2"]


async def test_a_stream_of_a_thread_can_be_continued_when_it_has_ended() -> None:
    async with door(say("a1"), say("a2")) as (client, model, local):
        body = {"model": "m", "max_tokens": 9, "messages": [user("u1")], "thread": CREATE, "stream": True}
        async with aiohttp.ClientSession(local.url) as session, session.post("/v1/messages", json=body) as reply:
            message = check_messages_sse(await reply.read())
        await client.ask(on_from(message["id"]), user("u2"))
        assert prompt(model.requests[-1])[2] == ["u1", "a1", "u2"]


async def test_the_tokens_of_a_thread_are_counted_with_all_that_came_before() -> None:
    async with door(say("a1")) as (client, _, local):
        first = await client.ask(CREATE, user("u1" * 50))
        async with aiohttp.ClientSession(local.url) as session:
            counts = []
            for thread in (None, on_from(first["id"]), on_from(UNKNOWN)):
                body = {"model": "m", "messages": [user("u2")], "thread": thread}
                async with session.post("/v1/messages/count_tokens", json=body) as reply:
                    counts.append((reply.status, (await reply.json()).get("input_tokens")))
        assert (counts[0][0], counts[1][0], counts[2]) == (200, 200, (404, None))
        assert counts[1][1] > counts[0][1]


# --- how long, and for whom ------------------------------------------------------------------------------------------


class Hand:
    """A clock that a test sets."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_a_thread_in_memory_ends_some_time_after_its_last_use() -> None:
    clock = Hand()
    async with door(say("a1"), say("a2"), say("b2"), clock=clock, thread_s=300) as (client, _, _local):
        first = await client.ask(CREATE, user("u1"))
        clock.now += 299
        await client.ask(on_from(first["id"]), user("u2"))
        clock.now += 299
        await client.ask(on_from(first["id"]), user("u2"))
        clock.now += 301
        assert await client.refusal(on_from(first["id"]), user("u2"), status=404) == "thread_not_found"


async def test_a_durable_thread_outlives_that_and_a_restart(tmp_path: Path) -> None:
    clock, store = Hand(), f"sqlite:///{tmp_path}/segue.db"
    async with door(say("a1"), store=store, clock=clock, threads="durable") as (client, _, _local):
        first = await client.ask(CREATE, user("u1"), system="S", tools=[TOOL])
    clock.now += 10_000
    async with door(say("a2"), store=store, clock=clock, threads="durable") as (client, model, _local):
        await client.ask(on_from(first["id"]), user("u2"), system="S")
        assert prompt(model.requests[0]) == ("S", ["t"], ["u1", "a1", "u2"])


async def test_a_thread_that_is_not_durable_is_in_no_store() -> None:
    async with door(say("a1")) as (client, _, local):
        await client.ask(CREATE, user("u1"))
        assert (await local.gateway.services.store.size()).records == 0


# --- other doors -----------------------------------------------------------------------------------------------------


async def respond(local: Local, **fields: object) -> Json:
    async with (
        aiohttp.ClientSession(local.url) as session,
        session.post("/v1/responses", json={"model": "m", **fields}) as reply,
    ):
        answer: Json = await reply.json()
        return answer | {"status_code": reply.status}


@pytest.mark.parametrize("threads", ["memory", "durable"])
async def test_a_thread_goes_on_at_the_door_of_the_responses_api(threads: str) -> None:
    """Which keeps neither the instructions nor the tools."""
    async with door(say("a1"), say("a2"), threads=threads) as (client, model, local):
        first = await client.ask(CREATE, user("u1"), system="S")
        answer = await respond(local, input="u2", previous_response_id=first["id"], store=threads == "durable")
        assert answer["status_code"] == 200, answer
        assert prompt(model.requests[-1]) == ("", [], ["u1", "a1", "u2"])
        missing = await respond(local, input="u2", previous_response_id=UNKNOWN)
        assert missing["error"]["code"] == "previous_response_not_found"


async def test_a_thread_goes_on_over_a_websocket() -> None:
    async with door(say("a1"), say("a2")) as (client, model, local):
        first = await client.ask(CREATE, user("u1"))
        create = {"type": "response.create", "model": "m", "input": "u2", "previous_response_id": first["id"]}
        async with aiohttp.ClientSession(local.url) as session, session.ws_connect("/v1/responses") as socket:
            await socket.send_json({**create, "store": False})
            events = [json.loads((await socket.receive()).data)]
            while events[-1]["type"] not in ("response.completed", "error"):
                events.append(json.loads((await socket.receive()).data))
        assert events[-1]["type"] == "response.completed"
        assert prompt(model.requests[-1])[2] == ["u1", "a1", "u2"]


async def test_a_response_goes_on_as_a_thread() -> None:
    """With its instructions and tools, which a thread keeps."""
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True, "description": "d"}
    async with door(say("a1"), say("a2"), say("a3")) as (client, model, local):
        answer = await respond(local, input="u1", instructions="S", tools=[tool])
        second = await client.ask(on_from(answer["id"]), user("u2"))
        await client.ask(on_from(second["id"]), user("u3"))
        assert prompt(model.requests[-1]) == ("S", ["f"], ["u1", "a1", "u2", "a2", "u3"])
        assert model.requests[-1].settings.tools == [{**tool, "strict": True}]


async def test_a_response_that_is_stored_nowhere_is_no_message_of_a_thread() -> None:
    async with door(say("a1")) as (client, _, local):
        answer = await respond(local, input="u1", store=False)
        assert await client.refusal(on_from(answer["id"]), user("u2"), status=404) == "thread_not_found"


# --- through to an upstream of this API ------------------------------------------------------------------------------

SEARCH: list[Json] = [
    {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "x"}},
    {"type": "text", "text": "Hello."},
]


@asynccontextmanager
async def passing(store: str = "memory:", **server: object) -> AsyncIterator[tuple[ScriptedProvider, Client]]:
    def answer(request: ReceivedRequest) -> Any:  # noqa: ANN401 - see `answer_with`
        asked = ReplyContext(request={}, identity=str(request.number), created_at=0, seed="s")
        return answer_with(make_reply("messages", SEARCH, asked), streamed=True)

    async with provided(answer) as provider:
        fields = {"name": "m", "dialect": "messages", "models": ["m"], "base_url": f"{provider.url}/v1"}
        settings = msgspec.convert({"port": 0, "store": store, **server}, ServerConfig)
        config = Config(server=settings, upstream=[msgspec.convert(fields, UpstreamConfig)])
        async with serving(config) as (_, url), aiohttp.ClientSession(url) as session:
            yield provider, Client(session)


def sent(provider: ScriptedProvider, number: int = -1) -> Json:
    body: Json = json.loads(provider.requests[number].body or b"")
    return body


async def test_the_provider_gets_the_conversation_as_it_was_said(tmp_path: Path) -> None:
    """With every block, the marks of what is new, and no field of threads. So it does after a restart."""
    store = f"sqlite:///{tmp_path}/segue.db"
    marked = {"role": "user", "content": [{"type": "text", "text": "u1", "cache_control": {"type": "ephemeral"}}]}
    reply = {"role": "assistant", "content": SEARCH}
    kept: Json = {"system": [{"type": "text", "text": "S"}], "tools": [{"type": "web_search_20250305", "name": "w"}]}
    async with passing(store, threads="durable") as (provider, client):
        first = await client.ask(CREATE, marked, **kept, x={"y": 1.0})
        assert first["content"] == SEARCH
        second = await client.ask(on_from(first["id"]), user("u2"), x=2)
        assert sent(provider, 0) == {
            "model": "m",
            "max_tokens": 9,
            "messages": [marked],
            "x": {"y": 1.0},
            "stream": True,
            **kept,
        }
        whole = [{"role": "user", "content": [{"type": "text", "text": "u1"}]}, reply, user("u2")]
        assert sent(provider) == {"model": "m", "max_tokens": 9, "messages": whole, "x": 2, "stream": True, **kept}
    async with passing(store, threads="durable") as (provider, client):
        await client.ask(on_from(second["id"]), user("u3"))
        assert sent(provider)["messages"] == [*whole, reply, user("u3")]
        assert sent(provider)["tools"] == kept["tools"]

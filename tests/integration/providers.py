"""Providers on loopback that answer by a script, in the streams of their API, and hold every request to the rules that
the real ones hold it to. The streams are written by the benchmark's generator, which shares no code with the dialects.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import msgspec

from segue.config import Config, KeyConfig, ServerConfig, UpstreamConfig
from segue.gateway.app import serving
from segue.testing.replies import ReplyContext, make_reply
from segue.testing.response_schemas import Json
from tests.upstreams.provider import Exchange, providing

Api: TypeAlias = Literal["responses", "chat", "messages"]
#: What a request must obey; it raises an AssertionError that says what is wrong.
Rule: TypeAlias = Callable[[Json], None]
#: One turn of the model, in the JSON of its API or as the bytes of its stream; or how to find it from the request.
Turn: TypeAlias = Any
TARGETS = {"responses": "/v1/responses", "chat": "/v1/chat/completions", "messages": "/v1/messages"}


class ModelServer:
    """A provider of one API; `asked` holds the bodies of its requests. `rule` is its own, beside its API's."""

    def __init__(self, api: Api, turns: Sequence[Turn], rule: Rule | None = None) -> None:
        self.api = api
        self.asked: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self.raw: list[bytes] = []
        self.faults: list[str] = []
        self.url = ""
        self._turns = list(turns)
        self._rule = rule

    async def play(self, exchange: Exchange) -> None:
        """Answer one request, or refuse it and note why."""
        got = exchange.got
        self.raw.append(got.body)
        body: Json = json.loads(got.body)
        self.asked.append(body)
        self.headers.append(got.headers)
        try:
            assert (got.method, got.target) == ("POST", TARGETS[self.api])
            JUDGES[self.api](body)
            if self._rule is not None:
                self._rule(body)
            turn = self._turns.pop(0) if len(self._turns) > 1 else self._turns[0]
        except AssertionError as error:
            self.faults.append(str(error))
            await exchange.head(400, content_type="application/json")
            await exchange.chunk(json.dumps({"error": {"message": str(error)}}).encode())
            await exchange.end()
            return
        output = turn(body) if callable(turn) else turn
        number = len(self.asked)
        head = {name: value for name, value in body.items() if name not in {"messages", "input"}}  # it may be long
        asked = ReplyContext(
            request=head, identity=f"made_{number}", created_at=1_790_000_000, seed=f"{self.api}{number}"
        )
        stream = output if isinstance(output, bytes) else b"".join(make_reply(self.api, output, asked).events)
        await exchange.head()
        cut = random.Random(number).randint(1, len(stream) - 1)
        await exchange.chunk(stream[:cut])
        await exchange.chunk(stream[cut:])
        await exchange.end()


@asynccontextmanager
async def model_server(api: Api, *turns: Turn, rule: Rule | None = None) -> AsyncIterator[ModelServer]:
    """Run such a provider around a block; no request may have been at fault. The last turn is played for ever."""
    server = ModelServer(api, turns, rule)
    async with providing(server.play) as provider:
        server.url = f"{provider.url}/v1"
        yield server
    assert server.faults == []


@asynccontextmanager
async def gateway(*upstreams: UpstreamConfig, keys: Sequence[KeyConfig] = (), **server: object) -> AsyncIterator[str]:
    """Run a gateway in front of providers, configured as a file would; yields its URL."""
    settings = msgspec.convert({"port": 0, "store": "memory:", **server}, ServerConfig)
    async with serving(Config(server=settings, upstream=list(upstreams), key=list(keys))) as (_, url):
        yield url


def upstream(server: ModelServer, name: str | None = None, **settings: object) -> UpstreamConfig:
    """The configuration of an upstream, whose models are called by its name and anything."""
    called = name or server.api
    fields = {"name": called, "dialect": server.api, "models": [f"{called}*"], "base_url": server.url, **settings}
    return msgspec.convert(fields, UpstreamConfig)


# --- what a turn is in each API --------------------------------------------------------------------------------------


def says(api: Api, text: str) -> Turn:
    """A turn that answers with text."""
    match api:
        case "chat":
            return {"role": "assistant", "content": text}
        case "messages":
            return [{"type": "text", "text": text}]
        case "responses":
            return [message("msg_1", text)]


def calls(api: Api, call_id: str, name: str, arguments: Json, text: str = "") -> Turn:
    """A turn that calls a function, after some words."""
    match api:
        case "chat":
            function = {"name": name, "arguments": json.dumps(arguments)}
            made = [{"index": 0, "id": call_id, "type": "function", "function": function}]
            return {"role": "assistant", "content": text or None, "tool_calls": made}
        case "messages":
            said = [{"type": "text", "text": text}] if text else []
            return [*said, {"type": "tool_use", "id": call_id, "name": name, "input": arguments}]
        case "responses":
            item = {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": name}
            said = [message("msg_0", text)] if text else []
            return [*said, {**item, "arguments": json.dumps(arguments), "status": "completed"}]


def message(ident: str, text: str) -> Json:
    """A message of a Responses server."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": ident, "type": "message", "role": "assistant", "status": "completed", "content": [part]}


# --- the rules -------------------------------------------------------------------------------------------------------


def judge_chat(body: Json) -> None:
    """The rules of Chat Completions: each call is answered, by tool messages right after it, and nothing else is."""
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    open_calls: set[str] = set()
    for index, said in enumerate(body["messages"]):
        where = f"messages[{index}]"
        if said["role"] == "tool":
            assert said["tool_call_id"] in open_calls, f"{where} answers no open call"
            open_calls.discard(said["tool_call_id"])
            continue
        assert not open_calls, f"{where} comes before the answers to {open_calls}"
        if said["role"] == "assistant":
            made = said.get("tool_calls")
            assert made is None or made, f"{where} has an empty list of calls"
            assert said.get("content") or made or said.get("refusal"), f"{where} is empty"
            for call in made or ():
                json.loads(call["function"]["arguments"])
            open_calls = {call["id"] for call in made or ()}
        else:
            assert said["role"] in {"system", "developer", "user"}, f"{where} has the role {said['role']}"
            assert said["content"], f"{where} is empty"
    assert not open_calls, f"nobody answers {open_calls}"


def judge_messages(body: Json) -> None:
    """The rules of Messages: user and assistant in turn, and each tool use is answered in the message after it."""
    assert body["stream"] is True
    assert isinstance(body["max_tokens"], int)
    assert _count_markers(body) <= 4, "too many cache_control"
    roles = [said["role"] for said in body["messages"]]
    assert roles[0] == "user", "the first message is not the user's"
    assert all(one != other for one, other in pairwise(roles)), "two messages of one role"
    used: set[str] = set()
    for index, said in enumerate(body["messages"]):
        where = f"messages[{index}]"
        blocks = [{"type": "text", "text": said["content"]}] if isinstance(said["content"], str) else said["content"]
        assert blocks, f"{where} is empty"
        assert all(block["text"].strip() for block in blocks if block["type"] == "text"), f"{where} has an empty text"
        answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        assert answered == used, f"{where} answers {answered}, not {used}"
        kinds = [block["type"] == "tool_result" for block in blocks]
        assert kinds == sorted(kinds, reverse=True), f"{where} has a tool_result after something else"
        used = {block["id"] for block in blocks if block["type"] == "tool_use"}
        for block in blocks:
            if block["type"] == "tool_use":
                assert isinstance(block["input"], dict), f"{where} has an input that is no object"
            if block["type"] == "thinking":
                assert block["signature"], f"{where} has thinking without a signature"
    assert not used, f"nobody answers {used}"


def judge_responses(body: Json) -> None:
    """The rules of Responses: nothing is kept there, and each output has its call before it."""
    assert body["stream"] is True
    assert body["store"] is False
    assert body.get("previous_response_id") is None
    made: set[str] = set()
    for index, item in enumerate(body["input"]):
        kind = item.get("type", "message")
        if kind.endswith("_call"):
            made.add(item["call_id"])
        if kind.endswith("_call_output"):
            assert item["call_id"] in made, f"input[{index}] answers no call"


def _count_markers(value: object) -> int:
    if isinstance(value, dict):
        return ("cache_control" in value) + sum(map(_count_markers, value.values()))
    return sum(map(_count_markers, value)) if isinstance(value, list) else 0


JUDGES: dict[Api, Callable[[Json], None]] = {
    "chat": judge_chat,
    "messages": judge_messages,
    "responses": judge_responses,
}

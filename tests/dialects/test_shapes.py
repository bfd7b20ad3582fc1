"""What is sent is what the provider's SDK would let its user send, and keeps the rules that its types cannot say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.interface import Rendered
from segue.dialects.render_cache import RenderCache
from segue.protocol.requests import Create, parse_create
from segue.testing.protocol_checker import parse_json
from tests.dialects.conversations import DIALECTS, Json, Request, encode_items, replay, sound_conversations
from tests.strategies import FIELDS, examples, objects, pretty

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@pytest.fixture(scope="module")
def chat_bodies() -> TypeAdapter[Any]:
    from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
    from pydantic import TypeAdapter

    return TypeAdapter(CompletionCreateParamsStreaming)


@pytest.fixture(scope="module")
def messages_bodies() -> TypeAdapter[Any]:
    from anthropic.types.message_create_params import MessageCreateParamsStreaming
    from pydantic import TypeAdapter

    return TypeAdapter(MessageCreateParamsStreaming)


requests = objects(
    {"model": st.just("m"), "input": st.just("x")},
    **{name: value for name, value in FIELDS.items() if name not in {"tools", "tool_choice", "generate"}},
    tools=st.just(
        [
            {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True},
            {"type": "custom", "name": "patch", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
            {"type": "web_search"},
        ]
    ),
    tool_choice=st.sampled_from(
        [
            *("auto", "none", "required"),
            {"type": "custom", "name": "patch"},
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}]},
        ]
    ),
)


def check(value: object) -> None:
    """The SDKs' types are checked only as far as they are read."""
    if isinstance(value, dict):
        for member in value.values():
            check(member)
    elif not isinstance(value, str | int | float | None):
        assert hasattr(value, "__iter__")
        for member in value:
            check(member)


def sent(name: str, items: list[Json], request: Json) -> Json | None:
    """The body of a request, or None where it is refused."""
    create = parse_create(pretty(request), "http")
    assert isinstance(create, Create), create
    rendered = DIALECTS[name].render(Request(replay(encode_items(items)), create.settings), RenderCache(0))
    return parse_json(rendered.body.decode()) if isinstance(rendered, Rendered) else None


@given(items=sound_conversations(), request=requests, openai=st.booleans())
@settings(max_examples=examples(200))
def test_chat_completions(chat_bodies: TypeAdapter[Any], items: list[Json], request: Json, openai: bool) -> None:
    body = sent("openai-chat" if openai else "chat", items, request)
    if body is None:
        return
    check(chat_bodies.validate_python(body | _without_returned_reasoning(body)))
    waiting: set[str] = set()
    for message in body["messages"]:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
        else:
            assert not waiting, "a tool's output stands right behind the call"
            waiting = {call["id"] for call in message.get("tool_calls", ())}


def _without_returned_reasoning(body: Json) -> Json:
    """OpenAI's types do not know what other servers want back."""
    extra = {"reasoning_content", "reasoning", "reasoning_details"}
    return {"messages": [{k: v for k, v in message.items() if k not in extra} for message in body["messages"]]}


@given(items=sound_conversations(), request=requests)
@settings(max_examples=examples(200))
def test_anthropic_messages(messages_bodies: TypeAdapter[Any], items: list[Json], request: Json) -> None:
    body = sent("messages", items, request)
    if body is None:
        return
    check(messages_bodies.validate_python(body))
    waiting: set[str] = set()
    marks = str(body).count("'cache_control'")
    assert marks <= 4
    role = ""
    for message in body["messages"]:
        assert message["role"] != role, "the sides take turns"
        role, blocks = message["role"], message["content"]
        kinds = [block["type"] for block in blocks]
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        assert kinds[: len(results)] == ["tool_result"] * len(results), "results stand first"
        assert set(results) == waiting, "a message answers the calls before it"
        assert all(block["text"].strip() for block in blocks if block["type"] == "text")
        assert role != "assistant" or kinds[-1] not in {"thinking", "redacted_thinking"}
        waiting = {block["id"] for block in blocks if block["type"] == "tool_use"}
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", ident) for ident in waiting)
    if body["messages"] and role == "user":
        assert "cache_control" in body["messages"][-1]["content"][-1]

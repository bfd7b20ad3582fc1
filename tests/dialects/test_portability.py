"""A conversation is not tied to the provider that began it: it goes on with any model of any dialect, at any turn."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.chat.stream import ChatDecoder
from segue.dialects.interface import Dialect, ReplyDecoder
from segue.dialects.messages.stream import MessagesDecoder
from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.stream import ResponsesDecoder
from segue.history.chains import History, Turn
from segue.testing.protocol_checker import parse_json
from tests.dialects.conversations import (
    CHAT,
    DIALECTS,
    MESSAGES,
    PIXEL,
    RESPONSE_ID,
    RESPONSES,
    body,
    encode_items,
    fold,
    grow,
    render,
    replay,
    run,
    turns,
    warnings,
)
from tests.dialects.golden import GOLDEN, read
from tests.strategies import examples

Json = dict[str, Any]
FOREIGN = ("Reasoning that this provider did not make, or did not finish, was left out: it cannot be used here.",)


#: A question with an image and what Messages made of it, as Chat Completions puts it, with the outputs of the tools.
ON_CHAT: list[Json] = [
    {
        "role": "user",
        "content": [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PIXEL}}],
    },
    {
        "role": "assistant",
        "content": "I'll look.",
        "tool_calls": [
            {"id": "toolu_1", "type": "function", "function": {"name": "look", "arguments": '{"at":"x"}'}},
            {"id": "toolu_2", "type": "function", "function": {"name": "read_file", "arguments": "{}"}},
        ],
    },
    {"role": "tool", "tool_call_id": "toolu_1", "content": "[1 attached in the message behind this one]"},
    {"role": "tool", "tool_call_id": "toolu_2", "content": "a.txt"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "[attached to the output of tool call toolu_1]"},
            {"type": "image_url", "image_url": {"url": PIXEL}},
        ],
    },
]


def answer(decoder: ReplyDecoder, name: str) -> tuple[bytes, ...]:
    """The items of a reply."""
    events, _ = read(GOLDEN[name])
    return fold(run(decoder, events)).output


def sent(dialect: Dialect, parent: Turn | None, asked: list[Json], kept: RenderCache) -> tuple[Json, tuple[str, ...]]:
    rendered = render(dialect, History(parent, encode_items(asked)), keep=kept)
    return parse_json(rendered.body.decode()), rendered.warnings


def test_a_chain_from_messages_over_chat_to_responses() -> None:
    """With an image, reasoning and tools; what each upstream is sent, in full."""
    messages, chat, responses = DIALECTS["messages"], DIALECTS["chat"], DIALECTS["responses"]
    kept = RenderCache(1 << 20)

    image = {"type": "input_image", "image_url": PIXEL}
    one: list[Json] = [{"role": "user", "content": [{"type": "input_text", "text": "What is it?"}, image]}]
    body, told = sent(messages, None, one, kept)
    assert [block["type"] for block in body["messages"][0]["content"]] == ["text", "image"]
    assert told == ()
    first = grow(None, encode_items(one), answer(MessagesDecoder(RESPONSE_ID, MESSAGES), "messages/thinking_and_calls"))

    two: list[Json] = [
        {"type": "function_call_output", "call_id": "toolu_1", "output": [image]},
        {"type": "function_call_output", "call_id": "toolu_2", "output": "a.txt"},
    ]
    body, told = sent(chat, first, two, kept)
    assert body["messages"] == ON_CHAT
    assert told == FOREIGN
    second = grow(first, encode_items(two), answer(ChatDecoder(RESPONSE_ID, CHAT), "chat/reasoning_content"))

    three: list[Json] = [{"role": "user", "content": "Sure?"}]
    body, told = sent(responses, second, three, kept)
    assert [item.get("type", "message") for item in body["input"]] == [
        *("message", "message", "function_call", "function_call"),
        *("function_call_output", "function_call_output", "message", "message"),
    ]
    assert body["input"][0] == one[0]
    assert body["input"][4:6] == two
    assert told == FOREIGN
    third = grow(
        second, encode_items(three), answer(ResponsesDecoder(RESPONSE_ID, RESPONSES), "responses/reasoning_and_calls")
    )

    # And back: each provider gets its own reasoning, as it wrote it, and nobody else's.
    four: list[Json] = [{"type": "function_call_output", "call_id": "call_1", "output": "yes"}]
    body, told = sent(messages, third, four, kept)
    said = [block for message in body["messages"] for block in message["content"] if "thinking" in block["type"]]
    assert said == [{"type": "thinking", "thinking": "Let me see.", "signature": "EqQBCg"}]
    assert told == FOREIGN
    body, told = sent(chat, third, four, kept)
    assert [message["reasoning_content"] for message in body["messages"] if "reasoning_content" in message] == [
        "Let me see."
    ]
    assert body["messages"][: len(ON_CHAT)] == ON_CHAT
    body, told = sent(responses, third, four, kept)
    (own,) = [item for item in body["input"] if item.get("type") == "reasoning"]
    assert own["encrypted_content"] == "gAAAAABo"
    assert own["id"] == "rs_1"


def test_thoughts_go_back_as_they_came() -> None:
    """The same blocks in the same order, the signature and the redacted data untouched."""
    for name in ("thinking_and_calls", "redacted_thinking", "thinking_between_calls"):
        output = answer(MessagesDecoder(RESPONSE_ID, MESSAGES), f"messages/{name}")
        body = parse_json(render(DIALECTS["messages"], replay(output)).body.decode())
        _, message = body["messages"]
        events, _ = read(GOLDEN[f"messages/{name}"])
        blocks: dict[int, Json] = {}
        for event in map(json.loads, (event.data for event in events)):
            if event["type"] == "content_block_start":
                blocks[event["index"]] = event["content_block"]
            elif event["type"] == "content_block_delta":
                _grow(blocks[event["index"]], event["delta"])
        for block in blocks.values():
            if "partial" in block:
                block["input"] = json.loads(block.pop("partial") or "{}")
        assert message["content"] == list(blocks.values())


def _grow(block: Json, delta: Json) -> None:
    for name, value in delta.items():
        if name == "partial_json":
            block["partial"] = block.get("partial", "") + value
        elif name != "type":
            block[name] = block.get(name, "") + value


def test_what_a_chat_server_wants_back_goes_back_as_it_came() -> None:
    for name in ("reasoning_details", "thought_signature"):
        output = answer(ChatDecoder(RESPONSE_ID, CHAT), f"chat/{name}")
        (message,) = parse_json(render(DIALECTS["chat"], replay(output)).body.decode())["messages"]
        if name == "reasoning_details":
            detail = {"type": "reasoning.text", "text": "First, then.", "format": "anthropic-claude-v1", "index": 0}
            assert message["reasoning"] == "First, then."
            assert message["reasoning_details"] == [detail | {"signature": "ErUB"}]
        else:
            first, second = message["tool_calls"]
            assert first["extra_content"] == {"google": {"thought_signature": "EtsB"}}
            assert "extra_content" not in second


@given(conversation=turns, route=st.lists(st.sampled_from(sorted(DIALECTS)), min_size=6, max_size=6))
@settings(max_examples=examples(200))
def test_whatever_the_route_a_dialect_renders_what_it_would_alone(
    conversation: list[tuple[list[bytes], list[bytes]]], route: list[str]
) -> None:
    """What was kept of one dialect never shows in another."""
    kept, parent, seen = RenderCache(1 << 20), None, []
    for (asked, made), name in zip(conversation, route, strict=False):
        seen += asked
        shared = render(DIALECTS[name], History(parent, tuple(asked)), keep=kept)
        assert shared.body == render(DIALECTS[name], replay(seen)).body
        parent = grow(parent, asked, made)
        seen += made


@pytest.mark.parametrize("name", DIALECTS)
def test_reasoning_that_came_back_without_what_was_encrypted_is_left_out_and_said_to_be(name: str) -> None:
    """A client that did not ask for it, and sends everything again. The words alone are of no use to anybody."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
    user, said = {"role": "user", "content": "go"}, {"role": "assistant", "content": "went"}
    (warning,) = warnings(DIALECTS[name], [user, thought, said, user])
    assert "include: ['reasoning.encrypted_content']" in warning
    assert body(DIALECTS[name], [user, thought, said, user]) == body(DIALECTS[name], [user, said, user])

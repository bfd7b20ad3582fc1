"""The rules of providers' servers, as checks of a request body: what they answer 400 (or 500) to.

They are written from the providers' documentation and error messages, and know nothing of how a dialect renders. Each
check raises an AssertionError that says what the server would have said. The calls of a conversation must be answered.
"""

from __future__ import annotations

import json
import re
from typing import Any

Json = dict[str, Any]

THOUGHTS = ("thinking", "redacted_thinking")
#: Models that take a forced tool with adaptive thinking; Claude 4.6 and 4.7 do not.
FORCED_AND_THINKING = ("claude-opus-4-8", "claude-sonnet-5")
_UNENFORCED = frozenset(
    (
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
        *("pattern", "maxItems", "uniqueItems", "minProperties", "maxProperties", "oneOf", "not", "if"),
    )
)


def check_anthropic(body: Json) -> None:
    """https://platform.claude.com/docs/en/api/messages, …/thinking-tool-workflows, …/structured-outputs."""
    _check_blocks(body["messages"])
    _check_thinking(body)
    tools = body.get("tools", [])
    assert sum(tool.get("strict") is True for tool in tools) <= 20, "too many strict tools"
    for tool in tools:
        schema = tool["input_schema"]
        assert schema.get("type") == "object", "tools.0.custom.input_schema.type: Field required"
        assert not schema.keys() & {"anyOf", "oneOf", "allOf"}, "input_schema does not support it at the top level"
        if tool.get("strict"):
            _check_closed(schema)
    form = body.get("output_config", {}).get("format")
    if form is not None:
        _check_closed(form["schema"])
    assert json.dumps(body).count('"cache_control"') <= 4, "a maximum of 4 blocks with cache_control"


def _check_blocks(messages: list[Json]) -> None:
    seen: set[str] = set()
    waiting: set[str] = set()
    for index, message in enumerate(messages):
        blocks = message["content"]
        assert message["role"] == ("assistant" if index % 2 else "user"), "roles must alternate, the user's first"
        assert blocks, "content must not be empty"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        assert sorted(results) == sorted(waiting), "tool_use ids were found without tool_result blocks, or the reverse"
        kinds = [block["type"] for block in blocks]
        assert kinds[: len(results)] == ["tool_result"] * len(results), "tool_result blocks must come first"
        assert message["role"] == "user" or kinds[-1] not in THOUGHTS, "the final block must not be thinking"
        waiting = set()
        for block in blocks:
            _check_block(block)
            if block["type"] == "tool_use":
                assert block["id"] not in seen, "`tool_use` ids must be unique"
                seen.add(block["id"])
                waiting.add(block["id"])
    assert not waiting, "tool_use ids were found without tool_result blocks"


def _check_block(block: Json) -> None:
    match block["type"]:
        case "text":
            assert block["text"].strip(), "text content blocks must contain non-whitespace text"
        case "tool_use":
            assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", block["id"]), "tool_use.id: String should match pattern"
            assert isinstance(block["input"], dict), "tool_use.input: Input should be a valid dictionary"
        case "image":
            source = block["source"]
            types = ("image/jpeg", "image/png", "image/gif", "image/webp")
            assert source["type"] == "url" or source["media_type"] in types, "media_type: Input should be …"
        case "tool_result":
            for inner in block.get("content", ()):
                _check_block(inner)
        case _:
            assert block["type"] in THOUGHTS, "this block is not expected"


def present_loop(messages: list[Json]) -> list[Json]:
    """What the assistant said since the last message of the user's that is not results of tools."""
    loop: list[Json] = []
    for message in messages:
        if message["role"] == "assistant":
            loop.append(message)
        elif all(block["type"] != "tool_result" for block in message["content"]):
            loop = []
    return loop


def _check_thinking(body: Json) -> None:
    kind = body.get("thinking", {}).get("type", "disabled")
    said = [block["type"] for message in present_loop(body["messages"]) for block in message["content"]]
    if kind == "disabled":
        assert not {*said} & {*THOUGHTS}, "when `thinking` is disabled, the assistant's turn must not contain thinking"
        return
    assert body.get("temperature", 1) == 1, "`temperature` may only be set to 1 when thinking is enabled"
    forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
    taken = kind == "adaptive" and body["model"] in FORCED_AND_THINKING
    assert not forced or taken, "Thinking may not be enabled when tool_choice forces tool use."
    if kind == "enabled":
        assert not said or said[0] in THOUGHTS, "Expected `thinking` or `redacted_thinking`, but found `tool_use`"
        assert 1024 <= body["thinking"]["budget_tokens"] < body["max_tokens"], "budget_tokens"


def _check_closed(schema: object) -> None:
    if isinstance(schema, list):
        for member in schema:
            _check_closed(member)
    if not isinstance(schema, dict):
        return
    kind = schema.get("type")
    if kind == "object" or (isinstance(kind, list) and "object" in kind):
        assert schema.get("additionalProperties") is False, "'additionalProperties' must be explicitly set to false"
    assert not schema.keys() & _UNENFORCED, "property is not supported"
    assert schema.get("minItems", 0) in (0, 1), "'minItems' values other than 0 or 1 are not supported"
    for word in ("properties", "$defs"):
        for member in schema.get(word, {}).values():
            _check_closed(member)
    for word in ("items", "anyOf", "allOf"):
        _check_closed(schema.get(word))


def check_chat(body: Json) -> None:
    """What every server of Chat Completions wants: https://platform.openai.com/docs/api-reference/chat/create."""
    seen: set[str] = set()
    waiting: list[str] = []
    for message in body["messages"]:
        role = message["role"]
        if role == "tool":
            assert message["tool_call_id"] in waiting, "'tool' must be a response to a preceding 'tool_calls'"
            waiting.remove(message["tool_call_id"])
            continue
        assert not waiting, "an assistant message with 'tool_calls' must be followed by tool messages"
        calls = message.get("tool_calls", [])
        assert role != "assistant" or message.get("content") or calls, "must have either content or tool_calls"
        for call in calls:
            assert 0 < len(call["id"]) <= 40, "string too long. Expected a string with maximum length 40"
            assert call["id"] not in seen, "ids of calls are used twice"
            seen.add(call["id"])
            waiting.append(call["id"])
    assert not waiting, "an assistant message with 'tool_calls' must be followed by tool messages"


def check_llama_server(body: Json) -> None:
    """It parses the arguments of every call, and runs the model's template: those of Qwen take one system message."""
    check_chat(body)
    for index, message in enumerate(body["messages"]):
        assert message["role"] != "system" or index == 0, "System message must be at the beginning."
        for call in message.get("tool_calls", []):
            assert isinstance(json.loads(call["function"]["arguments"]), dict), "Failed to parse tool call arguments"


def check_deepseek(body: Json) -> None:
    """It takes texts as strings: "invalid type: sequence, expected a string"."""
    check_chat(body)
    for message in body["messages"]:
        content = message.get("content")
        if isinstance(content, list):
            assert any(part["type"] != "text" for part in content), "invalid type: sequence, expected a string"


def check_mistral(body: Json) -> None:
    """Errors 3280 (ids) and 3230 (the order of messages)."""
    check_chat(body)
    role = ""
    for message in body["messages"]:
        assert (role, message["role"]) != ("tool", "user"), "Unexpected role 'user' after role 'tool'"
        role = message["role"]
        for call in message.get("tool_calls", []):
            fault = f"Tool call id was {call['id']} but must be a-z, A-Z, 0-9, with a length of 9"
            assert re.fullmatch(r"[a-zA-Z0-9]{9}", call["id"]), fault


def check_responses(body: Json) -> None:
    """OpenAI's Responses API, and llama-server's, which parses arguments here too."""
    seen: set[str] = set()
    told: set[str] = set()
    items = body["input"]
    for item, after in zip(items, [*items[1:], {}], strict=True):
        kind = item.get("type", "message")
        if kind == "reasoning":
            follows = after.get("type", "message")
            led_on = follows in ("reasoning", "function_call", "custom_tool_call") or after.get("role") == "assistant"
            assert led_on, "Item of type 'reasoning' was provided without its required following item."
        if "call_id" in item:
            assert 0 < len(item["call_id"]) <= 64, "string too long. Expected a string with maximum length 64"
        if kind == "function_call":
            assert isinstance(json.loads(item["arguments"]), dict), "Failed to parse tool call arguments"
        if kind in ("function_call", "custom_tool_call"):
            assert item["call_id"] not in seen, "ids of calls are used twice"
            seen.add(item["call_id"])
        elif kind.endswith("_output"):
            assert item["call_id"] in seen, "No tool call found for function call output"
            assert item["call_id"] not in told, "a call has two outputs"
            told.add(item["call_id"])
    assert seen == told, "No tool output found for function call"

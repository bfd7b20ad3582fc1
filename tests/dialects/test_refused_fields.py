"""Which of our own fields a refusal names, in the words of many providers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.refused_fields import SEALED_REASONING, refused_fields
from tests.strategies import examples

OWN = frozenset(
    {
        *("stream_options", "prompt_cache_key", "include", "cache_control", "reasoning"),
        *("call_ids", "user_after_tool", "max_tokens", SEALED_REASONING),
        "thread",
        *("call_reasoning", "call_signature", "named_tool_choice", "forced_tool_choice", "forced_thinking"),
    }
)


def named(body: object, status: int = 400, own: frozenset[str] = OWN) -> set[str]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return set(refused_fields(status, raw, own))


def openai(message: str, param: object = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}}


def pydantic(*path: str | int, kind: str = "extra_forbidden", quoted: object = None) -> dict[str, Any]:
    return {"type": kind, "loc": list(path), "msg": "Extra inputs are not permitted", "input": quoted}


INSIDE_OUT = {"object": "error", "message": {"detail": [pydantic("body", "stream_options", "include_usage")]}}
TOLD = {
    "anthropic-thread": (openai("thread: Extra inputs are not permitted"), {"thread"}),
    "anthropic-beta": (
        openai("Unexpected value(s) `message-threads-2026-08-12` for the `anthropic-beta` header."),
        {"thread"},
    ),
    "anthropic-capability": (openai("capability_rejected: beta_header:message-threads-2026-08-12"), {"thread"}),
    "openai": (openai("Unknown parameter: 'prompt_cache_key'.", "prompt_cache_key"), {"prompt_cache_key"}),
    "openai-words": (openai("Unknown parameter: 'prompt_cache_key'."), {"prompt_cache_key"}),
    "openai-reasoning": (openai("Encrypted content is not supported with this model.", "include"), {"include"}),
    "openai-element": (openai("Invalid value: 'reasoning.encrypted_content'.", "include[0]"), {"include"}),
    "openai-inside": (openai("Unknown parameter.", "stream_options.include_usage"), {"stream_options"}),
    "azure": (openai("Unrecognized request argument supplied: stream_options"), {"stream_options"}),
    "azure-two": (
        openai("Unrecognized request arguments supplied: prompt_cache_key, stream_options"),
        {"prompt_cache_key", "stream_options"},
    ),
    "azure-models": (
        {"error": {"code": 400, "message": "Validation error at #/stream_options: Extra inputs are not permitted"}},
        {"stream_options"},
    ),
    "anthropic": (
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "tools.0.cache_control: Extra inputs are not permitted",
            },
        },
        {"cache_control"},
    ),
    "bedrock": ({"message": "cache_control: Extra inputs are not permitted"}, {"cache_control"}),
    "mistral": (INSIDE_OUT, {"stream_options"}),
    "mistral-text": ({"object": "error", "message": json.dumps(INSIDE_OUT["message"])}, {"stream_options"}),
    "mistral-list": (
        {
            "object": "Error",
            "detail": [pydantic("body", "stream_options")],
            "message": [pydantic("body", "stream_options")],
        },
        {"stream_options"},
    ),
    "fastapi": (
        {"detail": [{"loc": ["body", "stream_options"], "msg": "value is not a valid dict"}]},
        {"stream_options"},
    ),
    "fastapi-two": (
        {"detail": [pydantic("body", "stream_options"), pydantic("body", "prompt_cache_key")]},
        {"stream_options", "prompt_cache_key"},
    ),
    "pydantic-1": (
        {
            "detail": [
                {"loc": ["body", "stream_options"], "msg": "extra fields not permitted", "type": "value_error.extra"}
            ]
        },
        {"stream_options"},
    ),
    "vllm": (
        {
            "object": "error",
            "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options'), "
            "'msg': 'Extra inputs are not permitted'}]",
        },
        {"stream_options"},
    ),
    "fireworks": (
        {"error": {"message": "Extra inputs are not permitted, field: 'stream_options'", "code": 400}},
        {"stream_options"},
    ),
    "groq": (openai("property 'stream_options' is unsupported"), {"stream_options"}),
    "google": (
        [
            {
                "error": {
                    "code": 400,
                    "message": 'Invalid JSON payload received. Unknown name "stream_options": Cannot find field.',
                }
            }
        ],
        {"stream_options"},
    ),
    "serde": (
        {"error": {"message": "unknown field `stream_options`, expected one of `model`, `messages`"}},
        {"stream_options"},
    ),
    "go": ({"error": 'json: unknown field "stream_options"'}, {"stream_options"}),
    "json-schema": (
        {"error": "Additional properties are not allowed ('stream_options' was unexpected)"},
        {"stream_options"},
    ),
    "xai": (
        {"code": "invalid-argument", "error": "Model grok does not support parameter streamOptions."},
        {"stream_options"},
    ),
    "litellm": (
        openai(
            'litellm.BadRequestError: OpenAIException - {"error": {"message": "Encrypted content is not supported with '
            'this model.", "param": "include"}}',
            "None",
        ),
        {"include"},
    ),
    "openrouter": (
        {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": json.dumps(INSIDE_OUT)}}},
        {"stream_options"},
    ),
    "text": (b"unknown parameter: stream_options", {"stream_options"}),
    "openai-sealed": (
        {
            "error": {"message": "The encrypted content gAAA...c90= could not be verified.", "param": None}
            | {"type": "invalid_request_error", "code": "invalid_encrypted_content"}
        },
        {SEALED_REASONING},
    ),
    "openai-sealed-item": (
        openai(
            "The encrypted content for item rs_037e could not be verified. Reason: Encrypted content organization_id "
            "did not match the target organization.",
            "",
        ),
        {SEALED_REASONING},
    ),
    "openai-sealed-param": (
        openai("The encrypted content gAAA could not be verified.", "input[3]"),
        {SEALED_REASONING},
    ),
    "anthropic-sealed": (
        {"type": "error", "error": {"message": "messages.1.content.0: Invalid `signature` in `thinking` block"}},
        {SEALED_REASONING},
    ),
    "anthropic-redacted": (
        {"type": "error", "error": {"message": "messages.1.content.0: Invalid `data` in `redacted_thinking` block"}},
        {SEALED_REASONING},
    ),
    "anthropic-modified": (
        {
            "error": {
                "message": "messages.3.content.0: `thinking` or `redacted_thinking` blocks in the latest assistant "
                "message cannot be modified. These blocks must remain as they were in the original response."
            }
        },
        {SEALED_REASONING},
    ),
    "anthropic-out-of-place": (
        {
            "error": {
                "message": "messages.3.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
                "`tool_use`. When `thinking` is enabled, a final `assistant` message must start with a thinking block "
                "(preceeding the lastmost set of `tool_use` and `tool_result` blocks)."
            }
        },
        {SEALED_REASONING},
    ),
    "anthropic-limit": (
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "max_tokens: 32000 > 8192, which is the maximum allowed number of output tokens for "
                "claude-3-5-haiku-20241022",
            },
        },
        {"max_tokens"},
    ),
    "deepseek-limit": (
        openai("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
        {"max_tokens"},
    ),
    "bedrock-limit": (
        {"message": "The maximum tokens you requested exceeds the model limit of 4096. Try again with a lower value."},
        {"max_tokens"},
    ),
    "deepseek-demands-reasoning": (
        openai("The `reasoning_content` in the thinking mode must be passed back to the API."),
        {"call_reasoning"},
    ),
    "moonshot-demands-reasoning": (
        {
            "error": {
                "message": "thinking is enabled but reasoning_content is missing in assistant tool call message at "
                "index 2",
                "type": "invalid_request_error",
            }
        },
        {"call_reasoning"},
    ),
    "gemini-signature": (
        [{"error": {"code": 400, "message": "Function call is missing a thought_signature in functionCall parts."}}],
        {"call_signature"},
    ),
    "vertex-signature": (
        {"error": {"message": "function call `look` in the 2. content block is missing a `thought_signature`."}},
        {"call_signature"},
    ),
    "lm-studio-choice": (
        {"error": "Invalid tool_choice type: 'object'. Supported string values: none, auto, required"},
        {"named_tool_choice"},
    ),
    "anthropic-never-forced": (
        {"type": "error", "error": {"message": 'tool_choice: type "tool" and "any" are not supported for this model.'}},
        {"forced_tool_choice"},
    ),
    "anthropic-not-forced": (
        {"error": {"message": "tool_choice forces tool use is not compatible with this model."}},
        {"forced_tool_choice"},
    ),
    "bedrock-never-forced": (
        {"message": 'The model returned the following errors: tool_choice: type "tool" and "any" are not supported'},
        {"forced_tool_choice"},
    ),
    "anthropic-forced-thinking": (
        {"error": {"message": "Thinking may not be enabled when tool_choice forces tool use."}},
        {"forced_thinking"},
    ),
    "google-sealed": ({"error": {"code": 400, "message": "Corrupted thought signature."}}, {SEALED_REASONING}),
    "openrouter-sealed": (
        {
            "error": {
                "message": "Provider returned error",
                "metadata": {"raw": '{"error":{"message":"messages.1.content.0: Invalid `signature` in `thinking`"}}'},
            }
        },
        {SEALED_REASONING},
    ),
    "mistral-reasoning": (
        {"detail": [pydantic("body", "messages", 3, "assistant", "reasoning_content", quoted="hm")]},
        {"reasoning"},
    ),
    "groq-reasoning": (
        openai(
            "'messages.2' : for 'role:assistant' the following must be satisfied[('messages.2' : property "
            "'reasoning_content' is unsupported)]"
        ),
        {"reasoning"},
    ),
    "openai-chat-reasoning": (
        openai("Unknown parameter: 'messages[1].reasoning'.", "messages[1].reasoning"),
        {"reasoning"},
    ),
    "mistral-ids": (
        {
            "object": "error",
            "message": "Tool call id was call_PTLP8xhu3uwZk4l3 but must be a-z, A-Z, 0-9, with a length of 9.",
            "type": "invalid_function_call",
            "param": None,
            "code": "3280",
        },
        {"call_ids"},
    ),
    "mistral-template-ids": (
        {"error": {"message": "Tool call IDs should be alphanumeric strings with length 9!"}},
        {"call_ids"},
    ),
    "mistral-order": (
        {"object": "error", "message": "Unexpected role 'user' after role 'tool'", "code": "3230"},
        {"user_after_tool"},
    ),
    "quoted-reasoning": (openai("Unsupported field 'reasoning' in message 2"), {"reasoning"}),
}


@pytest.mark.parametrize(("body", "fields"), TOLD.values(), ids=TOLD)
@pytest.mark.parametrize("status", [400, 422])
def test_the_field_is_recognised(status: int, body: object, fields: set[str]) -> None:
    assert named(body, status) == fields


@pytest.mark.parametrize(("body", "fields"), TOLD.values(), ids=TOLD)
def test_only_our_own_fields_are_meant(body: object, fields: set[str]) -> None:
    """What the client asked for is its own business, and so is the refusal."""
    assert named(body, own=OWN - fields) == set()
    assert named(body, own=frozenset()) == set()


@pytest.mark.parametrize("status", [200, 401, 403, 404, 413, 429, 500, 503])
def test_other_statuses_say_something_else(status: int) -> None:
    assert named(openai("Unknown parameter: 'stream_options'.", "stream_options"), status) == set()


OTHER = {
    "another-field": openai("Unknown parameter: 'top_k'.", "top_k"),
    "beside-another": openai("Unknown parameter: 'top_k'. Did you mean 'stream_options'?", "top_k"),
    "inside-another": openai("Unknown parameter: 'tools[0].include'.", "tools[0].include"),
    "loc-inside": {"detail": [pydantic("body", "tools", 0, "include"), pydantic("body", "metadata", "stream_options")]},
    "quoted-request": {"detail": [pydantic("body", "top_k", quoted="unknown field 'stream_options'")]},
    "quoted-text": {"error": {"input": "unknown field 'stream_options'", "message": "Unknown field 'top_k'"}},
    "part-of-a-name": openai("Unknown parameter: 'my_stream_options_2'."),
    "a-word-of-english": openai("This is not supported: please include at least one message."),
    "no-refusal": openai("stream_options must be sent by somebody who is not busy."),
    "too-many-marks": {"error": {"message": "A maximum of 4 blocks with cache_control may be provided. Found 5."}},
    "mark-of-an-empty-text": {"error": {"message": "messages.0: cache_control cannot be set for empty text blocks"}},
    "mark-beside": {"detail": [{"loc": ["body", "messages", 0, "cache_control"], "msg": "ttl is out of order"}]},
    "too-long-together": openai(
        "input length and `max_tokens` exceed context limit: 199000 + 32000 > 200000, decrease input length or "
        "`max_tokens` and try again"
    ),
    "too-long": openai("prompt is too long: 215000 tokens > 200000 maximum"),
    "no-reasoning-model": openai("This model does not support reasoning."),
    "effort": openai("Unsupported parameter: 'reasoning_effort' is not supported with this model.", "reasoning_effort"),
    "a-forced-tool-that-is-not-there": openai("tool_choice: Tool 'look' not found in provided tools."),
    "nothing": b"",
    "not-json": b"<html>Bad Request</html>",
    "not-utf-8": b"\xff\xfe",
    "a-number": 7,
    "null": {"error": None, "detail": None, "message": None},
    "strange-loc": {"detail": [{"loc": [1, None], "msg": "?"}, {"loc": "body", "msg": "?"}, 7, None]},
    "body-only": {"detail": [{"loc": ["body"], "msg": "?"}]},
}


@pytest.mark.parametrize("body", OTHER.values(), ids=OTHER)
def test_what_is_refused_for_another_reason_is_not_ours(body: object) -> None:
    assert named(body) == set()


LEAVES = st.sampled_from(
    [None, 7, "", "body", "x", "stream_options", "Unknown parameter: 'stream_options'.", "{", "[1]"]
)
KEYS = st.sampled_from(
    ["error", "detail", "message", "msg", "loc", "param", "metadata", "raw", "code", "type", "other"]
)
SHAPES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)


@given(body=SHAPES, texts=st.integers(0, 3))
@settings(max_examples=examples(300))
def test_whatever_the_shape_only_our_own_fields_are_named(body: object, texts: int) -> None:
    """As JSON, and as JSON within texts."""
    for _ in range(texts):
        body = {"message": json.dumps(body)}
    own = frozenset({"stream_options"})
    assert named(body, own=own) <= own
    assert named(body, own=frozenset({"include"})) == set()


@given(body=SHAPES)
@settings(max_examples=examples(100))
def test_what_a_refusal_quotes_of_the_request_names_nothing(body: object) -> None:
    assert named({"detail": [pydantic("body", "messages", quoted=body)], "input": body, "body": body}) == set()


@given(body=st.binary(max_size=200))
@settings(max_examples=examples(100))
def test_what_is_no_json_is_read_as_text(body: bytes) -> None:
    assert named(body) == set()


@pytest.mark.parametrize("wrap", ["[%s]", '{"error":%s}', '{"message":[%s]}'])
def test_how_deep_it_is_searched_is_limited(wrap: str) -> None:
    body = json.dumps(openai("Unknown parameter: 'include'."))
    for _ in range(400):
        body = wrap % body
    assert named(body.encode()) == set()


def test_how_many_errors_are_read_is_limited() -> None:
    one = pydantic("body", "stream_options")
    assert named({"detail": [pydantic("body", "x")] * 63 + [one]}) == {"stream_options"}
    assert named({"detail": [pydantic("body", "x")] * 64 + [one]}) == set()

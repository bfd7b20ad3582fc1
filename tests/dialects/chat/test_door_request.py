"""What a request of Chat Completions asks for."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from segue.dialects.chat.door_items import read_opening
from segue.dialects.chat.door_request import DOOR_FIELDS, ChatRequest, _ChatBody, read_chat_request
from segue.dialects.rules import OTHERS
from segue.dialects.sealed_reasoning import seal
from segue.protocol.problems import Problem
from segue.protocol.request_size import RequestLimits
from segue.protocol.requests import Settings
from tests.dialects.chat.doors import USER, asked, items, refused
from tests.dialects.conversations import DIALECTS, PIXEL, render, replay
from tests.strategies import examples, hostile_bytes

Json = dict[str, Any]
LOOK: Json = {"type": "object", "properties": {"at": {"type": "integer"}}}


def read_settings(**fields: Any) -> Settings:  # noqa: ANN401 - any field
    return asked(**fields).create.settings


def test_a_request_is_stateless_and_says_how_it_is_answered() -> None:
    plain, streamed = asked(), asked(stream=True, stream_options={"include_usage": True})
    assert (plain.create.store, plain.create.stream, plain.include_usage) == (False, False, False)
    assert (streamed.create.store, streamed.create.stream, streamed.include_usage) == (False, True, True)
    assert plain.create.previous_response_id is None
    assert plain.create.shows_encrypted, "the client keeps the history"
    assert items(plain) == [{"type": "message", "role": "user", "content": "go"}]
    assert plain.create.size_bytes == len(json.dumps({"model": "m", "messages": [USER]}))
    assert plain.create.settings == Settings(model="m")


def test_settings_of_the_same_name() -> None:
    fields: Json = {
        "temperature": 0.5,
        "top_p": 0.5,
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
        "parallel_tool_calls": False,
        "service_tier": "flex",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
    }
    assert read_settings(**fields) == Settings(model="m", **fields)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"max_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_output_tokens": 5}),
        ({"reasoning_effort": "high"}, {"reasoning": {"effort": "high"}}),
        (
            {"reasoning": {"effort": "low", "summary": "auto", "exclude": True}},
            {"reasoning": {"effort": "low", "summary": "auto"}},
        ),
        (
            {"reasoning_effort": "low", "reasoning": {"summary": "auto"}},
            {"reasoning": {"effort": "low", "summary": "auto"}},
        ),
        ({"verbosity": "low"}, {"text": {"verbosity": "low"}}),
        ({"response_format": {"type": "text"}}, {"text": {"format": {"type": "text"}}}),
        ({"response_format": {"type": "json_object"}}, {"text": {"format": {"type": "json_object"}}}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": LOOK, "strict": True}}},
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": LOOK, "strict": True}}},
        ),
        ({"logprobs": True}, {"include": ("message.output_text.logprobs",)}),
        (
            {"logprobs": True, "top_logprobs": 3},
            {"include": ("message.output_text.logprobs",), "top_logprobs": 3},
        ),
        ({"logprobs": False, "top_logprobs": 0, "n": 1, "store": False, "metadata": {}, "modalities": ["text"]}, {}),
        (dict.fromkeys(("n", "store", "tools", "tool_choice", "response_format", "stop", "audio")), {}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "look"}}},
            {"tool_choice": {"type": "function", "name": "look"}},
        ),
        (
            {"tool_choice": {"type": "custom", "custom": {"name": "patch"}}},
            {"tool_choice": {"type": "custom", "name": "patch"}},
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "look"}}]},
                }
            },
            {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}]}},
        ),
    ],
)
def test_settings_of_another_name(fields: Json, wanted: Json) -> None:
    assert read_settings(**fields) == Settings(**{"model": "m", **wanted})


@pytest.mark.parametrize(
    ("tool", "wanted"),
    [
        (
            {
                "type": "function",
                "function": {"name": "look", "description": "Look.", "parameters": LOOK, "strict": True},
            },
            {"type": "function", "name": "look", "description": "Look.", "parameters": LOOK, "strict": True},
        ),
        (
            {"type": "function", "function": {"name": "look"}},
            {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False},
        ),
        (
            {
                "type": "custom",
                "custom": {
                    "name": "patch",
                    "description": "Edit.",
                    "format": {"type": "grammar", "grammar": {"definition": "x", "syntax": "lark"}},
                },
            },
            {
                "type": "custom",
                "name": "patch",
                "description": "Edit.",
                "format": {"type": "grammar", "definition": "x", "syntax": "lark"},
            },
        ),
        ({"type": "custom", "custom": {"name": "say"}}, {"type": "custom", "name": "say"}),
        (
            {"type": "custom", "custom": {"name": "say", "format": {"type": "text"}}},
            {"type": "custom", "name": "say", "format": {"type": "text"}},
        ),
        ({"type": "web_search", "depth": 2}, {"type": "web_search", "depth": 2}),
    ],
)
def test_tools(tool: Json, wanted: Json) -> None:
    """Where a tool does not say whether it is strict, it is not, and in the Responses API it would be."""
    assert read_settings(tools=[tool]).tools == [wanted]


def test_fields_without_a_setting_are_kept_as_they_came() -> None:
    extra = read_settings(
        seed=7, stop=["x"], user="u", logit_bias={"1": 1}, top_k=3, stream_options={"include_obfuscation": False}
    ).extra
    assert {name: json.loads(bytes(raw)) for name, raw in extra.items()} == {
        "stream_options": {"include_obfuscation": False},
        "seed": 7,
        "stop": ["x"],
        "user": "u",
        "logit_bias": {"1": 1},
        "top_k": 3,
    }


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model": None}, "missing_required_parameter", "model"),
        ({"messages": None}, "missing_required_parameter", "messages"),
        ({"messages": []}, "missing_required_parameter", "messages"),
        ({"messages": "x"}, "invalid_type", "messages"),
        ({"n": 2}, "unsupported_parameter", "n"),
        ({"store": True}, "unsupported_parameter", "store"),
        ({"metadata": {"a": "b"}}, "unsupported_parameter", "metadata"),
        ({"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
        ({"audio": {"voice": "x"}}, "unsupported_parameter", "audio"),
        ({"functions": [{"name": "f"}]}, "unsupported_parameter", "functions"),
        ({"function_call": "auto"}, "unsupported_parameter", "function_call"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "invalid_value", "max_tokens"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
        ({"temperature": 3}, "invalid_value", "temperature"),
        ({"tools": {}}, "invalid_type", "tools"),
        ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "missing_required_parameter", "tools[0].function.name"),
        ({"tools": [{"type": "custom"}]}, "missing_required_parameter", "tools[0].custom"),
        ({"tool_choice": "maybe"}, "invalid_value", "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "missing_required_parameter", "tool_choice.function"),
        ({"tool_choice": {"type": "web_search"}}, "unsupported_parameter", "tool_choice.type"),
        ({"tool_choice": {"type": "allowed_tools"}}, "missing_required_parameter", "tool_choice.allowed_tools"),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]},
                }
            },
            "missing_required_parameter",
            "tool_choice.allowed_tools.tools[0].function",
        ),
        ({"response_format": "json"}, "invalid_type", "response_format"),
        ({"response_format": {"type": "json_schema"}}, "missing_required_parameter", "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "missing_required_parameter",
            "response_format.json_schema.schema",
        ),
        ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
    ],
)
def test_what_cannot_be_had_is_refused_by_its_name(fields: Json, code: str, param: str) -> None:
    problem = refused(**fields)
    assert (problem.code, problem.param) == (code, param)


@pytest.mark.parametrize("field", ["tools", "tool_choice", "response_format", "logit_bias"])
def test_json_that_is_nested_too_deeply_is_refused(field: str) -> None:
    value: Any = 1
    for _ in range(80):
        value = {"a": value}
    wrapped: Json = {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": value}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}, "a": value},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": value}},
        "logit_bias": value,
    }
    body = json.dumps({"model": "m", "messages": [USER], field: wrapped[field]}).encode()
    read = read_chat_request(body, lambda _: False)
    if field == "tool_choice":  # what is beside the name is not kept
        assert isinstance(read, ChatRequest)
    else:
        assert isinstance(read, Problem)
        assert read.code == "invalid_json"


def test_every_field_has_a_row_in_the_documentation_and_those_that_say_so_are_refused() -> None:
    fields = {"model", "messages"} | {name for name, rule in DOOR_FIELDS.items() if rule.fate == "refused"}
    values: Json = {"n": 2, "store": True, "metadata": {"a": "b"}, "modalities": ["audio"], "audio": {"a": 1}}
    values |= {"functions": [], "function_call": "none"}
    values |= {"previous_response_id": "resp_1", "conversation": "conv_1", "thread": {"type": "create"}}
    assert fields == {*values, "model", "messages"}
    for name, value in values.items():
        assert refused(**{name: value}).param == name
    assert {*_ChatBody.__struct_fields__, OTHERS} == set(DOOR_FIELDS)


@pytest.mark.parametrize("native", [False, True])
def test_a_history_that_is_not_sent_is_refused_whoever_the_upstream_is(native: bool) -> None:
    """A server that does not know such a field answers with less history."""
    for field, code in (
        ("previous_response_id", "unsupported_parameter"),
        ("conversation", "unsupported_parameter"),
        ("thread", "thread_unsupported_request"),
    ):
        body = json.dumps({"model": "m", "messages": [USER], field: {"id": "x"}}).encode()
        read = read_chat_request(body, lambda _: native)
        assert isinstance(read, Problem)
        assert (read.code, read.param) == (code, field)


def test_limits() -> None:
    body = json.dumps({"model": "m", "messages": [USER] * 3}).encode()
    few = read_chat_request(body, lambda _: False, RequestLimits(items=2))
    small = read_chat_request(body, lambda _: False, RequestLimits(values=5))
    assert isinstance(few, Problem)
    assert (few.code, few.param) == ("invalid_value", "messages")
    assert isinstance(small, Problem)
    assert small.code == "message_too_large"


def test_half_a_character_becomes_another_one() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"a\\ud83d"}]}'
    read = read_chat_request(body, lambda _: False)
    assert isinstance(read, ChatRequest)
    assert items(read)[0]["content"] == "a\ufffd"
    passed = read_chat_request(body, lambda _: True)
    assert isinstance(passed, ChatRequest)
    assert passed.create.native is not None
    assert b"\\ufffd" in passed.create.native.body.text


def test_a_request_for_an_upstream_of_this_api_is_not_read_further() -> None:
    """The upstream judges it, and may know more than we do."""
    asked_of: list[str] = []

    def speaks(model: str) -> bool:
        asked_of.append(model)
        return True

    fields: Json = {"tools": [{"type": "function"}], "top_k": 3, "max_completion_tokens": 9, "stream": True}
    messages = [USER, {"role": "assistant", "content": "x"}, {"role": "wizard"}]
    body = json.dumps({"model": "m", "messages": messages, **fields}).encode()
    read = read_chat_request(body, speaks)
    assert isinstance(read, ChatRequest)
    assert asked_of == ["m"]
    create = read.create
    assert create.settings == Settings(model="m", max_output_tokens=9)
    assert (create.stream, create.store, create.input.items) == (True, False, ())
    assert create.native is not None
    assert (create.native.dialect, create.native.body.text, create.native.replayed) == ("chat", body, True)
    assert create.native.opening == read_opening([msgspec.Raw(json.dumps(USER).encode())])[0]


def test_details_that_only_another_provider_can_read_do_not_pass() -> None:
    details = [{"type": "reasoning.encrypted", "data": seal("api.anthropic.com", "{}"), "index": 0}]
    answer: Json = {"role": "assistant", "content": "x"}
    request = asked(USER, {**answer, "reasoning_details": details}, native=True)
    assert request.create.native is not None
    assert json.loads(request.create.native.fields["messages"]) == [USER, answer]
    plain = asked(USER, answer, native=True)
    assert plain.create.native is not None
    assert plain.create.native.fields == {}


def test_a_request_that_passes_through_says_nothing_twice() -> None:
    """Two readers might not agree on which of the two counts."""
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"model":"other"}'
    read = read_chat_request(body, lambda _: True)
    assert isinstance(read, Problem)
    assert read.code == "invalid_json"


@given(data=hostile_bytes, native=st.booleans())
@settings(max_examples=examples(300))
def test_hostile_bytes_are_refused_without_an_error(data: bytes, native: bool) -> None:
    read = read_chat_request(data, lambda _: native)
    assert isinstance(read, Problem | ChatRequest)


# --- through the door and out of the upstream of the same API ---------------------------------------------------------

_words = st.text(max_size=6).filter(str.strip)
_parts = st.lists(
    st.sampled_from(
        [
            {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        ]
    )
    | _words.map(lambda text: {"type": "text", "text": text}),
    min_size=2,
    max_size=3,
).filter(lambda parts: any(part["type"] != "text" for part in parts))
_users = st.fixed_dictionaries({"role": st.just("user"), "content": _words | _parts})


@st.composite
def _conversations(draw: st.DrawFn) -> list[Json]:
    """Conversations that both sides write alike: text and calls of one message, outputs right behind it."""
    messages: list[Json] = [{"role": "system", "content": draw(_words)}] if draw(st.booleans()) else []
    messages.append(draw(_users))
    made = 0
    for _ in range(draw(st.integers(0, 3))):
        text = draw(st.none() | _words)
        names = draw(st.lists(st.sampled_from(["look", "read"]), min_size=0 if text else 1, max_size=2))
        calls = [
            {"id": f"call_{made + n}", "type": "function", "function": {"name": name, "arguments": '{"at":1}'}}
            for n, name in enumerate(names)
        ]
        made += len(calls)
        messages.append({"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})})
        messages += [
            {"role": "tool", "tool_call_id": call["id"], "content": draw(_words)}
            for call in draw(st.permutations(calls))
        ]
        messages += draw(st.lists(_users, min_size=0 if calls else 1, max_size=2))
    return messages


_TOOLS: list[Json] = [
    {
        "type": "function",
        "function": {"name": name, "description": name, "parameters": LOOK, **({"strict": True} if strict else {})},
    }
    for name, strict in (("look", True), ("read", False))
]
_settings: SearchStrategy[Json] = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 9),
        "temperature": st.sampled_from([0.0, 0.5, 2.0]),
        "top_p": st.sampled_from([0.0, 0.5]),
        "presence_penalty": st.sampled_from([-1.0, 0.5]),
        "frequency_penalty": st.sampled_from([-1.0, 0.5]),
        "reasoning_effort": st.sampled_from(["low", "high"]),
        "logprobs": st.just(True),
        "seed": st.integers(0, 9),
        "stop": st.sampled_from(["x", ["x", "y"]]),
        "user": st.just("u"),
        "response_format": st.sampled_from(
            [
                {"type": "json_object"},
                {"type": "json_schema", "json_schema": {"name": "n", "schema": LOOK, "strict": True}},
            ]
        ),
    },
)
_choices: SearchStrategy[Json] = st.fixed_dictionaries(
    {"tools": st.just(_TOOLS)},
    optional={
        "tool_choice": st.sampled_from(["none", "required", {"type": "function", "function": {"name": "look"}}]),
        "parallel_tool_calls": st.just(False),
    },
)


@given(messages=_conversations(), fields=_settings, tools=st.just({}) | _choices)
@settings(max_examples=examples(400))
def test_what_both_can_say_is_the_same_behind_the_door_and_the_upstream(
    messages: list[Json], fields: Json, tools: Json
) -> None:
    read = asked(*messages, **fields, **tools)
    rendered = render(DIALECTS["chat"], replay(read.create.input.items), read.create.settings)
    sent = msgspec.json.decode(rendered.body)
    ours = {"model", "stream", "stream_options"}
    assert rendered.warnings == ()
    assert read.warnings == ()
    assert sent["messages"] == messages
    assert {name: value for name, value in sent.items() if name not in {*ours, "messages"}} == {**fields, **tools}

"""What Anthropic Messages is sent for the settings of a request."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from segue.dialects.interface import Rendered
from segue.dialects.messages.request import MessagesDialect
from segue.dialects.messages.settings import MESSAGES_FIELDS
from segue.dialects.provider_profiles import ProviderProfile
from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.request import RESPONSES_FIELDS
from segue.protocol.problems import Problem
from segue.testing.protocol_checker import parse_json
from tests.dialects.conversations import DIALECTS, LOOK, MESSAGES, USER, Request, encode_items, replay, settings

Json = dict[str, Any]
DIALECT = DIALECTS["messages"]
CACHED = {"cache_control": {"type": "ephemeral"}}
GO = {"type": "text", "text": "go"}
CITY: Json = {"type": "object", "properties": {"name": {"type": "string"}}}
CLOSED: Json = {"type": "object", "additionalProperties": False}


def asked(model: str = "claude-sonnet-4-6", **fields: Any) -> tuple[Json, tuple[str, ...]]:  # noqa: ANN401 - as above
    """The body and the warnings of a request with these settings."""
    request = Request(replay(encode_items([USER])), settings(**fields), model)
    rendered = DIALECT.render(request, RenderCache(0))
    assert not isinstance(rendered, Problem)
    return parse_json(rendered.body.decode()), rendered.warnings


def test_the_request_around_the_history() -> None:
    sent, told = asked(
        instructions="Be brief.",
        tools=[LOOK, {"type": "custom", "name": "patch"}],
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": CITY}},
        max_output_tokens=9,
        temperature=0.5,
        service_tier="default",
        safety_identifier="u",
        metadata={"a": "b"},
        prompt_cache_key="k",
        include=("reasoning.encrypted_content",),
    )
    patch = sent["tools"].pop()
    assert patch["input_schema"]["required"] == ["input"]
    assert sent == {
        "model": "claude-sonnet-4-6",
        "max_tokens": 9,
        "tools": [{"name": "look", "description": "Look.", "input_schema": CLOSED, "strict": True}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": CITY | CLOSED}},
        "temperature": 0.5,
        "service_tier": "standard_only",
        "metadata": {"user_id": "u"},
        "system": [{"type": "text", "text": "Be brief."} | CACHED],
        "stream": True,
        "messages": [{"role": "user", "content": [GO | CACHED]}],
    }
    assert told == ()


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "name": "look"}, {"type": "tool", "name": "look"}),
    ],
)
def test_tool_choice(choice: object, sent: Json) -> None:
    assert asked(tools=[LOOK], tool_choice=choice)[0]["tool_choice"] == sent


@pytest.mark.parametrize(
    ("model", "thinking", "effort"),
    [
        ("claude-sonnet-4-6", {"type": "adaptive", "display": "summarized"}, "low"),
        ("claude-opus-4-7", {"type": "adaptive", "display": "summarized"}, "low"),
        ("some-other-model", {"type": "adaptive", "display": "summarized"}, "low"),
        ("claude-sonnet-4-5", {"type": "enabled", "budget_tokens": 4096}, None),
        ("claude-haiku-4-5-20251001", {"type": "enabled", "budget_tokens": 4096}, None),
        ("anthropic.claude-opus-4-20250514-v1:0", {"type": "enabled", "budget_tokens": 4096}, None),
        ("claude-3-7-sonnet-latest", {"type": "enabled", "budget_tokens": 4096}, None),
    ],
)
def test_thinking_as_the_model_does_it(model: str, thinking: Json, effort: str | None) -> None:
    sent, told = asked(model, reasoning={"effort": "low", "summary": "auto"})
    assert sent["thinking"] == thinking
    assert sent.get("output_config", {}).get("effort") == effort
    assert told == ()


def test_thinking_is_off_where_it_was_not_asked_for_or_was_refused() -> None:
    assert "thinking" not in asked(reasoning={"summary": "auto"})[0]
    assert asked(reasoning={"effort": "none"})[0]["thinking"] == {"type": "disabled"}


def test_a_budget_leaves_room_for_the_answer() -> None:
    sent, _ = asked("claude-sonnet-4-5", reasoning={"effort": "high"}, max_output_tokens=2000)
    assert sent["thinking"]["budget_tokens"] == 1999
    sent, told = asked("claude-sonnet-4-5", reasoning={"effort": "high"}, max_output_tokens=1024)
    assert "thinking" not in sent
    assert told[0].startswith("'reasoning'")


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-sonnet-4-6", "claude-opus-4-6", "claude-opus-4-7"])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "look"}])
def test_a_model_does_not_think_where_a_tool_must_be_called(model: str, choice: object) -> None:
    sent, (warning,) = asked(model, tools=[LOOK], tool_choice=choice, reasoning={"effort": "low"})
    assert "thinking" not in sent
    assert "output_config" not in sent
    assert warning.startswith("'reasoning'")


def test_a_model_that_takes_both_thinks_where_a_tool_must_be_called() -> None:
    fields: Json = {"tools": [LOOK], "tool_choice": "required", "reasoning": {"effort": "low"}}
    sent, told = asked("claude-opus-4-8", **fields)
    assert (sent["thinking"], sent["tool_choice"], told) == ({"type": "adaptive"}, {"type": "any"}, ())
    assert sent["output_config"] == {"effort": "low"}


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "look"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look"}]},
    ],
)
@pytest.mark.parametrize("effort", [None, "low"])
def test_a_model_that_cannot_be_forced_to_call_a_tool_chooses(choice: object, effort: str | None) -> None:
    """The client is told, and the model thinks as it was asked to."""
    fields: Json = {"tools": [LOOK], "tool_choice": choice, "reasoning": {"effort": effort} if effort else None}
    sent, (warning,) = asked("claude-opus-5-5", **fields)
    assert "tool_choice" not in sent
    assert warning.startswith("'tool_choice'")
    assert ("thinking" in sent) is (effort is not None)
    alone = asked("claude-opus-5-5", **fields, parallel_tool_calls=False)[0]
    assert alone["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


def test_it_is_learned_that_a_model_cannot_be_forced_or_does_not_think_then() -> None:
    fields: Json = {"tools": [LOOK], "tool_choice": "required", "reasoning": {"effort": "low"}}
    request = Request(replay(encode_items([USER])), settings(**fields), "claude-opus-5")
    first, chooses, thoughtless = [
        DIALECT.render(request, RenderCache(0), without=frozenset(learned))
        for learned in ((), ("forced_tool_choice",), ("forced_thinking",))
    ]
    assert isinstance(first, Rendered)
    assert first.warnings == ()
    assert {"forced_tool_choice", "forced_thinking"} <= first.own_fields
    assert isinstance(chooses, Rendered)
    sent = parse_json(chooses.body.decode())
    assert ("tool_choice" in sent, sent["thinking"]) == (False, {"type": "adaptive"})
    assert chooses.warnings[0].startswith("'tool_choice'")
    assert isinstance(thoughtless, Rendered)
    sent = parse_json(thoughtless.body.decode())
    assert (sent["tool_choice"], "thinking" in sent) == ({"type": "any"}, False)
    assert thoughtless.warnings[0].startswith("'reasoning'")


def test_a_model_that_always_thinks_is_not_told_not_to() -> None:
    sent, (warning,) = asked("claude-opus-5-5", reasoning={"effort": "none"})
    assert (sent["thinking"], sent["output_config"]) == ({"type": "adaptive"}, {"effort": "low"})
    assert warning.startswith("'reasoning'")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"frequency_penalty": 1.0}, "frequency_penalty"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"include": ("message.output_text.logprobs",)}, "include"),
        ({"temperature": 1.5}, "temperature"),
        ({"temperature": 0.5, "top_p": 0.5}, "top_p"),
        ({"temperature": 0.5, "reasoning": {"effort": "low"}}, "temperature"),
        ({"top_p": 0.5, "reasoning": {"effort": "low"}}, "top_p"),
        ({"tools": [{"type": "web_search"}]}, "tools: web_search"),
        ({"extra": {"seed": Raw(b"7")}}, "seed"),
    ],
)
def test_what_can_be_left_out_is_left_out_with_a_warning(fields: Json, name: str) -> None:
    _, (warning,) = asked(**fields)
    assert warning.startswith(f"'{name}")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"extra": {"stop": Raw(b"7")}}, "stop"),
    ],
)
def test_what_cannot_be_done_and_must_not_be_ignored_is_refused(fields: Json, param: str) -> None:
    answer = DIALECT.render(Request(replay(encode_items([USER])), settings(**fields)), RenderCache(0))
    assert isinstance(answer, Problem)
    assert (answer.code, answer.param) == ("unsupported_parameter", param)


def test_the_highest_temperature_of_this_api_is_carried_without_a_warning() -> None:
    sent, told = asked(temperature=1.0)
    assert (sent["temperature"], told) == (1.0, ())
    assert asked(temperature=1.5)[0]["temperature"] == 1


@pytest.mark.parametrize("schema", [CITY, CITY | {"description": "own"}])
def test_what_an_answer_is_for_is_told_in_its_schema(schema: Json) -> None:
    form = {"type": "json_schema", "name": "x", "description": "A city.", "schema": schema, "strict": True}
    sent, told = asked(text={"format": form})
    assert sent["output_config"]["format"]["schema"] == {"description": "A city.", **schema} | CLOSED
    assert told == ()


def test_who_is_served_is_told_once() -> None:
    assert asked(extra={"user": Raw(b'"u"')}) == ({**asked()[0], "metadata": {"user_id": "u"}}, ())
    sent, (warning,) = asked(extra={"user": Raw(b'"u"')}, safety_identifier="s")
    assert (sent["metadata"], warning.split("'")[1]) == ({"user_id": "s"}, "user")
    sent, (warning,) = asked(extra={"user": Raw(b"7")})
    assert ("metadata" in sent, warning.split("'")[1]) == (False, "user")


@pytest.mark.parametrize("stop", [b'"END"', b'["END"]'])
def test_stops_have_another_name(stop: bytes) -> None:
    assert asked(extra={"stop": Raw(stop)}) == ({**asked()[0], "stop_sequences": ["END"]}, ())


def strict(count: int, **parameters: Any) -> list[Json]:  # noqa: ANN401 - any schema
    tool = {"type": "function", "strict": True, "parameters": {"type": "object", "properties": {}, **parameters}}
    return [{**tool, "name": f"look_{number}"} for number in range(count)]


def test_the_first_twenty_strict_tools_are_strict() -> None:
    sent, (warning,) = asked(tools=strict(25))
    assert [tool.get("strict") for tool in sent["tools"]] == [True] * 20 + [None] * 5
    assert [tool["input_schema"].get("additionalProperties") for tool in sent["tools"]] == [False] * 20 + [None] * 5
    assert warning.startswith("'tools.strict' was left out")
    assert asked(tools=strict(20))[1] == ()
    few = MessagesDialect(MESSAGES, profile=ProviderProfile(strict_tools=1))
    rendered = few.render(Request(replay(encode_items([USER])), settings(tools=strict(2))), RenderCache(0))
    assert isinstance(rendered, Rendered)
    assert rendered.body.count(b'"strict":true') == 1


def test_a_tool_that_takes_any_fields_is_not_strict() -> None:
    """Closed, it would take none of them."""
    open_fields = {"properties": {"a": {"type": "object"}}}
    sent, (warning,) = asked(tools=strict(1, **open_fields))
    assert sent["tools"][0]["input_schema"] == {"type": "object", **open_fields}
    assert "strict" not in sent["tools"][0]
    assert warning.startswith("'tools.strict'")


def test_what_is_not_enforced_is_told_once() -> None:
    least = {"properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    sent, told = asked(tools=strict(2, **least))
    assert sent["tools"][1]["input_schema"]["properties"] == {"n": {"type": "integer", "description": '{"minimum":1}'}}
    assert told == (
        "'tools.parameters: minimum' was left out: this API does not enforce it; the model reads it in a description.",
    )
    schema = CITY | {f"x-{number}": 1 for number in range(9)}
    sent, (warning,) = asked(text={"format": {"type": "json_schema", "name": "n", "schema": schema}})
    assert "x-7, …' was left out" in warning
    assert warning.count("x-") == 8
    assert "x-8" in sent["output_config"]["format"]["schema"]["description"]


def test_parameters_are_an_object() -> None:
    tool = {"type": "function", "name": "look", "parameters": {"properties": {"a": {"type": "string"}}}}
    sent, told = asked(tools=[tool])
    assert sent["tools"][0]["input_schema"] == {"properties": {"a": {"type": "string"}}, "type": "object"}
    assert told == ()


def test_every_setting_has_its_rule() -> None:
    assert set(MESSAGES_FIELDS) == set(RESPONSES_FIELDS)


def test_what_an_answers_schema_cannot_enforce_is_told() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}
    _, (warning,) = asked(text={"format": {"type": "json_schema", "name": "x", "schema": schema}})
    assert warning.startswith("'text.format.schema: minimum' was left out: ")


def test_eight_words_of_a_schema_are_named_and_there_are_no_more() -> None:
    schema = CITY | {f"x-{number}": 1 for number in range(8)}
    _, (warning,) = asked(text={"format": {"type": "json_schema", "name": "n", "schema": schema}})
    assert "x-7' was left out" in warning


def test_why_a_tool_is_not_strict_is_told() -> None:
    _, (warning,) = asked(tools=strict(21))
    assert "enforces the schemas of at most 20 tools" in warning

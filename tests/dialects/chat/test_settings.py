"""What Chat Completions is sent for the settings of a request."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from segue.dialects.chat.request import ChatDialect
from segue.dialects.chat.settings import chat_fields
from segue.dialects.interface import Rendered
from segue.dialects.provider_families import FAMILIES
from segue.dialects.provider_profiles import PLAIN as UNKNOWN
from segue.dialects.provider_profiles import ProviderProfile
from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.request import RESPONSES_FIELDS
from segue.protocol.problems import Problem
from tests.dialects.conversations import (
    CHAT,
    DIALECTS,
    LOOK,
    USER,
    Request,
    body,
    encode_items,
    replay,
    settings,
    warnings,
)

Json = dict[str, Any]
PLAIN, OFFICIAL = DIALECTS["chat"], DIALECTS["openai-chat"]


def problem(**fields: Any) -> Problem:  # noqa: ANN401 - any setting
    answer = PLAIN.render(Request(replay(encode_items([USER])), settings(**fields)), RenderCache(0))
    assert isinstance(answer, Problem)
    return answer


def test_the_request_around_the_history() -> None:
    wanted = settings(
        instructions="Be brief.",
        tools=[LOOK, {"type": "custom", "name": "patch"}],
        tool_choice={"type": "custom", "name": "patch"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
        reasoning={"effort": "low", "summary": "auto"},
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.5,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        top_logprobs=2,
        include=("reasoning.encrypted_content", "message.output_text.logprobs"),
        metadata={"a": "b"},
    )
    sent = body(PLAIN, [USER], wanted)
    patch = sent["tools"].pop()
    assert patch["function"]["parameters"]["required"] == ["input"]
    assert sent == {
        "model": "model-1",
        "tools": [
            {
                "type": "function",
                "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}, "strict": True},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "patch"}},
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
        },
        "reasoning_effort": "low",
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.5,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "logprobs": True,
        "top_logprobs": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "system", "content": "Be brief."}, USER],
    }
    assert warnings(PLAIN, [USER], wanted) == ()


ONLY_OPENAI = {"service_tier": "flex", "safety_identifier": "u", "prompt_cache_key": "k", "text": {"verbosity": "low"}}


def test_only_openais_own_api_gets_its_own_fields() -> None:
    wanted = settings(max_output_tokens=9, **ONLY_OPENAI)
    sent = body(OFFICIAL, [USER], wanted)
    assert {name: sent[name] for name in ("service_tier", "safety_identifier", "prompt_cache_key", "verbosity")} == {
        "service_tier": "flex",
        "safety_identifier": "u",
        "prompt_cache_key": "k",
        "verbosity": "low",
    }
    assert sent["max_completion_tokens"] == 9
    assert warnings(OFFICIAL, [USER], wanted) == ()
    told = warnings(PLAIN, [USER], wanted)
    assert len(told) == 4
    assert (
        not {"service_tier", "safety_identifier", "prompt_cache_key", "verbosity"} & body(PLAIN, [USER], wanted).keys()
    )


def test_tools_that_are_not_allowed_are_not_shown() -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look"}]}
    sent = body(PLAIN, [USER], settings(tools=[LOOK, LOOK | {"name": "other"}], tool_choice=allowed))
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["look"]
    assert sent["tool_choice"] == "required"


def test_a_grammar_is_told_in_words() -> None:
    form = {"type": "grammar", "syntax": "lark", "definition": "start: X"}
    sent = body(PLAIN, [USER], settings(tools=[{"type": "custom", "name": "p", "description": "D.", "format": form}]))
    assert sent["tools"][0]["function"]["description"] == "D.\n\nThe input must match this lark grammar:\nstart: X"


def test_a_tool_that_a_provider_runs_is_left_out_with_a_warning() -> None:
    wanted = settings(tools=[LOOK, {"type": "web_search"}])
    assert len(body(PLAIN, [USER], wanted)["tools"]) == 1
    assert warnings(PLAIN, [USER], wanted)[0].startswith("'tools: web_search' was left out")


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "name": "look"}},
        {"tools": [{"type": "web_search"}], "tool_choice": "required"},
        {"tools": [LOOK], "tool_choice": {"type": "web_search"}},
        {"tools": [LOOK], "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": []}},
        {"text": {"format": {"type": "grammar"}}},
    ],
)
def test_what_cannot_be_done_and_must_not_be_ignored_is_refused(fields: Json) -> None:
    assert problem(**fields).code == "unsupported_parameter"


@pytest.mark.parametrize(
    "fields", [{"service_tier": "flex"}, {"max_tool_calls": 3}, {"include": ("file_search_call.results",)}]
)
def test_what_can_be_left_out_is_left_out_with_a_warning(fields: Json) -> None:
    (warning,) = warnings(PLAIN, [USER], settings(**fields))
    assert next(iter(fields)) in warning


def test_who_is_served_is_told_and_only_openai_how_long_to_cache() -> None:
    wanted = settings(extra={"user": Raw(b'"u"'), "prompt_cache_retention": Raw(b'"24h"')})
    assert body(PLAIN, [USER], wanted)["user"] == "u"
    (warning,) = warnings(PLAIN, [USER], wanted)
    assert warning.startswith("'prompt_cache_retention'")
    sent = body(DIALECTS["openai-chat"], [USER], wanted)
    assert (sent["user"], sent["prompt_cache_retention"]) == ("u", "24h")
    assert warnings(DIALECTS["openai-chat"], [USER], wanted) == ()


@pytest.mark.parametrize("dialect", ["chat", "openai-chat"])
def test_the_seed_and_stops_of_this_api_go_on_as_they_came(dialect: str) -> None:
    wanted = settings(extra={"seed": Raw(b"7"), "stop": Raw(b'["END"]')})
    sent = body(DIALECTS[dialect], [USER], wanted)
    assert (sent["seed"], sent["stop"]) == (7, ["END"])
    assert warnings(DIALECTS[dialect], [USER], wanted) == ()


@pytest.mark.parametrize("profile", [UNKNOWN, FAMILIES["openai"].profile])
def test_every_setting_has_its_rule(profile: ProviderProfile) -> None:
    assert set(chat_fields(profile)) == set(RESPONSES_FIELDS)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"tools": [LOOK | {"defer_loading": True, "strict": None}, LOOK | {"defer_loading": True}]}, "tools.defer"),
        ({"text": {"new": 1}}, "text.new"),
        ({"text": {"format": {"type": "text", "new": 1}}}, "text.format.new"),
        ({"reasoning": {"effort": "low", "new": 1}}, "reasoning.new"),
    ],
)
@pytest.mark.parametrize("dialect", ["chat", "messages"])
def test_a_field_of_a_setting_without_a_counterpart_too(dialect: str, fields: Json, name: str) -> None:
    (warning,) = warnings(DIALECTS[dialect], [USER], settings(**fields))
    assert warning.startswith(f"'{name}")


def test_the_likeliest_tokens_come_only_with_the_probabilities() -> None:
    sent = body(PLAIN, [USER], settings(top_logprobs=2))
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)


def test_a_tool_that_cannot_be_named_is_the_only_one_that_is_offered() -> None:
    """LM Studio takes a word as `tool_choice`, and no object."""
    wanted = settings(tools=[LOOK, LOOK | {"name": "other"}], tool_choice={"type": "function", "name": "other"})
    sent = body(ChatDialect(CHAT, profile=FAMILIES["lm-studio"].profile), [USER], wanted)
    assert ([tool["function"]["name"] for tool in sent["tools"]], sent["tool_choice"]) == (["other"], "required")
    sent = body(PLAIN, [USER], wanted)
    assert len(sent["tools"]) == 2
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "other"}}
    request = Request(replay(encode_items([USER])), wanted)
    learned = PLAIN.render(request, RenderCache(0), without=frozenset({"named_tool_choice"}))
    assert isinstance(learned, Rendered)
    assert b'"tool_choice":"required"' in learned.body
    free = body(ChatDialect(CHAT, profile=FAMILIES["lm-studio"].profile), [USER], settings(tools=[LOOK]))
    assert "tool_choice" not in free


def test_why_verbosity_is_left_out_is_told() -> None:
    told = warnings(PLAIN, [USER], settings(text={"verbosity": "low"}))
    assert told == ("'text.verbosity' was left out: this provider is not known to take it.",)

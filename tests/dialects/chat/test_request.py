"""What a Chat Completions server is sent."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from segue.dialects.chat.request import ChatDialect
from segue.dialects.chat.settings import chat_fields
from segue.dialects.interface import Rendered
from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.request import RESPONSES_FIELDS
from segue.protocol.problems import Problem
from segue.protocol.requests import Settings
from tests.dialects.conversations import (
    CHAT,
    DIALECTS,
    MESSAGES,
    OPENAI,
    PIXEL,
    SAMPLES,
    Request,
    body,
    encode_items,
    replay,
    thought,
    warnings,
)

Json = dict[str, Any]
PLAIN, OFFICIAL = DIALECTS["chat"], DIALECTS["openai-chat"]
USER = {"role": "user", "content": "go"}
LOOK = {"type": "function", "name": "look", "description": "Look.", "parameters": {"type": "object"}, "strict": True}


def messages(*items: Json, official: bool = False) -> list[Json]:
    sent: list[Json] = body(OFFICIAL if official else PLAIN, items)["messages"]
    return sent


def call(ident: str, **function: str) -> Json:
    return {"id": ident, "type": "function", "function": function}


def settings(**fields: Any) -> Settings:  # noqa: ANN401 - any setting
    return Settings(model="m", **fields)


def problem(**fields: Any) -> Problem:  # noqa: ANN401 - any setting
    answer = PLAIN.render(Request(replay(encode_items([USER])), settings(**fields)), RenderCache(0))
    assert isinstance(answer, Problem)
    return answer


# -------------------------------------------------------------------------------------------------------------- history


def test_the_items_of_one_go_are_one_message_with_the_outputs_behind_it() -> None:
    sent = messages(
        USER,
        thought(CHAT, {"field": "reasoning_content"}, "hm"),
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Looking."}]},
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": '{"at":1}'},
        {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": "*** Begin"},
        {"type": "custom_tool_call_output", "call_id": "b", "output": "patched"},
        {"role": "user", "content": "hurry"},
        {"type": "function_call_output", "call_id": "a", "output": "seen"},
        {"role": "assistant", "content": "Done."},
    )
    assert sent == [
        {"role": "user", "content": "go"},
        {
            "role": "assistant",
            "content": "Looking.",
            "reasoning_content": "hm",
            "tool_calls": [
                call("a", name="look", arguments='{"at":1}'),
                call("b", name="patch", arguments='{"input":"*** Begin"}'),
            ],
        },
        {"role": "tool", "tool_call_id": "b", "content": "patched"},
        {"role": "tool", "tool_call_id": "a", "content": "seen"},
        {"role": "user", "content": "hurry"},
        {"role": "assistant", "content": "Done."},
    ]


def test_messages_that_nothing_binds_together_stay_apart() -> None:
    one, two = {"role": "assistant", "content": "one"}, {"role": "assistant", "content": "two"}
    assert messages(USER, one, two, USER, USER) == [USER, one, two, USER, USER]


def test_parts_of_a_message() -> None:
    (sent,) = messages(
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": PIXEL, "detail": "low"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        }
    )
    assert sent["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_image", "file_id": "file-1"},
        {"type": "input_file", "file_id": "file-1", "filename": "a.pdf"},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        {"type": "input_hologram"},
    ],
)
def test_a_part_that_cannot_be_passed_on_leaves_a_note_and_a_warning(part: Json) -> None:
    items = [{"role": "user", "content": [part]}]
    (sent,) = messages(*items)
    assert part["type"] in sent["content"]
    assert "could not be passed on" in sent["content"]
    (warning,) = warnings(PLAIN, items)
    assert part["type"] in warning


def test_openais_own_api_knows_its_own_files() -> None:
    (sent,) = messages({"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}, official=True)
    assert sent["content"] == [{"type": "file", "file": {"file_id": "file-1"}}]


def test_images_of_a_tool_follow_in_a_message_of_the_users() -> None:
    sent = messages(
        USER,
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
        {"type": "function_call", "call_id": "b", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_image", "image_url": PIXEL}]},
        {"type": "function_call_output", "call_id": "b", "output": "dark"},
    )
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "user"]
    assert sent[2] == {"role": "tool", "tool_call_id": "a", "content": "[1 attached in the message behind this one]"}
    assert sent[4]["content"][1:] == [{"type": "image_url", "image_url": {"url": PIXEL}}]
    assert "tool call a" in sent[4]["content"][0]["text"]


def test_tools_with_types_of_their_own_are_functions_named_after_them() -> None:
    sent = messages(
        USER,
        {"type": "local_shell_call", "id": "x", "call_id": "a", "action": {"command": ["ls"]}, "status": "completed"},
        {"type": "local_shell_call_output", "call_id": "a", "output": "a.txt"},
    )
    assert sent[1]["tool_calls"] == [call("a", name="local_shell", arguments='{"action":{"command":["ls"]}}')]
    assert sent[2]["content"] == "a.txt"


def test_reasoning_goes_back_to_its_own_provider_in_the_field_it_came_in() -> None:
    details = [{"type": "reasoning.encrypted", "data": "x"}]
    extra = {"google": {"thought_signature": "c2ln"}}
    sent = messages(
        USER,
        thought(CHAT, {"field": "reasoning", "details": details}, "hm"),
        {"role": "assistant", "content": "Looking."},
        thought(CHAT, {"calls": {"a": extra}}, ""),
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
    )
    assert sent[1] == {
        "role": "assistant",
        "content": "Looking.",
        "reasoning": "hm",
        "reasoning_details": details,
        "tool_calls": [call("a", name="look", arguments="{}") | {"extra_content": extra}],
    }


def test_gemini_is_told_which_calls_are_not_its_own() -> None:
    """Or it would refuse a conversation that another model began."""
    host = "chat@generativelanguage.googleapis.com"
    own = {"google": {"thought_signature": "c2ln"}}
    called = [{"type": "function_call", "call_id": ident, "name": "look", "arguments": "{}"} for ident in "abc"]
    items = [called[0], called[1], USER, thought(host, {"calls": {"c": own}}, ""), called[2]]
    sent = body(ChatDialect(host), items)["messages"]
    extras = [[made.get("extra_content") for made in said["tool_calls"]] for said in (sent[0], sent[2])]
    assert extras == [[{"google": {"thought_signature": "skip_thought_signature_validator"}}, None], [own]]


@pytest.mark.parametrize(
    "foreign",
    [
        thought(MESSAGES, {"signature": "x"}),
        thought(OPENAI, {"field": "reasoning"}),
        thought(CHAT, {"field": 7}),
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
        {"type": "reasoning", "summary": []},
    ],
)
def test_reasoning_of_another_provider_is_left_out_with_a_warning(foreign: Json) -> None:
    assert messages(USER, foreign, USER) == [USER, USER]
    (warning,) = warnings(PLAIN, [USER, foreign, foreign])
    assert warning.startswith("Reasoning")


def test_reasoning_can_be_kept_from_a_server_that_refuses_it() -> None:
    quiet = ChatDialect(CHAT, return_reasoning=False)
    items = [USER, thought(CHAT, {"field": "reasoning_content"}), {"role": "assistant", "content": "Yes."}]
    assert body(quiet, items)["messages"] == [items[0], items[2]]
    assert warnings(quiet, items) == ()


def test_what_has_no_counterpart_is_said_once() -> None:
    items: list[Json] = [
        {"type": "web_search_call", "id": "ws"},
        {"type": "web_search_call", "id": "ws"},
        {
            "role": "assistant",
            "phase": "commentary",
            "content": [{"type": "output_text", "text": "a", "annotations": [{"type": "file_citation"}]}],
        },
    ]
    assert [warning.split(" were")[0].split(" of m")[0] for warning in warnings(PLAIN, items)] == [
        "Items of type 'web_search_call'",
        "'phase'",
        "Annotations",
    ]


# ------------------------------------------------------------------------------------------------------------- settings


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


def test_only_openais_own_api_gets_a_cache_key_where_there_is_none() -> None:
    assert body(OFFICIAL, [USER])["prompt_cache_key"].startswith("segue-")
    assert "prompt_cache_key" not in body(PLAIN, [USER])


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
    "fields", [{"truncation": "auto"}, {"max_tool_calls": 3}, {"include": ("file_search_call.results",)}]
)
def test_what_can_be_left_out_is_left_out_with_a_warning(fields: Json) -> None:
    (warning,) = warnings(PLAIN, [USER], settings(**fields))
    assert next(iter(fields)) in warning


def test_the_request_line_and_head() -> None:
    assert PLAIN.path("m") == "/chat/completions"
    assert ("Authorization", "Bearer k") in PLAIN.headers("k")
    assert "Authorization" not in dict(PLAIN.headers(None))


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


@pytest.mark.parametrize("openai", [False, True])
def test_every_setting_has_its_rule(openai: bool) -> None:
    assert set(chat_fields(openai=openai)) == set(RESPONSES_FIELDS)


def test_an_empty_history_is_an_empty_list() -> None:
    rendered = PLAIN.render(Request(replay(())), RenderCache(0))
    assert isinstance(rendered, Rendered)
    assert rendered.body.endswith(b'"messages":[]}')


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({"role": "user", "content": "x", "id": "msg_1", "status": "completed", "new": 1, "old": None}, "new"),
        ({"role": "user", "content": [{"type": "input_text", "text": "x", "new": 1}]}, "content.new"),
        ({"type": "function_call", "call_id": "a", "name": "n", "arguments": "{}", "namespace": "s"}, "namespace"),
    ],
)
@pytest.mark.parametrize("dialect", ["chat", "messages"])
def test_a_field_without_a_counterpart_is_said_to_be_left_out(dialect: str, item: Json, name: str) -> None:
    (warning,) = warnings(DIALECTS[dialect], [item])
    assert warning.startswith(f"'{name}' of items")


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


def test_tools_with_items_of_their_own_are_called_and_answered_with_all_that_was_said() -> None:
    """Each call has its answer, or the provider would refuse the history; that one failed is told too."""
    sent = body(PLAIN, SAMPLES)["messages"]
    made = {call["id"]: call["function"]["name"] for message in sent for call in message.get("tool_calls", ())}
    told = {message["tool_call_id"]: message["content"] for message in sent if message["role"] == "tool"}
    assert made.keys() == told.keys()
    assert {made[ident]: told[ident] for ident in ("call_4", "call_5", "call_6", "call_7")} == {
        "tool_search": '{"execution":"client","tools":[{"type":"function"}]}',
        "local_shell": "a.txt",
        "shell": '{"output":[{"stdout":"a","stderr":""}],"max_output_length":9}',
        "apply_patch": '{"status":"failed"}',
    }

"""What an Anthropic Messages server is sent."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from segue.dialects.messages.request import MAX_TOKENS, MessagesDialect, tool_id
from segue.dialects.messages.settings import MESSAGES_FIELDS
from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.request import RESPONSES_FIELDS
from segue.history.chains import History
from segue.protocol.problems import Problem
from segue.protocol.requests import Settings
from segue.testing.protocol_checker import parse_json
from tests.dialects.conversations import (
    CHAT,
    DIALECTS,
    MESSAGES,
    PDF,
    PIXEL,
    Request,
    body,
    encode_items,
    grow,
    render,
    replay,
    thought,
    warnings,
)

Json = dict[str, Any]
DIALECT = DIALECTS["messages"]
USER = {"role": "user", "content": "go"}
LOOK = {"type": "function", "name": "look", "description": "Look.", "parameters": {"type": "object"}, "strict": True}
CACHED = {"cache_control": {"type": "ephemeral"}}
GO = {"type": "text", "text": "go"}


def unmarked(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """The same without the marks of the cache."""
    if isinstance(value, dict):
        return {name: unmarked(member) for name, member in value.items() if name != "cache_control"}
    return [unmarked(member) for member in value] if isinstance(value, list) else value


def messages(*items: Json) -> list[Json]:
    sent: list[Json] = unmarked(body(DIALECT, items)["messages"])
    return sent


def settings(**fields: Any) -> Settings:  # noqa: ANN401 - any setting
    return Settings(model="m", **fields)


def asked(model: str = "claude-sonnet-4-6", **fields: Any) -> tuple[Json, tuple[str, ...]]:  # noqa: ANN401 - as above
    """The body and the warnings of a request with these settings."""
    request = Request(replay(encode_items([USER])), settings(**fields), model)
    rendered = DIALECT.render(request, RenderCache(0))
    assert not isinstance(rendered, Problem)
    return parse_json(rendered.body.decode()), rendered.warnings


# -------------------------------------------------------------------------------------------------------------- history


def test_items_of_one_side_are_one_message_with_results_first() -> None:
    sent = messages(
        USER,
        thought(MESSAGES, {"signature": "c2ln"}, "hm"),
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Looking."}]},
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": '{"at": 1}'},
        thought(MESSAGES, {"redacted": "b3BhcXVl"}, ""),
        {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": "*** Begin"},
        {"type": "custom_tool_call_output", "call_id": "b", "output": "patched"},
        {"role": "user", "content": "hurry"},
        {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_image", "image_url": PIXEL}]},
        {"role": "assistant", "content": "Done."},
    )
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    assert sent == [
        {"role": "user", "content": [GO]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "a", "name": "look", "input": {"at": 1}},
                {"type": "redacted_thinking", "data": "b3BhcXVl"},
                {"type": "tool_use", "id": "b", "name": "patch", "input": {"input": "*** Begin"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "patched"}]},
                {"type": "tool_result", "tool_use_id": "a", "content": [image]},
                {"type": "text", "text": "hurry"},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "Done."}]},
    ]


def test_what_the_system_says_first_stands_before_the_messages() -> None:
    sent = body(
        DIALECT,
        [
            {"role": "developer", "content": "One."},
            {"role": "system", "content": "Two."},
            USER,
            {"role": "system", "content": "Later."},
        ],
        settings(instructions="Zero."),
    )
    assert unmarked(sent["system"]) == [{"type": "text", "text": text} for text in ("Zero.", "One.", "Two.")]
    assert unmarked(sent["messages"]) == [
        {"role": "user", "content": [GO, {"type": "text", "text": "<system>\nLater.\n</system>"}]}
    ]


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            {"type": "input_image", "image_url": "https://example.com/a.png"},
            {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        ),
        (
            {"type": "input_file", "filename": "a.pdf", "file_data": PDF},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                "title": "a.pdf",
            },
        ),
        (
            {"type": "input_file", "filename": "A.PDF", "file_data": "JVBERi0="},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                "title": "A.PDF",
            },
        ),
        (
            {"type": "input_file", "file_data": "data:text/markdown;base64,aGk="},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}},
        ),
        (
            {"type": "input_file", "file_url": "https://example.com/a.pdf"},
            {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        ),
    ],
)
def test_images_and_files(part: Json, block: Json) -> None:
    assert messages({"role": "user", "content": [part]}) == [{"role": "user", "content": [block]}]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_image", "image_url": "data:image/tiff;base64,AAAA"},
        {"type": "input_image", "image_url": "data:image/png,AAAA"},
        {"type": "input_image", "file_id": "file-1"},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_file", "file_data": "data:text/plain;base64,%%%"},
        {"type": "input_file", "file_data": "data:application/zip;base64,AAAA", "filename": "a.zip"},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "input_hologram"},
    ],
)
def test_a_part_that_cannot_be_passed_on_leaves_a_note_and_a_warning(part: Json) -> None:
    items = [{"role": "user", "content": [part]}]
    ((block,),) = [message["content"] for message in messages(*items)]
    assert "could not be passed on" in block["text"]
    (warning,) = warnings(DIALECT, items)
    assert part["type"] in warning


@pytest.mark.parametrize(
    "foreign",
    [
        thought(MESSAGES, {"signature": 7}),
        thought(CHAT, {"field": "reasoning"}),
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "cut"}]},
    ],
)
def test_reasoning_of_another_provider_is_left_out_with_a_warning(foreign: Json) -> None:
    assert messages(USER, foreign, {"role": "assistant", "content": "Yes."})[1]["content"] == [
        {"type": "text", "text": "Yes."}
    ]
    (warning,) = warnings(DIALECT, [USER, foreign, foreign])
    assert warning.startswith("Reasoning")


def test_thoughts_that_led_to_nothing_are_left_out() -> None:
    """A message must not end in thoughts; the user's message around them stays one."""
    items = [USER, thought(MESSAGES, {"signature": "x"}), USER]
    assert messages(*items) == [{"role": "user", "content": [GO, GO]}]
    assert len(warnings(DIALECT, items)) == len(warnings(DIALECT, items[:2])) == 1


@pytest.mark.parametrize(
    ("arguments", "sent", "told"),
    [("", {}, 0), ("{", {"arguments": "{"}, 1), ("[1]", {"arguments": "[1]"}, 1), ('{"a": 1.0}', {"a": 1.0}, 0)],
)
def test_arguments_become_an_object(arguments: str, sent: Json, told: int) -> None:
    items = [USER, {"type": "function_call", "call_id": "a", "name": "look", "arguments": arguments}]
    assert messages(*items)[1]["content"][0]["input"] == sent
    assert len(warnings(DIALECT, items)) == told


def test_an_id_that_would_be_refused_is_replaced_in_the_call_and_in_its_result() -> None:
    odd = "call 1/é" * 20
    sent = messages(
        USER,
        {"type": "function_call", "call_id": odd, "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": odd, "output": ""},
    )
    assert sent[1]["content"][0]["id"] == tool_id(odd)
    assert sent[2]["content"] == [{"type": "tool_result", "tool_use_id": tool_id(odd)}]
    assert tool_id("toolu_01-A") == "toolu_01-A"


def test_the_first_message_is_one_of_the_users() -> None:
    sent = messages({"role": "user", "content": " "}, {"role": "assistant", "content": "Hello!"}, USER)
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]


def test_blank_texts_are_left_out() -> None:
    said = {"role": "assistant", "content": " "}
    assert messages(USER, {"role": "user", "content": ""}, said, USER) == [{"role": "user", "content": [GO, GO]}]


# ---------------------------------------------------------------------------------------------------------------- cache


def marks(sent: Json) -> list[str]:
    """The texts of the marked blocks, in order."""
    blocks = [*sent.get("tools", ()), *sent.get("system", ())]
    blocks += [block for message in sent["messages"] for block in message["content"]]
    return [block.get("text") or block.get("name") or block["type"] for block in blocks if "cache_control" in block]


def test_the_marks_follow_the_conversation() -> None:
    """The newest message of the user is marked, and where the turn before had its mark: there the cache hits."""
    kept, parent, wanted = RenderCache(1 << 20), None, settings(instructions="Be brief.", tools=[LOOK])
    found = []
    for index in range(3):
        asks = encode_items([{"role": "user", "content": f"q{index}"}])
        found.append(marks(parse_json(render(DIALECT, History(parent, asks), wanted, kept).body.decode())))
        parent = grow(parent, asks, encode_items([{"role": "assistant", "content": f"a{index}"}]))
    assert found == [["Be brief.", "q0"], ["Be brief.", "q0", "q1"], ["Be brief.", "q1", "q2"]]


def test_results_are_marked_too() -> None:
    sent = body(
        DIALECT,
        [
            USER,
            {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "x"},
            {"role": "assistant", "content": "Well."},
        ],
    )
    assert marks(sent) == ["tool_result"]


def test_without_a_system_text_the_tools_are_marked() -> None:
    assert marks(asked(tools=[LOOK, LOOK | {"name": "last"}])[0]) == ["last", "go"]


# ------------------------------------------------------------------------------------------------------------- settings


def test_the_request_around_the_history() -> None:
    sent, told = asked(
        instructions="Be brief.",
        tools=[LOOK, {"type": "custom", "name": "patch"}],
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
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
        "tools": [{"name": "look", "description": "Look.", "input_schema": {"type": "object"}, "strict": True}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
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


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"frequency_penalty": 1.0}, "frequency_penalty"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"truncation": "auto"}, "truncation"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"include": ("message.output_text.logprobs",)}, "include"),
        ({"temperature": 1.5}, "temperature"),
        ({"temperature": 0.5, "top_p": 0.5}, "top_p"),
        ({"temperature": 0.5, "reasoning": {"effort": "low"}}, "temperature"),
        ({"top_p": 0.5, "reasoning": {"effort": "low"}}, "top_p"),
        ({"tools": [LOOK], "tool_choice": "required", "reasoning": {"effort": "low"}}, "reasoning"),
        ({"tools": [{"type": "web_search"}]}, "tools: web_search"),
        ({"extra": {"seed": Raw(b"7")}}, "seed"),
    ],
)
def test_what_can_be_left_out_is_left_out_with_a_warning(fields: Json, name: str) -> None:
    _, (warning,) = asked(**fields)
    assert warning.startswith(f"'{name}")


@pytest.mark.parametrize(
    "fields",
    [
        {"text": {"format": {"type": "json_object"}}},
        {"tool_choice": "required"},
        {"tools": [LOOK], "tool_choice": {"type": "web_search"}},
        {"extra": {"stop": Raw(b"7")}},
    ],
)
def test_what_cannot_be_done_and_must_not_be_ignored_is_refused(fields: Json) -> None:
    answer = DIALECT.render(Request(replay(encode_items([USER])), settings(**fields)), RenderCache(0))
    assert isinstance(answer, Problem)
    assert answer.code == "unsupported_parameter"


@pytest.mark.parametrize("schema", [{"type": "object"}, {"type": "object", "description": "own"}])
def test_what_an_answer_is_for_is_told_in_its_schema(schema: Json) -> None:
    form = {"type": "json_schema", "name": "x", "description": "A city.", "schema": schema, "strict": True}
    sent, told = asked(text={"format": form})
    assert sent["output_config"]["format"]["schema"] == {"description": "A city.", **schema}
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


def test_every_setting_has_its_rule() -> None:
    assert set(MESSAGES_FIELDS) == set(RESPONSES_FIELDS)


def test_the_limit_that_this_api_needs_can_be_set() -> None:
    assert body(DIALECT, [USER])["max_tokens"] == MAX_TOKENS
    assert body(MessagesDialect(MESSAGES, max_tokens=5), [USER])["max_tokens"] == 5


def test_the_request_line_and_head() -> None:
    assert DIALECT.path("m") == "/messages"
    head = dict(DIALECT.headers("k"))
    assert head["x-api-key"] == "k"
    assert head["anthropic-version"] == "2023-06-01"
    assert "x-api-key" not in dict(DIALECT.headers(None))


def test_a_detail_that_was_asked_for_is_said_to_be_left_out() -> None:
    image = {"type": "input_image", "image_url": PIXEL}
    assert warnings(DIALECT, [{"role": "user", "content": [image | {"detail": "auto"}]}]) == ()
    (warning,) = warnings(DIALECT, [{"role": "user", "content": [image | {"detail": "high"}]}])
    assert warning.startswith("'detail'")

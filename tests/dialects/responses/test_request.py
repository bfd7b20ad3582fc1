"""What a Responses server is sent."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from segue.dialects.interface import Rendered
from segue.dialects.item_renderer import NO_OUTPUT
from segue.dialects.loss_warnings import BROKEN_ARGUMENTS, FOREIGN_REASONING, LATE_OUTPUT, UNANSWERED_CALL
from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.request import RESPONSES_FIELDS
from segue.dialects.rules import KNOWN_EXTRA, OTHERS
from segue.dialects.sealed_reasoning import seal
from segue.dialects.tools import wire_name
from segue.history.chains import History
from segue.protocol.codec import encode
from segue.protocol.problems import Problem
from segue.protocol.requests import Settings
from segue.testing.protocol_checker import parse_json
from tests.dialects.conversations import (
    CHAT,
    DIALECTS,
    RESPONSES,
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
DIALECT = DIALECTS["responses"]
USER = {"role": "user", "content": "go"}
SAID = {"role": "assistant", "content": "went"}


def test_items_go_on_byte_for_byte() -> None:
    items = [
        b'{"role" : "user","content":"\\u00e9"}',
        b'{"type":"compaction","encrypted_content":"x"}',
        b'{"type":"web_search_call","id":"ws_1","new":{"deep":[1]}}',
        b'{"type":"reasoning","summary":[],"encrypted_content":"gAAA"}',
        b'{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"open"}]}',
        b'{"type":"function_call","call_id":"c","name":"look","arguments":"{ }"}',
        b'{"type":"function_call_output","call_id":"c","output":"\\u00e9"}',
    ]
    rendered = render(DIALECT, replay(items))
    assert rendered.body.endswith(b'"input":[' + b",".join(items) + b"]}")
    assert rendered.warnings == ()


def test_reasoning_goes_back_to_its_own_provider_as_it_wrote_it() -> None:
    own = thought(RESPONSES, {"a": 1})
    assert body(DIALECT, [USER, own, SAID])["input"] == [USER, own | {"encrypted_content": '{"a": 1}'}, SAID]


def test_reasoning_that_was_not_encrypted_goes_back_that_way() -> None:
    text = [{"type": "reasoning_text", "text": "hm"}]
    own = {"type": "reasoning", "summary": [], "content": text, "encrypted_content": seal(RESPONSES, "")}
    assert body(DIALECT, [USER, own, SAID])["input"] == [USER, own | {"encrypted_content": ""}, SAID]


@pytest.mark.parametrize("foreign", [thought(CHAT, {}), {"type": "reasoning", "summary": []}])
def test_reasoning_of_another_provider_is_left_out_with_a_warning(foreign: Json) -> None:
    assert body(DIALECT, [USER, foreign])["input"] == [USER]
    assert len(warnings(DIALECT, [USER, foreign, foreign])) == 1


def test_the_request_around_the_history() -> None:
    fields: Json = {
        "instructions": "Be brief.",
        "tools": [{"type": "web_search", "new": 1}],
        "tool_choice": {"type": "web_search"},
        "parallel_tool_calls": False,
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "low"},
        "max_output_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.5,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "top_logprobs": 1,
        "max_tool_calls": 2,
        "truncation": "auto",
        "service_tier": "flex",
        "safety_identifier": "u",
        "prompt_cache_key": "k",
    }
    wanted = Settings(model="m", include=("file_search_call.results",), metadata={"a": "b"}, **fields)
    sent = body(DIALECT, [USER], wanted)
    assert sent == fields | {
        "model": "model-1",
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content", "file_search_call.results"],
        "input": [USER],
    }
    assert warnings(DIALECT, [USER], wanted) == ()


def test_a_cache_key_is_made_where_there_is_none() -> None:
    assert body(DIALECT, [USER])["prompt_cache_key"].startswith("segue-")


def test_every_setting_has_its_rule() -> None:
    assert set(RESPONSES_FIELDS) == (set(Settings.__struct_fields__) - {"extra"}) | {*KNOWN_EXTRA, OTHERS}


def extra(**fields: object) -> Settings:
    return Settings(model="m", extra={name: Raw(encode(value)) for name, value in fields.items()})


def test_fields_that_nothing_acts_on_go_on_as_they_came() -> None:
    wanted = extra(
        user="u", context_management=[{"type": "compaction"}], prompt_cache_retention="24h", new={"a": 1.5}, seed=7
    )
    sent = body(DIALECT, [USER], wanted)
    assert {name: sent[name] for name in wanted.extra} == {
        "user": "u",
        "context_management": [{"type": "compaction"}],
        "prompt_cache_retention": "24h",
        "new": {"a": 1.5},
        "seed": 7,
    }
    assert warnings(DIALECT, [USER], wanted) == ()


@pytest.mark.parametrize("dialect", ["chat", "openai-chat", "messages"])
def test_fields_that_another_api_does_not_have_are_said_to_be_left_out(dialect: str) -> None:
    wanted = extra(context_management=[], prompt_cache_options={"mode": "explicit"}, new=1, user="u")
    said = warnings(DIALECTS[dialect], [USER], wanted)
    assert [warning.split("'")[1] for warning in said] == ["prompt_cache_options", "context_management", "new"]
    assert "new" not in body(DIALECTS[dialect], [USER], wanted)


@pytest.mark.parametrize("dialect", ["chat", "openai-chat", "messages"])
def test_any_number_of_unknown_fields_makes_few_warnings(dialect: str) -> None:
    said = warnings(DIALECTS[dialect], [USER], extra(**{f"x{number}" * 50: number for number in range(100)}))
    assert (len(said), said[-1]) == (9, "92 more fields of the request were left out: they are unknown here.")
    assert max(map(len, said)) < 120


@pytest.mark.parametrize("dialect", ["chat", "openai-chat", "messages"])
def test_a_stream_that_is_not_padded_was_not_asked_to_be(dialect: str) -> None:
    assert warnings(DIALECTS[dialect], [USER], extra(stream_options={"include_obfuscation": False})) == ()
    (warning,) = warnings(DIALECTS[dialect], [USER], extra(stream_options={"new": 1}))
    assert warning.startswith("'stream_options.new'")


def test_an_empty_history_is_an_empty_list() -> None:
    assert render(DIALECT, replay(encode_items([]))).body.endswith(b'"input":[]}')


def test_the_request_line_and_head() -> None:
    assert DIALECT.path("m") == "/responses"
    assert ("Authorization", "Bearer k") in DIALECT.headers("k")


def test_an_item_that_cannot_be_read_refuses_the_turn() -> None:
    for dialect in DIALECTS.values():
        answer = dialect.render(Request(replay([b'{"type":7}'])), RenderCache(0))
        assert isinstance(answer, Problem)
        assert answer.code == "invalid_type"


@pytest.mark.parametrize(
    "item",
    [
        {"type": "reasoning", "summary": 7},
        {"type": "reasoning", "summary": None, "content": "hm"},
        {"type": "message", "role": "assistant", "content": None},
        {"type": "message", "role": "tool", "content": {"text": "hi"}},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": {"a": 1}},
        {"type": "function_call", "arguments": None},
        {"type": "custom_tool_call", "call_id": "c", "input": 7},
    ],
)
@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_whatever_a_provider_wrote_the_conversation_goes_on(name: str, item: Json) -> None:
    """At any provider: the item stands in a history that nobody can edit."""
    answer = DIALECTS[name].render(Request(replay(encode_items([USER, item]))), RenderCache(0))
    assert isinstance(answer, Rendered)
    assert parse_json(answer.body.decode())


# ------------------------------------------------------------------------------------- what some servers would refuse

OWN = thought(RESPONSES, {"a": 1})
BACK = OWN | {"encrypted_content": '{"a": 1}'}
CALL: Json = {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"}
OUTPUT: Json = {"type": "function_call_output", "call_id": "a", "output": "seen"}


@pytest.mark.parametrize(
    "follows",
    [
        USER,
        {"role": "developer", "content": "x"},
        OUTPUT,
        {"type": "tool_search_output", "call_id": "a", "tools": []},
        {"type": "mcp_approval_response", "approval_request_id": "a", "approve": True},
        {"type": "compaction_trigger"},
    ],
)
def test_reasoning_that_led_to_nothing_is_left_out(follows: Json) -> None:
    assert body(DIALECT, [USER, OWN, OWN, follows])["input"] == [USER, follows]
    assert warnings(DIALECT, [USER, OWN, follows]) == (FOREIGN_REASONING,)
    assert body(DIALECT, [USER, OWN])["input"] == [USER]
    assert warnings(DIALECT, [USER, OWN]) == (FOREIGN_REASONING,)


@pytest.mark.parametrize(
    "follows",
    [SAID, CALL, {"type": "web_search_call", "id": "ws_1", "call_id": 7}, {"type": "program", "call_id": "p"}],
)
def test_reasoning_stays_with_what_it_led_to(follows: Json) -> None:
    assert body(DIALECT, [USER, OWN, OWN, follows])["input"] == [USER, BACK, BACK, follows]
    assert warnings(DIALECT, [USER, OWN, follows]) == ()


def test_the_arguments_of_a_call_are_an_object() -> None:
    items = [
        USER,
        CALL | {"arguments": "{"},
        OUTPUT,
        CALL | {"call_id": "b", "arguments": " "},
        CALL | {"call_id": "c"},
    ]
    sent = [item["arguments"] for item in body(DIALECT, items)["input"] if "arguments" in item]
    assert sent == ['{"arguments":"{"}', "{}", "{}"]
    assert warnings(DIALECT, items) == (BROKEN_ARGUMENTS,)
    search = {"type": "tool_search_call", "call_id": "d", "arguments": {"q": 1}}
    assert body(DIALECT, [search])["input"] == [search]


def test_calls_have_ids_of_their_own() -> None:
    long = {"call_id": "x" * 65}
    items = [CALL, OUTPUT, CALL, OUTPUT, CALL | long, OUTPUT | long]
    sent = [item["call_id"] for item in body(DIALECT, items)["input"]]
    assert sent[::2] == sent[1::2]
    assert sent[0] == "a"
    assert len(set(sent)) == 3
    assert all(len(ident) <= 64 for ident in sent)
    assert warnings(DIALECT, items) == ()


def test_reasoning_waits_for_the_next_turn() -> None:
    """A turn may end between the two."""
    kept = RenderCache(1 << 20)
    parent = grow(None, encode_items([USER]), encode_items([OWN]))
    sent = parse_json(render(DIALECT, History(parent, encode_items([SAID])), keep=kept).body.decode())
    assert sent["input"] == [USER, BACK, SAID]
    assert kept.size_bytes > 0


def test_a_call_has_a_name_that_a_tool_can_have() -> None:
    custom = {"type": "custom_tool_call", "call_id": "b", "name": "", "input": "x"}
    sent = body(DIALECT, [CALL | {"name": "functions.look"}, custom, CALL | {"call_id": "c"}])["input"]
    assert [item["name"] for item in sent] == [wire_name("functions.look", 128), wire_name("", 128), "look"]


def test_a_call_of_a_server_without_arguments_goes_back_as_it_came() -> None:
    odd = {"type": "function_call", "call_id": "a", "name": "look", "arguments": None}
    assert body(DIALECT, [odd])["input"] == [odd]


# -------------------------------------------------------------------------------------------- calls without an output

NOTE = OUTPUT | {"output": NO_OUTPUT}
LATE = "[output of the earlier tool call a]"


def late(*parts: Json) -> Json:
    content = [{"type": "input_text", "text": LATE}, *parts]
    return {"type": "message", "role": "user", "content": content}


def text(words: str) -> Json:
    return {"type": "input_text", "text": words}


def test_a_call_that_nobody_answers_gets_a_note_behind_it() -> None:
    custom = {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": "x"}
    noted = {"type": "custom_tool_call_output", "call_id": "b", "output": NO_OUTPUT}
    assert body(DIALECT, [CALL, custom, USER])["input"] == [CALL, custom, NOTE, noted, USER]
    assert body(DIALECT, [CALL, custom, OUTPUT])["input"] == [CALL, custom, OUTPUT, noted]
    assert body(DIALECT, [CALL, USER, OWN])["input"] == [CALL, NOTE, USER]
    assert warnings(DIALECT, [CALL, USER]) == (UNANSWERED_CALL,)
    assert warnings(DIALECT, [CALL, USER, OWN]) == (FOREIGN_REASONING, UNANSWERED_CALL)
    more = [CALL, custom, OUTPUT, USER, OWN, SAID, USER]
    assert body(DIALECT, more)["input"] == [CALL, custom, OUTPUT, noted, USER, BACK, SAID, USER]
    assert warnings(DIALECT, more) == (UNANSWERED_CALL,)


@pytest.mark.parametrize(
    "items",
    [
        [CALL],
        [CALL, SAID, OUTPUT],
        [CALL, USER, OUTPUT, SAID],
        [CALL, {"type": "tool_search_output", "call_id": "s", "tools": []}, SAID, OUTPUT],
        [{"type": "local_shell_call", "call_id": "a"}, OUTPUT, SAID],
        [{"type": "local_shell_call", "call_id": "a"}, USER, SAID, OUTPUT],
        [{"type": "function_call_output", "call_id": 7, "output": "x"}, OUTPUT],
    ],
)
def test_an_output_that_can_still_come_is_waited_for(items: list[Json]) -> None:
    assert body(DIALECT, items)["input"] == items
    assert warnings(DIALECT, items) == ()


@pytest.mark.parametrize(
    ("output", "parts"),
    [
        ("seen", [text("seen")]),
        (
            [text("one"), {"type": "input_image", "image_url": "u"}],
            [text("one"), {"type": "input_image", "image_url": "u"}],
        ),
        ({"a": 1}, [text('{"a": 1}')]),
        (None, [text("null")]),
    ],
)
def test_an_output_that_comes_late_is_a_text(output: object, parts: list[Json]) -> None:
    items = [CALL, USER, SAID, OUTPUT | {"output": output}]
    assert body(DIALECT, items)["input"] == [CALL, NOTE, USER, SAID, late(*parts)]
    assert warnings(DIALECT, items) == (UNANSWERED_CALL, LATE_OUTPUT)


def test_a_second_output_is_a_text() -> None:
    assert body(DIALECT, [CALL, OUTPUT, OUTPUT])["input"] == [CALL, OUTPUT, late(text("seen"))]


def test_a_late_output_of_an_id_that_is_used_again_belongs_to_the_newest_call() -> None:
    first, note, user, second, output, said = body(DIALECT, [CALL, USER, CALL, OUTPUT, SAID])["input"]
    assert (first, note, user, said) == (CALL, NOTE, USER, SAID)
    assert second["call_id"] == output["call_id"] != "a"
    assert output["output"] == "seen"


@pytest.mark.parametrize("cut", range(1, 6))
def test_notes_do_not_depend_on_how_a_history_is_cut(cut: int) -> None:
    items = [CALL, USER, OWN, SAID, OUTPUT, USER]
    kept = RenderCache(1 << 20)
    parent = grow(None, encode_items(items[:cut]), ())
    render(DIALECT, History(parent, encode_items([USER])), keep=kept)
    sent = render(DIALECT, History(parent, encode_items(items[cut:])), keep=kept)
    assert sent.body == render(DIALECT, replay(encode_items(items))).body

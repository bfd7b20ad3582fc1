"""What a Chat Completions server is sent."""

from __future__ import annotations

from typing import Any

import pytest

from segue.dialects.chat.request import FORMS, ChatDialect
from segue.dialects.interface import Rendered
from segue.dialects.loss_warnings import BROKEN_ARGUMENTS, FOREIGN_REASONING, LATE_OUTPUT, UNANSWERED_CALL
from segue.dialects.provider_families import FAMILIES
from segue.dialects.provider_profiles import ProviderProfile
from segue.dialects.render_cache import RenderCache
from segue.dialects.tools import wire_name
from segue.testing.protocol_checker import parse_json
from tests.dialects.conversations import (
    CHAT,
    DIALECTS,
    MESSAGES,
    OPENAI,
    PIXEL,
    SAMPLES,
    USER,
    Request,
    body,
    encode_items,
    replay,
    settings,
    thought,
    warnings,
)

Json = dict[str, Any]
PLAIN, OFFICIAL = DIALECTS["chat"], DIALECTS["openai-chat"]


def messages(*items: Json, official: bool = False) -> list[Json]:
    sent: list[Json] = body(OFFICIAL if official else PLAIN, items)["messages"]
    return sent


def call(ident: str, **function: str) -> Json:
    return {"id": ident, "type": "function", "function": function}


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
    outputs = [{"type": "function_call_output", "call_id": ident, "output": "x"} for ident in "ab"]
    items = [called[0], called[1], *outputs, USER, thought(host, {"calls": {"c": own}}, ""), called[2]]
    sent = body(ChatDialect(host, profile=FAMILIES["gemini"].profile), items)["messages"]
    extras = [[made.get("extra_content") for made in said["tool_calls"]] for said in (sent[0], sent[4])]
    assert extras == [[{"google": {"thought_signature": "skip_thought_signature_validator"}}, None], [own]]


@pytest.mark.parametrize(("provider", "filler"), [("deepseek", ""), ("moonshot", " ")])
def test_a_message_with_calls_has_the_reasoning_that_its_server_demands(provider: str, filler: str) -> None:
    """These refuse one without, while they think; it says nothing where another model made the call."""
    demanding = ChatDialect(CHAT, profile=FAMILIES[provider].profile)
    own = thought(CHAT, {"field": "reasoning_content"}, "hm")
    said = {"role": "assistant", "content": "Hm."}

    def made(ident: str) -> list[Json]:
        return [
            {"type": "function_call", "call_id": ident, "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": ident, "output": "x"},
        ]

    items = [USER, own, *made("a"), *made("b"), said, USER]
    sent = [one for one in body(demanding, items)["messages"] if one["role"] == "assistant"]
    assert [one.get("reasoning_content") for one in sent] == ["hm", filler, None]
    plain = [one for one in body(PLAIN, items)["messages"] if one["role"] == "assistant"]
    assert [one.get("reasoning_content") for one in plain] == ["hm", None, None]


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
    quiet = ChatDialect(CHAT, profile=ProviderProfile(returned_reasoning="never"))
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


def test_only_openais_own_api_gets_a_cache_key_where_there_is_none() -> None:
    assert body(OFFICIAL, [USER])["prompt_cache_key"].startswith("segue-")
    assert "prompt_cache_key" not in body(PLAIN, [USER])


def test_the_request_line_and_head() -> None:
    assert PLAIN.path("m") == "/chat/completions"
    assert ("Authorization", "Bearer k") in PLAIN.headers("k")
    assert "Authorization" not in dict(PLAIN.headers(None))


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


# ------------------------------------------------------------------------------------- what some servers would refuse


def test_texts_of_the_systems_that_stand_first_are_one_message() -> None:
    items: list[Json] = [
        {"role": "developer", "content": "One."},
        {"role": "system", "content": " "},
        {"role": "system", "content": "Two."},
        USER,
        {"role": "developer", "content": "Later."},
        {"role": "developer", "content": ""},
    ]
    sent = body(PLAIN, items, settings(instructions="Zero."))["messages"]
    assert sent == [
        {"role": "system", "content": "Zero.\n\nOne.\n\nTwo."},
        USER,
        {"role": "user", "content": "<system>\nLater.\n</system>"},
    ]
    assert body(PLAIN, items[1:2])["messages"] == []


def test_openai_takes_them_anywhere() -> None:
    items: list[Json] = [{"role": "developer", "content": "One."}, USER, {"role": "system", "content": "Later."}]
    sent = body(OFFICIAL, items, settings(instructions="Zero."))["messages"]
    assert sent == [
        {"role": "system", "content": "Zero."},
        {"role": "system", "content": "One."},
        USER,
        {"role": "system", "content": "Later."},
    ]


TEXTS: list[Json] = [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]
CALL: Json = {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"}


def test_texts_in_parts_are_one_string() -> None:
    items = [
        {"role": "user", "content": TEXTS},
        CALL,
        {"type": "function_call_output", "call_id": "a", "output": TEXTS},
    ]
    assert [message["content"] for message in messages(*items)] == ["one\ntwo", None, "one\ntwo"]
    as_list = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    listed = ChatDialect(CHAT, profile=ProviderProfile(text_parts="list"))
    assert [message["content"] for message in body(listed, items)["messages"]] == [as_list, None, as_list]
    image = {"type": "input_image", "image_url": PIXEL}
    (mixed,) = messages({"role": "user", "content": [*TEXTS, image]})
    assert mixed["content"] == [*as_list, {"type": "image_url", "image_url": {"url": PIXEL}}]


def test_nothing_stands_between_a_tool_and_the_user_but_for_mistral() -> None:
    items = [USER, CALL, {"type": "function_call_output", "call_id": "a", "output": "seen"}, USER]
    mistral = ChatDialect(CHAT, profile=FAMILIES["mistral"].profile)
    assert [message["role"] for message in messages(*items)] == ["user", "assistant", "tool", "user"]
    sent = body(mistral, items)["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "assistant", "user"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] != "a"


def test_mistral_takes_images_from_tools() -> None:
    image = {"type": "input_image", "image_url": "data:image/jpg;base64,AAAA"}
    items = [USER, CALL, {"type": "function_call_output", "call_id": "a", "output": [*TEXTS, image]}]
    mistral = ChatDialect(CHAT, profile=FAMILIES["mistral"].profile)
    assert body(mistral, items)["messages"][-1]["content"] == [
        {"type": "text", "text": "one"},
        {"type": "text", "text": "two"},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,AAAA"}},
    ]


def test_what_a_model_wrote_as_arguments_cannot_end_the_conversation() -> None:
    items = [USER, CALL | {"arguments": '{"a": "lo'}, CALL | {"arguments": "", "call_id": "b"}]
    made = [made["function"]["arguments"] for made in messages(*items)[1]["tool_calls"]]
    assert made == ['{"arguments":"{\\"a\\": \\"lo"}', "{}"]
    assert warnings(PLAIN, items) == (BROKEN_ARGUMENTS,)
    assert warnings(PLAIN, [USER, CALL | {"arguments": ""}]) == ()


@pytest.mark.parametrize("said", [[], [{"role": "assistant", "content": ""}]])
def test_reasoning_that_led_to_nothing_is_left_out(said: list[Json]) -> None:
    items = [USER, thought(CHAT, {"field": "reasoning_content"}), *said]
    assert messages(*items) == [USER]
    assert messages(*items, USER) == [USER, USER]
    assert warnings(PLAIN, items) == warnings(PLAIN, [*items, USER]) == (FOREIGN_REASONING,)


def test_an_id_that_is_too_long_or_not_new_is_replaced() -> None:
    output = {"type": "function_call_output", "call_id": "a", "output": "seen"}
    long = {"call_id": "x" * 41}
    sent = messages(USER, CALL, output, CALL, output, CALL | long, output | long)
    made = [message["tool_calls"][0]["id"] for message in sent if "tool_calls" in message]
    assert made == [message["tool_call_id"] for message in sent if message["role"] == "tool"]
    assert made[0] == "a"
    assert len(set(made)) == 3
    assert all(len(ident) <= 40 for ident in made)


def test_what_a_server_has_refused_of_a_history_is_left_out() -> None:
    """It is a form that all servers take; what is known from the start is never tried."""
    items = [USER, CALL, {"type": "function_call_output", "call_id": "a", "output": "seen"}, USER]
    request = Request(replay(encode_items(items)))
    kept = RenderCache(1 << 20)
    plain = PLAIN.render(request, kept)
    assert isinstance(plain, Rendered)
    assert plain.own_fields >= FORMS.keys()
    learned = PLAIN.render(request, kept, without=frozenset({"call_ids", "user_after_tool"}))
    assert isinstance(learned, Rendered)
    assert learned.own_fields & FORMS.keys() == {"reasoning", "call_reasoning", "call_signature"}
    known = ChatDialect(CHAT, profile=FAMILIES["mistral"].profile).render(request, kept)
    assert isinstance(known, Rendered)
    assert parse_json(learned.body.decode())["messages"] == parse_json(known.body.decode())["messages"]
    assert known.own_fields & FORMS.keys() == {"call_reasoning", "call_signature"}
    again = PLAIN.render(request, kept)
    assert isinstance(again, Rendered)
    assert again.body == plain.body


def test_names_that_openai_refuses_are_replaced() -> None:
    """A model may have called what there is not; other servers take it."""
    odd = CALL | {"name": "functions.look"}
    ((plain,), (official,)) = (messages(odd, official=official) for official in (False, True))
    assert plain["tool_calls"][0]["function"]["name"] == "functions.look"
    assert official["tool_calls"][0]["function"]["name"] == wire_name("functions.look", 64)


def test_templates_are_given_a_question() -> None:
    items = [{"role": "developer", "content": "Say hi."}]
    assert [message["role"] for message in messages(*items)] == ["system", "user"]
    assert [message["role"] for message in messages(*items, official=True)] == ["system"]


OUTPUT: Json = {"type": "function_call_output", "call_id": "a", "output": "seen"}
MISSING: Json = {"role": "tool", "tool_call_id": "a", "content": "[there is no output of this call]"}


def test_a_call_that_nobody_answers_is_answered_with_a_note() -> None:
    """A call that was cut, for example: without an output the conversation could not go on."""
    assert messages(USER, CALL)[2:] == [], "the output may still come"
    assert messages(USER, CALL, USER)[2:] == [MISSING, USER]
    done = {"role": "assistant", "content": "Done."}
    assert messages(USER, CALL, USER, done)[2:] == [MISSING, USER, done]
    assert warnings(PLAIN, [USER, CALL, USER]) == warnings(PLAIN, [USER, CALL, USER, done]) == (UNANSWERED_CALL,)
    assert warnings(PLAIN, [USER, CALL]) == warnings(PLAIN, [USER, CALL, OUTPUT, USER]) == ()
    other = CALL | {"call_id": "b"}
    assert [message.get("tool_call_id") for message in messages(USER, other, CALL, OUTPUT)] == [None, None, "a", "b"]


def test_an_output_that_comes_late_is_a_text_of_the_users() -> None:
    done = {"role": "assistant", "content": "Done."}
    (late,) = messages(USER, CALL, USER, done, OUTPUT)[5:]
    assert late == {"role": "user", "content": "[output of the earlier tool call a]\nseen"}
    assert warnings(PLAIN, [USER, CALL, OUTPUT, OUTPUT]) == (LATE_OUTPUT,)
    assert messages(OUTPUT) == [late], "its call is not in the history"

"""What an Anthropic Messages server is sent."""

from __future__ import annotations

import re
from typing import Any

import pytest

from segue.dialects.call_ids import MESSAGES_CALL_IDS
from segue.dialects.interface import Rendered
from segue.dialects.loss_warnings import LATE_OUTPUT, UNANSWERED_CALL
from segue.dialects.messages.request import MAX_TOKENS, MessagesDialect
from segue.dialects.provider_profiles import ProviderProfile
from segue.dialects.render_cache import RenderCache
from segue.dialects.rules import Preset
from segue.dialects.tools import wire_name
from segue.history.chains import History, NativeTurn, Turn
from segue.http.sse import SseEvent
from segue.protocol.codec import encode
from segue.protocol.events import Event
from segue.protocol.object_text import ObjectText, read_object
from segue.protocol.problems import Problem
from segue.protocol.requests import NativeBody
from segue.testing.protocol_checker import parse_json
from segue.testing.store_conformance import sample_id
from tests.dialects.conversations import (
    CHAT,
    DIALECTS,
    LOOK,
    MESSAGES,
    PDF,
    PIXEL,
    USER,
    Request,
    body,
    encode_items,
    grow,
    render,
    replay,
    settings,
    thought,
    warnings,
)

Json = dict[str, Any]
DIALECT = DIALECTS["messages"]
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
    replaced = MESSAGES_CALL_IDS.wire_id(odd)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", replaced)
    assert sent[1]["content"][0]["id"] == replaced
    assert sent[2]["content"] == [{"type": "tool_result", "tool_use_id": replaced}]


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
    assert marks(body(DIALECT, [USER], settings(tools=[LOOK, LOOK | {"name": "last"}]))) == ["last", "go"]


# ------------------------------------------------------------------------------------------------------------- settings


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


# ------------------------------------------------------------------------------------- what this API would refuse

CALL: Json = {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"}
OUTPUT: Json = {"type": "function_call_output", "call_id": "a", "output": "seen"}
THOUGHT = thought(MESSAGES, {"signature": "c2ln", "effort": "high"})
BLOCK: Json = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}


def thinking(*items: Json, model: str = "claude-sonnet-4-5", **fields: Any) -> tuple[Any, bool, int]:  # noqa: ANN401 - any setting
    """The budget or kind of thinking, whether thoughts are sent, and how many warnings there are."""
    rendered = DIALECT.render(Request(replay(encode_items(items)), settings(**fields), model), RenderCache(0))
    assert isinstance(rendered, Rendered)
    sent = parse_json(rendered.body.decode())
    kind = sent.get("thinking", {})
    thoughts = any(BLOCK in message["content"] for message in sent["messages"])
    return kind.get("budget_tokens", kind.get("type")), thoughts, len(rendered.warnings)


@pytest.mark.parametrize(
    ("items", "seen"),
    [
        # A loop goes on as it began.
        ([USER, THOUGHT, CALL, OUTPUT], (24_576, True, 1)),
        ([USER, CALL, OUTPUT], (None, False, 1)),
        ([USER, CALL, OUTPUT, USER], (None, False, 1)),
        ([USER, THOUGHT, CALL, OUTPUT, CALL, OUTPUT], (24_576, True, 1)),
        # Thoughts in the middle of it are of another model.
        ([USER, CALL, OUTPUT, THOUGHT, CALL, OUTPUT], (None, False, 2)),
        # The user's next message begins a new one; thoughts of the last one stay.
        ([USER, CALL, OUTPUT, {"role": "assistant", "content": "Done."}, USER], (4096, False, 0)),
        ([USER, THOUGHT, CALL, OUTPUT, {"role": "assistant", "content": "Done."}, USER], (4096, True, 0)),
        ([{"role": "assistant", "content": "Hello!"}, USER], (4096, False, 0)),
    ],
)
def test_thinking_in_a_tool_loop(items: list[Json], seen: object) -> None:
    assert thinking(*items, reasoning={"effort": "low"}) == seen


def test_adaptive_thinking_in_a_tool_loop() -> None:
    low: Json = {"model": "claude-opus-4-6", "reasoning": {"effort": "low"}}
    assert thinking(USER, CALL, OUTPUT, **low) == ("adaptive", False, 0)
    assert thinking(USER, THOUGHT, CALL, OUTPUT, **low) == ("adaptive", True, 0)
    assert thinking(USER, THOUGHT, CALL, OUTPUT, model="claude-opus-4-6") == ("adaptive", True, 0)
    assert thinking(USER, CALL, OUTPUT, model="claude-opus-4-6") == (None, False, 0)


def test_a_history_without_thoughts_is_kept_too() -> None:
    """Beside the one with thoughts: each is rendered once."""
    kept, parent = RenderCache(1 << 20), grow(None, encode_items([USER]), encode_items([THOUGHT, CALL]))
    wanted = settings(tools=[LOOK], tool_choice="required")
    for fields, blocks in ((wanted, 1), (settings(tools=[LOOK]), 2), (wanted, 1)):
        request = Request(History(parent, encode_items([OUTPUT])), fields, "claude-sonnet-4-5")
        rendered = DIALECT.render(request, kept)
        assert isinstance(rendered, Rendered)
        assert len(parse_json(rendered.body.decode())["messages"][1]["content"]) == blocks
    assert len(kept) == 2


def test_what_was_asked_for_is_kept_with_a_thought() -> None:
    """So that the loop can go on with it."""
    request = Request(replay(()), settings(reasoning={"effort": "high"}))
    decoder = DIALECT.decoder(request)
    for event in (
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
    ):
        decoder.feed(SseEvent("", encode(event)))
    events = decoder.feed(SseEvent("", encode({"type": "content_block_stop", "index": 0})))
    assert b'\\"effort\\":\\"high\\"' in b"".join(event.data for event in events if isinstance(event, Event))


def test_ids_of_calls_are_unique() -> None:
    sent = messages(USER, CALL, OUTPUT, CALL, OUTPUT)
    made = [sent[index]["content"][0]["id"] for index in (1, 3)]
    assert made == [sent[index]["content"][0]["tool_use_id"] for index in (2, 4)]
    assert made[0] == "a" != made[1]


@pytest.mark.parametrize("head", ["data:image/jpg;base64", "DATA:image/JPG;x=y;base64", " data:image/pjpeg;base64"])
def test_an_image_has_the_media_type_that_it_is(head: str) -> None:
    (message,) = messages({"role": "user", "content": [{"type": "input_image", "image_url": f"{head},AAAA"}]})
    assert message["content"][0]["source"] == {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"}


def test_a_server_may_take_other_images() -> None:
    dialect = MessagesDialect(MESSAGES, profile=ProviderProfile(image_types=("image/tiff",)))
    image = {"type": "input_image", "image_url": "data:image/tiff;base64,AAAA"}
    sent = body(dialect, [{"role": "user", "content": [image]}])
    assert sent["messages"][0]["content"][0]["type"] == "image"


def test_names_that_this_api_refuses_are_replaced_in_tools_and_calls_and_back() -> None:
    """The client reads the name that it gave."""
    odd, wired = "mcp.look", wire_name("mcp.look", 128)
    wanted = settings(tools=[LOOK | {"name": odd}], tool_choice={"type": "function", "name": odd})
    items = [USER, CALL | {"name": odd}, OUTPUT]
    sent = body(DIALECT, items, wanted)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", wired)
    assert (sent["tools"][0]["name"], sent["tool_choice"]["name"]) == (wired, wired)
    assert sent["messages"][1]["content"][0]["name"] == wired
    decoder = DIALECT.decoder(Request(replay(()), wanted))
    block = {"type": "tool_use", "id": "a", "name": wired, "input": {}}
    start = {"type": "content_block_start", "index": 0, "content_block": block}
    (added,) = [event for event in decoder.feed(SseEvent("", encode(start))) if isinstance(event, Event)]
    assert parse_json(added.data.decode())["item"]["name"] == odd


@pytest.mark.parametrize(
    "items", [[], [{"role": "developer", "content": "Say hi."}], [{"role": "user", "content": " "}]]
)
def test_there_is_always_a_message(items: list[Json]) -> None:
    """This API refuses a request without one."""
    (message,) = messages(*items)
    assert message["role"] == "user"
    assert message["content"][0]["text"].strip()


MISSING: Json = {
    "type": "tool_result",
    "tool_use_id": "a",
    "content": [{"type": "text", "text": "[there is no output of this call]"}],
}
DONE: Json = {"role": "assistant", "content": "Done."}


def test_a_call_that_nobody_answers_is_answered_with_a_note() -> None:
    """A call that was cut, for example: without a result the conversation could not go on."""
    assert len(messages(USER, CALL)) == 2, "the result may still come"
    for items in ([USER, CALL, USER], [USER, CALL, USER, DONE]):
        assert messages(*items)[2] == {"role": "user", "content": [MISSING, GO]}
        assert warnings(DIALECT, items) == (UNANSWERED_CALL,)
    assert warnings(DIALECT, [USER, CALL]) == warnings(DIALECT, [USER, CALL, OUTPUT, USER]) == ()
    results = messages(USER, CALL | {"call_id": "b"}, CALL, OUTPUT)[2]["content"]
    assert [block["tool_use_id"] for block in results] == ["a", "b"]


def test_a_result_that_comes_late_is_a_text_of_the_users() -> None:
    note = {"type": "text", "text": "[output of the earlier tool call a]"}
    late = {"role": "user", "content": [note, {"type": "text", "text": "seen"}]}
    assert messages(USER, CALL, USER, DONE, OUTPUT)[-1] == late
    assert warnings(DIALECT, [USER, CALL, OUTPUT, OUTPUT]) == (LATE_OUTPUT,)
    assert messages(OUTPUT) == [late], "its call is not in the history"


def test_the_mark_is_at_the_end_of_a_message_with_a_note() -> None:
    """The note is part of what the provider caches."""
    assert marks(body(DIALECT, [USER, CALL, OUTPUT, CALL | {"call_id": "b"}, USER, DONE])) == ["go"]


def test_a_question_beside_a_missing_result_is_part_of_the_loop() -> None:
    assert thinking(USER, CALL, USER, reasoning={"effort": "low"})[0] is None
    assert thinking(USER, CALL, USER, DONE, USER, reasoning={"effort": "low"})[0] == 4096


# ------------------------------------------------------------------------------------------- what came in the same API

NATIVE = b'{"model":"mine", "messages":[{"role":"user","content":"go on"}],"max_tokens":1,"thread":{},"stream":false}'


def passed(*turns: Turn, fields: dict[str, bytes] | None = None, **more: object) -> Rendered | Problem:
    """What is sent of a request that came in this API and continues these turns."""
    text = read_object(NATIVE)
    assert isinstance(text, ObjectText)
    new = b'{"role":"user","content":"go on"}'
    native = NativeBody(dialect="messages", body=text, fields=fields or {}, messages=new)
    item = encode({"type": "message", "role": "user", "content": "go on"})
    asked = Request(History(turns[-1] if turns else None, (item,)), native=native)
    return MessagesDialect(MESSAGES, **more).pass_on(asked, native, RenderCache(1 << 20))  # type: ignore[arg-type]  # settings of one test


def a_turn(parent: Turn | None, native: NativeTurn | None, *items: Json) -> Turn:
    said = encode_items(items)
    return Turn(id=sample_id("t"), parent=parent, input=said, output=(), calls=frozenset(), stored=False, native=native)


def test_a_request_of_this_api_passes_as_it_was_written() -> None:
    rendered = passed(preset=Preset({"top_k": 3}))
    assert isinstance(rendered, Rendered)
    assert rendered.body == (
        b'{"model":"model-1", "messages":[{"role":"user","content":"go on"}],"max_tokens":1,"stream":true,"top_k":3}'
    )


def test_the_turns_before_it_stand_there_as_they_were_said() -> None:
    first = a_turn(None, NativeTurn("messages", b'{"role":"user", "content":"hi"}'))
    second = a_turn(first, NativeTurn("messages", b'{"role":"assistant","content":[{"type":"new"}]}'))
    rendered = passed(first, second, fields={"system": b'"S"'})
    assert isinstance(rendered, Rendered)
    assert (
        b'"messages":[{"role":"user", "content":"hi"},{"role":"assistant","content":[{"type":"new"}]},' in rendered.body
    )
    assert rendered.body.endswith(b'"stream":true,"system":"S"}')


def test_turns_of_another_api_are_written_from_their_items() -> None:
    """All of them: ids of calls, for example, must be the same everywhere."""
    first = a_turn(None, NativeTurn("messages", b'{"role":"user","content":"hi"}'), USER)
    second = a_turn(first, None, {"type": "message", "role": "assistant", "content": "said", "phase": "final"})
    rendered = passed(first, second)
    assert isinstance(rendered, Rendered)
    assert [message["role"] for message in parse_json(rendered.body.decode())["messages"]] == [
        "user",
        "assistant",
        "user",
    ]
    assert rendered.warnings
    refused = passed(a_turn(None, None, {"type": "compaction", "encrypted_content": "x"}))
    assert isinstance(refused, Problem)

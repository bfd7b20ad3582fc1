"""Streams of a Responses server: what passes as it is, what is replaced, and what such a server is held to."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from segue.dialects.responses.stream import ResponsesDecoder, read_usage
from segue.dialects.sealed_reasoning import seal
from segue.dialects.stream_end import MAX_WARNINGS
from segue.history.chains import History
from segue.http.sse import SseEvent
from segue.protocol.events import Ended, Event
from segue.protocol.responses import Failure, usage
from segue.testing.protocol_checker import parse_json
from tests.dialects.conversations import DIALECTS, RESPONSE_ID, RESPONSES, Request, run
from tests.dialects.golden import CHECKED, GOLDEN, Json, decoder, read


@pytest.mark.parametrize("name", sorted(set(GOLDEN) - set(CHECKED)))
def test_events_of_tools_that_a_responses_server_runs_pass(name: str) -> None:
    events, expected = read(GOLDEN[name])
    output = run(decoder("responses"), events)
    passed = [event for event in output if isinstance(event, Event)]
    assert [event.type for event in passed] == expected["passes"]
    sent = {event.data for event in events}
    assert {event.data for event in passed if b'"reasoning"' not in event.data} <= sent, "byte for byte"


#: Streams whose events lack fields, or cannot be passed on as they are, or are not all there.
REPAIRED = {
    f"responses/{name}"
    for name in ("without_indexes", "characters_cut_in_two", "halves_of_characters", "side_fields_of_other_types")
} | {name for name in GOLDEN if "anew" in read(GOLDEN[name])[1]}


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith("responses/") and name not in REPAIRED])
def test_items_of_a_responses_server_keep_their_bytes(name: str) -> None:
    events, _ = read(GOLDEN[name])
    sent = {event.data for event in events}
    for event in run(decoder("responses"), events):
        if isinstance(event, Event) and b'"reasoning"' not in event.data:
            assert event.data in sent


@pytest.mark.parametrize(
    "lines",
    [
        [{"type": "response.output_item.added", "output_index": 1, "item": {"type": "message", "id": "m"}}],
        [{"type": "response.output_item.added", "output_index": 0}],
        [{"type": "response.output_item.done", "output_index": 0, "item": {"type": "message", "id": "m"}}],
        [{"type": "response.output_text.delta", "output_index": 0, "delta": "x"}],
        [
            {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "id": "m"}},
            {"type": "response.output_item.done", "output_index": 0, "item": {"type": 7}},
        ],
        [
            {
                "type": "response.output_item.added",
                "output_index": 0,
                "item": {"type": "message", "id": "m", "role": 7},
            },
        ],
    ],
)
def test_a_responses_server_is_held_to_the_order_of_items(lines: list[Json]) -> None:
    events = [SseEvent(line["type"], json.dumps(line).encode()) for line in lines]
    *_, ended = run(decoder("responses"), events)
    assert isinstance(ended, Ended)
    assert ended.error is not None
    assert ended.error.code == "upstream_protocol_error"


def test_an_event_on_several_lines_leaves_on_one() -> None:
    line = {"type": "response.new_thing", "sequence_number": 2, "a": 1}
    (event, _) = run(decoder("responses"), [SseEvent("", json.dumps(line, indent=1).encode())])
    assert isinstance(event, Event)
    assert b"\n" not in event.data
    assert parse_json(event.data.decode()) == line


OURS = {"response.created", "response.queued", "response.in_progress"}
ENDS = {"response.completed", "response.incomplete", "response.failed", "error"}


def test_every_event_type_that_the_sdk_knows_passes_or_has_its_handler() -> None:
    from openai.types.responses import ResponseStreamEvent

    members = get_args(get_args(ResponseStreamEvent)[0])
    kinds = sorted(get_args(member.model_fields["type"].annotation)[0] for member in members)
    assert len(kinds) > 40
    for kind in kinds:
        _passes_or_has_its_handler(kind)


def _passes_or_has_its_handler(kind: str) -> None:
    added = {"type": "response.output_item.added", "sequence_number": 2, "output_index": 0, "item": {"type": "message"}}
    line = {"type": kind, "sequence_number": 3, "output_index": 0, "item": {"type": "message", "id": "m"}, "new": [1]}
    if kind == "response.output_item.added":
        line["output_index"] = 1
    data = json.dumps(line).encode()
    reader = decoder("responses")
    reader.feed(SseEvent("", json.dumps(added).encode()))
    reader.feed(_line("response.content_part.added", output_index=0))  # what follows stands within a part
    output = reader.feed(SseEvent(kind, data))
    if kind in OURS:
        assert output == []
    elif kind in ENDS:
        assert [type(event) for event in output] == [Ended]
    else:
        item = json.dumps(line["item"]).encode() if kind == "response.output_item.done" else b""
        assert output == [Event(kind, data, 3, item)]


def test_an_item_that_is_nested_too_deeply_is_not_taken() -> None:
    added = b'{"type":"response.output_item.added","output_index":0,"item":{"type":"message"}}'
    deep = b"[" * 200 + b"]" * 200
    done = b'{"type":"response.output_item.done","output_index":0,"item":{"type":"message","content":%b}}' % deep
    *_, ended = run(decoder("responses"), [SseEvent("", added), SseEvent("", done)])
    assert isinstance(ended, Ended)
    assert ended.error is not None
    assert ended.error.code == "upstream_protocol_error"


def _line(kind: str, **fields: object) -> SseEvent:
    return SseEvent(kind, json.dumps({"type": kind, **fields}).encode())


def _item(kind: str, index: int, **item: object) -> SseEvent:
    return _line(
        f"response.output_item.{kind}", sequence_number=9, output_index=index, item={"type": "message", **item}
    )


def test_items_that_end_out_of_order_are_held_until_those_before_them_have_ended() -> None:
    reader = decoder("responses")
    for index in range(3):
        reader.feed(_item("added", index, id=f"m{index}"))
    assert reader.feed(_item("done", 2, id="m2")) == []
    assert [event.item for event in reader.feed(_item("done", 0, id="m0")) if isinstance(event, Event)] == [
        b'{"type": "message", "id": "m0"}'
    ]
    assert [event.item for event in reader.feed(_item("done", 1, id="m1")) if isinstance(event, Event)] == [
        b'{"type": "message", "id": "m1"}',
        b'{"type": "message", "id": "m2"}',
    ]


@pytest.mark.parametrize(
    ("late", "detail"),
    [
        (_line("response.output_item.done", output_index=0), "an item ends that is none"),
        (_line("response.output_item.added", output_index=1), "an item begins that is none"),
        (
            _line("response.output_text.delta", output_index=0),
            "response.output_text.delta belongs to no item that is open",
        ),
        (
            _line("response.image_generation_call.partial_image", output_index=1),
            "response.image_generation_call.partial_image belongs to no item that is open",
        ),
    ],
)
def test_what_belongs_to_an_item_that_is_not_open_breaks_the_answer(late: SseEvent, detail: str) -> None:
    *_, ended = run(decoder("responses"), [_item("added", 0), _item("done", 0), late])
    assert isinstance(ended, Ended)
    message = f"The upstream's answer cannot be read: {detail}."
    assert ended.error == Failure("upstream_protocol_error", message)


def test_an_item_that_ended_early_is_not_open() -> None:
    late = _line("response.output_text.delta", output_index=1, delta="x")
    events = [_item("added", 0), _item("added", 1), _item("done", 1), late]
    *_, ended = run(decoder("responses"), events)
    assert isinstance(ended, Ended)
    assert ended.error is not None
    assert "belongs to no item that is open" in ended.error.message


def test_an_item_that_ends_twice_is_one_item() -> None:
    events = [
        _item("added", 0, id="m"),
        _item("done", 0, id="m"),
        _item("done", 0, id="m"),
        _item("done", 0, id="m", a=1),
    ]
    assert [event.type for event in run(decoder("responses"), events) if isinstance(event, Event)] == [
        "response.output_item.added",
        "response.output_item.done",
    ]


def _end(*output: Json, **response: object) -> SseEvent:
    return _line("response.completed", response={"output": output, **response})


MESSAGE: Json = {"type": "message", "id": "m", "content": "Hi"}
CALL: Json = {"type": "function_call", "id": "f", "call_id": "c", "name": "look", "arguments": "{}"}
DEEP = {"type": "message", "id": "m", "content": json.loads("[" * 200 + "]" * 200)}


@pytest.mark.parametrize(
    ("events", "detail"),
    [
        ([_end({**CALL, "name": ""})], "an item has no type, or a call no name"),
        ([_end({"id": "x"})], "an item has no type, or a call no name"),
        ([_line("response.output_item.done", output_index=0, item={**CALL, "name": None})], "an item has no type, or"),
        ([_end(DEEP)], "an item is nested too deeply"),
        (
            [
                _line("response.output_item.added", output_index=0, item=CALL),
                _end({**CALL, "type": "custom_tool_call"}),
            ],
            "its last event contradicts an item that its stream",
        ),
        (
            [_item("done", at, id=f"a{at}", content=str(at)) for at in range(101)]
            + [_end(*({**MESSAGE, "id": f"b{at}", "content": str(-at)} for at in range(101)))],
            "its last event has too many items that were not in its stream",
        ),
    ],
)
def test_an_end_that_cannot_be_brought_together_with_the_stream(events: list[SseEvent], detail: str) -> None:
    *_, ended = run(decoder("responses"), events)
    assert isinstance(ended, Ended)
    assert ended.error is not None
    assert detail in ended.error.message
    assert ended.error.code == "upstream_protocol_error"


def test_an_item_of_the_same_place_is_another_one_if_it_is_another() -> None:
    events = [_item("added", 0), _item("done", 0), _item("done", 0, content="Hi"), _end()]
    items = [event.item for event in run(decoder("responses"), events) if isinstance(event, Event) and event.item]
    assert [json.loads(item).get("content") for item in items] == [
        None,
        [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
    ]


def test_an_item_that_has_ended_is_in_progress_no_more() -> None:
    events = [_item("added", 0, id="m"), _item("done", 0, id="m", status="in_progress")]
    _, done, _ = run(decoder("responses"), events)
    assert isinstance(done, Event)
    assert json.loads(done.item)["status"] == json.loads(done.data)["item"]["status"] == "completed"


def test_the_done_event_of_another_api_is_no_end() -> None:
    assert decoder("responses").feed(_line("response.done", response={"status": "odd"})) == []
    assert decoder("responses").feed(_line("response.done")) == []


def test_reasoning_is_sealed_when_it_begins_and_when_it_ends() -> None:
    item = {"type": "reasoning", "id": "rs", "summary": []}
    added = _line("response.output_item.added", sequence_number=2, output_index=0, item=item)
    done = _line("response.output_item.done", sequence_number=3, output_index=0, item=item | {"encrypted_content": "x"})
    first, second, _ = run(decoder("responses"), [added, done])
    assert isinstance(first, Event)
    assert isinstance(second, Event)
    assert parse_json(first.data.decode())["item"]["encrypted_content"] == seal(RESPONSES, "")
    sealed = item | {"encrypted_content": seal(RESPONSES, "x")}
    assert parse_json(second.data.decode())["item"] == parse_json(second.item.decode()) == sealed


@pytest.mark.parametrize(
    ("event", "ended"),
    [
        (_line("response.completed"), Ended("completed", usage(0, 0))),
        (_line("response.completed", response={}), Ended("completed", usage(0, 0))),
        (
            _line("response.completed", response={"usage": {"input_tokens": 9, "output_tokens": 4}}),
            Ended("completed", usage(9, 4)),
        ),
        (_line("response.incomplete"), Ended("incomplete", None, incomplete_reason="max_output_tokens")),
        (
            _line("response.incomplete", response={"incomplete_details": {"reason": "content_filter"}}),
            Ended("incomplete", None, incomplete_reason="content_filter"),
        ),
        (
            _line("response.failed"),
            Ended("failed", None, Failure("upstream_error", "The upstream failed without saying why.")),
        ),
        (
            _line("response.failed", response={"error": {"code": "rate_limit_exceeded", "message": "Slow."}}),
            Ended("failed", None, Failure("rate_limit_exceeded", "Slow.")),
        ),
        (
            _line(
                "response.failed",
                response={"error": {"code": "rate_limit_exceeded", "message": "Please try again in 1.5s."}},
            ),
            Ended("failed", None, Failure("rate_limit_exceeded", "Please try again in 1.5s."), retry_after_s=1.5),
        ),
        (
            _line("response.failed", response={"error": {"type": "invalid_request_error", "message": "No."}}),
            Ended("failed", None, Failure("upstream_rejected", "No.")),
        ),
        (
            _line("response.done", response={"status": "completed"}),
            Ended("completed", usage(0, 0)),
        ),
        (
            _line("response.cancelled", response={"error": {"message": "Gone."}, "usage": {"input_tokens": 1}}),
            Ended("failed", usage(1, 0), Failure("upstream_error", "Gone.")),
        ),
        (
            _line("error", message="Slow.", code="too_many_requests"),
            Ended("failed", None, Failure("rate_limit_exceeded", "Slow.")),
        ),
    ],
)
def test_an_end(event: SseEvent, ended: Ended) -> None:
    assert decoder("responses").feed(event) == [ended]


def test_events_of_vendors_are_left_out_and_all_but_one_are_named() -> None:
    *events, ended = run(decoder("responses"), [_line("keepalive"), _line("vendor.thing"), _line("vendor.thing")])
    assert events == []
    assert isinstance(ended, Ended)
    assert ended.warnings == ("'vendor.thing' in the upstream's answer was left out: it has no counterpart.",)


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    """A WebSocket whose text is no UTF-8 is closed by its client."""
    reader = decoder("responses")
    reader.feed(_item("added", 0, id="m"))
    reader.feed(_line("response.content_part.added", output_index=0))
    delta = _line("response.output_text.delta", item_id="m", output_index=0, content_index=0, delta="é?")
    plain = delta.data.replace(b"\\u00e9", "é".encode())
    (sound,) = reader.feed(SseEvent("", plain))
    (repaired,) = reader.feed(SseEvent("", plain.replace(b"?", b"\xf0\x9f")))
    assert isinstance(sound, Event)
    assert isinstance(repaired, Event)
    assert sound.data == plain
    assert parse_json(repaired.data.decode())["delta"] == "é\ufffd"


def test_done_says_nothing() -> None:
    assert decoder("responses").feed(SseEvent("", b"[DONE]")) == []


def test_usage() -> None:
    told = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 3},
    }
    assert read_usage(told) == usage(9, 4, cached=5, written=2, reasoning=3)
    assert read_usage(None) is None
    assert read_usage({}) == usage(0, 0)


def test_what_a_gateway_behind_this_one_warns_of_is_told() -> None:
    """Within bounds, behind our own warnings; what is no text is none."""
    told = ["'seed' was left out: this API has nothing like it.", 7, " ", "x" * 1000, *(f"more {n}" for n in range(9))]
    for kind in ("completed", "incomplete", "failed"):
        end = {"type": f"response.{kind}", "response": {"warnings": told}}
        reader = DIALECTS["responses"].decoder(Request(History(None, ())), ("Ours.",))
        (ended,) = run(reader, [SseEvent("", json.dumps(end).encode())])
        assert isinstance(ended, Ended)
        assert ended.warnings[:4] == ("Ours.", told[0], "x" * 500, "more 0")
        assert len(ended.warnings) == 1 + MAX_WARNINGS
    for odd in (None, "text", {"a": 1}, 7):
        end = {"type": "response.completed", "response": {"warnings": odd}}
        (ended,) = run(decoder("responses"), [SseEvent("", json.dumps(end).encode())])
        assert isinstance(ended, Ended)
        assert (ended.status, ended.warnings) == ("completed", ())


@pytest.mark.parametrize(
    ("limit", "tokens", "status", "warned"),
    [
        (6, 6, "completed", 1),
        (6, 7, "completed", 1),
        (6, 5, "completed", 0),
        (None, 6, "completed", 0),
        (6, 6, "incomplete", 0),
    ],
)
def test_an_answer_that_fills_its_limit_may_be_cut_off(
    limit: int | None, tokens: int, status: str, warned: int
) -> None:
    """The server of llama.cpp calls it completed."""
    reader = ResponsesDecoder(RESPONSE_ID, RESPONSES, limit=limit)
    response: Json = {"status": status, "output": [], "usage": {"input_tokens": 1, "output_tokens": tokens}}
    lines: list[Json] = [
        {"type": "response.output_item.done", "output_index": 0, "item": {"type": "message", "id": "m", "content": []}},
        {"type": f"response.{status}", "response": response},
    ]
    (ended,) = [
        one
        for one in run(reader, [SseEvent(line["type"], json.dumps(line).encode()) for line in lines])
        if isinstance(one, Ended)
    ]
    assert (ended.status, len(ended.warnings)) == (status, warned)

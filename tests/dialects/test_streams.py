"""Reply streams of the providers, as they really look (`streams/`, one line an event), and as they should not look."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent

from segue.dialects.chat.stream import ChatDecoder
from segue.dialects.interface import Output, ReplyDecoder
from segue.dialects.messages.stream import MessagesDecoder
from segue.dialects.responses.stream import ResponsesDecoder
from segue.dialects.sealed_reasoning import unseal
from segue.http.sse import SseEvent, SseReader, write_event
from segue.protocol.events import Ended, Event
from segue.protocol.responses import Failure
from segue.testing.protocol_checker import parse_json
from tests.dialects.conversations import CHAT, MESSAGES, RESPONSE_ID, RESPONSES, fold, response, run
from tests.strategies import hostile_bytes, json_values

Json = dict[str, Any]
STREAMS = Path(__file__).parent / "streams"
PROVIDERS = {"chat": CHAT, "messages": MESSAGES, "responses": RESPONSES}
CUSTOM = frozenset({"patch"})


def read(path: Path) -> tuple[list[SseEvent], Json]:
    *lines, last = map(json.loads, path.read_text("utf-8").splitlines())
    return [_event(line) for line in lines], last["expect"]


def dialect_of(name: str) -> str:
    return name.partition("/")[0]


def _event(line: Json) -> SseEvent:
    data = line["data"]
    return SseEvent(line.get("event", ""), (data if isinstance(data, str) else json.dumps(data)).encode())


def decoder(dialect: str, warnings: tuple[str, ...] = ()) -> ReplyDecoder:
    match dialect:
        case "chat":
            return ChatDecoder(RESPONSE_ID, CHAT, custom=CUSTOM, warnings=warnings)
        case "messages":
            return MessagesDecoder(RESPONSE_ID, MESSAGES, custom=CUSTOM, warnings=warnings)
        case _:
            return ResponsesDecoder(RESPONSES, warnings)


GOLDEN = {f"{path.parent.name}/{path.stem}": path for path in sorted(STREAMS.rglob("*.jsonl"))}
CHECKED = [name for name, path in GOLDEN.items() if "passes" not in read(path)[1]]
every_stream = pytest.mark.parametrize("name", GOLDEN)
any_stream = st.sampled_from(sorted(GOLDEN))


def outline(item: Json) -> Json:
    """What an expectation says of an item."""
    cut = {"cut": True} if item.get("status") == "incomplete" else {}
    match item["type"]:
        case "message":
            texts = [part.get("text") or "!" + part["refusal"] for part in item["content"]]
            logprobs = [entry for part in item["content"] for entry in part.get("logprobs", ())]
            return {"message": texts} | ({"logprobs": logprobs} if logprobs else {}) | cut
        case "reasoning":
            return {"reasoning": "".join(part["text"] for part in item["summary"]), "returned": _returned(item)}
        case "custom_tool_call":
            return {"custom": [item["call_id"], item["name"], item["input"]]} | cut
        case _:
            return {"call": [item["call_id"], item["name"], item["arguments"]]} | cut


def _returned(item: Json) -> object:
    sealed = item.get("encrypted_content")
    if sealed is None:
        return None
    read = unseal(sealed)
    assert read.provider in PROVIDERS.values()
    return json.loads(read.content) if read.content.startswith("{") else read.content


# --------------------------------------------------------------------------------------------------------- as they look


@pytest.mark.parametrize("name", CHECKED)
def test_a_stream_becomes_the_response_that_it_means(name: str) -> None:
    events, expected = read(GOLDEN[name])
    result = response(run(decoder(dialect_of(name)), events))
    assert result["status"] == expected["status"]
    output = [outline(item) for item in result["output"]]
    for got, wanted in zip(output, expected["output"], strict=True):
        if wanted.get("call", [""])[0] == "*":  # an id that was made here
            assert got["call"][0]
            got["call"][0] = "*"
        assert got == wanted
    assert result.get("warnings", []) == expected.get("warnings", [])
    if "error" in expected:
        assert [result["error"]["code"], result["error"]["message"]] == expected["error"]
    elif not expected.get("no_usage"):
        usage = result["usage"]
        inner, made = usage["input_tokens_details"], usage["output_tokens_details"]
        counts = [usage["input_tokens"], inner["cached_tokens"], usage["output_tokens"], made["reasoning_tokens"]]
        assert counts == expected["usage"]
        assert inner["cache_write_tokens"] == expected.get("written", 0)
    if "reason" in expected:
        assert result["incomplete_details"] == {"reason": expected["reason"]}


@pytest.mark.parametrize("name", sorted(set(GOLDEN) - set(CHECKED)))
def test_events_of_tools_that_a_responses_server_runs_pass(name: str) -> None:
    events, expected = read(GOLDEN[name])
    output = run(decoder("responses"), events)
    passed = [event for event in output if isinstance(event, Event)]
    assert [event.type for event in passed] == expected["passes"]
    sent = {event.data for event in events}
    assert {event.data for event in passed if b'"reasoning"' not in event.data} <= sent, "byte for byte"


@every_stream
def test_items_of_a_responses_server_keep_their_bytes(name: str) -> None:
    if not name.startswith("responses/") or name == "responses/without_indexes":
        return
    events, _ = read(GOLDEN[name])
    sent = {event.data for event in events}
    for event in run(decoder("responses"), events):
        if isinstance(event, Event) and b'"reasoning"' not in event.data:
            assert event.data in sent


@given(name=any_stream, cuts=st.lists(st.integers(0, 4000), max_size=12), newline=st.sampled_from([b"\n", b"\r\n"]))
@settings(max_examples=400)
def test_how_the_bytes_are_cut_changes_nothing(name: str, cuts: list[int], newline: bytes) -> None:
    events, _ = read(GOLDEN[name])
    data = b": hello\n\n".join(write_event(event.type, event.data) for event in events).replace(b"\n", newline)
    places = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    reader = SseReader()
    received = [event for one, two in pairwise(places) for event in reader.feed(data[one:two])]
    assert received == events


def test_what_the_request_lost_is_said_with_what_the_reply_lost() -> None:
    for dialect in PROVIDERS:
        *_, ended = decoder(dialect, ("lost",)).end()
        assert isinstance(ended, Ended)
        assert ended.warnings == ("lost",)


# ---------------------------------------------------------------------------------------------- as they should not look


@every_stream
def test_a_stream_that_breaks_off_anywhere_ends_the_turn_once(name: str) -> None:
    events, expected = read(GOLDEN[name])
    dialect = dialect_of(name)
    for length in range(len(events)):
        for truncated in (True, False):
            output = run(decoder(dialect), events[:length], truncated=truncated)
            *_, ended = output
            assert isinstance(ended, Ended)
            if "passes" not in expected:
                fold(output)
            if ended.status == "failed":
                assert ended.error is not None
                assert ended.error.code in {"upstream_error", "upstream_protocol_error"}


def _is_whole(output: Output, dialect: str) -> None:
    """One end, at the end; and where the events are ours, they are right whatever the upstream sent."""
    assert [isinstance(event, Ended) for event in output] == [False] * (len(output) - 1) + [True]
    if dialect != "responses":
        fold(output)


@given(name=any_stream, data=st.data())
def test_events_that_are_lost_doubled_or_out_of_order_break_nothing(name: str, data: st.DataObject) -> None:
    events, _ = read(GOLDEN[name])
    order = data.draw(st.lists(st.integers(0, len(events) - 1), max_size=2 * len(events)))
    if data.draw(st.booleans()):
        order.sort()
    dialect = dialect_of(name)
    _is_whole(run(decoder(dialect), [events[index] for index in order]), dialect)


@given(name=any_stream, data=st.data())
def test_values_that_are_anything_break_nothing(name: str, data: st.DataObject) -> None:
    events, _ = read(GOLDEN[name])
    index = data.draw(st.integers(0, len(events) - 1))
    try:
        value = json.loads(events[index].data)
    except ValueError:
        value = {}
    places = [((value, key)) for key in value]
    for parent, key in places:  # grows while it is read
        child = parent[key]
        if isinstance(child, dict):
            places += [(child, name) for name in child]
        elif isinstance(child, list):
            places += [(child, place) for place in range(len(child))]
    if places:
        parent, key = data.draw(st.sampled_from(range(len(places))).map(places.__getitem__))
        parent[key] = data.draw(json_values)
    events[index] = SseEvent(events[index].type, json.dumps(value).encode())
    dialect = dialect_of(name)
    _is_whole(run(decoder(dialect), events), dialect)


@given(dialect=st.sampled_from(sorted(PROVIDERS)), garbage=st.lists(hostile_bytes, max_size=3))
def test_garbage_fails_the_turn_and_raises_nothing(dialect: str, garbage: list[bytes]) -> None:
    _is_whole(run(decoder(dialect), [SseEvent("", piece) for piece in garbage]), dialect)


@given(name=any_stream, garbage=st.lists(hostile_bytes, max_size=2), place=st.integers(0, 20))
def test_garbage_in_a_stream_fails_the_turn_and_raises_nothing(name: str, garbage: list[bytes], place: int) -> None:
    events, _ = read(GOLDEN[name])
    dialect = dialect_of(name)
    _is_whole(run(decoder(dialect), [*events[:place], *(SseEvent("", p) for p in garbage), *events[place:]]), dialect)


@pytest.mark.parametrize("dialect", PROVIDERS)
def test_an_event_that_is_no_json_fails_with_a_clear_code(dialect: str) -> None:
    result = response(run(decoder(dialect), [SseEvent("", b"<html>")]))
    assert result["error"]["code"] == "upstream_protocol_error"


@pytest.mark.parametrize("dialect", PROVIDERS)
def test_after_the_end_nothing_is_said(dialect: str) -> None:
    reader = decoder(dialect)
    (ended,) = reader.fail(Failure("upstream_timeout", "Too slow."))
    assert isinstance(ended, Ended)
    assert ended.error == Failure("upstream_timeout", "Too slow.")
    assert reader.ended
    assert reader.fail(Failure("x", "y")) == reader.end() == reader.feed(SseEvent("", b"{")) == []


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
    ],
)
def test_a_responses_server_is_held_to_the_order_of_items(lines: list[Json]) -> None:
    events = [SseEvent(line["type"], json.dumps(line).encode()) for line in lines]
    *_, ended = run(decoder("responses"), events)
    assert isinstance(ended, Ended)
    assert ended.error is not None
    assert ended.error.code == "upstream_protocol_error"


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("upstream_protocol_error", [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}}]),
        ("upstream_protocol_error", [{"type": "content_block_stop", "index": 0}]),
        (
            "upstream_protocol_error",
            [{"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use"}}],
        ),
        ("upstream_protocol_error", [{"type": "content_block_start", "index": 0}]),
        ("upstream_error", [{"type": "error", "error": {"type": "api_error", "message": "Internal"}}]),
    ],
)
def test_a_messages_server_is_held_to_the_order_of_blocks(code: str, lines: list[Json]) -> None:
    events = [SseEvent(line["type"], json.dumps(line).encode()) for line in lines]
    assert response(run(decoder("messages"), events))["error"]["code"] == code


def test_an_event_on_several_lines_leaves_on_one() -> None:
    line = {"type": "response.new_thing", "sequence_number": 2, "a": 1}
    (event, _) = run(decoder("responses"), [SseEvent("", json.dumps(line, indent=1).encode())])
    assert isinstance(event, Event)
    assert b"\n" not in event.data
    assert parse_json(event.data.decode()) == line


SDK_EVENTS = sorted(
    get_args(member.model_fields["type"].annotation)[0] for member in get_args(get_args(ResponseStreamEvent)[0])
)
OURS = {"response.created", "response.queued", "response.in_progress"}
ENDS = {"response.completed", "response.incomplete", "response.failed", "error"}


@pytest.mark.parametrize("kind", SDK_EVENTS)
def test_every_event_type_that_the_sdk_knows_passes_or_has_its_handler(kind: str) -> None:
    added = {"type": "response.output_item.added", "sequence_number": 2, "output_index": 0, "item": {"type": "message"}}
    line = {"type": kind, "sequence_number": 3, "output_index": 0, "item": {"type": "message", "id": "m"}, "new": [1]}
    if kind == "response.output_item.added":
        line["output_index"] = 1
    data = json.dumps(line).encode()
    reader = decoder("responses")
    reader.feed(SseEvent("", json.dumps(added).encode()))
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

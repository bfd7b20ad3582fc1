"""Streams of a Responses server: what passes as it is, what is replaced, and what such a server is held to."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from segue.http.sse import SseEvent
from segue.protocol.events import Ended, Event
from segue.testing.protocol_checker import parse_json
from tests.dialects.conversations import run
from tests.dialects.golden import CHECKED, GOLDEN, Json, decoder, read


@pytest.mark.parametrize("name", sorted(set(GOLDEN) - set(CHECKED)))
def test_events_of_tools_that_a_responses_server_runs_pass(name: str) -> None:
    events, expected = read(GOLDEN[name])
    output = run(decoder("responses"), events)
    passed = [event for event in output if isinstance(event, Event)]
    assert [event.type for event in passed] == expected["passes"]
    sent = {event.data for event in events}
    assert {event.data for event in passed if b'"reasoning"' not in event.data} <= sent, "byte for byte"


@pytest.mark.parametrize(
    "name", [name for name in GOLDEN if name.startswith("responses/") and name != "responses/without_indexes"]
)
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

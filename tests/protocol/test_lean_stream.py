"""What a lean stream says and what it leaves out: the same items, the same deltas, one after the other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.protocol.events import Ended, Event, OutputWriter
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.lean_stream import LEFT_OUT, TEXTS, LeanStream
from segue.protocol.requests import Settings, json_text
from segue.protocol.responses import Failure, encode_echo, usage
from segue.protocol.turns import TurnStream
from segue.testing.lean_checker import LeanStreamChecker
from segue.testing.protocol_checker import parse_json
from tests.strategies import examples

ID = new_response_id(b"\1" * ENTROPY_BYTES)
SETTINGS = Settings(model="m", instructions=json_text("be brief " * 100), tools=[{"type": "function", "name": "f"}])

ENDED = Ended("completed", usage(3, 4))


def whole(writer: OutputWriter, events: list[Event], ended: Ended = ENDED) -> list[Event]:
    """The events of a turn whose output these are."""
    stream = TurnStream(ID, None, encode_echo(SETTINGS, store=False), 17.0)
    return [*stream.open(), *stream.feed([*events, *writer.end_item()]), stream.close(ended, 19.0).terminal]


def text_turn(*pieces: str) -> list[Event]:
    writer = OutputWriter(ID)
    return whole(writer, [event for piece in pieces for event in writer.text(piece)])


def call_turn() -> list[Event]:
    writer = OutputWriter(ID)
    return whole(writer, writer.call("call_1", "f", '{"a":1}'))


def lean(*batches: list[Event]) -> list[Event]:
    stream = LeanStream()
    return [event for batch in batches for event in stream.feed(batch)] + stream.flush()


def decoded(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event.whole())
    assert (found["type"], found["sequence_number"]) == (event.type, event.sequence_number)
    return found


def event(kind: str, **fields: object) -> Event:
    return Event(kind, json.dumps({"type": kind, **fields, "sequence_number": 9}).encode(), 9)


def test_a_text_is_its_response_its_deltas_and_its_item() -> None:
    """And nothing of the request, and nothing twice but the text at the end of its item."""
    turn = text_turn("one ", "two")
    events = lean(turn)
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "output_text.delta",
        "output_item.done",
        "completed",
    ]
    assert decoded(events[0]) == {
        "type": "response.created",
        "sequence_number": 0,
        "response": {"id": ID, "object": "response", "created_at": 17, "status": "in_progress", "output": []},
    }
    item = decoded(events[2])["item"]
    assert decoded(events[1]) == {
        "type": "response.output_text.delta",
        "item_id": item["id"],
        "output_index": 0,
        "content_index": 0,
        "delta": "one two",
        "logprobs": [],
        "sequence_number": 5,
    }
    assert events[2] is next(event for event in turn if event.type == "response.output_item.done")
    assert decoded(events[3])["response"] == {
        "id": ID,
        "object": "response",
        "created_at": 17,
        "completed_at": 19,
        "status": "completed",
        "usage": decoded(turn[-1])["response"]["usage"],
        "output": [],
    }


def test_a_call_is_its_item() -> None:
    turn = call_turn()
    events = lean(turn)
    assert [event.type for event in events] == ["response.created", "response.output_item.done", "response.completed"]
    assert events[1].item == decoded_item(turn)


def decoded_item(turn: list[Event]) -> bytes:
    return next(event.item for event in turn if event.item)


def test_the_end_says_why() -> None:
    """What belongs to the turn stays: its error, why it was cut short, its warnings."""
    writer = OutputWriter(ID)
    failed = lean(
        whole(writer, [], Ended("failed", error=Failure("server_error", 'it said: ,"output":[ and "response":')))
    )
    assert decoded(failed[-1])["response"]["error"] == {
        "code": "server_error",
        "message": 'it said: ,"output":[ and "response":',
    }
    cut = lean(
        whole(writer, [], Ended("incomplete", usage(1, 1), incomplete_reason="max_output_tokens", warnings=("w",)))
    )
    assert decoded(cut[-1])["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert decoded(cut[-1])["response"]["warnings"] == ["w"]


def test_a_delta_has_the_number_of_its_last_piece() -> None:
    """A client that resumes after it gets what follows, and none of it again."""
    turn = text_turn("a", "b", "c", "d")
    stream = LeanStream()
    first = [*stream.feed(turn[:6]), *stream.flush()]
    assert (decoded(first[-1])["delta"], first[-1].sequence_number) == ("ab", turn[5].sequence_number)
    resumed = lean([event for event in turn if event.sequence_number > first[-1].sequence_number])
    assert [one.data for one in first + resumed] == [one.data for one in lean(turn[:6]) + lean(turn[6:])]


def test_text_is_held_until_something_else_comes() -> None:
    stream, turn = LeanStream(), text_turn("one ", "two")
    assert stream.held == 0
    assert [event.type for event in stream.feed(turn[:6])] == ["response.created"]
    assert stream.held == len("one two")
    assert stream.feed(turn[6:8]) == []  # its ends say nothing new
    assert next(iter(stream.feed(turn[8:]))).type == "response.output_text.delta"
    assert (stream.held, stream.flush()) == (0, [])


def test_an_empty_piece_is_held_too() -> None:
    stream = LeanStream()
    stream.feed([event("response.output_text.delta", item_id="m", output_index=0, content_index=0, delta="")])
    assert stream.held


@pytest.mark.parametrize(
    "other",
    [{"item_id": "n"}, {"output_index": 1}, {"content_index": 1}, {"summary_index": 0}],
)
def test_another_text_is_another_event(other: dict[str, object]) -> None:
    fields: dict[str, object] = {"item_id": "m", "output_index": 0, "content_index": 0, "delta": "x"}
    kind = "response.output_text.delta"
    assert len(lean([event(kind, **fields), event(kind, **fields)])) == 1
    assert len(lean([event(kind, **fields), event(kind, **{**fields, **other})])) == 2
    assert len(lean([event(kind, **fields), event("response.refusal.delta", **fields)])) == 2


def test_reasoning_keeps_its_own_index_and_no_log_probabilities() -> None:
    piece = {"item_id": "r", "output_index": 0, "summary_index": 1, "delta": "hm", "obfuscation": "xyz"}
    (delta,) = lean([event("response.reasoning_summary_text.delta", **piece)])
    assert decoded(delta) == {
        "type": "response.reasoning_summary_text.delta",
        "item_id": "r",
        "output_index": 0,
        "summary_index": 1,
        "delta": "hm",
        "sequence_number": 9,
    }


@pytest.mark.parametrize(
    "unknown",
    [
        event("response.image_generation_call.partial_image", output_index=0),
        event("response.mcp_call_arguments.delta", delta="{", item_id="m", output_index=0),
        event("response.output_item.added", output_index=0, item={"type": "web_search_call", "id": "ws"}),
        event("response.output_item.added", output_index=0, item=None),
        event("response.output_text.delta", text="of another form"),
        event("response.output_item.done", output_index=0, item={"type": "message"}),
    ],
    ids=lambda one: str(one.type),
)
def test_what_is_not_known_passes_as_it_is(unknown: Event) -> None:
    """And after the text before it."""
    text = event("response.output_text.delta", item_id="m", output_index=0, content_index=0, delta="x")
    first, second = lean([text, unknown])
    assert (first.type, second) == ("response.output_text.delta", unknown)


@pytest.mark.parametrize("kind", ["message", "reasoning", "function_call", "custom_tool_call"])
def test_the_beginning_of_an_item_that_will_come_whole_is_left_out(kind: str) -> None:
    assert lean([event("response.output_item.added", output_index=0, item={"type": kind})]) == []


def test_the_two_rules_do_not_meet() -> None:
    """And none of them is about what must never be lost."""
    assert not TEXTS & LEFT_OUT
    assert not any(kind.endswith(("output_item.done", ".completed", ".failed", ".incomplete")) for kind in LEFT_OUT)


@st.composite
def turns(draw: st.DrawFn) -> list[Event]:
    """A turn of texts and calls."""
    writer, events = OutputWriter(ID), list[Event]()
    for step in draw(st.lists(st.sampled_from("tttcn"), max_size=12)):
        match step:
            case "t":
                events += writer.text(draw(st.text(max_size=5)))
            case "c":
                events += writer.call(f"call_{len(events)}", "f", draw(st.text(max_size=9)))
            case _:
                events += writer.end_item()
    return whole(writer, events)


def read(data: st.DataObject, turn: list[Event]) -> list[Event]:
    """Read a turn lean, however it is cut into batches, and wherever text is let go."""
    stream, sent = LeanStream(), list[Event]()
    while turn:
        size = data.draw(st.integers(1, len(turn)))
        sent += stream.feed(turn[:size])
        turn = turn[size:]
        if data.draw(st.booleans()):
            sent += stream.flush()
    return sent


@given(turns(), st.data())
@settings(max_examples=examples(1000))
def test_items_texts_and_end_are_those_of_the_whole_stream(turn: list[Event], data: st.DataObject) -> None:
    sent = read(data, turn)
    numbers = [one.sequence_number for one in sent]
    assert numbers == sorted(set(numbers))
    assert items(sent) == items(turn)
    assert texts(sent) == texts(turn)
    assert (sent[0].type, sent[-1].type) == (turn[0].type, turn[-1].type)
    assert sent[-1].sequence_number == turn[-1].sequence_number
    checker = LeanStreamChecker("sse")
    for one in sent:
        checker.feed(parse_json(one.whole().decode()))
    checker.finish()


@given(turns(), st.data())
@settings(max_examples=examples(1000))
def test_wherever_it_breaks_the_rest_is_what_is_missing(turn: list[Event], data: st.DataObject) -> None:
    """Whether the first part was read lean or whole, and the rest."""
    first, second = (
        read(data, turn) if lean else turn for lean in data.draw(st.lists(st.booleans(), min_size=2, max_size=2))
    )
    seen = first[: data.draw(st.integers(1, len(first)))]
    last = seen[-1].sequence_number
    missing = [one for one in turn if one.sequence_number > last]
    rest = missing if second is turn else read(data, missing)
    assert items(seen + rest) == items(turn)
    assert texts(seen + rest) == texts(turn)
    assert (seen + rest)[-1].type == turn[-1].type


def items(events: list[Event]) -> list[bytes]:
    """The events that finish items, as they are sent."""
    return [one.data for one in events if one.item]


def texts(events: list[Event]) -> dict[str, str]:
    """What the deltas of each item say."""
    found: dict[str, str] = {}
    for one in events:
        if one.type in TEXTS:
            delta = decoded(one)
            found[delta["item_id"]] = found.get(delta["item_id"], "") + delta["delta"]
    return found

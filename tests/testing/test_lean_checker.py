"""Tests of the checker of lean streams: what a whole stream becomes passes, and a rule that is broken is reported."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest

from segue.protocol.events import Event
from segue.protocol.lean_stream import LeanStream
from segue.testing.lean_checker import LeanStreamChecker
from segue.testing.protocol_checker import SocketChecker, check_sse
from segue.testing.response_schemas import Json, ProtocolViolation
from tests.testing.response_streams import CITED, ERROR, GOOD, NOTE, Frames, call, event, message, reasoning, stream


def lean(frames: Frames) -> list[Json]:
    """What the gateway makes of a stream that is whole."""
    stream, sent = LeanStream(), list[Event]()
    for frame in frames:
        sent += stream.feed(
            [Event(frame["type"], json.dumps(frame, separators=(",", ":")).encode(), frame.get("sequence_number", 0))]
        )
    return [json.loads(one.data) for one in [*sent, *stream.flush()]]


def run(frames: Frames) -> LeanStreamChecker:
    checker = LeanStreamChecker("websocket")
    for frame in frames:
        checker.feed(frame)
    checker.finish()
    return checker


@pytest.mark.parametrize("name", [name for name in GOOD if name != "background"])
def test_what_is_left_of_a_good_stream_passes(name: str) -> None:
    """And stands for the same response. A stream that is queued has an event that lean streams do not have."""
    expected = GOOD[name][-1]["response"]
    checker = run(lean(GOOD[name]))
    assert checker.response is not None
    assert checker.response["output"] == expected["output"]
    assert {key: checker.response[key] for key in ("id", "status", "error", "incomplete_details")} == {
        key: expected[key] for key in ("id", "status", "error", "incomplete_details")
    }


def test_items_without_deltas_pass() -> None:
    """A text that came in one piece with its item."""
    frames = [frame for frame in lean(stream(*message(0), *reasoning(1))) if "delta" not in frame]
    checker = run(frames)
    assert [frame["type"] for frame in checker.lean_frames] == [
        "response.created",
        "response.output_item.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_lanes_and_bodies_are_checked_too() -> None:
    frames = lean(stream(*message(0)))
    socket = SocketChecker(["a"], stream=LeanStreamChecker)
    for frame in frames:
        socket.feed({**frame, "stream_id": "a"})
    socket.finish()
    body = "".join(f"event: {frame['type']}\ndata: {json.dumps(frame)}\n\n" for frame in frames) + "data: [DONE]\n\n"
    assert check_sse(body.encode(), LeanStreamChecker("sse")).response == socket.turns[0].response


def test_a_refused_turn_is_one_error() -> None:
    assert run([{"type": "error", "status": 400, "error": ERROR}]).error == ERROR


CREATED, DELTA, DONE, CALL, LAST = range(5)


@pytest.mark.parametrize(
    ("place", "changes", "complaint"),
    [
        (CREATED, {"sequence_number": 1}, "1 is not the first"),
        (DELTA, {"sequence_number": 0}, "0 does not rise above 0"),
        (DELTA, {"sequence_number": "1"}, "'1' does not rise"),
        (DELTA, {"stream_id": "a"}, "is 'a'"),
        (DELTA, {"delta": "Hell"}, "is 'Hello', expected 'Hell'"),
        (DELTA, {"item_id": "msg_7"}, "lacks a text that had deltas"),
        (DELTA, {"content_index": 1}, "lacks a text that had deltas"),
        (DELTA, {"type": "response.refusal.delta"}, "lacks a text that had deltas"),
        (DONE, {"output_index": 1}, "is 1, expected 0"),
        (DONE, {"item": None}, "is null"),
        (CREATED, {"response.model": "m"}, "holds what is left out: model"),
        (LAST, {"response.tools": []}, "holds what is left out: tools"),
        (LAST, {"response.output": [{}]}, "holds what is left out: output"),
        (LAST, {"response.status": "failed"}, "is 'failed'"),
        (LAST, {"response.usage": None}, "null in a completed response"),
        (LAST, {"response.id": "resp_2"}, "is 'resp_2'"),
    ],
    ids=str,
)
def test_a_broken_rule_is_reported(place: int, changes: Json, complaint: str) -> None:
    frames = deepcopy(lean(stream(*message(0), *call(1))))
    for path, value in changes.items():
        target = frames[place]
        *outer, name = path.split(".")
        for step in outer:
            target = target[step]
        target[name] = value
    checker = LeanStreamChecker("websocket")
    with pytest.raises(ProtocolViolation, match=complaint):  # noqa: PT012 - one of the frames is wrong
        for frame in frames:
            checker.feed(frame)
    with pytest.raises(ProtocolViolation, match=complaint):
        checker.finish()


@pytest.mark.parametrize(
    "extra",
    [
        event("in_progress"),
        event("output_item.added", item={"type": "message"}),
        event("content_part.done"),
        event("output_text.done"),
        event("function_call_arguments.delta"),
        event("output_text.annotation.added", annotation=NOTE),
    ],
    ids=lambda frame: str(frame["type"]),
)
def test_what_should_be_left_out_is_reported(extra: Json) -> None:
    frames = lean(stream(*message(0, CITED)))
    checker = LeanStreamChecker("websocket")
    checker.feed(frames[0])
    with pytest.raises(ProtocolViolation, match="is left out of a lean stream"):
        checker.feed({**extra, "sequence_number": 1})


def test_a_stream_must_end() -> None:
    with pytest.raises(ProtocolViolation, match="without a terminal event"):
        run(lean(stream(*message(0)))[:-1])


def test_an_item_that_is_not_known_is_judged_as_ever() -> None:
    """Its beginning is in the stream."""
    frames = lean(GOOD["compaction"])
    assert frames[1]["type"] == "response.output_item.added"
    with pytest.raises(ProtocolViolation, match="no item was added"):
        run([frames[0], *frames[2:]])

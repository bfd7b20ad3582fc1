"""Tests of the checker itself: good streams pass, and a stream with any one rule broken is reported for that rule."""

from __future__ import annotations

import json
from copy import deepcopy
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from segue.testing.protocol_checker import (
    ProtocolViolation,
    SocketChecker,
    StreamChecker,
    check_error,
    check_event,
    check_response,
    check_sse,
    parse_json,
    parse_sse,
)
from tests.testing.response_streams import (
    CITED,
    COMPACTION,
    ERROR,
    GOOD,
    NOTE,
    NULLABLE,
    SSE_ERROR,
    WS_ERROR,
    Frames,
    call,
    event,
    message,
    numbered,
    reasoning,
    response,
    stream,
    usage,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from segue.testing.protocol_checker import Json, Transport


def run(frames: Frames, transport: Transport = "websocket") -> StreamChecker:
    checker = StreamChecker(transport)
    for frame in frames:
        checker.feed(frame)
    checker.finish()
    return checker


def sse(frames: Frames) -> bytes:
    return (
        "".join(f"event: {frame['type']}\ndata: {json.dumps(frame)}\n\n" for frame in frames).encode()
        + b"data: [DONE]\n\n"
    )


@pytest.mark.parametrize("name", GOOD)
def test_good_streams_pass_on_both_transports(name: str) -> None:
    frames = GOOD[name]
    assert run(frames).response == frames[-1]["response"]
    assert check_sse(sse(frames)).response == frames[-1]["response"]


def test_items_may_overlap() -> None:
    first, second = call(0), call(1)
    frames = stream(first[0], second[0], *second[1:-1], *first[1:], second[-1])
    frames[-1]["response"]["output"] = [first[-1]["item"], second[-1]["item"]]
    run(frames)


def test_a_compaction_may_be_in_sight() -> None:
    """The document has no such event; it says nothing that a client needs."""
    compacting = event("compaction.compacting", item_id="cmp_0", output_index=0)
    frames = GOOD["compaction"]
    assert run(numbered([*frames[:3], compacting, compacting, *frames[3:]])).response is not None


def test_a_refused_turn_is_one_error() -> None:
    checker = run([WS_ERROR])
    assert checker.error == ERROR
    assert checker.response is None
    assert check_sse(sse([SSE_ERROR])).error == SSE_ERROR["error"]


@pytest.mark.parametrize("name", GOOD)
def test_no_event_can_be_lost_or_repeated(name: str) -> None:
    """The numbers are made right again, so that it is the order rules that find it."""
    frames = GOOD[name]
    for place, frame in enumerate(frames):
        if frame["type"] != "response.queued":  # which may be left out
            with pytest.raises(ProtocolViolation):
                run(numbered(frames[:place] + frames[place + 1 :]))
        with pytest.raises(ProtocolViolation):
            run(numbered([*frames[: place + 1], *frames[place:]]))


@pytest.mark.parametrize("name", GOOD)
def test_no_two_events_of_an_item_can_change_places(name: str) -> None:
    frames = GOOD[name]
    for place, (one, two) in enumerate(pairwise(frames)):
        if one.get("output_index") != two.get("output_index") and "output_index" in one and "output_index" in two:
            continue  # items may overlap
        if "annotation" in two or ("summary_index" in one and "content_index" in two):
            continue  # a note may come before the rest of its text, a thought before its summary
        with pytest.raises(ProtocolViolation):
            run(numbered([*frames[:place], two, one, *frames[place + 2 :]]))


@pytest.mark.parametrize("name", GOOD)
def test_no_stream_passes_when_it_is_cut_short(name: str) -> None:
    for length in range(len(GOOD[name])):
        with pytest.raises(ProtocolViolation, match="without a terminal event"):
            run(GOOD[name][:length])


# Where to find things in `stream(*message(0), *call(1))`.
CREATED, RUNNING, ADDED, PART, DELTA, TEXT, PART_DONE, DONE = 0, 1, 2, 3, 4, 6, 7, 8
CALL, CALL_DELTA, CALL_TEXT, CALL_DONE, LAST = 9, 10, 12, 13, 14

# What is set where, and the complaint.
MUTATIONS: dict[str, tuple[int, str, Any, str]] = {
    "status at first": (CREATED, "response.status", "completed", "'completed' is not"),
    "output at first": (CREATED, "response.output", [COMPACTION], "response.output: is"),
    "usage at first": (RUNNING, "response.usage", usage(), "response.usage: is"),
    "empty response id": (CREATED, "response.id", "", "response.id: is empty"),
    "other id in progress": (RUNNING, "response.id", "resp_2", "response.id: is 'resp_2'"),
    "other id at the end": (LAST, "response.id", "resp_2", "response.id: is 'resp_2'"),
    "other parent at the end": (LAST, "response.previous_response_id", "resp_0", "previous_response_id: is 'resp_0'"),
    "number not from 0": (CREATED, "sequence_number", 1, "is 1, expected 0"),
    "number with a gap": (DELTA, "sequence_number", 5, "is 5, expected 4"),
    "lane on the default lane": (DELTA, "stream_id", "a", "stream_id: is 'a', expected None"),
    "lane is null": (DELTA, "stream_id", None, "None is not a stream id"),
    "lane is no name": (DELTA, "stream_id", "a b", "'a b' is not a stream id"),
    "output_index with a gap": (CALL, "output_index", 2, "output_index: is 2, expected 1"),
    "output_index not rising": (CALL, "output_index", 0, "output_index: is 0, expected 1"),
    "output_index of no item": (DELTA, "output_index", 1, "no item was added at 1"),
    "item is null": (ADDED, "item", None, "item: is null"),
    "item id empty": (ADDED, "item.id", "", "item.id: is empty"),
    "item id used twice": (CALL, "item.id", "msg_0", "'msg_0' is that of an earlier item"),
    "item added completed": (ADDED, "item.status", "completed", "item.status: is 'completed'"),
    "item added full": (CALL, "item.arguments", "[]", "item.arguments: is '[]'"),
    "item_id of another item": (DELTA, "item_id", "call_1", "item_id: is 'call_1', expected 'msg_0'"),
    "other item id at done": (DONE, "item.id", "msg_9", "item.id: is 'msg_9'"),
    "other call_id at done": (CALL_DONE, "item.call_id", "id_9", "item.call_id: is 'id_9'"),
    "done in progress": (DONE, "item.status", "in_progress", "still in_progress"),
    "part at a gap": (PART, "content_index", 1, "content_index: is 1, expected 0"),
    "part of the wrong kind": (PART, "part", {"type": "summary_text", "text": ""}, "has no summary_text"),
    "part added full": (PART, "part.text", "Hello", "part.text: is 'Hello', expected ''"),
    "delta below 0": (DELTA, "content_index", -1, "has no content at -1"),
    "delta of another kind": (DELTA, "type", "response.refusal.delta", "is not for message content output_text"),
    "delta to another kind of item": (CALL_DELTA, "type", "response.custom_tool_call_input.delta", "is not for"),
    "delta lost a letter": (DELTA, "delta", "He", "text: is 'Hello', expected 'Helo'"),
    "text is not its deltas": (TEXT, "text", "Hullo", "text: is 'Hullo', expected 'Hello'"),
    "part is not its text": (PART_DONE, "part.text", "Hullo", "part.text: is 'Hullo'"),
    "part has an unsaid note": (PART_DONE, "part.annotations", [NOTE], "part.annotations: is"),
    "item is not its parts": (DONE, "item.content", [], "item.content: is"),
    "arguments are not their deltas": (CALL_TEXT, "arguments", "[]", "arguments: is '[]'"),
    "item is not its arguments": (CALL_DONE, "item.arguments", "[]", "item.arguments: is '[]'"),
    "output is not the items": (LAST, "response.output", [], "response.output: is"),
    "cut item in a completed response": (CALL_DONE, "item.status", "incomplete", "response.output: is"),
    "status is not the event": (LAST, "response.status", "incomplete", "is 'incomplete', expected 'completed'"),
    "status is unknown": (LAST, "response.status", "done", "'done' is not one of"),
    "completed without usage": (LAST, "response.usage", None, "response.usage: is null"),
    "completed without an end": (LAST, "response.completed_at", None, "response.completed_at: is None"),
    "completed with an error": (LAST, "response.error", {"code": "x", "message": "m"}, "if completed"),
    "completed but cut": (LAST, "response.incomplete_details", {"reason": "x"}, "if completed"),
    "usage does not add up": (LAST, "response.usage", usage(total_tokens=11), "does not add up"),
    "usage cached more than sent": (LAST, "response.usage", usage(input_tokens=3, total_tokens=8), "does not add up"),
    "vendor event": (DELTA, "type", "segue:trace", "is not an event of the Responses API"),
    "event of the SDK only": (DELTA, "type", "response.mcp_call.completed", "is not an event of the Responses API"),
    "vendor item": (ADDED, "item.type", "segue:note", "is not of any kind that is allowed here"),
    "hosted tool": (CREATED, "response.tools", [{"type": "web_search"}], "response.tools[0]: "),
    "tool without strict": (CREATED, "response.tools", [{"type": "function", "name": "f"}], "tools[0]: lacks"),
    "phase is null": (DONE, "item.phase", None, "item.phase: None is not of type string"),
    "effort is unknown": (CREATED, "response.reasoning", {"effort": "minimal", "summary": None}, "reasoning.effort: "),
    "logprobs are null": (DELTA, "logprobs", None, "logprobs: None is not of type array"),
    "no delta": (DELTA, "delta", ..., "lacks delta"),
    "created_at is a float": (CREATED, "response.created_at", 1.5, "response.created_at: 1.5 is not of type integer"),
    "created_at is a boolean": (CREATED, "response.created_at", True, "True is not of type integer"),
}


def changed(frames: Frames, place: int, path: str, value: object) -> Frames:
    frames = deepcopy(frames)
    *steps, last = path.split(".")
    target: Any = frames[place]
    for step in steps:
        target = target[step]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return frames


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_broken_rule_is_reported(name: str) -> None:
    place, path, value, complaint = MUTATIONS[name]
    frames = changed(stream(*message(0), *call(1)), place, path, value)
    with pytest.raises(ProtocolViolation) as caught:
        run(frames)
    assert complaint in str(caught.value)


def with_frame(place: int, frame: Json) -> Frames:
    frames = stream(*message(0))
    return numbered([*frames[:place], frame, *frames[place:]])


CUSTOM_CALL, NOTED, THOUGHT = stream(*call(0, "custom_tool_call")), stream(*message(0, CITED)), stream(*reasoning(0))
OTHERS: dict[str, tuple[Frames, str]] = {
    "nothing": ([], "ended after 0 events"),
    "error after created": (with_frame(1, WS_ERROR), "a response that began ends as failed"),
    "error after the end": ([*stream(), WS_ERROR], "comes after the end"),
    "event after an error": ([WS_ERROR, stream()[0]], "comes after the end"),
    "item before in_progress": (numbered(stream(*message(0))[:1] + message(0)), "comes before response.created and"),
    "queued in the foreground": (with_frame(1, event("queued", response=response("queued"))), "only for a background"),
    "item never done": (stream(*message(0)[:-1]), "comes while items are open: msg_0"),
    "delta after its text": (stream(*message(0)[:5], message(0)[2]), "comes after the done event of its text"),
    "item done before its arguments": (stream(call(0)[0], call(0)[-1]), "is done before its arguments"),
    "cut item in completed": (stream(*call(0, status="incomplete")), "output[0].status: is incomplete if completed"),
    "cut item not last": (stream(*call(0, status="incomplete"), *call(1), status="incomplete"), "output[0].status"),
    "failed without an error": (stream(status="failed", error=None), "response.error: is None if failed"),
    "cut without a reason": (stream(status="incomplete", incomplete_details=None), "is None if incomplete"),
    "custom call without an id": (changed(CUSTOM_CALL, 2, "item.id", ...), "item.id: Field required"),
    "custom delta without an item": (changed(CUSTOM_CALL, 3, "item_id", ...), "item_id: Field required"),
    "custom tool without a name": (stream(tools=[{"type": "custom"}]), "tools[0].name: Field required"),
    "compacting a message": (
        with_frame(4, event("compaction.compacting", item_id="msg_0", output_index=0)),
        "item_id: is 'message', expected 'compaction'",
    ),
    "note out of order": (changed(NOTED, 6, "annotation_index", 1), "annotation_index: is 1, expected 0"),
    "note is null": (changed(NOTED, 6, "annotation", None), "annotation: is null"),
    "summary at a gap": (changed(THOUGHT, 3, "summary_index", 1), "summary_index: is 1, expected 0"),
    "summary is not its parts": (changed(THOUGHT, 13, "item.summary", []), "item.summary: is []"),
    "two calls with one call_id": (changed(stream(*call(0), *call(1)), 7, "item.call_id", "id_0"), "earlier item"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_each_broken_order_is_reported(name: str) -> None:
    frames, complaint = OTHERS[name]
    with pytest.raises(ProtocolViolation) as caught:
        run(frames)
    assert complaint in str(caught.value)


def test_a_swallowed_violation_comes_back_at_the_end() -> None:
    checker, socket = StreamChecker("websocket"), SocketChecker()
    frames = stream()
    for feed in (checker.feed, socket.feed):
        with pytest.raises(ProtocolViolation):
            feed(frames[1])
        for frame in frames:
            feed(frame)
    for finish in (checker.finish, socket.finish):
        with pytest.raises(ProtocolViolation, match="is 1, expected 0"):
            finish()


def test_violation_names_event_path_and_reason() -> None:
    frame = changed(stream(), 0, "response.tools", [{"type": "function", "name": 1}])[0]
    with pytest.raises(ProtocolViolation) as caught:
        check_event(frame, transport="sse")
    found = caught.value
    assert (found.event, found.path) == ("response.created", "response.tools[0]")
    assert found.reason == "lacks description, parameters, strict"


@pytest.mark.parametrize("key", response())
def test_a_response_has_every_key_and_null_only_where_allowed(key: str) -> None:
    good = response("completed")
    check_response(good)
    with pytest.raises(ProtocolViolation, match=f"lacks {key}"):
        check_response({name: value for name, value in good.items() if name != key})
    if key in NULLABLE or key == "metadata":
        check_response(good | {key: None})
    else:
        with pytest.raises(ProtocolViolation):
            check_response(good | {key: None})


def test_structured_output_is_echoed_whole() -> None:
    shape = {"type": "json_schema", "name": "n", "description": None, "schema": {"type": "object"}, "strict": True}
    check_response(response(text={"format": shape}))
    with pytest.raises(ProtocolViolation, match="strict"):
        check_response(response(text={"format": shape | {"strict": None}}))


@pytest.mark.parametrize(
    ("transport", "frame"),
    [
        ("websocket", SSE_ERROR),
        ("sse", WS_ERROR),
        ("websocket", {"type": "error", "code": "x", "message": "m", "param": None, "sequence_number": 0}),
        ("websocket", WS_ERROR | {"status": 200}),
        ("websocket", WS_ERROR | {"error": {"code": "x", "message": "m"}}),
        ("websocket", WS_ERROR | {"error": ERROR | {"code": None}}),
        ("sse", SSE_ERROR | {"error": ERROR}),
        ("sse", SSE_ERROR | {"stream_id": "a"}),
    ],
)
def test_error_events_have_the_form_of_their_transport(transport: Transport, frame: Json) -> None:
    with pytest.raises(ProtocolViolation):
        check_event(frame, transport=transport)


def test_error_bodies() -> None:
    error = {"message": "m", "type": "invalid_request_error", "param": None, "code": None}
    check_error({"error": error})
    check_error({"error": error | {"param": "input", "code": "x"}})
    bad: list[Any] = [{}, [], {"error": "m"}, error, {"error": error, "detail": "m"}]
    bad += [{"error": {key: value for key, value in error.items() if key != missing}} for missing in error]
    bad += [{"error": error | {key: value}} for key in error for value in ("", " ", 4)]
    bad += [{"error": error | {key: None}} for key in ("message", "type")]
    for body in bad:
        with pytest.raises(ProtocolViolation):
            check_error(body)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not an object"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": {"b": 1, "b": 1}}', "has a key twice: b, b"),
        ("[DONE]", "is not JSON"),
    ],
)
def test_json_is_strict(text: str, complaint: str) -> None:
    with pytest.raises(ProtocolViolation, match=complaint):
        parse_json(text)


def test_sse_blocks() -> None:
    frames = stream()
    pairs = [(frame["type"], json.dumps(frame)) for frame in frames]
    assert parse_sse(sse(frames)) == pairs
    assert parse_sse(sse(frames).replace(b"\n\n", b"\n\n: keep-alive\n\n", len(frames))) == pairs


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data: data.replace(b"\n", b"\r\n"), "LF only"),
        (lambda data: data.replace(b"data: [DONE]\n\n", b""), r"not 'data: \[DONE\]'"),
        (lambda data: data + b"data: [DONE]\n\n", "block 3: is not one `event: `"),
        (lambda data: data[:-1], "does not end with a blank line"),
        (lambda data: b": hello\n\n" + data, "is not one `event: `"),
        (lambda data: b"\n" + data, "is not one `event: `"),
        (lambda data: data.replace(b"event: response.created\n", b""), "is not one `event: `"),
        (lambda data: data.replace(b"event: response.created\n", b"event: message\n"), "the event line says 'message'"),
        (lambda data: data.replace(b"event: ", b"id: 1\nevent: "), "is not one `event: `"),
        (lambda data: data.replace(b", ", b",\ndata: ", 1), "is not one `event: `"),
        (lambda data: data.replace(b"event: ", b"event:", 1), "is not one `event: `"),
        (lambda data: data.replace(b"scripted", b"\xff"), "is not UTF-8"),
        (lambda data: data.replace(b'"resp_1"', b'"resp_1", "id": "resp_2"', 1), "has a key twice"),
    ],
)
def test_sse_form_is_strict(change: Callable[[bytes], bytes], complaint: str) -> None:
    with pytest.raises(ProtocolViolation, match=complaint):
        check_sse(change(sse(stream())))


def feed_socket(socket: SocketChecker, frames: Iterable[Json]) -> None:
    for frame in frames:
        socket.feed(frame)
    socket.finish()


def on_lane(frames: Frames, lane: str) -> Frames:
    return [frame | {"stream_id": lane} for frame in frames]


def test_a_socket_is_split_into_turns() -> None:
    socket = SocketChecker()
    first, second = stream(*message(0)), stream(*call(0), id="resp_2", previous_response_id="resp_1")
    feed_socket(socket, [*first, WS_ERROR, *second])
    assert [turn.response for turn in socket.turns] == [first[-1]["response"], None, second[-1]["response"]]
    assert socket.turns[1].error == ERROR


def test_lanes_are_checked_each_for_itself() -> None:
    one, two = on_lane(stream(*message(0)), "a"), stream(*message(0), id="resp_2")
    mixed = (frame for pair in zip(one, two, strict=True) for frame in pair)
    socket = SocketChecker(lanes=["a"])
    feed_socket(socket, mixed)
    assert [turn.response for turn in socket.turns] == [one[-1]["response"], two[-1]["response"]]


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        (stream()[:-1], "without a terminal event"),
        ([*stream(), *stream(id="resp_2")[1:]], "is 1, expected 0"),
        ([*stream(), *stream()], "two turns have the same id"),
        (on_lane(stream(), "b"), "stream_id: is 'b', expected None"),
        ([*on_lane(stream(id="resp_2")[:1], "a"), *stream()], "without a terminal event"),
        ([*on_lane(stream()[:1], "a"), *stream(id="resp_2")[1:]], "is 1, expected 0"),
        ([*stream()[:1], WS_ERROR], "a response that began ends as failed"),
        (["[DONE]"], "is not an object"),
    ],
)
def test_a_socket_with_a_bad_turn_is_reported(frames: Frames, complaint: str) -> None:
    with pytest.raises(ProtocolViolation, match=complaint):
        feed_socket(SocketChecker(lanes=["a"]), frames)

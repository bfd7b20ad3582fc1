"""The stream of a turn: around and between the upstream's events, and what they fold to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.protocol.events import FIRST_SEQUENCE_NUMBER, Ended, Event, OutputWriter
from segue.protocol.items import Item
from segue.protocol.requests import Settings
from segue.protocol.responses import Failure, IncompleteDetails, ResponseObjectHead, encode_echo, encode_start, usage
from segue.protocol.turns import Finished, TurnStream
from segue.testing.protocol_checker import StreamChecker, Transport, parse_json
from segue.testing.store_conformance import sample_id
from tests.strategies import examples

ID = sample_id("turn")
PARENT = sample_id("parent")
ECHO = encode_echo(Settings(model="m"), store=True)
COMPLETED = Ended("completed", usage(7, 5))
FAILED = Ended("failed", error=Failure("server_error", "The model fell over."))
CUT = Ended("incomplete", usage(7, 5), incomplete_reason="max_output_tokens")


def new_stream(now: float = 100.9) -> TurnStream:
    return TurnStream(ID, PARENT, ECHO, now)


def fold(events: Iterable[Event], ended: Ended = COMPLETED) -> Finished:
    stream = new_stream()
    stream.open()
    stream.feed(events)
    return stream.close(ended, 104.9)


# ------------------------------------------------------------------------------------------------- one turn, exactly


def test_a_turn_opens_with_the_response_as_it_will_stay() -> None:
    """Twice, numbered 0 and 1, with our id and our time."""
    start = encode_start(ResponseObjectHead(id=ID, created_at=100, previous_response_id=PARENT), ())
    events = new_stream().open()
    assert events == [
        Event(
            kind, b'{"type":"%b","sequence_number":%d,"response":%b' % (kind.encode(), number, start), number, b"", ECHO
        )
        for number, kind in enumerate(("response.created", "response.in_progress"))
    ]
    assert all(event.echo is ECHO for event in events)


def test_a_turn_ends_with_the_response_it_folded_to() -> None:
    """The output is the upstream's items, as they came."""
    writer = OutputWriter(ID)
    events = [*writer.text("hi"), *writer.end_item()]
    finished = fold(events)
    head = ResponseObjectHead(
        id=ID,
        created_at=100,
        completed_at=104,
        status="completed",
        previous_response_id=PARENT,
        usage=usage(7, 5),
    )
    start = encode_start(head, (events[-1].item,))
    data = b'{"type":"response.completed","sequence_number":8,"response":' + start
    terminal = Event("response.completed", data, 8, echo=ECHO)
    assert finished == Finished(head, (events[-1].item,), terminal)
    assert finished.terminal.echo is ECHO
    assert finished.status == "completed"


def test_events_with_the_right_number_pass_as_the_same_objects() -> None:
    """Nothing is parsed or copied on the fast path."""
    writer = OutputWriter(ID)
    events = [*writer.text("a"), *writer.text("b"), *writer.end_item()]
    fed = new_stream().feed(events)
    assert [id(event) for event in fed] == [id(event) for event in events]


def test_only_the_number_of_a_foreign_event_is_changed() -> None:
    """Everything else in it keeps its bytes."""
    event = Event("response.x", b'{"type":"response.x", "sequence_number": 40,\t"n":1e2}', 40, b"item")
    data = b'{"type":"response.x","sequence_number":2,"n":1e2}'
    assert new_stream().feed([event]) == [Event("response.x", data, FIRST_SEQUENCE_NUMBER, b"item")]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"[" * 100_000])
def test_what_cannot_be_numbered_ends_the_turn(data: bytes) -> None:
    """An upstream whose events are no JSON objects has failed; nothing of it is forwarded, and nothing raises."""
    stream = new_stream()
    assert stream.feed([Event("x", data, 7), *OutputWriter(ID).text("hi")]) == []
    assert stream.ended is not None
    assert stream.ended.error == Failure("upstream_protocol_error", "The upstream sent an event that is not JSON.")


def test_a_turn_may_be_closed_again_with_another_end() -> None:
    """A turn that could not be stored has failed, whatever its upstream said; its number is the same."""
    stream = new_stream()
    completed = stream.close(COMPLETED, 104)
    failed = stream.close(FAILED, 105)
    assert (completed.status, completed.terminal.sequence_number) == ("completed", 2)
    assert (failed.status, failed.terminal.sequence_number) == ("failed", 2)
    assert failed.head == ResponseObjectHead(
        id=ID, created_at=100, status="failed", previous_response_id=PARENT, error=FAILED.error
    )


# ----------------------------------------------------------------------------------- holding upstreams to the protocol


def test_a_cancelled_turn_is_one_that_was_cut_short() -> None:
    """With what was done by then; an item that was begun is left out."""
    writer = OutputWriter(ID)
    done = [*writer.text("hi"), *writer.end_item()]
    finished = fold([*done, *writer.text("ho")], Ended("cancelled"))
    assert (finished.status, finished.output) == ("cancelled", (done[-1].item,))
    assert finished.terminal.type == "response.incomplete"
    assert (finished.head.incomplete_details, finished.head.error) == (None, None)


def broken(message: str) -> Failure:
    return Failure("upstream_protocol_error", message)


def events_of(*kinds: str) -> list[Event]:
    return [
        Event(f"response.output_item.{kind}", b'{"sequence_number":0}', 0, b"{}" if kind == "done" else b"")
        for kind in kinds
    ]


@pytest.mark.parametrize("ended", [COMPLETED, CUT])
@pytest.mark.parametrize("kinds", [["added"], ["added", "done", "added"], ["done"], ["added", "done", "done"]])
def test_an_item_left_open_or_never_opened_fails_the_turn(kinds: list[str], ended: Ended) -> None:
    """Its response cannot be continued."""
    finished = fold(events_of(*kinds), ended)
    assert finished.head.error == broken("The upstream ended its response with an output item left open.")
    assert finished.status == "failed"
    assert finished.head.usage == ended.usage


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (COMPLETED, {"completed_at": 104, "usage": usage(7, 5)}),
        (Ended("completed"), {"completed_at": 104, "usage": usage(0, 0)}),
        (Ended("completed", usage(1, 1), FAILED.error, "x"), {"completed_at": 104, "usage": usage(1, 1)}),
        (CUT, {"usage": usage(7, 5), "incomplete_details": IncompleteDetails("max_output_tokens")}),
        (
            Ended("incomplete", usage(1, 1)),
            {
                "status": "failed",
                "usage": usage(1, 1),
                "error": broken("The upstream cut its response short without saying why."),
            },
        ),
        (FAILED, {"error": FAILED.error}),
        (Ended("failed"), {"error": Failure("upstream_error", "The upstream failed without saying why.")}),
        (Ended("failed", usage(1, 1), FAILED.error, "x"), {"usage": usage(1, 1), "error": FAILED.error}),
    ],
)
def test_what_an_end_says_fits_its_status(ended: Ended, expected: dict[str, object]) -> None:
    """An error belongs to a failure, a reason to what was cut, a time and a count to what completed."""
    fields = {"status": ended.status, **expected}
    assert fold([], ended).head == ResponseObjectHead(id=ID, created_at=100, previous_response_id=PARENT, **fields)  # type: ignore[arg-type] # fields of a table


def test_a_response_is_not_completed_before_it_was_created() -> None:
    """Clocks are set back; clients compute durations."""
    assert new_stream(100).close(COMPLETED, 99).head.completed_at == 100


# ---------------------------------------------------------------------------------------------- every stream there is


pieces = st.lists(st.text(max_size=4), min_size=1, max_size=4)
steps = st.lists(st.tuples(st.sampled_from(["text", "call"]), pieces), max_size=4)
ends = st.sampled_from([COMPLETED, FAILED, CUT])


def write(steps: Sequence[tuple[str, list[str]]], first: int, *, cut: bool, left_open: bool = False) -> list[Event]:
    """Let a model say these steps, numbered from `first`."""
    writer = OutputWriter(ID, first)
    events: list[Event] = []
    for index, (kind, texts) in enumerate(steps):
        if kind == "call":
            events += writer.start_call(f"call_{index}", "look")
        else:
            events += writer.end_item()  # two texts in a row are two messages here
        for text in texts:
            events += writer.arguments(text) if kind == "call" else writer.text(text)
    return events if left_open else [*events, *writer.end_item("incomplete" if cut else "completed")]


@settings(max_examples=examples(300))
@given(
    steps=steps,
    ended=ends,
    first=st.sampled_from([FIRST_SEQUENCE_NUMBER, 0, 1, 3, 1000]),
    size=st.integers(1, 9),
    transport=st.sampled_from(["sse", "websocket"]),
)
def test_every_turn_is_a_good_stream_however_it_was_numbered_and_batched(
    steps: list[tuple[str, list[str]]], ended: Ended, first: int, size: int, transport: Transport
) -> None:
    """The checker accepts it, and what the client saw is what the turn folded to."""
    events = write(steps, first, cut=ended is not COMPLETED)
    stream, sent = new_stream(), new_stream().open()
    for start in range(0, len(events), size):
        sent += stream.feed(events[start : start + size])
    finished = stream.close(ended, 105)
    sent.append(finished.terminal)
    assert [event.sequence_number for event in sent] == list(range(len(sent)))
    checker = StreamChecker(transport)
    for event in sent:
        checker.feed(parse_json(event.whole().decode()))
    checker.finish()
    assert finished.status == ended.status
    assert checker.response == json.loads(finished.response.whole())
    assert finished.output == tuple(event.item for event in events if event.item)


def items_of(steps: Sequence[tuple[str, list[str]]]) -> tuple[Item, ...]:
    return fold(write(steps, FIRST_SEQUENCE_NUMBER, cut=False)).output


@settings(max_examples=examples(300))
@given(steps)
def test_however_a_text_is_split_into_deltas_it_folds_to_the_same_items(steps: list[tuple[str, list[str]]]) -> None:
    """Byte for byte: the next request is compared with them."""
    whole = [(kind, ["".join(texts)]) for kind, texts in steps]
    letters = [(kind, list("".join(texts)) or [""]) for kind, texts in steps]
    assert items_of(steps) == items_of(whole) == items_of(letters)


@settings(max_examples=examples(300))
@given(steps.filter(bool), st.sampled_from([COMPLETED, CUT]))
def test_an_upstream_that_stops_in_an_item_has_failed(steps: list[tuple[str, list[str]]], ended: Ended) -> None:
    """What was finished before it is in the response; what was not is not."""
    events = write(steps, FIRST_SEQUENCE_NUMBER, cut=False, left_open=True)
    finished = fold(events, ended)
    checker = StreamChecker("sse")
    for event in [*new_stream().open(), *events, finished.terminal]:
        checker.feed(parse_json(event.whole().decode()))
    checker.finish()
    assert finished.status == "failed"
    assert len(finished.output) == len(steps) - 1


# ------------------------------------------------------------------------------------------------ encrypted reasoning

SECRET = b'{"type":"reasoning","id":"rs_1","encrypted_content":"segue:1:x:abc","summary":[]}'
BARE = b'{"type":"reasoning","id":"rs_1","summary":[]}'


def reasoned(item: bytes = SECRET) -> list[Event]:
    """The events of one item."""
    return [
        Event(f"response.output_item.{kind}", b'{"item":%b,"sequence_number":%d}' % (item, number), number, done)
        for number, (kind, done) in enumerate([("added", b""), ("done", item)], FIRST_SEQUENCE_NUMBER)
    ]


def test_encrypted_reasoning_is_hidden_from_whoever_did_not_ask_for_it() -> None:
    """In each event and in the response; what the turn leaves to the history is complete."""
    stream = new_stream()
    added, done = stream.feed(reasoned())
    finished = stream.close(COMPLETED, 104)
    assert added == Event("response.output_item.added", b'{"item":%b,"sequence_number":2}' % BARE, 2)
    assert done == Event("response.output_item.done", b'{"item":%b,"sequence_number":3}' % BARE, 3, BARE)
    assert json.loads(finished.response.whole())["output"] == [json.loads(BARE)]
    assert b"abc" not in finished.terminal.data
    assert finished.output == (SECRET,)


def test_encrypted_reasoning_passes_as_it_is_to_whoever_asked_for_it() -> None:
    stream = TurnStream(ID, PARENT, ECHO, 100, encrypted=True)
    events = reasoned()
    assert [id(event) for event in stream.feed(events)] == [id(event) for event in events]
    assert json.loads(stream.close(COMPLETED, 104).response.whole())["output"] == [json.loads(SECRET)]


@pytest.mark.parametrize(
    "item",
    [b'{"type":"compaction","encrypted_content":"x"}', b'{"type":"message","text":"{\\"encrypted_content\\":1}"}'],
)
def test_of_other_items_nothing_is_hidden(item: bytes) -> None:
    """A compaction is nothing without it."""
    events = reasoned(item)
    assert [event.data for event in new_stream().feed(events)] == [event.data for event in events]


@pytest.mark.parametrize("data", [b'{"encrypted_content"', b'{"x":"encrypted_content"}', b'"encrypted_content"'])
def test_an_item_that_cannot_be_read_is_not_shown(data: bytes) -> None:
    """An upstream of ours does not send such; nothing raises, and nothing is told by mistake."""
    stream = new_stream()
    assert stream.feed([Event("response.output_item.added", data, 2)]) == []
    assert stream.ended is not None
    assert stream.ended.status == "failed"


def test_what_was_left_out_in_translation_is_said_in_the_response() -> None:
    told = Ended("completed", usage(7, 5), warnings=("'seed' was left out.",))
    assert json.loads(fold([], told).response.whole())["warnings"] == ["'seed' was left out."]
    assert "warnings" not in json.loads(fold([]).response.whole())


def test_what_an_upstream_says_after_its_end_is_not_forwarded() -> None:
    """What it said before is, and the end waits to be closed with."""
    writer = OutputWriter(ID)
    events = writer.text("hi")
    stream = new_stream()
    stream.open()
    assert stream.ended is None
    assert stream.feed([*events, CUT, *writer.text("more")]) == events
    assert stream.ended == CUT


def test_a_cancelled_turn_keeps_what_was_counted() -> None:
    assert fold([], Ended("cancelled", usage(7, 5), FAILED.error)).head == ResponseObjectHead(
        id=ID, created_at=100, status="cancelled", previous_response_id=PARENT, usage=usage(7, 5)
    )


def test_a_failed_turn_says_when_to_try_again() -> None:
    assert (
        fold([], Ended("failed", error=Failure("rate_limit_exceeded", "Slow."), retry_after_s=3.0)).retry_after_s == 3.0
    )
    assert fold([], FAILED).retry_after_s is None


def steered(*batches: Sequence[Event | Ended], after: int = 0) -> tuple[TurnStream, list[Event], int | None]:
    """Feed a turn that is steered before the batch with this number."""
    stream, events, number = new_stream(), list[Event](), None
    for place, batch in enumerate(batches):
        if place == after:
            number = stream.steer()
        if stream.ended is None:
            events += stream.feed(batch)
    return stream, events, number


def test_a_steered_turn_ends_behind_its_next_item() -> None:
    """What comes later is not forwarded, and numbers leave out the one that the steer has taken."""
    writer = OutputWriter(sample_id("one"))
    one = [*writer.text("a"), *writer.end_item()]
    two, three = [*writer.text("b"), *writer.end_item()], [*writer.text("c"), *writer.end_item()]
    stream, events, number = steered(one, two, [*three, COMPLETED], after=1)
    assert number == FIRST_SEQUENCE_NUMBER + len(one)
    assert stream.ended == Ended("incomplete", incomplete_reason="steered")
    assert [event.sequence_number for event in events] == [
        *range(FIRST_SEQUENCE_NUMBER, number),
        *range(number + 1, number + 1 + len(two)),
    ]
    assert stream.steer() is None
    finished = stream.close(stream.ended, 101.0)
    assert (finished.status, len(finished.output)) == ("incomplete", 2)


def test_a_turn_that_is_over_anyway_ends_as_its_upstream_says() -> None:
    """So its usage is known."""
    writer = OutputWriter(sample_id("one"))
    stream, _, _ = steered([*writer.text("a"), *writer.end_item(), COMPLETED])
    assert stream.ended == COMPLETED


def test_a_turn_does_not_end_behind_a_call_or_a_thought() -> None:
    writer = OutputWriter(sample_id("one"))
    stream, _, _ = steered(writer.call("c1", "f", "{}"), [*writer.text("a"), *writer.end_item()], [COMPLETED])
    assert stream.ended == COMPLETED
    stream, _, _ = steered(reasoned(), [COMPLETED])
    assert stream.ended == COMPLETED

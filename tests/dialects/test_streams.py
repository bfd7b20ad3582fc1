"""Reply streams of the providers, as they really look (`streams/`, one line an event), and as they should not look."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.interface import Output
from segue.http.sse import SseEvent, SseReader, write_event
from segue.protocol.events import Ended
from segue.protocol.responses import Failure
from tests.dialects.conversations import fold, response, run
from tests.dialects.golden import CHECKED, GOLDEN, PROVIDERS, decoder, dialect_of, outline, read
from tests.strategies import examples, hostile_bytes, json_values

every_stream = pytest.mark.parametrize("name", GOLDEN)
any_stream = st.sampled_from(sorted(GOLDEN))


# --------------------------------------------------------------------------------------------------------- as they look


@pytest.mark.untraced
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


@given(name=any_stream, cuts=st.lists(st.integers(0, 4000), max_size=12), newline=st.sampled_from([b"\n", b"\r\n"]))
@settings(max_examples=examples(400))
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


@pytest.mark.untraced
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
                said = expected.get("error", [])[:1]  # the error itself may have come
                assert ended.error.code in {"upstream_error", "upstream_protocol_error", *said}


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
    places = [(value, key) for key in (value if isinstance(value, dict) else range(len(value)))]
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

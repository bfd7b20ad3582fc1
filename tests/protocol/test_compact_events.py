"""Compact events say exactly what the lean stream says, and a reader that lacks one of them takes no wrong item."""

from __future__ import annotations

import json
import zlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.protocol.compact_events import STATIC, CompactFrame, CompactKind, CompactReader, CompactWriter, read_frame
from segue.protocol.events import Ended, Event, OutputWriter, in_lane
from segue.protocol.lanes import tag
from segue.protocol.lean_stream import LeanStream
from segue.protocol.responses import Failure, encode_echo, usage
from segue.protocol.turns import TurnStream
from tests.dialects.conversations import RESPONSE_ID, SETTINGS, run
from tests.dialects.golden import GOLDEN, decoder
from tests.dialects.golden import read as read_golden
from tests.protocol.test_lean_stream import ID, event, turns, whole
from tests.strategies import examples, hostile_bytes, json_values

BODY = ID.removeprefix("resp_")
TEXT = "a text that is long enough"


def written(*batches: list[Event]) -> list[bytes]:
    """A stream in compact events; text that is held leaves after each batch."""
    stream = LeanStream(CompactWriter())
    return [one.data for batch in batches for one in (*stream.feed(batch), *stream.flush())]


def lean(*batches: list[Event]) -> list[dict[str, Any]]:
    """The same stream, lean."""
    stream = LeanStream()
    return [json.loads(one.whole()) for batch in batches for one in (*stream.feed(batch), *stream.flush())]


def read(arrays: list[bytes]) -> list[bytes | None]:
    reader = CompactReader()
    return [reader.event(data) for data in arrays]


def decoded(arrays: list[bytes]) -> list[Any]:
    return [None if data is None else json.loads(data) for data in read(arrays)]


def items_of(events: list[bytes | None]) -> list[bytes]:
    """The finished items, to the byte."""
    start, end = b'"item":', b',"sequence_number":'
    done = [one for one in events if one is not None and b"output_item.done" in one]
    return [one[one.index(start) + len(start) : one.rindex(end)] for one in done]


def text_turn(*pieces: str) -> list[Event]:
    writer = OutputWriter(ID)
    return whole(writer, [one for piece in pieces for one in writer.text(piece)])


def parts(turn: list[Event]) -> tuple[list[Event], ...]:
    """Each event as a batch of its own."""
    return tuple([one] for one in turn)


def test_a_text_crosses_the_wire_once() -> None:
    turn = text_turn(TEXT, ", and more", " of it")
    whole_item = next(one.item for one in turn if one.item)
    arrays = [json.loads(data) for data in written(*parts(turn))]
    checksum = arrays[4].pop()
    assert arrays == [
        [0, CompactKind.BEGUN, ID, 17],
        [4, CompactKind.TEXT, 0, 0, 0, "msg_0000", 4, TEXT],
        [1, ", and more"],
        [1, " of it"],
        [3, CompactKind.ITEM, 0, {"id": "msg_0000", "content": [{"text": ""}]}, [11, 0, 16, 1, 29, 2, 37, 16, 38, 3]],
        [1, CompactKind.ENDED, 2, [3, 0, 0, 4, 0]],
    ]
    assert checksum == zlib.crc32(whole_item)
    assert decoded(written(*parts(turn))) == lean(*parts(turn))


def test_a_call_has_no_deltas_and_no_checksum() -> None:
    writer = OutputWriter(ID)
    arrays = written(whole(writer, writer.call("call_1", "f", "{}")))
    item = b'{"id":"fc_0000","call_id":"call_1","name":"f","arguments":"{}"}'
    assert arrays[1] == b"[5,2,0,%b,[10,0,15,4]]" % item


@pytest.mark.parametrize(
    "ended",
    [
        Ended("completed", None),
        Ended("completed", usage(5, 6, cached=3, reasoning=2, written=1)),
        Ended("completed", usage(-5, 6)),
        Ended("completed", usage(1, 1), warnings=("w",)),
        Ended("incomplete", usage(1, 1), incomplete_reason="max_output_tokens"),
        Ended("failed", error=Failure("server_error", "no")),
    ],
    ids=str,
)
def test_every_end_arrives_as_it_is(ended: Ended) -> None:
    """What is no plain end passes as an object; nothing is lost, and nothing incomplete says that it is complete."""
    turn = whole(OutputWriter(ID), [], ended)
    arrays = written(turn)
    assert decoded(arrays) == lean(turn)
    plain = ended.status == "completed" and not ended.warnings and (ended.usage is None or ended.usage.input_tokens > 0)
    assert arrays[-1].startswith(b"[") is plain


@given(turns(), st.data())
@settings(max_examples=examples(1000))
def test_a_reader_has_the_lean_stream_again(turn: list[Event], data: st.DataObject) -> None:
    """However it is cut into batches, and wherever it begins, as a stream that is resumed does."""
    turn = turn[data.draw(st.integers(0, len(turn) - 1)) :]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(turn)), max_size=6)) | {0, len(turn)})
    batches = [turn[one:two] for one, two in pairwise(cuts)]
    arrays = written(*batches)
    assert decoded(arrays) == lean(*batches)
    assert items_of(read(arrays)) == [one.item for one in turn if one.item]


@given(st.sampled_from(sorted(GOLDEN)), st.integers(1, 9))
@settings(max_examples=examples(400))
def test_what_providers_really_send_arrives_as_it_is(name: str, size: int) -> None:
    stream = TurnStream(RESPONSE_ID, None, encode_echo(SETTINGS, store=False), 100.0, encrypted=True)
    output = run(decoder(name.partition("/")[0]), read_golden(GOLDEN[name])[0])
    turn = [*stream.open(), *stream.feed(output)]
    assert stream.ended is not None
    turn.append(stream.close(stream.ended, 101.0).terminal)
    batches = [turn[at : at + size] for at in range(0, len(turn), size)]
    assert decoded(written(*batches)) == lean(*batches)
    assert items_of(read(written(*batches))) == [one.item for one in turn if one.item]


@given(turns(), st.data())
@settings(max_examples=examples(1000))
def test_no_item_is_wrong_though_an_array_is_missing(turn: list[Event], data: st.DataObject) -> None:
    arrays = written(*parts(turn))
    del arrays[data.draw(st.integers(0, len(arrays) - 1))]
    assert set(items_of(read(arrays))) <= {one.item for one in turn if one.item}


def test_a_missing_delta_is_noticed() -> None:
    """Also another one of the same length."""
    arrays = written(*parts(text_turn(TEXT, "one", "two")))
    for missing in (1, 2, 3):
        assert None in read(arrays[:missing] + arrays[missing + 1 :])
    assert read([*arrays[:2], arrays[3], arrays[2], *arrays[4:]])[4] is None


@pytest.mark.parametrize(
    "text",
    ['"},"text":"' + TEXT, ',"text":"' * 9, BODY * 2, "\b" + BODY, "é" * 20, "\x00\U0001f600" * 9, STATIC[0].decode()],
)
def test_texts_that_look_like_items_arrive_as_they_are(text: str) -> None:
    turn = text_turn(text[:3], text[3:])
    arrays = written(*parts(turn))
    assert decoded(arrays) == lean(*parts(turn))
    assert items_of(read(arrays)) == [one.item for one in turn if one.item]
    assert text[3:] not in json.loads(arrays[3].decode())


def delta(kind: str = "output_text", **fields: object) -> Event:
    return event(f"response.{kind}.delta", **{"item_id": "m", "output_index": 0, "delta": TEXT, **fields})


def done(item: object, index: int = 0, **fields: object) -> Event:
    return event("response.output_item.done", output_index=index, item=item, **fields)


@pytest.mark.parametrize(
    "turn",
    [
        [delta(content_index=0, summary_index=0)],
        [delta(), delta(), delta("refusal"), delta(content_index=1), delta(item_id="n"), delta("reasoning")],
        [delta("reasoning_summary_text", summary_index=1), delta("reasoning_text"), delta("reasoning_summary_text")],
        [delta(), done({"text": TEXT}), delta(), done({"text": TEXT})],
        [delta(), delta(content_index=1), done({"x": [{"text": TEXT}, {"text": TEXT}]})],
        [delta("refusal"), done({"refusal": TEXT}), delta("refusal"), done({"text": TEXT})],
        [delta(), done({"text": TEXT}, more=1), done({"text": TEXT}), done([1])],
        [delta(output_index=1), done({"text": TEXT}, 0), done({"text": TEXT}, 1)],
        [done({"id": "msg_1", "type": "message", "status": "completed", "role": "assistant"}), done(None)],
        [event("response.output_item.done", output_index=0), event("response.later", x=[1])],
    ],
    ids=str,
)
def test_whatever_an_upstream_sends_arrives_as_it_is(turn: list[Event]) -> None:
    """JSON with spaces too, in which no text is found."""
    tight = [Event(one.type, json.dumps(json.loads(one.whole()), separators=(",", ":")).encode(), 9) for one in turn]
    for batches in (parts(turn), parts(tight), (turn,), (tight,)):
        assert decoded(written(*batches)) == lean(*batches)


def test_a_lane_comes_first() -> None:
    arrays = [in_lane(data, tag("a.b-1")) for data in written(text_turn(TEXT))]
    assert arrays[0] == b'["a.b-1",0,0,"%b",17]' % ID.encode()
    frames = [read_frame(data) for data in arrays]
    assert [frame and (frame.lane, frame.kind) for frame in frames] == [("a.b-1", kind) for kind in (0, 1, 2, 3)]
    reader = CompactReader()
    assert [reader.read(frame) for frame in frames if frame] == read(written(text_turn(TEXT)))
    assert CompactReader().event(arrays[0]) is None, "a stream that has no lanes"


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"[1]",
        b'["a"]',
        b'["a",1]',
        b'["a,b",1,"x"]',
        b"[1,null]",
        b'[1,"x"]',
        b'[1,0,"r"]',
        b'[-1,0,"r",1]',
        b"[1,3,0,null]",
        b"[1,4,0]",
        b'[1,1,5,0,0,"m",0,"x"]',
        b"[1,2,0,{},[9,1]]",
        b"[1,2,0,{},[1,0,0,1]]",
        b"[1,2,0,{},[0,1,0,1]]",
        b"[1,2,0,{},[0,99]]",
        b"[1,2,0,{},[],7]",
        b"[1,2,0",
    ],
)
def test_what_stands_for_no_event_is_told(data: bytes) -> None:
    assert CompactReader().event(data) is None


MEMBERS = st.integers(-1, 20) | st.text(max_size=3) | st.lists(st.integers(-1, 30), max_size=6) | json_values


@given(st.lists(hostile_bytes | st.lists(MEMBERS, max_size=7).map(lambda one: json.dumps(one).encode()), max_size=8))
@settings(max_examples=examples(1000))
def test_nothing_that_a_server_sends_raises_or_grows(arrays: list[bytes]) -> None:
    """An item is no larger than all that came, and the pieces that both ends know."""
    for data in arrays:
        frame = read_frame(data)
        assert frame is None or isinstance(frame, CompactFrame)
    room = sum(map(len, arrays)) * 6 + sum(map(len, STATIC)) + 500
    assert all(one is None or len(one) <= room for one in read(arrays))

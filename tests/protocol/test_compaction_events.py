"""The events of a compaction, and of what comes behind it."""

from __future__ import annotations

from typing import Any

import msgspec

from segue.protocol.compaction_events import CompactionWriter, behind_compaction
from segue.protocol.events import Ended, Event, OutputWriter
from segue.protocol.ids import ResponseId, parse_item_id
from segue.testing.protocol_checker import check_event

IDENT = ResponseId(f"resp_{'0' * 40}")


def decoded(events: list[Event]) -> list[dict[str, Any]]:
    told = [msgspec.json.decode(event.data) for event in events]
    for event, one in zip(events, told, strict=True):
        check_event(one, transport="sse")
        assert (event.type, event.sequence_number) == (one["type"], one["sequence_number"])
    return told


def test_an_item_that_grows_is_added_once() -> None:
    writer = CompactionWriter(IDENT)
    events = [*writer.progress(), *writer.progress(), *writer.finish("sealed")]
    added, one, two, done = decoded(events)
    assert [event["sequence_number"] for event in (added, one, two, done)] == [2, 3, 4, 5]
    item = {"id": "cmp_" + "0" * 44, "type": "compaction", "encrypted_content": "sealed"}
    assert done["item"] == item
    assert added["item"] == {**item, "encrypted_content": ""}
    assert one["item_id"] == two["item_id"] == item["id"]
    assert msgspec.json.decode(events[-1].item) == item
    assert parse_item_id(item["id"]) == IDENT


def test_an_item_that_nobody_watched_is_added_and_done() -> None:
    kinds = [event["type"] for event in decoded(CompactionWriter(IDENT).finish("sealed"))]
    assert kinds == ["response.output_item.added", "response.output_item.done"]


def test_the_items_of_the_answer_stand_behind_it() -> None:
    writer = OutputWriter(IDENT)
    batch: list[Event | Ended] = [
        *writer.text("hi"),
        *writer.call("c", "f", "{}"),
        Event("response.later", b'{"a":1}', 9),
        Ended("completed"),
    ]
    moved = behind_compaction(batch)
    assert moved[-1] == batch[-1]
    assert moved[-2] == batch[-2], "it has no place"
    for before, after in zip(batch[:-2], moved[:-2], strict=True):
        assert isinstance(before, Event)
        assert isinstance(after, Event)
        was, now = msgspec.json.decode(before.data), msgspec.json.decode(after.data)
        assert now == {**was, "output_index": was["output_index"] + 1}
        assert (after.item, after.type, after.sequence_number) == (before.item, before.type, before.sequence_number)

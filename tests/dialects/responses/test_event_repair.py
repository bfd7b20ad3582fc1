"""Events of Responses servers that strict decoding refuses."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.dialects.responses.event_repair import Json, repair_event
from segue.protocol.codec import UNREADABLE
from tests.strategies import any_text, hostile_bytes

DELTA: Json = {"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "content_index": 0}


def repaired(*events: Json) -> list[Json]:
    """What is read in place of these events, and at the end what still waits."""
    held: Json | None = None
    read: list[Json] = []
    for event in events:
        data, held = repair_event(json.dumps(event).encode(), held)
        read += map(json.loads, data)
    return [*read, {"held": held["delta"]}] if held else read


def said(*deltas: str, **place: object) -> list[Json]:
    return [{**DELTA, **place, "delta": delta} for delta in deltas]


def test_halves_in_two_deltas_are_joined() -> None:
    assert repaired(*said("a\ud83d", "\ude00b")) == said("a", "\U0001f600b")
    assert repaired(*said("\ud83d", "\ude00")) == said("\U0001f600")
    assert repaired(*said("a\ud83d")) == [*said("a"), {"held": "\ud83d"}]


@pytest.mark.parametrize(
    "after", [said("\ude00", content_index=1)[0], said("\ude00", item_id="n")[0], {"type": "response.output_text.done"}]
)
def test_a_half_is_joined_only_in_its_own_text(after: Json) -> None:
    alone = {**after, "delta": "\ufffd"} if "delta" in after else after
    assert repaired(*said("a\ud83d"), after) == [*said("a", "\ufffd"), alone]


def test_a_ping_does_not_stand_between_two_halves() -> None:
    ping = {"type": "keepalive", "sequence_number": "4"}
    assert repaired(*said("\ud83d"), ping, *said("", "\ude00")) == [{**ping, "sequence_number": 4}, *said("\U0001f600")]


def test_a_half_that_stays_alone_is_replaced() -> None:
    assert repaired(*said("a\ud83d", "b")) == said("a", "\ufffdb")
    assert repaired({"type": "x", "item": {"text": "\ud83d"}, "delta": {"a": 1}}) == [
        {"type": "x", "item": {"text": "\ufffd"}, "delta": {"a": 1}}
    ]


def test_numbers_are_numbers_or_nothing() -> None:
    odd = {"type": 7, "sequence_number": "5", "output_index": 1.0, "content_index": "x", "summary_index": None}
    assert repaired({**odd, "delta": ""}) == [{"sequence_number": 5, "output_index": 1, "delta": ""}]


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b"7", b"<html>"])
def test_what_is_no_object_cannot_be_repaired(document: bytes) -> None:
    with pytest.raises(UNREADABLE):
        repair_event(document, None)


@given(deltas=st.lists(any_text, max_size=4))
def test_what_is_read_is_what_was_said(deltas: list[str]) -> None:
    end = {"type": "response.output_text.done"}
    got = "".join(event.get("delta", "") for event in repaired(*said(*deltas), end))
    assert got == "".join(deltas).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@given(document=hostile_bytes)
def test_nothing_but_what_is_unreadable_is_raised(document: bytes) -> None:
    try:
        for data in repair_event(document, None).events:
            data.decode("ascii")
    except UNREADABLE:
        return

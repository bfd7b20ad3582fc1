"""That nothing is missing: every event type and every item type that the providers' own SDKs know is tested here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from tests.dialects.conversations import SAMPLES

STREAMS = Path(__file__).parent / "streams"


def members(union: object) -> Iterator[Any]:
    """The members of a union, however it is written."""
    for one in get_args(union):
        if isinstance(one, type):
            yield one
        elif get_args(one):
            yield from members(one)


def words(union: object) -> set[str]:
    """The values of `type` that tell the members apart."""
    from pydantic import BaseModel

    found: set[str] = set()
    for member in members(union):
        model = issubclass(member, BaseModel)
        hint: Any = member.model_fields["type"].annotation if model else get_type_hints(member).get("type")
        while hint is not None and get_origin(hint) is not Literal:
            hint = get_args(hint)[0]
        found |= set(get_args(hint))
    return found


def golden(dialect: str) -> list[dict[str, Any]]:
    """The data of all golden events of a dialect."""
    lines = [line for path in (STREAMS / dialect).iterdir() for line in path.read_text("utf-8").splitlines()[:-1]]
    values = [json.loads(line)["data"] for line in lines]
    return [value for value in values if isinstance(value, dict)]


def test_every_event_type_of_responses_has_a_golden_stream() -> None:
    from openai.types.responses import ResponseStreamEvent

    assert words(ResponseStreamEvent) - {event.get("type") for event in golden("responses")} == set()


@pytest.mark.untraced
@pytest.mark.parametrize(
    ("union", "place"),
    [("RawMessageStreamEvent", None), ("ContentBlock", "content_block"), ("RawContentBlockDelta", "delta")],
)
def test_every_event_block_and_delta_of_messages_has_a_golden_stream(union: str, place: str | None) -> None:
    from anthropic import types

    there = [event if place is None else event.get(place, {}) for event in golden("messages")]
    assert words(vars(types)[union]) - {one.get("type") for one in there} == set()


def test_every_field_of_a_delta_of_chat_has_a_golden_stream() -> None:
    from openai.types.chat.chat_completion_chunk import ChoiceDelta

    choices = [choice for event in golden("chat") for choice in event.get("choices") or () if choice]
    there = [choice.get("delta") or {} for choice in choices]
    assert set(ChoiceDelta.model_fields) - {name for delta in there for name in delta} == set()


#: Not for a history: it stands for items kept elsewhere, or makes the history unreadable for others (tested apart).
REFUSED = {"item_reference", "compaction"}


def test_every_item_type_is_among_the_generated_conversations() -> None:
    from openai.types.responses import ResponseInputItemParam

    assert words(ResponseInputItemParam) - REFUSED - {sample["type"] for sample in SAMPLES} == set()

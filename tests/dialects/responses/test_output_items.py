"""Which item an event belongs to, and which item of a terminal event is one that was streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.dialects.responses.item_events import UnannouncedItem
from segue.dialects.responses.output_items import (
    MAX_PASSED_BYTES,
    EndedItem,
    OutputItem,
    OutputItems,
    match,
    says_as_much,
    says_the_same,
    says_what_passed,
)
from tests.strategies import json_objects

Json = dict[str, Any]


def message(text: str, ident: str = "m") -> Json:
    return {"type": "message", "id": ident, "content": [{"type": "output_text", "text": text}]}


def call(arguments: str, ident: str = "f", name: str = "look") -> Json:
    return {"type": "function_call", "id": ident, "call_id": f"call_{ident}", "name": name, "arguments": arguments}


def ended(*items: Json) -> list[EndedItem]:
    return [EndedItem(json.dumps(item).encode(), item) for item in items]


def streamed(*items: Json) -> list[OutputItem]:
    made = OutputItems()
    for item in items:
        made.begin(None, item["type"], item.get("id", "")).end(json.dumps(item).encode())
    return [*made.all]


def pairs(one: list[OutputItem], other: list[EndedItem]) -> dict[int, int]:
    found = match(one, other)
    assert found is not None
    return {index: other.index(item) for index, item in found.items()}


# --- places ----------------------------------------------------------------------------------------------------------


def passing(items: OutputItems, index: int) -> OutputItem | None:
    """Return the item whose events pass with this index."""
    item = items.at.get(index)
    return item if item is not None and item.passes else None


def test_an_event_passes_while_its_index_is_ours_and_its_item_is_open() -> None:
    items = OutputItems()
    assert passing(items, 0) is None
    first = items.begin(0, "message", "a")
    assert passing(items, 0) is first
    first.keep("response.output_text.delta", b"{}")
    first.end(b"{}")
    assert (first.open, first.passed, passing(items, 0)) == (False, [], None)
    second = items.begin(5, "message", "b")
    assert (second.index, passing(items, 5), passing(items, 1)) == (1, None, None)
    third = items.begin(2, "message", "c")
    assert passing(items, 2) is third
    writer = UnannouncedItem("message", "c", 2)
    assert third.write_anew(writer) is writer
    assert (third.unannounced, third.open, passing(items, 2)) == (writer, True, None)
    assert [item.index for item in items.all] == [0, 1, 2]
    assert (len(items), items.has("b"), items.has("x")) == (3, True, False)


def test_an_item_is_found_by_its_index_and_else_by_its_id() -> None:
    items = OutputItems()
    first = items.begin(1, "message", "a")
    second = items.begin(None, "message", "b")
    assert items.find(1, "b") is first, "an index of one item says enough"
    assert items.find(7, "b") is second
    assert items.find(None, "a") is first
    assert items.find(7, "x") is None
    assert items.find(None, "x") is second, "the last one, while it is open"
    second.end(b"{}")
    assert items.find(None, "x") is None


def test_an_index_that_two_open_items_share_says_nothing() -> None:
    items = OutputItems()
    first, other = items.begin(0, "message", "a"), items.begin(1, "message", "o")
    assert passing(items, 1) is other
    second = items.begin(0, "message", "b")
    assert passing(items, 0) is None
    assert passing(items, 1) is None, "no index says anything any more"
    items.begin(3, "message", "d")
    assert passing(items, 3) is None
    assert (items.find(0, "a"), items.find(0, "b"), items.find(0, "")) == (first, second, second)


def test_an_index_that_is_used_again_is_the_later_items() -> None:
    items = OutputItems()
    items.begin(0, "message", "a").end(b"{}")
    second = items.begin(0, "message", "b")
    assert items.find(0, "a") is second
    assert passing(items, 0) is None, "its own index is another"


# --- the terminal event ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "paired"),
    [
        ([message("a")], [message("b")], {0: 0}),
        ([message("a"), call("{}")], [call("{}"), message("a")], {0: 1, 1: 0}),
        ([message("a", "1"), message("b", "2")], [message("b", "3")], {1: 0}),
        ([message("a", "1"), message("b", "2")], [message("b", "3"), message("a", "4")], {0: 1, 1: 0}),
        ([message("a", "1")], [message("x", "2"), message("ab", "3")], {0: 1}),
        ([message("ab", "1")], [message("a", "2")], {0: 0}),
        ([message("a", "1")], [message("x", "2")], {0: 0}),
        ([call('{"a":1}', "1")], [call('{ "a": 1 }', "2")], {0: 0}),
        ([call('{"a":1}', "1")], [call('{"a":2}', "1")], {0: 0}),
        ([call('{"a":1}', "1")], [call('{"a":2}', "2")], {}),
        ([call("{}", "1")], [call("{}", "2", "other")], {}),
        ([call("{}", "1"), call("{}", "2")], [call("{}", "3"), call("{}", "4")], {0: 0, 1: 1}),
        ([message("a", "")], [message("a", "")], {0: 0}),
        ([message("a")], [], {}),
        ([], [message("a")], {}),
        ([message("a", "1")], [{"type": "reasoning", "id": "2", "summary": []}], {}),
        ([{"type": "web_search_call", "id": "1"}], [{"type": "web_search_call", "id": "2"}], {0: 0}),
        ([message("a", "1")], [{"id": "2"}], {}),
        ([message("a", "1")], [call("{}", "1")], {}),
        ([call("{}", "1")], [{**call("{}", "1"), "type": "custom_tool_call"}], {0: 0}),
    ],
)
def test_items_that_are_the_same(one: list[Json], other: list[Json], paired: dict[int, int]) -> None:
    assert pairs(streamed(*one), ended(*other)) == paired


def test_an_item_that_is_open_is_found_by_what_it_has_written() -> None:
    items = OutputItems()
    for index, text in enumerate(["One", "Tw"]):
        item = items.begin(index, "message", f"m{index}")
        item.write_anew(UnannouncedItem("message", item.ident, index)).add("response.output_text", 0, text)
    items.begin(2, "function_call", "f")
    assert pairs([*items.all], ended(message("Two", "x"), call("{}"), message("One", "y"))) == {0: 2, 1: 0, 2: 1}


def test_too_many_items_are_not_compared() -> None:
    one = [message(str(at), f"a{at}") for at in range(101)]
    assert match(streamed(*one), ended(*one)) is not None, "each has its id"
    assert match(streamed(*one), ended(*(message(str(at), f"b{at}") for at in range(101)))) is None
    assert match([], ended(*one)) == {}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (message("a"), message("a", "x"), True),
        (message("a"), message("b"), False),
        (message("a"), {"type": "message", "content": "a"}, True),
        (call('{"a":1,"b":2}'), call('{"b":2,"a":1}'), True),
        (call(""), call("{}"), True),
        (call("{"), call("{"), True),
        (call("{"), call("{}"), False),
        (call("{}"), call("{}", name="x"), False),
        (call("{}"), {**call("{}"), "type": "custom_tool_call", "input": "{}"}, False),
        ({"type": "function_call", "name": "f", "arguments": {"a": 1}}, call('{"a":1}', name="f"), True),
        ({"type": "reasoning"}, {"type": "reasoning", "summary": None}, True),
    ],
)
def test_items_that_say_the_same(one: Json, other: Json, *, same: bool) -> None:
    assert says_the_same(one, other) is same
    assert says_the_same(other, one) is same


def test_messages_that_are_cut_otherwise_say_as_much() -> None:
    two, one = [message("Hi", "1"), message(" there", "2")], [message("Hi there", "3")]
    assert says_as_much(streamed(*two), ended(*one))
    assert says_as_much(streamed(*one), ended(*two))
    assert says_as_much(streamed(*two, call("{}")), ended(*one))
    assert not says_as_much(streamed(*one), ended(message("Hi")))
    assert not says_as_much(streamed(call("{}")), ended(call("{}"))), "there is nothing to compare"


@given(st.lists(json_objects, max_size=3), st.lists(json_objects, max_size=3))
def test_any_items_are_compared(one: list[Json], other: list[Json]) -> None:
    items = OutputItems()
    for index, item in enumerate(one):
        items.begin(index, "message", "").end(json.dumps(item).encode())
    found = match([*items.all], ended(*other))
    assert found is not None
    assert len({id(each) for each in found.values()}) == len(found), "each item once"
    says_as_much([*items.all], ended(*other))


_DELTA = {"type": "response.output_text.delta", "content_index": 0, "delta": "He"}
_PART: Json = {"type": "response.content_part.added", "content_index": 0, "part": {"type": "output_text", "text": ""}}
_SHOWN: Json = {"type": "message", "content": [{"type": "output_text", "text": "HeHe"}]}
_TWO = [*_SHOWN["content"], {"type": "output_text", "text": ""}]


@pytest.mark.parametrize(
    ("passed", "shown", "same"),
    [
        ([_PART, _DELTA, _DELTA], _SHOWN, True),
        ([_PART, _DELTA], _SHOWN, False),
        ([], _SHOWN, False),
        ([_DELTA, _DELTA], _SHOWN, False),
        ([_PART, _DELTA, _DELTA], _SHOWN | {"content": _TWO}, False),
        ([_PART, _DELTA, _DELTA], _SHOWN | {"content": "HeHe"}, False),
        ([_PART, _DELTA, _DELTA], _SHOWN | {"content": [7]}, False),
        ([_PART, _DELTA, _DELTA], _SHOWN | {"content": [{"type": "refusal", "refusal": "HeHe"}]}, False),
        ([_PART, _DELTA, _DELTA | {"content_index": 1}], _SHOWN, False),
        ([_PART | {"part": {"type": "output_text", "text": "He"}}, _DELTA, _DELTA], _SHOWN, False),
        ([_PART, {"type": "response.output_text.done", "text": "HeHe"}], _SHOWN, False),
        ([{"type": "response.function_call_arguments.delta", "delta": "{}"}], {"type": "function_call"}, False),
    ],
)
def test_an_open_item_is_the_one_that_the_end_shows_if_its_one_part_says_the_same(
    passed: list[Json], shown: Json, same: bool
) -> None:
    item = OutputItem(0, "message", "m", passes=True)
    item.passed = [json.dumps(event).encode() for event in passed]
    item.last = passed[-1]["type"] if passed else "response.output_text.delta"
    assert says_what_passed(item, shown) is same


def test_too_much_of_an_open_item_is_not_kept() -> None:
    """So a long answer, or a server that sends without an end, does not fill the memory."""
    item = OutputItem(0, "message", "m", passes=True)
    item.keep("response.output_text.delta", b"x" * MAX_PASSED_BYTES)
    assert (item.last, len(item.passed)) == ("response.output_text.delta", 1)
    for _ in range(2):
        item.keep("response.output_text.done", b"y")
        assert (item.last, item.passed) == ("response.output_text.done", [])
    assert not says_what_passed(item, {})

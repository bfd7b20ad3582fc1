"""The items that a request refers to: which ids a turn's items have, and what is found, left out and missing."""

from __future__ import annotations

import json

import pytest

from segue.history.chains import Turn
from segue.history.item_references import ReferencedItems, identified_items
from segue.protocol.ids import item_id
from segue.protocol.items import Input, Item, ItemReference, parse_input
from segue.protocol.listing import ItemRun, Page, paginate
from segue.testing.store_conformance import sample_id

USER = b'{"role":"user","content":"hi"}'
CALL = b'{"type":"function_call","id":"fc_1","call_id":"c","name":"f","arguments":"{}"}'
ANSWER = b'{"type":"function_call_output","call_id":"c","output":"done"}'
MESSAGE = b'{"type":"message","id":"msg_1","role":"assistant","content":[]}'
THOUGHT = b'{"type":"reasoning","summary":[]}'


def turn(name: str, given: tuple[Item, ...], made: tuple[Item, ...], parent: Turn | None = None) -> Turn:
    ident = sample_id(name)
    return Turn(id=ident, parent=parent, input=given, output=made, calls=frozenset(), stored=True)


def wanted(*given: bytes | str) -> ReferencedItems:
    """What an input refers to; a text is the id of a reference."""
    items = [one if isinstance(one, bytes) else json.dumps({"id": one}).encode() for one in given]
    parsed = parse_input(b"[" + b",".join(items) + b"]")
    assert isinstance(parsed, Input)
    return ReferencedItems(parsed)


def missing(items: ReferencedItems) -> str | None:
    return None if items.last_missing is None else items.last_missing.id


def test_items_have_the_ids_under_which_they_are_listed() -> None:
    """Their author's, or those that are derived: of the input and of the output apart."""
    of = turn("a", (USER, ANSWER), (THOUGHT, CALL))
    page = paginate([ItemRun(of.output, of.id, first=0), ItemRun(of.input, of.id)], Page(order="asc"))
    assert isinstance(page, bytes)
    listed = json.loads(page)["data"]
    assert [ident for ident, _ in identified_items(of)] == [item["id"] for item in listed]
    assert [item for _, item in identified_items(of)] == [*of.output, *of.input]
    assert listed[0]["id"] == item_id("rs", of.id, 0)
    assert listed[1]["id"] == "fc_1"


def test_what_is_found_is_no_longer_missing() -> None:
    """The last reference is the first to be looked for."""
    of = turn("a", (USER,), (CALL, MESSAGE))
    items = wanted("fc_1", USER, "nowhere", "msg_1")
    assert items.last_missing == ItemReference("msg_1", 3)
    items.take(of)
    assert items.found == {"fc_1": CALL, "msg_1": MESSAGE}
    assert items.new_bytes == len(CALL) + len(MESSAGE)
    assert items.last_missing == ItemReference("nowhere", 2)


def test_input_items_are_found_by_their_place() -> None:
    of = turn("a", (USER, ANSWER), ())
    items = wanted(item_id("fco", of.id, 0x8001))
    items.take(of)
    assert list(items.found.values()) == [ANSWER]


def test_what_the_chain_has_is_not_new() -> None:
    """However far up. What has no id of its own is left out at once, and what is not in the chain stays missing."""
    root = turn("a", (USER,), (CALL,))
    items = wanted("elsewhere", "fc_1", item_id("msg", root.id, 0x8000), "msg_1")
    items.look_in_history(turn("b", (ANSWER,), (MESSAGE,), root))
    assert (items.found, items.new_bytes) == ({"fc_1": CALL, "msg_1": MESSAGE}, 0)
    assert missing(items) == "elsewhere"
    items.look_in_history(None)
    assert missing(items) == "elsewhere"


def test_an_item_without_an_id_of_its_own_is_found_in_the_response_that_its_id_is_derived_from() -> None:
    root = turn("a", (USER,), (CALL,))
    items = wanted(item_id("msg", root.id, 0x8000))
    items.look_in_history(turn("b", (ANSWER,), (MESSAGE,), root))
    assert (items.found, missing(items)) == ({}, None)


def test_a_chain_is_not_walked_further_than_needed() -> None:
    """The root of this one could not even be read."""
    items = wanted("msg_1")
    items.look_in_history(turn("b", (), (MESSAGE,), turn("a", (b"no item",), ())))
    assert missing(items) is None


def test_an_item_that_the_request_sends_too_is_not_looked_for() -> None:
    """Wherever it stands in the request."""
    assert missing(wanted("fc_1", CALL, "msg_1", MESSAGE)) is None


def test_a_reference_that_is_repeated_keeps_its_first_place() -> None:
    """So that a refusal names it there."""
    assert wanted("a", USER, "a").last_missing == ItemReference("a", 0)


def test_of_two_items_with_one_id_the_one_that_the_turn_made_counts() -> None:
    """Its input is what the client sent, and may be older."""
    of = turn("a", (MESSAGE.replace(b"[]", b'"old"'),), (MESSAGE,))
    items = wanted("msg_1")
    items.take(of)
    assert items.found == {"msg_1": MESSAGE}


@pytest.mark.parametrize("given", [(), (USER,)])
def test_an_input_without_references_misses_nothing(given: tuple[bytes, ...]) -> None:
    items = wanted(*given)
    assert (items.last_missing, items.found, items.new_bytes) == (None, {}, 0)

"""Conversations as pure values: finding an item, and taking one out."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.history.conversations import ConversationStep, find_item, items_of, take_out, with_own_id
from segue.history.records import ChainLink
from segue.protocol.ids import FIRST_INPUT_NUMBER, derived_item_id
from segue.protocol.listing import ListedItem, Order, Page, paginate
from segue.testing.store_samples import NOW, link_of_step, sample_id
from tests.strategies import examples

ROOT, TIP, NEW = sample_id("root"), sample_id("tip"), sample_id("new")
USER, NAMED = b'{"role":"user","content":"a"}', b'{"type":"message","id":"msg_1","role":"assistant","content":"b"}'
CALL = b'{"type":"function_call","id":"fc_1","call_id":"c1","name":"f","arguments":"{}"}'


def link(ident: str, given: tuple[bytes, ...], made: tuple[bytes, ...] = ()) -> ChainLink:
    return ChainLink(id=sample_id(ident), expires_at=0.0, alive=True, input=given, output=made, calls=frozenset({"c1"}))


def ids_of(links: list[ChainLink]) -> list[str]:
    """Every id under which the items of a chain are listed, in order."""
    found = []
    for one in links:
        for items, first in ((one.input, FIRST_INPUT_NUMBER), (one.output, 0)):
            for place, item in enumerate(items):
                fields = msgspec.json.decode(item)
                kind = fields.get("type", "message")
                found.append(fields.get("id") or derived_item_id(kind, one.id, first + place))
    return found


LINKS = [link("root", (USER,), (NAMED,)), link("tip", (USER, USER), (CALL,))]


def test_an_item_is_found_by_its_own_id_and_by_the_derived_one() -> None:
    assert find_item(LINKS, "msg_1") == ListedItem(NAMED, ROOT, 0, "msg_1")
    derived = derived_item_id("message", TIP, FIRST_INPUT_NUMBER + 1)
    assert find_item(LINKS, derived) == ListedItem(USER, TIP, FIRST_INPUT_NUMBER + 1, derived)
    assert find_item(LINKS, "msg_2") is None
    assert find_item([], "msg_1") is None


def test_of_two_items_with_one_id_the_newest_is_found() -> None:
    links = [link("root", (NAMED,)), link("tip", (NAMED,))]
    assert find_item(links, "msg_1") == ListedItem(NAMED, TIP, FIRST_INPUT_NUMBER, "msg_1")
    older = derived_item_id("message", ROOT, FIRST_INPUT_NUMBER)
    assert find_item(links, older) == ListedItem(NAMED, ROOT, FIRST_INPUT_NUMBER, older)


def test_taking_out_the_only_item_of_the_last_turn_leaves_the_chain_before_it() -> None:
    move = take_out([link("root", (NAMED,)), link("tip", (CALL,))], "fc_1", step_id=NEW, now=NOW)
    assert move is not None
    assert (move.from_id, move.to_id, move.step, move.at) == (TIP, ROOT, None, NOW)


def test_taking_out_the_last_item_of_all_leaves_nothing() -> None:
    move = take_out([link("root", (NAMED,))], "msg_1", step_id=NEW, now=NOW)
    assert move is not None
    assert (move.from_id, move.to_id, move.step) == (ROOT, None, None)


def test_what_is_behind_the_item_goes_into_a_step() -> None:
    """Its calls are those that are left; what is before it is shared."""
    move = take_out(LINKS, "fc_1", step_id=NEW, now=NOW)
    assert move is not None
    assert move.step is not None
    assert (move.from_id, move.step.parent_id, move.step.calls) == (TIP, ROOT, frozenset())
    assert len(move.step.input) == 2
    whole = take_out(LINKS, "msg_1", step_id=NEW, now=NOW)
    assert whole is not None
    assert whole.step is not None
    assert (whole.step.parent_id, whole.step.calls) == (None, frozenset({"c1"}))


def test_what_is_not_there_cannot_be_taken_out() -> None:
    assert take_out(LINKS, "msg_2", step_id=NEW, now=NOW) is None


def test_an_id_is_written_only_where_there_is_none() -> None:
    assert with_own_id(NAMED, "x") is NAMED
    assert msgspec.json.decode(with_own_id(USER, "x")) == {"role": "user", "content": "a", "id": "x"}


@settings(max_examples=examples(60), deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(any), min_size=1, max_size=5), data=st.data()
)
def test_the_ids_of_the_others_and_their_order_stay(shapes: list[tuple[int, int]], data: st.DataObject) -> None:
    """Whatever was taken out before: the list is the one from before, without that item."""
    links = [link(str(n), (USER,) * given, (b'{"type":"x","n":1}',) * made) for n, (given, made) in enumerate(shapes)]
    listed, number = ids_of(links), 0
    while listed:
        chosen = data.draw(st.sampled_from(listed))
        number += 1
        move = take_out(links, chosen, step_id=sample_id(f"step {number}"), now=NOW)
        assert move is not None
        assert move.from_id == links[-1].id
        before = move.to_id if move.step is None else move.step.parent_id
        kept = [one.id for one in links].index(before) + 1 if before is not None else 0
        links = [*links[:kept], *([] if move.step is None else [link_of_step(move.step)])]
        listed.remove(chosen)
        assert ids_of(links) == listed


#: Ids that authors give: the same again, and those that other items have by their places.
_GIVEN_IDS = st.sampled_from(
    [None, None, "a", "b", *(derived_item_id("x", ident, n) for ident in (ROOT, TIP) for n in (0, 1, 0x8000, 0x8001))]
)


@settings(max_examples=examples(60), deadline=None)
@given(root=st.lists(_GIVEN_IDS, max_size=4), tip=st.lists(_GIVEN_IDS, min_size=1, max_size=4), split=st.integers(0, 4))
def test_an_id_of_a_list_stands_for_one_item(root: list[str | None], tip: list[str | None], split: int) -> None:
    """In both orders for the same, whatever ids authors give; and that item is found, and taken out, by it."""
    items = [
        msgspec.json.encode({"type": "x", "n": n, **({} if ident is None else {"id": ident})})
        for n, ident in enumerate([*root, *tip])
    ]
    first, second = tuple(items[: len(root)]), tuple(items[len(root) :])
    links = [link("root", first[:split], first[split:]), link("tip", second[:split], second[split:])]
    rising, falling = listed(links, "asc"), listed(links, "desc")
    assert rising == falling[::-1]
    assert len({ident for ident, _ in rising}) == len(rising) == len(items)
    for ident, number in rising:
        found = find_item(links, ident)
        assert found is not None
        assert msgspec.json.decode(found.item)["n"] == number
        move = take_out(links, ident, step_id=NEW, now=NOW)
        assert move is not None
        before = move.to_id if move.step is None else move.step.parent_id
        kept = {None: 0, ROOT: 1}[before]
        left = [*links[:kept], *([] if move.step is None else [link_of_step(move.step)])]
        assert [one for _, one in listed(left, "asc")] == [one for _, one in rising if one != number]


def listed(links: list[ChainLink], order: Order) -> list[tuple[str, int]]:
    """The ids of a list, and which items they stand for."""
    page = paginate(items_of(links), Page(100, order))
    assert isinstance(page, bytes)
    return [(item["id"], item["n"]) for item in msgspec.json.decode(page)["data"]]


def test_a_step_is_a_turn_that_never_expires() -> None:
    step = ConversationStep(id=TIP, parent_id=None, input=(USER,), calls=frozenset())
    turn = step.turn(None)
    assert (turn.id, turn.input, turn.output, turn.stored, turn.expires_at) == (TIP, (USER,), (), True, None)
    assert step.size_bytes >= len(USER)


@pytest.mark.parametrize("shown", [b'{"type":"item_reference","id":"x"}', USER])
def test_items_may_lack_a_type(shown: bytes) -> None:
    assert find_item([link("root", (shown,))], "nothing") is None

"""Chains: what a history holds, and that continuing one costs nothing that was there before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.history.chains import ITEM_OVERHEAD_BYTES, TURN_OVERHEAD_BYTES, History, Turn, newest_first, path
from segue.protocol.items import Item
from segue.testing.store_conformance import sample_id
from tests.strategies import examples


def turn(name: str, parent: Turn | None = None, *, calls: frozenset[str] = frozenset()) -> Turn:
    return Turn(
        id=sample_id(name),
        parent=parent,
        input=(f'"in {name}"'.encode(),),
        output=(f'"out {name}"'.encode(),),
        calls=calls,
        stored=True,
    )


def chain(depth: int) -> Turn:
    """A chain of turns that hold nothing, so that it is quick to make."""
    ident, tip = sample_id("x"), None
    for _ in range(depth):
        tip = Turn(id=ident, parent=tip, input=(), output=(), calls=frozenset(), stored=True)
    assert tip is not None
    return tip


# --------------------------------------------------------------------------------------------------- what it holds


def test_a_history_is_the_chain_from_its_root_and_then_the_new_input() -> None:
    """Input and output of each turn, in order."""
    parent = turn("b", turn("a"))
    expected = [b'"in a"', b'"out a"', b'"in b"', b'"out b"', b'"new"']
    assert list(History(parent, (b'"new"',)).items()) == expected


def test_a_history_without_a_parent_is_its_input() -> None:
    """As of a first turn, or of a replay."""
    assert list(History(None, (b"1", b"2")).items()) == [b"1", b"2"]


def test_the_path_of_a_turn_begins_at_its_root() -> None:
    """And is empty without a turn."""
    root = turn("a")
    tip = turn("b", root)
    assert path(tip) == [root, tip]
    assert path(None) == []
    assert list(newest_first(tip)) == [tip, root]
    assert list(newest_first(None)) == []


def test_a_turn_knows_its_depth_and_what_it_added_to_memory() -> None:
    """Its parent's items are the parent's."""
    tip = turn("b", turn("a"))
    assert (tip.depth, tip.size_bytes) == (2, TURN_OVERHEAD_BYTES + 2 * ITEM_OVERHEAD_BYTES + len('"in b""out b"'))
    assert (tip.references, tip.expires_at) == (0, None)
    assert repr(tip) == f"Turn({tip.id!r}, depth=2)"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], None),
        ([("c1", 0)], None),
        ([("c2", 0), ("c1", 3), ("c2", 4)], None),
        ([("c3", 0)], ("c3", 0)),
        ([("c1", 0), ("new", 1), ("c3", 2)], ("new", 1)),
    ],
)
def test_the_first_answer_without_a_call_in_the_chain_is_found(
    answers: list[tuple[str, int]], expected: tuple[str, int] | None
) -> None:
    """Any turn of the chain may have made the call, but not a branch beside it, nor the new input."""
    root = turn("a", calls=frozenset({"c1"}))
    turn("fork", root, calls=frozenset({"c3"}))
    history = History(turn("b", root, calls=frozenset({"c2"})), (b'{"call_id":"new"}',))
    assert history.find_orphan(answers) == expected


def test_a_history_without_a_parent_holds_no_call() -> None:
    """Calls of the new input were matched when it was parsed."""
    assert History(None, ()).find_orphan([("c", 0)]) == ("c", 0)


# ---------------------------------------------------------------------------------------------------- delta is replay


class Step(NamedTuple):
    """One turn of a conversation: the turn it continues (by number; 0 is a new root) and what it adds."""

    parent: int
    input: tuple[Item, ...]
    output: tuple[Item, ...]


raw_items = st.lists(st.binary(max_size=3), max_size=3).map(tuple)
steps = st.lists(st.builds(Step, st.integers(0, 30), raw_items, raw_items), max_size=30)


@settings(max_examples=examples(300))
@given(steps)
def test_deltas_stand_for_the_same_items_as_a_replay_of_everything(steps: list[Step]) -> None:
    """Whatever is continued, forked, and continued again; nothing that came before changes."""
    turns: list[Turn | None] = [None]
    replays: list[list[Item]] = [[]]
    for number, step in enumerate(steps):
        chosen = step.parent % len(turns)
        parent, replay = turns[chosen], [*replays[chosen], *step.input]
        assert list(History(parent, step.input).items()) == replay
        turns.append(
            Turn(
                id=sample_id(str(number)),
                parent=parent,
                input=step.input,
                output=step.output,
                calls=frozenset(),
                stored=True,
            )
        )
        replays.append([*replay, *step.output])
    assert [list(History(made, ()).items()) for made in turns] == replays


# ----------------------------------------------------------------------------------------------------- what it costs


class Untouchable(tuple[Item, ...]):
    """Items that complain when anybody looks at them."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Item]:
        raise AssertionError("an ancestor's items were read")

    def __len__(self) -> int:
        raise AssertionError("an ancestor's items were counted")


def test_continuing_a_deep_chain_looks_at_no_ancestor() -> None:
    """In time and memory: the parent is pointed at, and its items stay where they are."""
    parent = chain(5000)
    for ancestor in path(parent):
        ancestor.input = ancestor.output = Untouchable()
    tip = turn("new", parent)
    history = History(tip, (b"x",))
    assert (tip.depth, tip.parent, history.parent) == (5001, parent, tip)
    assert tip.size_bytes == turn("new").size_bytes


class Counted(frozenset[str]):
    """Calls that count how often they are looked through."""

    looks = 0

    def __iter__(self) -> Iterator[str]:
        Counted.looks += 1
        return super().__iter__()

    def __contains__(self, call_id: object) -> bool:
        Counted.looks += 1
        return super().__contains__(call_id)


def test_many_answers_to_old_calls_look_through_a_chain_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client can send a hundred thousand, to a chain of thousands of turns."""
    monkeypatch.setattr(Counted, "looks", 0)
    calls = [str(number) for number in range(1000)]
    tip = turn("0", calls=Counted(calls))
    for _ in range(100):
        tip = turn("x", tip, calls=Counted({"other"}))
    assert History(tip, ()).find_orphan([(call_id, 0) for call_id in calls]) is None
    assert Counted.looks <= 101


def test_a_fork_shares_its_prefix() -> None:
    """By identity, not by copy."""
    parent = chain(3)
    left, right = turn("left", parent), turn("right", parent)
    assert [id(shared) for shared in path(left)[:-1]] == [id(shared) for shared in path(right)[:-1]]


@pytest.mark.untraced
def test_a_very_deep_chain_is_read_and_freed_without_recursion() -> None:
    """Letting go of its tip lets go of 200,000 turns."""
    tip: Turn | None = chain(200_000)
    assert tip is not None
    assert len(path(tip)) == tip.depth == 200_000
    assert list(History(tip, (b"x",)).items()) == [b"x"]
    assert History(tip, ()).find_orphan([("c", 0)]) == ("c", 0)
    tip = None  # overflows the stack if it is freed by recursion
    assert tip is None


def test_what_a_turn_keeps_of_changed_settings_counts_once() -> None:
    """Else a chain with many of them would take memory that no budget knows of."""
    first = turn("1")
    second = turn("2", first)
    updates, before = (b"{}", b"{}"), first.size_bytes
    first.note_updates(updates)
    second.note_updates(first.updates)
    assert (first.size_bytes - before, second.size_bytes - before) == (20, 0)
    assert second.updates is updates

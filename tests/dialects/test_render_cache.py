"""What is kept of past turns: within a budget, and no longer than the turn."""

from __future__ import annotations

import gc
import weakref

import msgspec
import pytest

from segue.dialects.render_cache import FRAGMENT_OVERHEAD_BYTES, Fragments
from segue.history.chains import Turn
from tests.dialects.conversations import grow


class Piece(msgspec.Struct, frozen=True):
    size_bytes: int


COST = FRAGMENT_OVERHEAD_BYTES + 100


def chain(length: int) -> list[Turn]:
    turns: list[Turn] = []
    for _ in range(length):
        turns.append(grow(turns[-1] if turns else None, ()))
    return turns


def test_a_fragment_is_found_on_its_shelf_only() -> None:
    fragments, (turn, other) = Fragments(10_000), chain(2)
    one, two = fragments.shelf("one", Piece), fragments.shelf("two", Piece)
    one.keep(turn, Piece(100))
    assert one.find(turn) == Piece(100)
    assert two.find(turn) is one.find(other) is None
    two.keep(turn, Piece(100))
    assert (len(fragments), fragments.size_bytes) == (2, 2 * COST)


def test_keeping_again_counts_once() -> None:
    fragments, (turn,) = Fragments(10_000), chain(1)
    for _ in range(3):
        fragments.keep("one", turn, Piece(100))
    assert (len(fragments), fragments.size_bytes) == (1, COST)


def test_a_fragment_dies_with_its_turn() -> None:
    """So nothing of a conversation that is not stored stays when its connection is gone."""
    fragments, turns = Fragments(10_000), chain(3)
    for turn in turns:
        fragments.keep("one", turn, Piece(100))
        fragments.keep("two", turn, Piece(100))
    del turn
    last = weakref.ref(turns[-1])
    turns.pop()
    gc.collect()
    assert last() is None
    assert (len(fragments), fragments.size_bytes) == (4, 4 * COST)
    turns.clear()
    gc.collect()
    assert (len(fragments), fragments.size_bytes) == (0, 0)


@pytest.mark.parametrize("budget", [0, COST - 1, COST, 2 * COST])
def test_the_budget_holds_and_what_was_used_least_recently_goes(budget: int) -> None:
    fragments, turns = Fragments(budget), chain(3)
    for turn in turns[:2]:
        fragments.keep("one", turn, Piece(100))
    fragments.find("one", turns[0])
    fragments.keep("one", turns[2], Piece(100))
    assert fragments.size_bytes <= budget
    kept = [fragments.find("one", turn) is not None for turn in turns]
    assert kept == [[False, False, False], [False, False, True], [True, False, True]][budget // COST]

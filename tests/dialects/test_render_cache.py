"""Rendered turns are kept within a budget, and no longer than the turn."""

from __future__ import annotations

import gc
import weakref

import msgspec
import pytest

from segue.dialects.render_cache import ENTRY_OVERHEAD_BYTES, RenderCache
from segue.history.chains import Turn
from tests.dialects.conversations import grow


class Piece(msgspec.Struct, frozen=True):
    size_bytes: int


COST = ENTRY_OVERHEAD_BYTES + 100


def chain(length: int) -> list[Turn]:
    turns: list[Turn] = []
    for _ in range(length):
        turns.append(grow(turns[-1] if turns else None, ()))
    return turns


def test_a_rendered_turn_is_found_in_its_view_only() -> None:
    cache, (turn, other) = RenderCache(10_000), chain(2)
    one, two = cache.view("one", Piece), cache.view("two", Piece)
    one.keep(turn, Piece(100))
    assert one.find(turn) == Piece(100)
    assert two.find(turn) is one.find(other) is None
    two.keep(turn, Piece(100))
    assert (len(cache), cache.size_bytes) == (2, 2 * COST)


def test_keeping_again_counts_once() -> None:
    cache, (turn,) = RenderCache(10_000), chain(1)
    for _ in range(3):
        cache.keep("one", turn, Piece(100))
    assert (len(cache), cache.size_bytes) == (1, COST)


def test_a_rendered_turn_dies_with_its_turn() -> None:
    """So nothing of a conversation that is not stored stays when its connection is gone."""
    cache, turns = RenderCache(10_000), chain(3)
    for turn in turns:
        cache.keep("one", turn, Piece(100))
        cache.keep("two", turn, Piece(100))
    del turn
    last = weakref.ref(turns[-1])
    turns.pop()
    gc.collect()
    assert last() is None
    assert (len(cache), cache.size_bytes) == (4, 4 * COST)
    turns.clear()
    gc.collect()
    assert (len(cache), cache.size_bytes) == (0, 0)


@pytest.mark.parametrize("budget", [0, COST - 1, COST, 2 * COST])
def test_the_budget_holds_and_what_was_used_least_recently_goes(budget: int) -> None:
    cache, turns = RenderCache(budget), chain(3)
    for turn in turns[:2]:
        cache.keep("one", turn, Piece(100))
    cache.find("one", turns[0])
    cache.keep("one", turns[2], Piece(100))
    assert cache.size_bytes <= budget
    kept = [cache.find("one", turn) is not None for turn in turns]
    assert kept == [[False, False, False], [False, False, True], [True, False, True]][budget // COST]


def test_what_is_staged_changes_nothing_before_it_is_committed() -> None:
    cache, (one, other) = RenderCache(10_000), chain(2)
    cache.keep("view", one, Piece(100))
    staged = cache.staged()
    view = staged.view("view", Piece)
    view.keep(other, Piece(200))
    assert (view.find(one), view.find(other), cache.find("view", other)) == (Piece(100), Piece(200), None)
    assert cache.size_bytes == COST
    staged.commit()
    assert (cache.find("view", other), len(cache)) == (Piece(200), 2)

"""Moving sequences together: everything keeps its order, and what is shared is moved once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.engine.kv.defrag import Move, plan_defrag


def carry_out(made: list[Move], placed: list[tuple[int, list[int]]]) -> dict[int, list[tuple[int, int]]]:
    """Move as the engine does; return for each slot where its tokens are then, with the cells they were in."""
    now: dict[int, list[tuple[int, int]]] = {}
    taken = 0
    for move, (slot, cells) in zip(made, placed, strict=True):
        assert (move.slot, move.length) == (slot, len(cells))
        own = list(enumerate(cells[move.shared :], taken))
        taken += len(own)
        now[slot] = [*(now[move.source][: move.shared] if move.shared else []), *own]
    return now


@st.composite
def sequences(draw: st.DrawFn) -> list[tuple[int, list[int]]]:
    """Sequences, some of which began as copies of a part of another; cells are numbered as they are taken."""
    found: list[list[int]] = []
    cell = 0
    for _ in range(draw(st.integers(0, 8))):
        source = found[draw(st.integers(0, len(found) - 1))] if found else []
        found.append(source[: draw(st.integers(0, len(source)))])
        for grown in draw(st.lists(st.integers(0, 600), max_size=3)):
            found[draw(st.integers(0, len(found) - 1))].extend(range(cell, cell + grown))
            cell += grown
    return draw(st.permutations(list(enumerate(found, 10))))


@given(sequences())
def test_order_is_kept_and_nothing_is_doubled(placed: list[tuple[int, list[int]]]) -> None:
    now = carry_out(plan_defrag(placed), placed)
    for slot, cells in placed:
        where = [at for at, _ in now[slot]]
        assert [cell for _, cell in now[slot]] == cells, "each has its own tokens"
        assert where == sorted(where), "later tokens stand behind earlier ones"
    pairs = {pair for found in now.values() for pair in found}
    assert len(pairs) == len({cell for _, cells in placed for cell in cells}), "a cell that is shared is moved once"


def test_nothing_is_moved_where_nothing_is_kept() -> None:
    assert plan_defrag([]) == []
    assert plan_defrag([(3, [])]) == [Move(3, 0)]

"""How sequences are moved together in the context: pure.

Attention adds up what a sequence's tokens contribute in the order of their cells. So that the order is always that of
the tokens, cells are only ever taken behind all that were taken before, and what is given back is not used again, until
there are none left behind. Then everything that is kept moves to the front, each sequence in the order of its tokens,
and what several of them share once: `moves` says how. Not here: which sequences are kept (`memory`), and the moving
itself (`model`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from segue.engine.kv.prefix_match import common_length


class Move(msgspec.Struct, frozen=True):
    """A sequence of `length` tokens; the first `shared` of them are shared from the slot `source`, moved before it."""

    slot: int
    length: int
    source: int = -1
    shared: int = 0


def moves(placed: Iterable[tuple[int, Sequence[int]]]) -> list[Move]:
    """Return the moves, in order, for slots and the cells of their tokens. Copies have cells in common."""
    made: list[Move] = []
    before: list[tuple[int, Sequence[int]]] = []
    for slot, cells in placed:
        shared, source = max(((common_length(cells, other), at) for at, other in before), default=(0, -1))
        made.append(Move(slot, len(cells), source if shared else -1, shared))
        before.append((slot, cells))
    return made

"""Plans how to defragment the context: pure.

Attention sums over the cells of a sequence in the order of the cells. To keep that the order of the tokens, the engine
takes each new cell behind all earlier ones, and does not reuse freed cells until none are left at the end. Then it
defragments: everything that is kept moves to the front, each sequence in the order of its tokens, and a shared prefix
moves once. `plan_defrag` says how. Not here: which sequences are kept (`cache`), and the moving itself (`model`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from segue.engine.kv.prefix_match import common_prefix_length


class Move(msgspec.Struct, frozen=True):
    """Move a sequence of `length` tokens; it shares the first `shared` of them with the slot `source`, moved before."""

    slot: int
    length: int
    source: int = -1
    shared: int = 0


def plan_defrag(placed: Iterable[tuple[int, Sequence[int]]]) -> list[Move]:
    """Return the moves, in order, for slots and the cells of their tokens. Copies have cells in common."""
    planned: list[Move] = []
    before: list[tuple[int, Sequence[int]]] = []
    for slot, cells in placed:
        shared, source = max(((common_prefix_length(cells, other), at) for at, other in before), default=(0, -1))
        planned.append(Move(slot, len(cells), source if shared else -1, shared))
        before.append((slot, cells))
    return planned

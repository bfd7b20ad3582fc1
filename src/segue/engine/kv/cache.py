"""Where the KV cache of each conversation is: pure decisions and accounting.

A *sequence* is the computed state of the tokens of one conversation. It is in the context (one cell for each token, and
one of a few slots), or evicted to host memory as bytes, or, if all of its turns are stored ones, in a file. Sequences
that were copied share the cells of what they have in common, and a shared cell counts once. What is pinned stays where
it is. What makes room is the sequence used least recently: from the context to host memory, from there to disk where
that is allowed, else it is forgotten, and its tokens are computed again when they are needed. Not here: the cells and
bytes themselves, which the engine moves as it is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

Place = Literal["context", "host", "disk"]


class Budget(msgspec.Struct, frozen=True):
    """What there is: `cells` and `slots` of the context, and bytes in host memory and on disk."""

    cells: int
    slots: int
    host_bytes: int
    disk_bytes: int = 0


class Sequence(msgspec.Struct, eq=False):
    """One sequence; `slot` is only meaningful in the context. `may_spill`: nothing in it must stay off the disk."""

    key: int
    tenant: str
    place: Place = "context"
    slot: int = -1
    cells: list[int] = []
    size_bytes: int = 0
    used_at: int = 0
    pins: int = 0
    may_spill: bool = False


class Moved(msgspec.Struct, frozen=True):
    """A sequence that leaves host memory: its bytes go to the disk, or (`to` is None) nowhere."""

    key: int
    to: Literal["disk"] | None


class Memory:
    """All sequences of one engine. Every change is asked for by name; what must give way is returned."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._sequences: dict[int, Sequence] = {}
        self._holders: dict[int, int] = {}  # cell -> how many sequences have it
        self._free_slots = list(range(budget.slots - 1, -1, -1))
        self._next_key = 0
        self._next_cell = 0
        self._clock = 0
        self.host_bytes = 0
        self.disk_bytes = 0

    @property
    def free_cells(self) -> int:
        """How many cells of the context hold nothing."""
        return self._budget.cells - len(self._holders)

    def __getitem__(self, key: int) -> Sequence:
        return self._sequences[key]

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences.values())

    def __len__(self) -> int:
        return len(self._sequences)

    # --- in the context ----------------------------------------------------------------------------------------------

    def make_room(self, cells: int, *, slot: bool = False) -> list[int] | None:
        """Return which sequences to evict, in order, until there is room for `cells` (and a slot); None: there is none.

        Nothing has changed yet: the caller evicts them one by one.
        """
        evicted: list[int] = []
        missing = cells - self.free_cells
        no_slot = slot and not self._free_slots
        if missing <= 0 and not no_slot:
            return evicted  # nearly always, and asked for each token of an answer
        holders: dict[int, int] = {}
        for sequence in self._least_recent("context"):
            if missing <= 0 and not no_slot:
                break
            evicted.append(sequence.key)
            no_slot = False
            for cell in sequence.cells:
                left = holders.get(cell, self._holders[cell]) - 1
                holders[cell] = left
                missing -= left == 0
        return None if missing > 0 or no_slot else evicted

    def create(self, tenant: str) -> Sequence:
        """Make an empty sequence in a free slot, pinned once."""
        self._next_key += 1
        sequence = Sequence(self._next_key, tenant, slot=self._free_slots.pop(), pins=1, may_spill=True)
        self._sequences[sequence.key] = sequence
        self.touch(sequence)
        return sequence

    def copy(self, source: Sequence, length: int) -> Sequence:
        """Make a sequence that shares the first `length` cells of one in the context, pinned once."""
        made = self.create(source.tenant)
        made.cells = source.cells[:length]
        made.may_spill = source.may_spill
        for cell in made.cells:
            self._holders[cell] += 1
        return made

    def extend(self, sequence: Sequence, count: int) -> None:
        """Take `count` cells more; there must be room for them."""
        assert count <= self.free_cells, "make_room() comes first"
        for cell in range(self._next_cell, self._next_cell + count):
            self._holders[cell] = 1
            sequence.cells.append(cell)
        self._next_cell += count

    def truncate(self, sequence: Sequence, length: int) -> None:
        """Give back the cells behind the first `length`."""
        for cell in sequence.cells[length:]:
            left = self._holders[cell] - 1
            if left:
                self._holders[cell] = left
            else:
                del self._holders[cell]
        del sequence.cells[length:]

    # --- between places ----------------------------------------------------------------------------------------------

    def evict(self, sequence: Sequence, size_bytes: int) -> list[Moved]:
        """Move a sequence out of the context; return what then has to leave host memory, maybe itself."""
        self._leave_context(sequence)
        sequence.place = "host"
        sequence.size_bytes = size_bytes
        self.host_bytes += size_bytes
        moved: list[Moved] = []
        for victim in list(self._least_recent("host")):
            if self.host_bytes <= self._budget.host_bytes:
                break
            moved += self._leave_host(victim)
        return moved

    def spill(self, sequence: Sequence) -> list[Moved]:
        """Move a sequence from host memory to disk, or forget it if it may not go there; return what then moves."""
        return self._leave_host(sequence)

    def restore(self, sequence: Sequence, length: int) -> None:
        """Move a sequence of `length` tokens into the context; there must be room for them, and a slot."""
        if sequence.place == "host":
            self.host_bytes -= sequence.size_bytes
        else:
            self.disk_bytes -= sequence.size_bytes
        sequence.place, sequence.size_bytes = "context", 0
        sequence.slot = self._free_slots.pop()
        self.extend(sequence, length)

    def drop(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is."""
        del self._sequences[sequence.key]
        match sequence.place:
            case "context":
                self._leave_context(sequence)
            case "host":
                self.host_bytes -= sequence.size_bytes
            case "disk":
                self.disk_bytes -= sequence.size_bytes

    def touch(self, sequence: Sequence) -> None:
        """Make it the one used most recently."""
        self._clock += 1
        sequence.used_at = self._clock

    # --- private -----------------------------------------------------------------------------------------------------

    def _least_recent(self, place: Place) -> list[Sequence]:
        idle = (one for one in self._sequences.values() if one.place == place and not one.pins)
        return sorted(idle, key=lambda one: one.used_at)

    def _leave_context(self, sequence: Sequence) -> None:
        self.truncate(sequence, 0)
        self._free_slots.append(sequence.slot)
        sequence.slot = -1

    def _leave_host(self, victim: Sequence) -> list[Moved]:
        """Move one from host memory to disk, or forget it; what the disk has no room for any more is forgotten too."""
        if not victim.may_spill or victim.size_bytes > self._budget.disk_bytes:
            self.drop(victim)
            return [Moved(victim.key, None)]
        moved: list[Moved] = []
        for older in self._least_recent("disk"):
            if self.disk_bytes + victim.size_bytes <= self._budget.disk_bytes:
                break
            self.drop(older)
            moved.append(Moved(older.key, None))
        if self.disk_bytes + victim.size_bytes > self._budget.disk_bytes:  # the others there are pinned
            self.drop(victim)
            return [*moved, Moved(victim.key, None)]
        self.host_bytes -= victim.size_bytes
        self.disk_bytes += victim.size_bytes
        victim.place = "disk"
        return [*moved, Moved(victim.key, "disk")]

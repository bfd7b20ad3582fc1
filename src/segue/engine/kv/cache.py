"""Accounting of the KV cache: where each sequence lies, and which one is evicted next. Pure decisions.

A *sequence* is the KV state of the tokens of one conversation. It lies in one of three *tiers*: in the context (one
cell for each token, and one of a few slots), in host memory as bytes, or on disk as a file. Only a sequence whose turns
are all stored may go to disk. Copied sequences share the cells of their common prefix, and a shared cell counts once. A
pinned sequence is never evicted. To make room, the least recently used sequence goes from the context to host memory,
and from there to disk if it may; otherwise it is dropped, and its tokens are computed again when a prompt needs them.
Cells that are only kept for later cost every token that is computed beside them, since attention goes through them all.
So most of them go to host memory when a turn begins that does not need them, before what has lain there for longest.
Not here: the cells and bytes themselves, which `sequence_pool` moves.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import msgspec

#: So many shared cells are no reason to keep a sequence in the context: each may have them for itself elsewhere.
_FEW_SHARED = 512
#: So many tokens may be saved for each cell that becomes free, where host memory has room. To save and restore one
#: takes 20 to 40 µs, and a cell makes each token that is computed beside it some 4 µs slower.
_MOST_SAVED = 8

Tier = Literal["context", "host", "disk"]


class KvBudget(msgspec.Struct, frozen=True):
    """The limits: `cells` and `slots` of the context, and bytes in host memory and on disk.

    `idle_cells`: how many sequences that no turn works on may keep beside a turn, if host memory can hold them.
    """

    cells: int
    slots: int
    host_bytes: int
    disk_bytes: int = 0
    idle_cells: int = 0


class KvSequence(msgspec.Struct, eq=False):
    """One sequence. The cache keeps the first group of fields; the engine keeps the second.

    `slot` is only meaningful in the context. `pins` counts who needs it to stay: a turn that works on it, for one.
    `disk_allowed` is False if any of its tokens must stay off the disk.

    `tokens` are those whose state is computed. No other turn may rewind into the first `protected` of them. `saved` is
    the state as bytes, while it lies in host memory.
    """

    key: int
    tenant: str
    tier: Tier = "context"
    slot: int = -1
    cells: list[int] = []
    size_bytes: int = 0
    used_at: int = 0
    pins: int = 0
    disk_allowed: bool = False

    tokens: list[int] = []
    protected: int = 0
    saved: Sequence[bytes] | None = None


class HostEviction(msgspec.Struct, frozen=True):
    """A sequence leaves host memory: its bytes go to disk, or are dropped (`to` is None)."""

    key: int
    to: Literal["disk"] | None


class _HostRoom(NamedTuple):
    """How many tokens host memory can hold for those that leave the context: in all, and without displacing others."""

    tokens: int
    free: int

    def is_worth(self, size: int, freed: int) -> bool:
        """Tell whether to save so many tokens for so many cells that become free."""
        if size > self.tokens:
            return False
        return size - freed <= max(freed, _FEW_SHARED) or (size <= self.free and size <= _MOST_SAVED * freed)

    def without(self, size: int) -> _HostRoom:
        return _HostRoom(self.tokens - size, self.free - size)


def _together_or_alone(idle: Sequence[KvSequence]) -> Iterator[Sequence[KvSequence]]:
    """Yield the sequences that share cells together, then each alone. What is shared is always a beginning."""
    sharing: dict[int, list[KvSequence]] = {}
    for one in idle:
        if one.cells:
            sharing.setdefault(one.cells[0], []).append(one)
    for some in sharing.values():
        yield some
        if len(some) > 1:
            yield from ([one] for one in some)


class KvCache:
    """All sequences of one engine. A method that displaces other sequences returns which ones."""

    def __init__(self, budget: KvBudget) -> None:
        self._budget = budget
        self._sequences: dict[int, KvSequence] = {}
        self._references: dict[int, int] = {}  # cell -> how many sequences share it
        self._free_slots = list(range(budget.slots - 1, -1, -1))
        self._next_key = 0
        self._next_cell = 0
        self._clock = 0
        self.host_bytes = 0
        self.disk_bytes = 0
        #: How many sequences lie in each tier.
        self.tiers: dict[Tier, int] = dict.fromkeys(get_args(Tier), 0)

    @property
    def free_cells(self) -> int:
        """How many cells of the context are free."""
        return self._budget.cells - len(self._references)

    def __getitem__(self, key: int) -> KvSequence:
        return self._sequences[key]

    def __contains__(self, key: int) -> bool:
        return key in self._sequences

    def __iter__(self) -> Iterator[KvSequence]:
        return iter(self._sequences.values())

    def __len__(self) -> int:
        return len(self._sequences)

    # --- in the context ----------------------------------------------------------------------------------------------

    def choose_victims(self, cells: int, *, slot: bool = False) -> list[int] | None:
        """Return which sequences to evict, in order, to free `cells` cells (and a slot); None if that cannot be done.

        This changes nothing: the caller evicts them one by one.
        """
        victims: list[int] = []
        missing = cells - self.free_cells
        no_slot = slot and not self._free_slots
        if missing <= 0 and not no_slot:
            return victims  # the usual case, and asked for each token of an answer
        references: dict[int, int] = {}
        for sequence in self._least_recent("context"):
            if missing <= 0 and not no_slot:
                break
            victims.append(sequence.key)
            no_slot = False
            for cell in sequence.cells:
                left = references.get(cell, self._references[cell]) - 1
                references[cell] = left
                missing -= left == 0
        return None if missing > 0 or no_slot else victims

    def choose_idle(self, *, cell_bytes: int) -> list[int]:
        """Return which sequences to evict, in order, beside a turn that begins, whose own is pinned: those too many.

        Host memory can hold them together, once what has lain there for longest has left it. Sequences that share cells
        go together, or one by one if some are needed. Each has the shared tokens for itself then. So where they are
        many, they stay, unless host memory has room that nobody else needs. This changes nothing: the caller evicts
        them one by one.
        """
        idle = self._least_recent("context")
        if sum([len(one.cells) for one in idle]) <= self._budget.idle_cells:
            return []  # the usual case
        uses = Counter(itertools.chain.from_iterable([one.cells for one in idle]))
        surplus = sum(count == self._references[cell] for cell, count in uses.items()) - self._budget.idle_cells
        room = _HostRoom(
            self._budget.host_bytes // cell_bytes, (self._budget.host_bytes - self.host_bytes) // cell_bytes
        )
        victims: list[int] = []
        references: dict[int, int] = {}
        gone: set[int] = set()
        for some in _together_or_alone(idle):
            if surplus <= 0:
                break
            if some[0].key in gone:
                continue
            taken = Counter(itertools.chain.from_iterable([one.cells for one in some]))
            left = {cell: references.get(cell, self._references[cell]) - count for cell, count in taken.items()}
            freed, size = sum(not one for one in left.values()), taken.total()
            if not room.is_worth(size, freed):
                continue
            references |= left
            surplus -= freed
            room = room.without(size)
            victims += [one.key for one in some]
            gone.update(one.key for one in some)
        return victims

    def create(self, tenant: str) -> KvSequence:
        """Make an empty sequence in a free slot, pinned once."""
        self._next_key += 1
        sequence = KvSequence(self._next_key, tenant, slot=self._free_slots.pop(), pins=1, disk_allowed=True)
        self._sequences[sequence.key] = sequence
        self.tiers["context"] += 1
        self.touch(sequence)
        return sequence

    def copy(self, source: KvSequence, length: int) -> KvSequence:
        """Make a sequence that shares the first `length` cells of one in the context, pinned once."""
        made = self.create(source.tenant)
        made.cells = source.cells[:length]
        made.disk_allowed = source.disk_allowed
        for cell in made.cells:
            self._references[cell] += 1
        return made

    def extend(self, sequence: KvSequence, count: int) -> None:
        """Take `count` more cells; there must be room for them."""
        assert count <= self.free_cells, "choose_victims() comes first"
        for cell in range(self._next_cell, self._next_cell + count):
            self._references[cell] = 1
            sequence.cells.append(cell)
        self._next_cell += count

    def truncate(self, sequence: KvSequence, length: int) -> None:
        """Give back the cells behind the first `length`."""
        for cell in sequence.cells[length:]:
            left = self._references[cell] - 1
            if left:
                self._references[cell] = left
            else:
                del self._references[cell]
        del sequence.cells[length:]

    # --- between tiers -----------------------------------------------------------------------------------------------

    def make_host_room(self, size_bytes: int, *, newer: KvSequence) -> list[HostEviction]:
        """Let older ones leave host memory for what a newer one is about to take there; return which ones."""
        evictions: list[HostEviction] = []
        for victim in self._least_recent("host"):
            if self.host_bytes + size_bytes <= self._budget.host_bytes or victim.used_at > newer.used_at:
                break
            evictions += self._leave_host(victim)
        return evictions

    def evict(self, sequence: KvSequence, size_bytes: int) -> list[HostEviction]:
        """Move a sequence from the context to host memory; return which ones then leave host memory, maybe itself."""
        self._leave_context(sequence)
        self._enter(sequence, "host")
        sequence.size_bytes = size_bytes
        self.host_bytes += size_bytes
        evictions: list[HostEviction] = []
        for victim in list(self._least_recent("host")):
            if self.host_bytes <= self._budget.host_bytes:
                break
            evictions += self._leave_host(victim)
        return evictions

    def demote(self, sequence: KvSequence) -> list[HostEviction]:
        """Move a sequence from host memory to disk, or drop it if it may not go there; return what that moves."""
        return self._leave_host(sequence)

    def restore(self, sequence: KvSequence, length: int) -> None:
        """Move a sequence of `length` tokens back into the context; there must be cells and a slot for it."""
        if sequence.tier == "host":
            self.host_bytes -= sequence.size_bytes
        else:
            self.disk_bytes -= sequence.size_bytes
        self._enter(sequence, "context")
        sequence.size_bytes = 0
        sequence.slot = self._free_slots.pop()
        self.extend(sequence, length)

    def drop(self, sequence: KvSequence) -> None:
        """Remove a sequence from whatever tier it is in."""
        del self._sequences[sequence.key]
        self.tiers[sequence.tier] -= 1
        match sequence.tier:
            case "context":
                self._leave_context(sequence)
            case "host":
                self.host_bytes -= sequence.size_bytes
            case "disk":
                self.disk_bytes -= sequence.size_bytes

    def touch(self, sequence: KvSequence) -> None:
        """Make it the most recently used one."""
        self._clock += 1
        sequence.used_at = self._clock

    # --- private -----------------------------------------------------------------------------------------------------

    def _enter(self, sequence: KvSequence, tier: Tier) -> None:
        self.tiers[sequence.tier] -= 1
        self.tiers[tier] += 1
        sequence.tier = tier

    def _least_recent(self, tier: Tier) -> list[KvSequence]:
        idle = (one for one in self._sequences.values() if one.tier == tier and not one.pins)
        return sorted(idle, key=lambda one: one.used_at)

    def _leave_context(self, sequence: KvSequence) -> None:
        self.truncate(sequence, 0)
        self._free_slots.append(sequence.slot)
        sequence.slot = -1

    def _leave_host(self, victim: KvSequence) -> list[HostEviction]:
        """Move one from host memory to disk, or drop it; the disk drops its oldest ones to make room."""
        if not victim.disk_allowed or victim.size_bytes > self._budget.disk_bytes:
            self.drop(victim)
            return [HostEviction(victim.key, None)]
        evictions: list[HostEviction] = []
        for older in self._least_recent("disk"):
            if self.disk_bytes + victim.size_bytes <= self._budget.disk_bytes:
                break
            self.drop(older)
            evictions.append(HostEviction(older.key, None))
        if self.disk_bytes + victim.size_bytes > self._budget.disk_bytes:  # the others on disk are pinned
            self.drop(victim)
            return [*evictions, HostEviction(victim.key, None)]
        self.host_bytes -= victim.size_bytes
        self.disk_bytes += victim.size_bytes
        self._enter(victim, "disk")
        return [*evictions, HostEviction(victim.key, "disk")]

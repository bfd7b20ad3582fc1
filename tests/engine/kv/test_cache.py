"""The accounting of the local engine's KV memory: shared cells, least recently used first, budgets kept."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from segue.engine.kv.cache import Budget, Memory, Moved, Sequence


def sequence(memory: Memory, length: int, *, may_spill: bool = True, tenant: str = "alice") -> Sequence:
    """An idle sequence of some length."""
    made = memory.create(tenant)
    memory.extend(made, length)
    made.pins, made.may_spill = 0, may_spill
    return made


class TestRoom:
    def test_the_least_recent_gives_way(self) -> None:
        """As few as will do, and never what is pinned."""
        memory = Memory(Budget(cells=10, slots=4, host_bytes=0))
        first, second, third = (sequence(memory, 3) for _ in range(3))
        assert memory.make_room(1) == []
        assert memory.make_room(2) == [first.key]
        memory.touch(first)
        assert memory.make_room(5) == [second.key, third.key]
        second.pins = 1
        assert memory.make_room(4) == [third.key]
        assert memory.make_room(8) is None

    def test_a_slot_can_be_what_is_missing(self) -> None:
        memory = Memory(Budget(cells=100, slots=1, host_bytes=0))
        only = sequence(memory, 3)
        assert memory.make_room(3) == []
        assert memory.make_room(3, slot=True) == [only.key]
        only.pins = 1
        assert memory.make_room(3, slot=True) is None

    def test_shared_cells_count_once(self) -> None:
        """A fork costs a slot and its own tokens; evicting one of two frees only what the other does not have."""
        memory = Memory(Budget(cells=10, slots=4, host_bytes=0))
        trunk = sequence(memory, 6)
        fork = memory.copy(trunk, 5)
        assert memory.free_cells == 4
        memory.extend(fork, 2)
        assert memory.make_room(3) == [trunk.key]
        assert memory.make_room(4) is None, "five of its cells are the fork's too, and that is pinned"
        fork.pins = 0
        memory.touch(fork)
        assert memory.make_room(10) == [trunk.key, fork.key]

    def test_a_truncated_sequence_gives_its_cells_back(self) -> None:
        memory = Memory(Budget(cells=10, slots=4, host_bytes=0))
        trunk = sequence(memory, 6)
        memory.truncate(trunk, 2)
        assert (memory.free_cells, len(trunk.cells)) == (8, 2)


class TestEviction:
    def test_host_memory_has_a_budget(self) -> None:
        """The least recent leaves it: to the disk if it may go there, else for good."""
        memory = Memory(Budget(cells=100, slots=4, host_bytes=10, disk_bytes=10))
        secret, stored, last = sequence(memory, 1, may_spill=False), sequence(memory, 1), sequence(memory, 1)
        assert memory.evict(secret, 6) == []
        assert memory.evict(stored, 6) == [Moved(secret.key, None)]
        assert memory.evict(last, 6) == [Moved(stored.key, "disk")]
        assert (memory.host_bytes, memory.disk_bytes) == (6, 6)
        assert [one.place for one in memory] == ["disk", "host"]

    def test_the_disk_has_a_budget_too(self) -> None:
        memory = Memory(Budget(cells=100, slots=4, host_bytes=0, disk_bytes=10))
        first, second, huge = (sequence(memory, 1) for _ in range(3))
        assert memory.evict(first, 6) == [Moved(first.key, "disk")]
        assert memory.evict(second, 6) == [Moved(first.key, None), Moved(second.key, "disk")]
        assert memory.evict(huge, 11) == [Moved(huge.key, None)]

    def test_without_any_budget_eviction_forgets(self) -> None:
        memory = Memory(Budget(cells=100, slots=4, host_bytes=0))
        only = sequence(memory, 5)
        assert memory.evict(only, 6) == [Moved(only.key, None)]
        assert (len(memory), memory.free_cells, memory.host_bytes) == (0, 100, 0)

    def test_a_pinned_one_keeps_its_place_over_budget(self) -> None:
        """A turn that had to give way is not forgotten: it goes on later."""
        memory = Memory(Budget(cells=100, slots=4, host_bytes=0))
        running = memory.create("alice")
        memory.extend(running, 5)
        assert memory.evict(running, 6) == []
        memory.restore(running, 5)
        assert (running.place, memory.host_bytes, memory.free_cells) == ("context", 0, 95)


class Sequences(RuleBasedStateMachine):
    """Anything the engine may ask for, in any order; the budgets hold and the counts are true."""

    BUDGET = Budget(cells=24, slots=4, host_bytes=40, disk_bytes=30)

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(self.BUDGET)
        self.lengths: dict[int, int] = {}

    def made(self, one: Sequence, length: int) -> None:
        self.lengths[one.key] = length

    def room(self, cells: int, *, slot: bool) -> bool:
        """Make room as the engine does; tell whether there is any."""
        victims = self.memory.make_room(cells, slot=slot)
        if victims is None:
            return False
        used = [self.memory[key].used_at for key in victims]
        assert used == sorted(used)
        assert not any(self.memory[key].pins for key in victims)
        held = {one.key: one for one in self.memory}  # what goes to the disk may have to leave it at once
        for key in victims:
            moved = self.memory.evict(self.memory[key], 2 * self.lengths[key])
            assert all(one.to is None or held[one.key].may_spill for one in moved)
        assert self.memory.free_cells >= cells
        return True

    def pick(self, data: st.DataObject, place: str) -> Sequence | None:
        found = [one for one in self.memory if place == "context" if one.place == "context"]
        found += [one for one in self.memory if place != "context" if one.place != "context"]
        return data.draw(st.sampled_from(found)) if found else None

    @rule(length=st.integers(0, 12), may_spill=st.booleans())
    def begin(self, length: int, may_spill: bool) -> None:
        if self.room(length, slot=True):
            one = self.memory.create("alice")
            self.memory.extend(one, length)
            one.may_spill = may_spill
            self.made(one, length)

    @precondition(lambda self: len(self.memory) > 0)
    @rule(data=st.data(), more=st.integers(1, 6))
    def grow(self, data: st.DataObject, more: int) -> None:
        one = self.pick(data, "context")
        if one is None:
            return
        one.pins += 1
        if self.room(more, slot=False):
            self.memory.extend(one, more)
            self.lengths[one.key] += more
        one.pins -= 1

    @precondition(lambda self: len(self.memory) > 0)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        one = self.pick(data, "context")
        if one is None:
            return
        one.pins += 1
        if self.room(0, slot=True):
            length = data.draw(st.integers(0, self.lengths[one.key]))
            self.made(self.memory.copy(one, length), length)
        one.pins -= 1

    @precondition(lambda self: len(self.memory) > 0)
    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        one = self.pick(data, "context")
        if one is not None:
            self.lengths[one.key] = data.draw(st.integers(0, self.lengths[one.key]))
            self.memory.truncate(one, self.lengths[one.key])

    @precondition(lambda self: len(self.memory) > 0)
    @rule(data=st.data())
    def bring_back(self, data: st.DataObject) -> None:
        one = self.pick(data, "elsewhere")
        if one is None:
            return
        one.pins += 1
        if self.room(self.lengths[one.key], slot=True):
            self.memory.restore(one, self.lengths[one.key])
        one.pins -= 1

    @precondition(lambda self: len(self.memory) > 0)
    @rule(data=st.data(), pins=st.integers(0, 1))
    def pin(self, data: st.DataObject, pins: int) -> None:
        data.draw(st.sampled_from(list(self.memory))).pins = pins

    @precondition(lambda self: len(self.memory) > 0)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        self.memory.drop(data.draw(st.sampled_from(list(self.memory))))

    @invariant()
    def counts_are_true(self) -> None:
        inside = [one for one in self.memory if one.place == "context"]
        assert all(len(one.cells) == self.lengths[one.key] for one in inside)
        assert self.memory.free_cells == self.BUDGET.cells - len({cell for one in inside for cell in one.cells}) >= 0
        assert len({one.slot for one in inside}) == len(inside) <= self.BUDGET.slots
        for place, held, budget in (
            ("host", self.memory.host_bytes, self.BUDGET.host_bytes),
            ("disk", self.memory.disk_bytes, self.BUDGET.disk_bytes),
        ):
            there = [one for one in self.memory if one.place == place]
            assert held == sum(one.size_bytes for one in there)
            assert held <= budget or any(one.pins for one in there) or place == "host"
            assert place == "host" or all(one.may_spill for one in there)


Sequences.TestCase.settings = settings(max_examples=150, stateful_step_count=40)


class TestSequences(Sequences.TestCase):  # type: ignore[misc, valid-type]  # hypothesis makes the class at run time
    """About 6,000 steps."""

"""The accounting of the local engine's KV cache: shared cells, least recently used first, budgets kept."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from segue.engine.kv.cache import HostEviction, KvBudget, KvCache, KvSequence
from tests.strategies import examples


def sequence(cache: KvCache, length: int, *, disk_allowed: bool = True, tenant: str = "alice") -> KvSequence:
    """An idle sequence of some length."""
    made = cache.create(tenant)
    cache.extend(made, length)
    made.pins, made.disk_allowed = 0, disk_allowed
    return made


def copy(cache: KvCache, source: KvSequence, length: int, *, more: int) -> KvSequence:
    """An idle sequence that shares cells with another."""
    made = cache.copy(source, length)
    cache.extend(made, more)
    made.pins = 0
    return made


def filled(cache: KvCache, size_bytes: int) -> None:
    """Let host memory hold something of this size."""
    cache.evict(sequence(cache, 1), size_bytes)


class TestRoom:
    def test_the_least_recent_gives_way(self) -> None:
        """As few as will do, and never what is pinned."""
        cache = KvCache(KvBudget(cells=10, slots=4, host_bytes=0))
        first, second, third = (sequence(cache, 3) for _ in range(3))
        assert cache.choose_victims(1) == []
        assert cache.choose_victims(2) == [first.key]
        cache.touch(first)
        assert cache.choose_victims(5) == [second.key, third.key]
        second.pins = 1
        assert cache.choose_victims(4) == [third.key]
        assert cache.choose_victims(8) is None

    def test_a_slot_can_be_what_is_missing(self) -> None:
        cache = KvCache(KvBudget(cells=100, slots=1, host_bytes=0))
        only = sequence(cache, 3)
        assert cache.choose_victims(3) == []
        assert cache.choose_victims(3, slot=True) == [only.key]
        only.pins = 1
        assert cache.choose_victims(3, slot=True) is None

    def test_shared_cells_count_once(self) -> None:
        """A fork costs a slot and its own tokens; evicting one of two frees only what the other does not have."""
        cache = KvCache(KvBudget(cells=10, slots=4, host_bytes=0))
        trunk = sequence(cache, 6)
        fork = cache.copy(trunk, 5)
        assert cache.free_cells == 4
        cache.extend(fork, 2)
        assert cache.choose_victims(3) == [trunk.key]
        assert cache.choose_victims(4) is None, "five of its cells are the fork's too, and that is pinned"
        fork.pins = 0
        cache.touch(fork)
        assert cache.choose_victims(10) == [trunk.key, fork.key]

    def test_a_truncated_sequence_gives_its_cells_back(self) -> None:
        cache = KvCache(KvBudget(cells=10, slots=4, host_bytes=0))
        trunk = sequence(cache, 6)
        cache.truncate(trunk, 2)
        assert (cache.free_cells, len(trunk.cells)) == (8, 2)


class TestIdleSequences:
    """Which are evicted when a turn begins that does not need them."""

    def test_the_least_recent_ones_go_until_few_cells_are_left(self) -> None:
        cache = KvCache(KvBudget(cells=100, slots=8, host_bytes=1000, idle_cells=10))
        first, second, third, pinned = (sequence(cache, length) for length in (4, 4, 6, 20))
        pinned.pins = 1
        assert cache.choose_idle(cell_bytes=1) == [first.key]
        first.pins = 1
        assert cache.choose_idle(cell_bytes=1) == [], "that one is not idle any more"
        first.pins = 0
        cache.touch(first)
        sequence(cache, 5)
        assert cache.choose_idle(cell_bytes=1) == [second.key, third.key]

    def test_they_stay_if_host_memory_cannot_hold_them(self) -> None:
        """Those that go at once do not push each other out of it."""
        cache = KvCache(KvBudget(cells=100, slots=8, host_bytes=50, idle_cells=0))
        long, short, other = (sequence(cache, length) for length in (6, 3, 3))
        assert cache.choose_idle(cell_bytes=10) == [short.key]
        cache.evict(short, 30)
        assert (long.tier, other.tier) == ("context", "context")

    def test_they_take_the_place_of_older_ones_in_host_memory(self) -> None:
        """Else all of them would stay as soon as host memory is full, and slow down each turn from then on."""
        cache = KvCache(KvBudget(cells=100, slots=8, host_bytes=50, idle_cells=0))
        oldest, newer = sequence(cache, 4), sequence(cache, 4)
        assert cache.choose_idle(cell_bytes=10) == [oldest.key]
        cache.evict(oldest, 40)
        assert cache.choose_idle(cell_bytes=10) == [newer.key]
        assert cache.evict(newer, 40) == [HostEviction(oldest.key, None)]
        assert (newer.tier, cache.host_bytes) == ("host", 40)

    def test_those_that_share_cells_go_together(self) -> None:
        """Alone, neither frees what it shares: both would stay for ever, and slow down each turn from then on."""
        cache = KvCache(KvBudget(cells=5000, slots=8, host_bytes=5000, idle_cells=0))
        filled(cache, 5000)
        trunk = sequence(cache, 800)
        fork = copy(cache, trunk, 800, more=700)
        assert cache.choose_idle(cell_bytes=1) == [trunk.key, fork.key]

    def test_one_of_them_goes_alone_if_another_is_needed(self) -> None:
        cache = KvCache(KvBudget(cells=5000, slots=8, host_bytes=5000, idle_cells=0))
        filled(cache, 5000)
        trunk = sequence(cache, 800)
        first, second = copy(cache, trunk, 800, more=799), copy(cache, trunk, 800, more=800)
        trunk.pins = 1
        assert cache.choose_idle(cell_bytes=1) == [second.key]
        trunk.pins, first.pins, second.pins = 0, 1, 1
        assert cache.choose_idle(cell_bytes=1) == [], "it would free nothing"

    def test_those_that_share_most_of_their_cells_displace_nobody(self) -> None:
        """Each has what they share for itself in host memory, and in the context when it comes back."""

        def chosen(shared: int, *, taken: int = 5000) -> int:
            cache = KvCache(KvBudget(cells=5000, slots=8, host_bytes=5000, idle_cells=0))
            filled(cache, taken)
            trunk = sequence(cache, shared)
            for _ in range(3):
                copy(cache, trunk, shared, more=100)
            return len(cache.choose_idle(cell_bytes=1))

        assert (chosen(512), chosen(513)) == (4, 0), "a few shared cells keep none"
        assert [chosen(513, taken=5000 - free) for free in (2352, 2351, 613, 612)] == [4, 3, 1, 0]

    def test_little_that_becomes_free_is_not_worth_much_that_is_saved(self) -> None:
        def chosen(more: int) -> int:
            cache = KvCache(KvBudget(cells=5000, slots=8, host_bytes=5000, idle_cells=0))
            trunk = sequence(cache, 700)
            copy(cache, trunk, 700, more=more)
            trunk.pins = 1
            return len(cache.choose_idle(cell_bytes=1))

        assert (chosen(99), chosen(100)) == (0, 1)

    def test_what_a_running_turn_shares_is_not_idle(self) -> None:
        cache = KvCache(KvBudget(cells=100, slots=8, host_bytes=1000, idle_cells=4))
        trunk = sequence(cache, 12)
        running = cache.copy(trunk, 8)
        assert running.pins
        assert cache.choose_idle(cell_bytes=1) == []


class TestEviction:
    def test_host_memory_has_a_budget(self) -> None:
        """The least recent leaves it: to the disk if it may go there, else for good."""
        cache = KvCache(KvBudget(cells=100, slots=4, host_bytes=10, disk_bytes=10))
        secret, stored, last = sequence(cache, 1, disk_allowed=False), sequence(cache, 1), sequence(cache, 1)
        assert cache.evict(secret, 6) == []
        assert cache.evict(stored, 6) == [HostEviction(secret.key, None)]
        assert cache.evict(last, 6) == [HostEviction(stored.key, "disk")]
        assert (cache.host_bytes, cache.disk_bytes) == (6, 6)
        assert [one.tier for one in cache] == ["disk", "host"]

    def test_room_is_made_by_what_is_older(self) -> None:
        """As little of it as will do, and nothing newer than what is to come."""
        cache = KvCache(KvBudget(cells=100, slots=8, host_bytes=10))
        first, second, coming, third = (sequence(cache, 3) for _ in range(4))
        for one in (first, second, third):
            assert cache.evict(one, 3) == []
        assert cache.make_host_room(1, newer=coming) == []
        assert cache.make_host_room(3, newer=coming) == [HostEviction(first.key, None)]
        assert cache.make_host_room(9, newer=coming) == [HostEviction(second.key, None)]
        assert (cache.host_bytes, third.tier) == (3, "host")

    def test_the_disk_has_a_budget_too(self) -> None:
        cache = KvCache(KvBudget(cells=100, slots=4, host_bytes=0, disk_bytes=10))
        first, second, huge = (sequence(cache, 1) for _ in range(3))
        assert cache.evict(first, 6) == [HostEviction(first.key, "disk")]
        assert cache.evict(second, 6) == [HostEviction(first.key, None), HostEviction(second.key, "disk")]
        assert cache.evict(huge, 11) == [HostEviction(huge.key, None)]

    def test_a_pinned_one_on_disk_is_not_dropped_for_another(self) -> None:
        """A turn restores it just now; what has no room beside it is dropped instead."""
        cache = KvCache(KvBudget(cells=100, slots=4, host_bytes=0, disk_bytes=10))
        first, second = sequence(cache, 1), sequence(cache, 1)
        assert cache.evict(first, 6) == [HostEviction(first.key, "disk")]
        first.pins = 1
        assert cache.evict(second, 6) == [HostEviction(second.key, None)]
        assert (list(cache), first.tier, cache.disk_bytes, cache.host_bytes) == ([first], "disk", 6, 0)

    def test_without_any_budget_eviction_forgets(self) -> None:
        cache = KvCache(KvBudget(cells=100, slots=4, host_bytes=0))
        only = sequence(cache, 5)
        assert cache.evict(only, 6) == [HostEviction(only.key, None)]
        assert (len(cache), cache.free_cells, cache.host_bytes) == (0, 100, 0)

    def test_a_pinned_one_keeps_its_place_over_budget(self) -> None:
        """A turn that had to give way is not forgotten: it goes on later."""
        cache = KvCache(KvBudget(cells=100, slots=4, host_bytes=0))
        running = cache.create("alice")
        cache.extend(running, 5)
        assert cache.evict(running, 6) == []
        cache.restore(running, 5)
        assert (running.tier, cache.host_bytes, cache.free_cells) == ("context", 0, 95)


class Sequences(RuleBasedStateMachine):
    """Anything the engine may ask for, in any order; the budgets hold and the counts are true."""

    BUDGET = KvBudget(cells=24, slots=4, host_bytes=40, disk_bytes=30)

    def __init__(self) -> None:
        super().__init__()
        self.cache = KvCache(self.BUDGET)
        self.lengths: dict[int, int] = {}

    def made(self, one: KvSequence, length: int) -> None:
        self.lengths[one.key] = length

    def room(self, cells: int, *, slot: bool) -> bool:
        """Make room as the engine does; tell whether there is any."""
        victims = self.cache.choose_victims(cells, slot=slot)
        if victims is None:
            return False
        used = [self.cache[key].used_at for key in victims]
        assert used == sorted(used)
        assert not any(self.cache[key].pins for key in victims)
        held = {one.key: one for one in self.cache}  # what goes to the disk may have to leave it at once
        for key in victims:
            moved = self.cache.evict(self.cache[key], 2 * self.lengths[key])
            assert all(one.to is None or held[one.key].disk_allowed for one in moved)
        assert self.cache.free_cells >= cells
        return True

    def pick(self, data: st.DataObject, place: str) -> KvSequence | None:
        found = [one for one in self.cache if place == "context" if one.tier == "context"]
        found += [one for one in self.cache if place != "context" if one.tier != "context"]
        return data.draw(st.sampled_from(found)) if found else None

    @rule(length=st.integers(0, 12), disk_allowed=st.booleans())
    def begin(self, length: int, disk_allowed: bool) -> None:
        if self.room(length, slot=True):
            one = self.cache.create("alice")
            self.cache.extend(one, length)
            one.disk_allowed = disk_allowed
            self.made(one, length)

    @precondition(lambda self: len(self.cache) > 0)
    @rule(data=st.data(), more=st.integers(1, 6))
    def grow(self, data: st.DataObject, more: int) -> None:
        one = self.pick(data, "context")
        if one is None:
            return
        one.pins += 1
        if self.room(more, slot=False):
            self.cache.extend(one, more)
            self.lengths[one.key] += more
        one.pins -= 1

    @precondition(lambda self: len(self.cache) > 0)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        one = self.pick(data, "context")
        if one is None:
            return
        one.pins += 1
        if self.room(0, slot=True):
            length = data.draw(st.integers(0, self.lengths[one.key]))
            self.made(self.cache.copy(one, length), length)
        one.pins -= 1

    @precondition(lambda self: len(self.cache) > 0)
    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        one = self.pick(data, "context")
        if one is not None:
            self.lengths[one.key] = data.draw(st.integers(0, self.lengths[one.key]))
            self.cache.truncate(one, self.lengths[one.key])

    @precondition(lambda self: len(self.cache) > 0)
    @rule(data=st.data())
    def bring_back(self, data: st.DataObject) -> None:
        one = self.pick(data, "elsewhere")
        if one is None:
            return
        one.pins += 1
        if self.room(self.lengths[one.key], slot=True):
            self.cache.restore(one, self.lengths[one.key])
        one.pins -= 1

    @precondition(lambda self: len(self.cache) > 0)
    @rule(data=st.data(), pins=st.integers(0, 1))
    def pin(self, data: st.DataObject, pins: int) -> None:
        data.draw(st.sampled_from(list(self.cache))).pins = pins

    @precondition(lambda self: len(self.cache) > 0)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        self.cache.drop(data.draw(st.sampled_from(list(self.cache))))

    @invariant()
    def counts_are_true(self) -> None:
        places = [one.tier for one in self.cache]
        assert self.cache.tiers == {tier: places.count(tier) for tier in ("context", "host", "disk")}
        inside = [one for one in self.cache if one.tier == "context"]
        assert all(len(one.cells) == self.lengths[one.key] for one in inside)
        assert self.cache.free_cells == self.BUDGET.cells - len({cell for one in inside for cell in one.cells}) >= 0
        assert len({one.slot for one in inside}) == len(inside) <= self.BUDGET.slots
        for place, held, budget in (
            ("host", self.cache.host_bytes, self.BUDGET.host_bytes),
            ("disk", self.cache.disk_bytes, self.BUDGET.disk_bytes),
        ):
            there = [one for one in self.cache if one.tier == place]
            assert held == sum(one.size_bytes for one in there)
            assert held <= budget or any(one.pins for one in there) or place == "host"
            assert place == "host" or all(one.disk_allowed for one in there)


Sequences.TestCase.settings = settings(max_examples=examples(150), stateful_step_count=40)


class TestSequences(Sequences.TestCase):  # type: ignore[misc, valid-type]  # hypothesis makes the class at run time
    """About 6,000 steps."""

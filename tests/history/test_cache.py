"""The cache: what it finds, what it counts, whom it drops, and all of that against a recount from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from segue.history.cache import Slot, TurnCache
from segue.history.chains import Turn
from segue.testing.store_conformance import sample_id
from tests.strategies import examples

ALICE, BOB, CAROL = "alice", "bob", "carol"
KB = 1024
SOON = 100.0
FIRST: Slot = ("connection 1", "")
SECOND: Slot = ("connection 2", "")


def turn(name: str, parent: Turn | None = None, *, size: int = 10 * KB, expires_at: float | None = None) -> Turn:
    """A turn that counts as `size` bytes."""
    made = Turn(
        id=sample_id(name),
        parent=parent,
        input=(b"",),
        output=(),
        calls=frozenset(),
        stored=True,
        expires_at=expires_at,
    )
    made.size_bytes = size
    return made


def put(cache: TurnCache, tenant: str, *turns: Turn) -> None:
    for each in turns:
        cache.put_shared(tenant, each)


def resident(cache: TurnCache, tenant: str, turns: Iterable[Turn]) -> list[Turn]:
    """Those of the turns that the tenant can still find, without using them."""
    return [each for each in turns if cache.peek_stored(tenant, each.id) is each]


def is_empty(cache: TurnCache) -> bool:
    """Nothing is held and nothing is remembered of what was."""
    fields = dict(vars(cache))
    return (cache.size_bytes, fields["_tenants"], fields["_slots"]) == (0, {}, {})


# ------------------------------------------------------------------------------------------------------ what is found


def test_a_stored_turn_is_found_by_its_tenant_alone() -> None:
    """Somebody else's id is answered like an unknown one."""
    cache = TurnCache(100 * KB)
    a = turn("a")
    put(cache, ALICE, a)
    assert cache.find_shared(ALICE, a.id, 0) is a
    assert cache.peek_stored(ALICE, a.id) is a
    assert cache.find_shared(BOB, a.id, 0) is None
    assert cache.peek_stored(BOB, a.id) is None
    assert cache.find_shared(ALICE, sample_id("b"), 0) is None
    assert (cache.tenant_bytes(ALICE), cache.tenant_bytes(BOB)) == (10 * KB, 0)


def test_a_slot_holds_the_latest_response_of_its_lane_alone() -> None:
    """The one before it is superseded."""
    cache = TurnCache(100 * KB)
    a = turn("a")
    b = turn("b", a)
    cache.put_slot(ALICE, FIRST, a)
    assert cache.find_in_slot(FIRST, a.id, 0) is a
    cache.put_slot(ALICE, FIRST, b)
    assert cache.find_in_slot(FIRST, a.id, 0) is None
    assert cache.find_in_slot(FIRST, b.id, 0) is b
    assert cache.find_in_slot(SECOND, b.id, 0) is None


def test_a_turn_in_a_slot_is_not_shared() -> None:
    """A store=false turn is found on its own connection only."""
    cache = TurnCache(100 * KB)
    a = turn("a")
    cache.put_slot(ALICE, FIRST, a)
    assert cache.find_shared(ALICE, a.id, 0) is None


@pytest.mark.parametrize(("named", "kept"), [(None, False), ("a", False), ("b", True)])
def test_a_slot_is_emptied_of_what_is_named(named: str | None, *, kept: bool) -> None:
    """An eviction names a response; the lane may have moved on since."""
    cache = TurnCache(100 * KB)
    a = turn("a")
    cache.put_slot(ALICE, FIRST, a)
    cache.drop_slot(FIRST, None if named is None else sample_id(named))
    assert (cache.find_in_slot(FIRST, a.id, 0) is a) is kept
    assert is_empty(cache) is not kept


def test_emptying_an_empty_slot_does_nothing() -> None:
    """A connection cleans up without knowing what it held."""
    cache = TurnCache(100 * KB)
    cache.drop_slot(FIRST)
    assert is_empty(cache)


def test_a_forgotten_turn_is_found_nowhere_and_its_children_keep_it() -> None:
    """Its id resolves to nothing at once; its bytes go with its last descendant."""
    cache = TurnCache(100 * KB)
    a = turn("a")
    b = turn("b", a)
    put(cache, ALICE, a, b)
    cache.put_slot(ALICE, FIRST, a)
    cache.put_slot(ALICE, SECOND, a)
    cache.forget(ALICE, a.id)
    assert (
        cache.find_in_slot(FIRST, a.id, 0),
        cache.find_in_slot(SECOND, a.id, 0),
        cache.find_shared(ALICE, a.id, 0),
    ) == (None, None, None)
    assert (cache.size_bytes, cache.find_shared(ALICE, b.id, 0)) == (20 * KB, b)
    cache.forget(ALICE, b.id)
    assert is_empty(cache)


@pytest.mark.parametrize("tenant", [BOB, ALICE])
def test_forgetting_what_is_not_there_does_nothing(tenant: str) -> None:
    """It was dropped before, or is another tenant's."""
    cache = TurnCache(100 * KB)
    put(cache, ALICE, turn("a"))
    cache.forget(tenant, sample_id("b" if tenant == ALICE else "a"))
    assert cache.size_bytes == 10 * KB


def test_a_tenant_is_dropped_with_all_that_its_connections_hold() -> None:
    """Each turn counts once, and nothing of others is touched."""
    cache = TurnCache(1000 * KB)
    root = turn("root")
    put(cache, ALICE, root, turn("child", root))
    cache.put_slot(ALICE, FIRST, root)
    cache.put_slot(BOB, SECOND, turn("theirs"))
    assert (cache.drop_tenant(ALICE), cache.drop_tenant(ALICE), cache.drop_tenant(CAROL)) == (2, 0, 0)
    assert cache.peek_slot(FIRST) is None
    assert (cache.tenant_bytes(ALICE), cache.size_bytes) == (0, 10 * KB)
    cache.drop_slot(FIRST)
    assert cache.drop_tenant(BOB) == 1
    assert is_empty(cache)


def test_an_expired_turn_is_found_nowhere_but_as_a_part_of_a_chain() -> None:
    """From the second in which it expires, in slots too."""
    cache = TurnCache(100 * KB)
    a = turn("a", expires_at=SOON)
    put(cache, ALICE, a)
    cache.put_slot(ALICE, FIRST, a)
    assert cache.find_shared(ALICE, a.id, SOON - 1) is a
    assert cache.find_in_slot(FIRST, a.id, SOON - 1) is a
    assert cache.peek_stored(ALICE, a.id) is a
    assert cache.find_in_slot(FIRST, a.id, SOON) is None
    assert cache.find_shared(ALICE, a.id, SOON - 1) is None
    assert is_empty(cache)


def test_what_a_connection_still_holds_need_not_be_read_again() -> None:
    """A chain that is loaded hangs on the turn that is there, though its shared entry was dropped."""
    cache = TurnCache(25 * KB)
    a = turn("a")
    put(cache, ALICE, a)
    cache.put_slot(ALICE, FIRST, a)
    put(cache, ALICE, turn("b"))
    cache.find_in_slot(FIRST, a.id, 0)
    put(cache, ALICE, turn("c"))
    assert cache.find_shared(ALICE, a.id, 0) is None
    assert cache.peek_stored(ALICE, a.id) is a
    assert cache.find_in_slot(FIRST, a.id, 0) is a


# ---------------------------------------------------------------------------------------------------- what is counted


def test_a_shared_prefix_counts_once() -> None:
    """However many branches and entries hold it."""
    cache = TurnCache(100 * KB)
    root = turn("root")
    left, right = turn("left", root), turn("right", root)
    put(cache, ALICE, root, left, right, left)
    cache.put_slot(ALICE, FIRST, left)
    cache.put_slot(ALICE, SECOND, right)
    assert cache.size_bytes == cache.tenant_bytes(ALICE) == 30 * KB


def test_a_turn_brings_its_whole_chain_into_memory() -> None:
    """A store=false chain stands on a turn that had left, or never was there."""
    cache = TurnCache(100 * KB)
    tip = turn("c", turn("b", turn("a")))
    cache.put_slot(ALICE, FIRST, tip)
    assert cache.size_bytes == 30 * KB
    cache.drop_slot(FIRST)
    assert is_empty(cache)


def test_a_superseded_turn_stays_as_long_as_it_is_continued() -> None:
    """A fresh chain in the lane frees the old one."""
    cache = TurnCache(100 * KB)
    a = turn("a")
    cache.put_slot(ALICE, FIRST, a)
    cache.put_slot(ALICE, FIRST, turn("b", a))
    assert cache.size_bytes == 20 * KB
    cache.put_slot(ALICE, FIRST, turn("new"))
    assert cache.size_bytes == 10 * KB


def test_a_deep_chain_comes_and_goes_without_recursion() -> None:
    """One store=false conversation may be very long."""
    cache = TurnCache(10**12)
    tip = turn("x")
    for _ in range(50_000):
        tip = turn("x", tip)
    cache.put_slot(ALICE, FIRST, tip)
    assert cache.size_bytes == 50_001 * 10 * KB
    cache.drop_slot(FIRST)
    assert is_empty(cache)


# ---------------------------------------------------------------------------------------------------- what is dropped


def test_the_turn_used_least_recently_is_dropped_first() -> None:
    """To be put and to be found is to be used; to be looked at is not."""
    cache = TurnCache(30 * KB)
    a, b, c, d, e = (turn(name) for name in "abcde")
    put(cache, ALICE, a, b, c)
    cache.find_shared(ALICE, a.id, 0)
    cache.peek_stored(ALICE, b.id)
    put(cache, ALICE, d)
    assert resident(cache, ALICE, [a, b, c, d]) == [a, c, d]
    put(cache, ALICE, e)
    assert resident(cache, ALICE, [a, c, d, e]) == [a, d, e]
    assert cache.evictions == 2


def test_a_turn_with_children_is_not_dropped_before_them() -> None:
    """That would free nothing; after them it is the next to go, being older."""
    cache = TurnCache(40 * KB)
    root = turn("root")
    left, right, other = turn("left", root), turn("right", root), turn("other")
    put(cache, ALICE, root, left, right, other)
    put(cache, ALICE, turn("new 1"))
    assert resident(cache, ALICE, [root, left, right, other]) == [root, right, other]
    put(cache, ALICE, turn("new 2"))
    assert resident(cache, ALICE, [root, right, other]) == [root, other]
    put(cache, ALICE, turn("new 3"))
    assert resident(cache, ALICE, [root, other]) == [other]


def test_the_turn_just_put_is_kept_however_large_it_is() -> None:
    """Else it could not be continued at all."""
    cache = TurnCache(15 * KB)
    small, large = turn("small"), turn("large", size=100 * KB)
    put(cache, ALICE, small, large)
    assert resident(cache, ALICE, [small, large]) == [large]
    put(cache, ALICE, small)
    assert resident(cache, ALICE, [small, large]) == [small]


def test_a_turn_is_there_as_long_as_any_entry_holds_it() -> None:
    cache = TurnCache(100 * KB)
    a = turn("a")
    assert (cache.peek_slot(FIRST), cache.has_turn(ALICE, a.id)) == (None, False)
    cache.put_slot(ALICE, FIRST, a)
    put(cache, ALICE, a)
    assert (cache.peek_slot(FIRST), cache.peek_slot(SECOND)) == (a, None)
    assert (cache.has_turn(ALICE, a.id), cache.has_turn(BOB, a.id)) == (True, False)
    cache.drop_slot(FIRST)
    assert (cache.peek_slot(FIRST), cache.has_turn(ALICE, a.id)) == (None, True)
    cache.forget(ALICE, a.id)
    assert not cache.has_turn(ALICE, a.id)


def test_to_peek_at_a_slot_is_not_to_use_it() -> None:
    """The turn that was put first is the first to be evicted."""
    cache = TurnCache(25 * KB)
    a, b = turn("a"), turn("b")
    cache.put_slot(ALICE, FIRST, a)
    cache.put_slot(ALICE, SECOND, b)
    assert cache.peek_slot(FIRST) is a
    put(cache, ALICE, turn("c"))
    assert (cache.peek_slot(FIRST), cache.peek_slot(SECOND)) == (None, b)


def test_finding_a_turn_that_others_continue_leaves_the_order_alone() -> None:
    """It cannot be evicted before them."""
    cache = TurnCache(100 * KB)
    a = turn("a")
    put(cache, ALICE, a, turn("b", a))
    assert cache.find_shared(ALICE, a.id, 0) is a


def test_a_slot_can_be_dropped_like_any_entry() -> None:
    """Its client is told that the response was not found."""
    cache = TurnCache(15 * KB)
    a = turn("a")
    cache.put_slot(ALICE, FIRST, a)
    cache.put_slot(ALICE, SECOND, turn("b"))
    assert cache.find_in_slot(FIRST, a.id, 0) is None
    assert cache.size_bytes == 10 * KB


def test_the_tenant_that_holds_most_loses_first() -> None:
    """Even if it used its turns last."""
    cache = TurnCache(40 * KB)
    hers, his = [turn("hers")], [turn(f"his {n}") for n in range(3)]
    put(cache, ALICE, *hers)
    put(cache, BOB, *his)
    put(cache, CAROL, turn("theirs"))
    assert resident(cache, ALICE, hers) == hers
    assert resident(cache, BOB, his) == his[1:]


@pytest.mark.parametrize(("larger", "smaller"), [(ALICE, BOB), (BOB, ALICE)])
def test_of_two_tenants_above_their_share_the_larger_loses(larger: str, smaller: str) -> None:
    """Whatever their names are, and whoever came first."""
    cache = TurnCache(70 * KB)
    more, fewer = [turn(f"more {n}") for n in range(4)], [turn(f"fewer {n}") for n in range(3)]
    put(cache, larger, *more[:3])
    put(cache, smaller, *fewer)
    put(cache, CAROL, turn("theirs"))
    put(cache, larger, more[3])
    assert resident(cache, larger, more) == more[1:]
    assert resident(cache, smaller, fewer) == fewer
    assert (cache.size_bytes, cache.evictions) == (70 * KB, 1)


def test_a_turn_that_is_shared_already_is_not_put_again() -> None:
    """Nor is a copy that somebody else read from the store: what is in memory stays the one."""
    cache = TurnCache(100 * KB)
    a, copy = turn("a"), turn("a")
    put(cache, ALICE, a, a, copy)
    assert cache.find_shared(ALICE, a.id, 0) is a
    assert (cache.size_bytes, a.references, copy.references) == (10 * KB, 1, 0)
    cache.forget(ALICE, a.id)
    assert is_empty(cache)


def test_a_tenant_within_its_share_loses_nothing_to_another() -> None:
    """Though the budget is passed by somebody else's one turn that cannot be dropped."""
    cache = TurnCache(40 * KB)
    hers = [turn("hers 1"), turn("hers 2")]
    put(cache, ALICE, *hers)
    put(cache, BOB, turn("large", size=100 * KB))
    assert resident(cache, ALICE, hers) == hers


def test_a_tenant_above_its_share_loses_when_the_largest_cannot() -> None:
    """The budget is kept to as long as anything may be dropped for it."""
    cache = TurnCache(66 * KB)
    his, theirs = [turn(f"his {n}") for n in range(3)], [turn("theirs")]
    put(cache, CAROL, *theirs)
    put(cache, BOB, *his)
    put(cache, ALICE, turn("large", size=36 * KB))
    assert resident(cache, BOB, his) == his[1:]
    assert resident(cache, CAROL, theirs) == theirs
    assert cache.size_bytes == 66 * KB


@pytest.mark.parametrize("dropped", ["left", "right"])
def test_a_turn_that_was_read_twice_is_two_turns(dropped: str) -> None:
    """Two requests may have read it from the store at once: each has its own children, and nothing is lost or left."""
    cache = TurnCache(100 * KB)
    one, two = turn("same"), turn("same")
    left, right = turn("left", one), turn("right", two)
    put(cache, ALICE, one)
    cache.put_slot(ALICE, FIRST, two)
    put(cache, ALICE, left, right)
    assert cache.size_bytes == 40 * KB
    cache.forget(ALICE, sample_id(dropped))
    small = TurnCache(1)
    put(small, ALICE, one)  # another cache counts for itself
    assert cache.size_bytes == 30 * KB


# ------------------------------------------------------------------------------------------------------ the recount


def chain_of(tip: Turn) -> Iterator[Turn]:
    node: Turn | None = tip
    while node is not None:
        yield node
        node = node.parent


class CacheMachine(RuleBasedStateMachine):
    """Puts, finds and drops at random, and after each step counts again from nothing but the entries."""

    BUDGET = 60 * KB
    TENANTS = (ALICE, BOB, CAROL)

    @initialize()
    def empty(self) -> None:
        self.cache = TurnCache(self.BUDGET)
        self.now = 0.0
        self.known: dict[str, list[Turn]] = {tenant: [] for tenant in self.TENANTS}

    def turns_of(self, tenant: str) -> list[Turn]:
        """The turn of every entry that a tenant has."""
        fields: dict[str, Any] = vars(self.cache)
        held = fields["_tenants"].get(tenant)
        return [] if held is None else [entry.turn for same_id in held.by_id.values() for entry in same_id]

    def is_shared(self, tenant: str, each: Turn) -> bool:
        fields: dict[str, Any] = vars(self.cache)
        held = fields["_tenants"].get(tenant)
        return held is not None and each.id in held.shared

    def in_memory(self, tenant: str) -> dict[int, Turn]:
        """Every turn that an entry holds, or a descendant that is held."""
        return {id(node): node for tip in self.turns_of(tenant) for node in chain_of(tip)}

    def bytes_of(self, tenant: str) -> int:
        return sum(node.size_bytes for node in self.in_memory(tenant).values())

    def holdings(self, tenant: str) -> dict[str, tuple[int, list[Turn]]]:
        """What every other tenant holds."""
        return {other: (self.bytes_of(other), self.turns_of(other)) for other in self.TENANTS if other != tenant}

    def check_drops(self, before: dict[str, tuple[int, list[Turn]]], new: Turn) -> None:
        """Nobody within its share lost anything, and the budget is passed only for what may not be dropped."""
        tenants = 1 + sum(bool(entries) for _, entries in before.values())
        for other, (size, entries) in before.items():
            if size <= self.BUDGET / tenants:
                assert self.turns_of(other) == entries
        held: dict[str, Any] = vars(self.cache)["_tenants"]
        if self.cache.size_bytes > self.BUDGET:
            above = [each for each in held.values() if each.size_bytes > self.BUDGET / len(held)]
            assert {entry.turn for each in above for entry in each.leaves} <= {new}

    @rule(
        tenant=st.sampled_from(TENANTS),
        parent=st.integers(0, 5),
        size=st.sampled_from([1 * KB, 5 * KB, 20 * KB, 70 * KB]),
        lane=st.integers(-1, 2),
        lives=st.sampled_from([None, 5.0]),
        also_shared=st.booleans(),
    )
    def put_new(
        self, tenant: str, parent: int, size: int, lane: int, *, lives: float | None, also_shared: bool
    ) -> None:
        """End a turn: in a lane, shared, or both. Its parent may have left memory meanwhile."""
        known = self.known[tenant]
        upon = known[-parent] if 0 < parent <= len(known) else None
        expires_at = None if lives is None else self.now + lives
        new = turn(f"{tenant} {len(known)}", upon, size=size, expires_at=expires_at)
        known.append(new)
        before = self.holdings(tenant)
        if lane >= 0:
            self.cache.put_slot(tenant, (tenant, str(lane)), new)
            assert self.cache.find_in_slot((tenant, str(lane)), new.id, self.now) is new
        if lane < 0 or also_shared:
            self.cache.put_shared(tenant, new)
            assert self.cache.find_shared(tenant, new.id, self.now) is new
        self.check_drops(before, new)

    @rule(tenant=st.sampled_from(TENANTS), number=st.integers(0, 9), copied=st.booleans())
    def put_again(self, tenant: str, number: int, *, copied: bool) -> None:
        """Read a turn from the store: perhaps as another object, though one of its id is in memory."""
        known = self.known[tenant]
        if number >= len(known) or self.is_shared(tenant, known[number]):
            return
        old = known[number]
        if copied:
            old = known[number] = turn(f"{tenant} {number}", old.parent, size=old.size_bytes, expires_at=old.expires_at)
        before = self.holdings(tenant)
        self.cache.put_shared(tenant, old)
        self.check_drops(before, old)

    @rule(tenant=st.sampled_from(TENANTS), number=st.integers(0, 9), lane=st.integers(-1, 2))
    def find(self, tenant: str, number: int, lane: int) -> None:
        """Nothing expired is found, and nothing that was not asked for."""
        known = self.known[tenant]
        if number < len(known):
            wanted = known[number].id
            slot = (tenant, str(lane))
            found = (
                self.cache.find_shared(tenant, wanted, self.now)
                if lane < 0
                else self.cache.find_in_slot(slot, wanted, self.now)
            )
            assert found is None or found.id == wanted
            assert found is None or found.expires_at is None or self.now < found.expires_at

    @rule(tenant=st.sampled_from(TENANTS), lane=st.integers(0, 2))
    def drop(self, tenant: str, lane: int) -> None:
        self.cache.drop_slot((tenant, str(lane)))

    @rule(tenant=st.sampled_from(TENANTS), number=st.integers(0, 9))
    def forget(self, tenant: str, number: int) -> None:
        known = self.known[tenant]
        if number < len(known):
            self.cache.forget(tenant, known[number].id)
            assert known[number] not in self.turns_of(tenant)

    @rule()
    def wait(self) -> None:
        self.now += 1

    @invariant()
    def every_resident_turn_is_counted_once(self) -> None:
        sizes = {tenant: self.bytes_of(tenant) for tenant in self.TENANTS}
        assert {tenant: self.cache.tenant_bytes(tenant) for tenant in self.TENANTS} == sizes
        assert self.cache.size_bytes == sum(sizes.values())

    @invariant()
    def every_turn_has_as_many_references_as_refer_to_it(self) -> None:
        for tenant, known in self.known.items():
            memory, entries = self.in_memory(tenant), self.turns_of(tenant)
            parents = [node.parent for node in memory.values()]
            for each in {id(node): node for node in (*known, *memory.values())}.values():
                references = [one for one in (*entries, *parents) if one is each]
                assert each.references == len(references)

    @invariant()
    def exactly_the_entries_without_a_child_can_be_evicted(self) -> None:
        tenants: dict[str, Any] = vars(self.cache)["_tenants"]
        for tenant, held in tenants.items():
            parents = {id(node.parent) for node in self.in_memory(tenant).values()}
            entries = [entry for same_id in held.by_id.values() for entry in same_id]
            assert set(held.leaves) == {entry for entry in entries if id(entry.turn) not in parents}

    @invariant()
    def the_tables_agree(self) -> None:
        """Each entry is found where it says it is, and nothing is kept for a tenant without one."""
        fields: dict[str, Any] = vars(self.cache)
        slots = {slot: entry for slot, (_, entry) in fields["_slots"].items()}
        for held in fields["_tenants"].values():
            assert held.by_id
            for response_id, entries in held.by_id.items():
                for entry in entries:
                    kept = held.shared.get(response_id) if entry.slot is None else slots.pop(entry.slot)
                    assert kept is entry
        assert slots == {}

    def teardown(self) -> None:
        if not hasattr(self, "cache"):
            return
        for tenant, known in self.known.items():
            for lane in range(3):
                self.cache.drop_slot((tenant, str(lane)))
            for each in known:
                self.cache.forget(tenant, each.id)
        assert is_empty(self.cache)
        assert {each.references for known in self.known.values() for each in known} <= {0}


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=examples(200), stateful_step_count=40)


def test_stored_turns_of_a_tenant_or_of_all_can_be_dropped_together() -> None:
    cache = TurnCache(1_000_000)
    turns = {name: turn(name) for name in ("a", "b")}
    for name, made in turns.items():
        cache.put_shared(name, made)
    cache.drop_stored("a")
    cache.drop_stored("nobody")
    assert [cache.has_turn(name, made.id) for name, made in turns.items()] == [False, True]
    cache.drop_stored()
    assert cache.size_bytes == 0

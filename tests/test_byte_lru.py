"""The cache with a budget in bytes: what stays, what is evicted, and that the sum of the sizes is always right."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from segue.byte_lru import ByteLru
from tests.strategies import examples


def filled(budget_bytes: int, *keys: str, max_entries: int | None = None) -> ByteLru[str, str]:
    lru: ByteLru[str, str] = ByteLru(budget_bytes, max_entries=max_entries)
    for key in keys:
        assert lru.put(key, f"value of {key}", size_bytes=100) == []
    return lru


def test_a_value_is_found_by_its_key() -> None:
    lru = filled(200, "a")
    assert lru.get("a") == "value of a"
    assert lru.get("b") is None


def test_the_least_recently_used_value_is_evicted_first() -> None:
    lru = filled(200, "a", "b")
    lru.get("a")
    assert lru.put("c", "value of c", size_bytes=100) == ["b"]
    assert list(lru) == ["a", "c"]


def test_peek_leaves_the_order_of_use_as_it_is() -> None:
    lru = filled(200, "a", "b")
    assert lru.peek("a") == "value of a"
    assert lru.peek("c") is None
    assert lru.put("c", "value of c", size_bytes=100) == ["a"]


def test_one_large_value_evicts_as_many_as_it_needs() -> None:
    lru = filled(300, "a", "b", "c")
    assert lru.put("d", "value of d", size_bytes=150) == ["a", "b"]
    assert list(lru) == ["c", "d"]
    assert lru.size_bytes == 250


def test_a_value_of_just_the_budget_is_kept() -> None:
    lru = filled(100)
    assert lru.put("a", "value", size_bytes=100) == []
    assert "a" in lru


def test_a_value_larger_than_the_budget_is_evicted_at_once_and_takes_no_other_with_it() -> None:
    lru = filled(200, "a")
    assert lru.put("b", "value of b", size_bytes=201) == ["b"]
    assert list(lru) == ["a"]


def test_a_value_larger_than_the_budget_still_replaces_the_one_before() -> None:
    lru = filled(200, "a")
    assert lru.put("a", "a large one", size_bytes=201) == ["a"]
    assert lru.get("a") is None
    assert lru.size_bytes == 0


def test_a_value_replaces_the_one_with_its_key_and_is_the_most_recently_used() -> None:
    lru = filled(300, "a", "b")
    assert lru.put("a", "another", size_bytes=120) == []
    assert lru.peek("a") == "another"
    assert list(lru) == ["b", "a"]
    assert lru.size_bytes == 220


def test_the_number_of_entries_can_be_bounded_too() -> None:
    lru = filled(1000, "a", "b", max_entries=2)
    assert lru.put("c", "value of c", size_bytes=1) == ["a"]
    assert len(lru) == 2


def test_a_bound_of_no_entries_keeps_nothing() -> None:
    lru: ByteLru[str, str] = ByteLru(1000, max_entries=0)
    assert lru.put("a", "value", size_bytes=1) == ["a"]
    assert lru.size_bytes == 0


def test_pop_gives_the_value_and_frees_its_bytes() -> None:
    lru = filled(200, "a", "b")
    assert lru.pop("a") == "value of a"
    assert lru.pop("a") is None
    assert lru.size_bytes == 100
    assert lru.put("c", "value of c", size_bytes=100) == []


_KEYS = st.sampled_from("abcdef")


class AgainstAList(RuleBasedStateMachine):
    """The cache does what a list of (key, value, size) does that is searched from its beginning."""

    @initialize(budget_bytes=st.integers(0, 20), max_entries=st.none() | st.integers(0, 4))
    def begin(self, budget_bytes: int, max_entries: int | None) -> None:
        self.budget_bytes = budget_bytes
        self.max_entries = max_entries
        self.lru: ByteLru[str, int] = ByteLru(budget_bytes, max_entries=max_entries)
        self.model: list[tuple[str, int, int]] = []
        self.next_value = 0

    @rule(key=_KEYS, size_bytes=st.integers(0, 25))
    def put(self, key: str, size_bytes: int) -> None:
        self.next_value += 1
        self.model = [entry for entry in self.model if entry[0] != key]
        expected = [key]
        if size_bytes <= self.budget_bytes:
            self.model.append((key, self.next_value, size_bytes))
            expected = []
            while self.is_over():
                expected.append(self.model.pop(0)[0])
        assert self.lru.put(key, self.next_value, size_bytes=size_bytes) == expected

    @rule(key=_KEYS)
    def get(self, key: str) -> None:
        found = [entry for entry in self.model if entry[0] == key]
        self.model = [entry for entry in self.model if entry[0] != key] + found
        assert self.lru.get(key) == (found[0][1] if found else None)

    @rule(key=_KEYS)
    def pop(self, key: str) -> None:
        found = [entry for entry in self.model if entry[0] == key]
        self.model = [entry for entry in self.model if entry[0] != key]
        assert self.lru.pop(key) == (found[0][1] if found else None)

    @invariant()
    def is_the_same(self) -> None:
        assert [(key, self.lru.peek(key)) for key in self.lru] == [(key, value) for key, value, _ in self.model]
        assert self.lru.size_bytes == sum(size_bytes for _, _, size_bytes in self.model)
        assert len(self.lru) == len(self.model)
        assert not self.is_over()

    def is_over(self) -> bool:
        too_many = self.max_entries is not None and len(self.model) > self.max_entries
        return too_many or sum(size_bytes for _, _, size_bytes in self.model) > self.budget_bytes


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=examples(100))

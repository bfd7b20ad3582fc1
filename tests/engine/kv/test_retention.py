"""How much of each sequence the responses retain, and for how long."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from segue.engine.kv.retention import NOTHING_RETAINED, ResponseKey, Retention, RetentionIndex
from segue.protocol.ids import ResponseId
from tests.strategies import examples


def name(number: int) -> ResponseKey:
    return "alice", ResponseId(f"resp_{number}")


def chain(*lengths: int) -> RetentionIndex:
    """Turns of one conversation, numbered from 0, in sequence 1."""
    index, at = RetentionIndex(), 0
    for number, length in enumerate(lengths):
        index.continue_from(1, at)
        index.retain(1, name(number), Retention(length, length - 1), None)
        at = length
    return index


def test_a_sequence_is_retained_as_far_as_its_longest_retention() -> None:
    index = chain(10, 20, 30)
    assert index.longest(1) == Retention(30, 29)
    assert index.forget([name(1)]) == {1}
    assert index.longest(1) == Retention(30, 29), "the child retains what its parent did"
    assert index.forget([name(2), name(7)]) == {1}
    assert index.longest(1) == Retention(10, 9)
    assert index.forget([name(0)]) == {1}
    assert (index.longest(1), len(index)) == (NOTHING_RETAINED, 0)
    assert index.forget([name(0)]) == set()


def test_the_responses_of_a_tenant_are_known() -> None:
    index = chain(10, 20)
    index.retain(2, ("bob", name(0)[1]), Retention(5, 4), None)
    assert index.of_tenant("alice") == [name(0), name(1)]
    assert index.of_tenant("carol") == []


def test_what_was_rewound_is_not_retained_any_more() -> None:
    """Behind it stands another answer, which is nobody's but its own turn's."""
    index = chain(10, 20)
    index.continue_from(1, 15)
    index.retain(1, name(2), Retention(40, 35), None)
    index.forget([name(2)])
    assert index.longest(1) == Retention(15, 15)
    index.continue_from(1, 0)
    assert len(index) == 0


def test_a_retention_expires() -> None:
    index = chain(10)
    index.retain(1, name(1), Retention(20, 9), 5.0)
    index.retain(2, name(2), Retention(30, 9), 6.0)
    assert index.next_expiry() == 5.0
    assert index.expire(4.9) == set()
    assert index.expire(5.0) == {1}
    assert (index.longest(1).length, index.longest(2).length, index.next_expiry()) == (10, 30, 6.0)
    assert index.expire(100) == {2}
    assert index.next_expiry() is None


def test_a_turn_replaces_the_expiring_retentions_it_goes_on_from() -> None:
    """However often a client sends its history again, or gives up: there is one retention of it."""
    index = chain(10)
    for number in range(1, 50):
        index.continue_from(1, 9 + number)
        index.retain(1, name(number), Retention(10 + number, 9), float(number))
        assert len(index) == 2
    assert index.longest(1).length == 59
    assert index.expire(50) == {1}
    assert index.longest(1).length == 10


def test_a_response_that_no_client_can_name_any_more_expires() -> None:
    index = chain(10)
    index.release(name(0), 5.0)
    index.release(name(0), 7.0)
    index.release(name(1), 7.0)
    assert index.next_expiry() == 5.0, "once"
    assert index.expire(5.0) == {1}


def test_an_expiring_tail_is_dropped_where_others_stay() -> None:
    index = chain(10)
    assert not index.drop_expiring_tail(1), "there is none"
    index.retain(1, name(1), Retention(20, 9), 5.0)
    index.retain(2, name(2), Retention(30, 9), 5.0)
    assert index.drop_expiring_tail(1)
    assert index.longest(1).length == 10
    assert not index.drop_expiring_tail(2), "it has nothing else"
    assert index.longest(2).length == 30


class Model(RuleBasedStateMachine):
    """Against lists: of each sequence what its turns left, oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self.index = RetentionIndex()
        self.lists: dict[int, list[tuple[ResponseKey, Retention]]] = {}
        self.expires_at: dict[ResponseKey, float] = {}
        self.names: list[ResponseKey] = []
        self.now = 0.0

    @rule(key=st.integers(0, 2), start=st.integers(0, 40), more=st.integers(1, 9), until=st.none() | st.integers(0, 9))
    def turn(self, key: int, start: int, more: int, until: int | None) -> None:
        """A turn goes on from some of what a sequence has, and leaves more."""
        left = self.lists.pop(key, [])
        start = min(start, left[-1][1].length if left else 0)
        while left and (not start or left[-1][0] in self.expires_at):
            self.expires_at.pop(left.pop()[0], None)
        left = [
            (one, Retention(min(retention.length, start), min(retention.protected, start))) for one, retention in left
        ]
        self.index.continue_from(key, start)
        made, retention = name(len(self.names)), Retention(start + more, start)
        self.names.append(made)
        if until is not None:
            self.now += until
            self.expires_at[made] = self.now + 10
        self.index.retain(key, made, retention, self.expires_at.get(made))
        self.lists[key] = [*left, (made, retention)]

    @precondition(lambda self: self.names)
    @rule(picks=st.lists(st.integers(0, 30), max_size=4))
    def forget(self, picks: list[int]) -> None:
        """Some responses are gone, or were long ago."""
        gone = {self.names[pick % len(self.names)] for pick in picks}
        assert self.index.forget(gone) == self.remove(gone)

    @rule(seconds=st.integers(0, 8))
    def expire(self, seconds: int) -> None:
        """Time passes."""
        self.now += seconds
        due = {one for one, until in self.expires_at.items() if until <= self.now}
        assert self.index.expire(self.now) == self.remove(due)

    @precondition(lambda self: self.names)
    @rule(pick=st.integers(0, 30))
    def release(self, pick: int) -> None:
        """A response can be named no more."""
        one = self.names[pick % len(self.names)]
        if any(one == other for left in self.lists.values() for other, _ in left):
            self.expires_at.setdefault(one, self.now + 10)
        self.index.release(one, self.now + 10)

    @rule(key=st.integers(0, 2))
    def drop(self, key: int) -> None:
        """A sequence is evicted for good."""
        self.remove({one for one, _ in self.lists.get(key, [])})
        self.index.drop_sequence(key)

    @rule(key=st.integers(0, 2))
    def drop_expiring_tail(self, key: int) -> None:
        """A sequence leaves the context."""
        left = self.lists.get(key, [])
        stay = [one for one, _ in left if one not in self.expires_at]
        last = max((at for at, (one, _) in enumerate(left) if one in stay), default=-1)
        gone = {one for one, _ in left[last + 1 :]} if stay else set()
        assert self.index.drop_expiring_tail(key) == bool(gone)
        self.remove(gone)

    def remove(self, gone: set[ResponseKey]) -> set[int]:
        had = {key for key, left in self.lists.items() if any(one in gone for one, _ in left)}
        self.lists = {key: [pair for pair in left if pair[0] not in gone] for key, left in self.lists.items()}
        for one in gone:
            self.expires_at.pop(one, None)
        return had

    @invariant()
    def agrees(self) -> None:
        """The longest retention is the last one; nothing else is remembered, and nothing for longer."""
        assert len(self.index) == sum(map(len, self.lists.values()))
        for key in range(3):
            left = self.lists.get(key, [])
            assert self.index.longest(key) == (left[-1][1] if left else NOTHING_RETAINED)
            assert left == sorted(left, key=lambda pair: pair[1].length)
        assert self.index.next_expiry() == min(self.expires_at.values(), default=None)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=examples(100), stateful_step_count=30)

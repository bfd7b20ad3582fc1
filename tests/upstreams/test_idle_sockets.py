"""Which socket a turn gets: never another owner's, and that of its chain if it is there."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from segue.protocol.ids import ENTROPY_BYTES, ResponseId, new_response_id
from segue.upstreams.idle_sockets import IdleLimits, IdleSockets, SocketOwner
from tests.strategies import examples

ANN, BOB, OTHER = SocketOwner("ann", b"m"), SocketOwner("bob", b"m"), SocketOwner("ann", b"other")
OWNERS = (ANN, BOB, OTHER)
LIMITS = IdleLimits(max_idle=3, idle_s=10.0, age_s=100.0)


def response_id(number: int) -> ResponseId:
    return new_response_id(number.to_bytes(ENTROPY_BYTES, "big"))


def test_a_socket_that_holds_a_response_is_found_by_it_and_is_not_free() -> None:
    idle = IdleSockets(LIMITS)
    assert idle.put(1, ANN, response_id(1), opened_at=0.0, now=0.0) == []
    assert idle.holder_of("ann", response_id(1)) == 1
    assert idle.holder_of("bob", response_id(1)) is None
    assert idle.take_free(ANN, 0.0) is None
    assert idle.take(1, ANN, 0.0)
    assert (idle.holder_of("ann", response_id(1)), len(idle)) == (None, 0)
    assert not idle.take(1, ANN, 0.0)


def test_a_free_socket_is_for_its_owner_only_and_the_one_used_last_comes_first() -> None:
    idle = IdleSockets(LIMITS)
    for number, owner in enumerate((ANN, ANN, BOB)):
        idle.put(number, owner, None, opened_at=0.0, now=float(number))
    assert idle.take_free(OTHER, 3.0) is None
    assert not idle.take(2, ANN, 3.0)
    assert [idle.take_free(ANN, 3.0) for _ in range(3)] == [1, 0, None]
    assert idle.take_free(BOB, 3.0) == 2


def test_if_no_more_may_wait_the_oldest_of_its_owner_is_as_good_as_a_new_one() -> None:
    idle = IdleSockets(LIMITS)
    for number, owner in enumerate((BOB, ANN, ANN)):
        assert idle.take_free(owner, 0.0) is None
        idle.put(number, owner, response_id(number), opened_at=0.0, now=float(number))
    assert idle.take_free(OTHER, 3.0) is None
    assert idle.take_free(ANN, 3.0) == 1
    assert idle.holder_of("ann", response_id(1)) is None
    assert idle.take_free(ANN, 3.0) is None, "there is room again"


def test_over_the_limit_the_tenant_that_has_most_loses_its_oldest() -> None:
    idle = IdleSockets(LIMITS)
    idle.put(0, BOB, None, opened_at=0.0, now=0.0)
    for number in (1, 2):
        idle.put(number, ANN, response_id(number), opened_at=0.0, now=1.0)
    assert idle.put(3, OTHER, None, opened_at=0.0, now=2.0) == [1]
    assert idle.holder_of("ann", response_id(1)) is None
    assert idle.of_tenant("ann") == (2, 3)
    assert idle.of_tenant("bob") == (0,)


def test_what_has_waited_or_lived_too_long_is_overdue() -> None:
    idle = IdleSockets(LIMITS)
    idle.put(0, ANN, None, opened_at=0.0, now=0.0)
    idle.put(1, ANN, response_id(1), opened_at=-95.0, now=0.0)
    idle.put(2, BOB, None, opened_at=-50.0, now=4.0)
    assert idle.overdue(4.0) == []
    assert idle.overdue(5.0) == [1]
    assert not idle.take(1, ANN, 5.0), "a turn could meet the provider's own limit"
    assert idle.overdue(10.0) == [0, 1]
    assert idle.put(3, ANN, None, opened_at=-100.0, now=0.0) == [3]


class Turns(RuleBasedStateMachine):
    """Whatever is put and taken, the table holds what a plain list says."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = IdleSockets(LIMITS)
        self.model: dict[int, tuple[SocketOwner, ResponseId | None]] = {}
        self.number = 0

    @rule(owner=st.sampled_from(OWNERS), holds=st.booleans())
    def put(self, owner: SocketOwner, *, holds: bool) -> None:
        self.number += 1
        head = response_id(self.number) if holds else None
        self.model[self.number] = owner, head
        for number in self.idle.put(self.number, owner, head, opened_at=0.0, now=0.0):
            del self.model[number]

    @rule(owner=st.sampled_from(OWNERS))
    def take_free(self, owner: SocketOwner) -> None:
        full = len(self.model) == LIMITS.max_idle
        number = self.idle.take_free(owner, 0.0)
        own = {one: head for one, (whose, head) in self.model.items() if whose == owner}
        free = [one for one, head in own.items() if head is None]
        assert number == (free[-1] if free else next(iter(own), None) if full else None)
        if number is not None:
            del self.model[number]

    @rule(number=st.integers(0, 12), owner=st.sampled_from(OWNERS))
    def take(self, number: int, owner: SocketOwner) -> None:
        taken = self.idle.take(number, owner, 0.0)
        assert taken is (number in self.model and self.model[number][0] == owner)
        if taken:
            del self.model[number]

    @rule(number=st.integers(0, 12))
    def remove(self, number: int) -> None:
        self.idle.remove(number)
        self.model.pop(number, None)

    @invariant()
    def agrees(self) -> None:
        assert len(self.idle) == len(self.model) <= LIMITS.max_idle
        for number, (owner, head) in self.model.items():
            assert number in self.idle.of_tenant(owner.tenant)
            assert head is None or self.idle.holder_of(owner.tenant, head) == number


TestTurns = Turns.TestCase
TestTurns.settings = settings(max_examples=examples(300), stateful_step_count=20)


@given(order=st.permutations(range(6)))
@settings(max_examples=examples(200))
def test_whatever_is_taken_first_nothing_is_left(order: list[int]) -> None:
    idle = IdleSockets(IdleLimits())
    for number in range(6):
        idle.put(number, OWNERS[number % 3], response_id(number) if number % 2 else None, opened_at=0.0, now=0.0)
    for number in order:
        assert idle.take(number, OWNERS[number % 3], 0.0)
    assert len(idle) == 0
    assert idle.overdue(1e9) == []

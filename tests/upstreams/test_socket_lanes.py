"""Which lane of which socket a turn gets: never another owner's, and that of its chain if it is there."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from segue.protocol.ids import ENTROPY_BYTES, ResponseId, new_response_id
from segue.upstreams.socket_lanes import IdleLimits, LaneAt, SocketLanes, SocketOwner
from tests.strategies import examples

ANN, BOB, OTHER = SocketOwner("ann", b"m"), SocketOwner("bob", b"m"), SocketOwner("ann", b"other")
OWNERS = (ANN, BOB, OTHER)
LIMITS = IdleLimits(max_idle=3, idle_s=10.0, age_s=100.0, unread_s=5.0)


def response_id(number: int) -> ResponseId:
    return new_response_id(number.to_bytes(ENTROPY_BYTES, "big"))


def laned(*owners: SocketOwner, lanes: int = 1, holding: bool = False) -> SocketLanes:
    """Sockets of these owners, numbered from 0, opened and at rest at the time of their number."""
    table = SocketLanes(LIMITS)
    for number, owner in enumerate(owners):
        at = table.add(number, owner, lanes=lanes, now=0.0)
        assert table.rest(at, response_id(number) if holding else None, now=float(number)) == []
    return table


def test_a_lane_that_holds_a_response_is_for_the_turn_that_continues_it() -> None:
    table = laned(ANN, holding=True)
    assert table.take_held("bob", response_id(0), BOB, now=0.0) == "unknown"
    assert table.take_held("ann", response_id(0), OTHER, now=0.0) == "settings"
    assert table.take_free(ANN, now=0.0) is None
    assert table.take_held("ann", response_id(0), ANN, now=0.0) == LaneAt(0, 0)
    assert table.take_held("ann", response_id(0), ANN, now=0.0) == "unknown"
    assert (table.waiting, table.held) == (0, 0)


def test_a_free_socket_is_for_its_owner_only_and_the_one_used_last_comes_first() -> None:
    table = laned(ANN, ANN, BOB)
    assert table.take_free(OTHER, now=3.0) is None
    assert [table.take_free(ANN, now=3.0) for _ in range(3)] == [LaneAt(1, 0), LaneAt(0, 0), None]
    assert table.take_free(BOB, now=3.0) == LaneAt(2, 0)


def test_the_lanes_of_a_socket_are_filled_before_another_is_opened() -> None:
    table = SocketLanes(LIMITS)
    assert table.add(7, ANN, lanes=3, now=0.0) == LaneAt(7, 0)
    assert [table.take_free(ANN, now=0.0) for _ in range(3)] == [LaneAt(7, 1), LaneAt(7, 2), None]
    assert table.rest(LaneAt(7, 1), response_id(1), now=1.0) == []
    assert table.take_free(ANN, now=1.0) is None, "it holds a response"
    assert table.rest(LaneAt(7, 0), None, now=1.0) == []
    assert table.take_free(ANN, now=1.0) == LaneAt(7, 0)
    assert table.waiting == 0


def test_if_no_more_may_wait_the_oldest_of_its_owner_is_as_good_as_a_new_one() -> None:
    table = laned(BOB, ANN, ANN, holding=True)
    assert table.take_free(OTHER, now=3.0) is None
    assert table.take_free(ANN, now=3.0) == LaneAt(1, 0)
    assert table.take_held("ann", response_id(1), ANN, now=3.0) == "expired"
    assert table.take_free(ANN, now=3.0) is None, "there is room again"


def test_over_the_limit_the_tenant_that_has_most_loses_its_oldest() -> None:
    table = laned(BOB, ANN, ANN, holding=True)
    assert table.rest(table.add(3, OTHER, lanes=1, now=2.0), None, now=2.0) == [1]
    table.remove(1, "expired")
    assert table.take_held("ann", response_id(1), ANN, now=2.0) == "expired"
    assert (table.of_tenant("ann"), table.of_tenant("bob")) == ((2, 3), (0,))


def test_what_has_waited_or_lived_too_long_is_overdue() -> None:
    table = laned(ANN, holding=True)
    busy = table.add(1, ANN, lanes=2, now=0.0)
    assert table.overdue(9.0) == []
    assert table.overdue(10.0) == [0]
    assert table.overdue(100.0) == [0], "a turn runs on the other"
    assert table.take_held("ann", response_id(0), ANN, now=100.0) == "expired"
    assert table.take_free(ANN, now=100.0) is None, "a turn could meet the provider's own limit"
    assert table.rest(busy, response_id(1), now=100.0) == [1]
    assert table.take_held("ann", response_id(1), ANN, now=100.0) == "expired"


def test_an_old_socket_is_closed_when_the_last_of_its_turns_has_ended() -> None:
    table = SocketLanes(LIMITS)
    first = table.add(0, ANN, lanes=3, now=0.0)
    second, third = (table.take_free(ANN, now=0.0) for _ in range(2))
    assert second is not None
    assert third is not None
    assert table.rest(third, response_id(3), now=1.0) == []
    assert table.rest(second, response_id(2), now=100.0) == []
    assert table.take_held("ann", response_id(3), ANN, now=100.0) == "expired"
    assert table.rest(first, response_id(1), now=101.0) == [0]


def test_a_turn_that_runs_unread_keeps_its_lane_until_it_ends() -> None:
    table = SocketLanes(LIMITS)
    at = table.add(0, ANN, lanes=1, now=0.0)
    assert table.abandon(at, now=0.0) == []
    assert (table.state_of(at), table.take_free(ANN, now=1.0), table.waiting) == ("unread", None, 0)
    assert table.rest(at, None, now=1.0) == []
    assert (table.state_of(at), table.waiting) == ("free", 1)


def test_a_turn_that_runs_unread_for_too_long_ends_with_its_socket() -> None:
    table = SocketLanes(LIMITS)
    at = table.add(0, ANN, lanes=3, now=0.0)
    unread = table.take_free(ANN, now=0.0)
    assert unread is not None
    table.abandon(unread, now=0.0)
    assert table.overdue(4.0) == []
    assert table.overdue(5.0) == [], "its neighbour runs"
    assert table.take_free(ANN, now=5.0) is None
    assert table.abandon(at, now=6.0) == [0], "nobody reads anything"


def test_what_is_forgotten_is_cleared_or_closed() -> None:
    table = SocketLanes(LIMITS)
    first = table.add(0, ANN, lanes=3, now=0.0)
    second = table.take_free(ANN, now=0.0)
    assert second is not None
    table.rest(first, response_id(1), now=0.0)
    table.rest(second, response_id(2), now=0.0)
    assert table.forget("bob", [response_id(1)], now=0.0) == ([], [])
    assert table.forget("ann", [response_id(1), response_id(1), response_id(9)], now=0.0) == ([], [first])
    assert (table.state_of(first), table.held) == ("unread", 1)
    table.rest(first, response_id(3), now=0.0)
    assert table.forget("ann", [response_id(2), response_id(3)], now=0.0) == ([0], [])


def test_a_tenant_that_is_erased_leaves_no_socket() -> None:
    table = laned(ANN, BOB, holding=True)
    at = table.add(2, ANN, lanes=1, now=0.0)
    assert table.forget_tenant("ann") == [0]
    table.remove(0, "unknown")
    assert table.take_held("ann", response_id(0), ANN, now=0.0) == "unknown"
    assert table.rest(at, response_id(2), now=0.0) == [2]
    assert table.retire(9) == []
    table.remove(9, "unknown")
    assert table.state_of(LaneAt(9, 0)) is None


class Lanes(RuleBasedStateMachine):
    """Whatever happens to the sockets, no lane has two turns, and what is closed is what nobody reads."""

    @initialize(lanes=st.integers(1, 3))
    def begin(self, lanes: int) -> None:
        self.table = SocketLanes(LIMITS)
        self.lanes = lanes
        self.now = 0.0
        self.count = 0
        self.owners: dict[int, SocketOwner] = {}
        self.running: set[LaneAt] = set()
        self.unread: set[LaneAt] = set()
        self.heads: dict[ResponseId, LaneAt] = {}

    def close(self, numbers: list[int]) -> None:
        for number in numbers:
            assert not [at for at in self.running if at.socket == number], "somebody reads a turn on it"
            self.gone(number)

    def gone(self, number: int) -> None:
        self.table.remove(number, "disconnected")
        del self.owners[number]
        self.running = {at for at in self.running if at.socket != number}
        self.unread = {at for at in self.unread if at.socket != number}
        self.heads = {head: at for head, at in self.heads.items() if at.socket != number}

    def run(self, at: LaneAt, owner: SocketOwner) -> None:
        assert self.owners[at.socket] == owner
        assert at not in self.running | self.unread
        assert 0 <= at.lane < self.lanes
        self.running.add(at)

    def rest(self, at: LaneAt, *, holds: bool) -> None:
        self.count += 1
        head = response_id(self.count) if holds else None
        closed = self.table.rest(at, head, now=self.now)
        self.running.discard(at)
        self.unread.discard(at)
        if head is not None and self.table.state_of(at) == "holding":
            self.heads[head] = at
        self.close(closed)

    @rule(owner=st.sampled_from(OWNERS))
    def turn_that_continues_nothing(self, owner: SocketOwner) -> None:
        at = self.table.take_free(owner, now=self.now)
        if at is None:
            self.count += 1
            self.owners[self.count] = owner
            at = self.table.add(self.count, owner, lanes=self.lanes, now=self.now)
        self.heads = {head: one for head, one in self.heads.items() if one != at}
        self.run(at, owner)

    @precondition(lambda self: self.heads)
    @rule(data=st.data(), owner=st.sampled_from(OWNERS))
    def turn_that_continues(self, data: st.DataObject, owner: SocketOwner) -> None:
        head = data.draw(st.sampled_from(sorted(self.heads)))
        at = self.table.take_held(owner.tenant, head, owner, now=self.now)
        if isinstance(at, LaneAt):
            assert self.heads.pop(head) == at
            self.run(at, owner)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["holds", "free", "unread"]))
    def turn_ends(self, data: st.DataObject, how: str) -> None:
        at = data.draw(st.sampled_from(sorted(self.running)))
        if how != "unread":
            self.rest(at, holds=how == "holds")
            return
        closed = self.table.abandon(at, now=self.now)
        self.running.remove(at)
        self.unread.add(at)
        self.close(closed)

    @precondition(lambda self: self.unread)
    @rule(data=st.data())
    def unread_turn_ends(self, data: st.DataObject) -> None:
        self.rest(data.draw(st.sampled_from(sorted(self.unread))), holds=False)

    @precondition(lambda self: self.owners)
    @rule(data=st.data(), how=st.sampled_from(["retire", "cut"]))
    def socket_ends(self, data: st.DataObject, how: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.owners)))
        if how == "cut":
            self.gone(number)
            return
        self.heads = {head: at for head, at in self.heads.items() if at.socket != number}
        self.close(self.table.retire(number))

    @precondition(lambda self: self.heads)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        heads = data.draw(st.lists(st.sampled_from(sorted(self.heads)), min_size=1, max_size=3))
        closed, cleared = self.table.forget("ann", heads, now=self.now)
        for head in heads:
            if head in self.heads and self.owners[self.heads[head].socket].tenant == "ann":
                del self.heads[head]
        self.unread.update(cleared)
        self.close(closed)

    @rule(passed=st.sampled_from([1.0, 6.0, 30.0]))
    def time_passes(self, passed: float) -> None:
        self.now += passed
        closed = self.table.overdue(self.now)
        self.heads = {head: at for head, at in self.heads.items() if self.table.state_of(at) == "holding"}
        self.close(closed)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "table"):
            return
        assert self.table.waiting <= LIMITS.max_idle
        assert self.table.held == len(self.heads)
        assert all(self.table.state_of(at) == "running" for at in self.running)
        assert all(self.table.state_of(at) == "unread" for at in self.unread)
        assert all(self.table.state_of(at) == "holding" for at in self.heads.values())
        waiting = [one for tenant in ("ann", "bob") for one in self.table.of_tenant(tenant)]
        assert len(waiting) == self.table.waiting
        assert not {at.socket for at in self.running | self.unread}.intersection(waiting)


TestLanes = Lanes.TestCase
TestLanes.settings = settings(max_examples=examples(200), stateful_step_count=25)

"""Fair queueing: permits are never exceeded, never idle, and shared by tenants, and so is a full queue."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from segue.upstreams.fair_queue import Admitted, FairQueue
from tests.strategies import examples

TENANTS = ("ann", "bob", "cyd")


def drain(queue: FairQueue[str], running: list[str]) -> list[str]:
    """End what runs, oldest first, until nothing is left; return the tickets in the order they were started."""
    started = []
    while running:
        following = queue.leave(running.pop(0))
        if following is not None:
            running.append(following[0])
            started.append(following[1])
    return started


def test_a_free_permit_is_taken_at_once() -> None:
    queue: FairQueue[str] = FairQueue(2, 5)
    assert [queue.enter("ann", f"a{n}").state for n in range(3)] == ["runs", "runs", "waits"]


def test_a_crowd_delays_a_single_turn_by_one_of_its_own() -> None:
    """Another tenant's hundred turns came first."""
    queue: FairQueue[str] = FairQueue(1, 200)
    for number in range(100):
        queue.enter("ann", f"a{number}")
    queue.enter("bob", "b0")
    assert queue.leave("ann") == ("bob", "b0")
    assert queue.leave("bob") == ("ann", "a1")


def test_one_tenant_has_so_many_permits_and_the_others_are_for_others() -> None:
    queue: FairQueue[str] = FairQueue(3, 100, most_of_one=2)
    assert [queue.enter("ann", f"a{n}").state for n in range(4)] == ["runs", "runs", "waits", "waits"]
    assert [queue.enter("bob", f"b{n}").state for n in range(2)] == ["runs", "waits"]
    assert queue.leave("bob") == ("bob", "b1")
    assert queue.leave("bob") is None
    assert queue.leave("ann") == ("ann", "a2")
    assert queue.leave("ann") == ("ann", "a3")


def test_permits_are_shared_evenly() -> None:
    """Two tenants with many turns each get half of the permits."""
    queue: FairQueue[str] = FairQueue(2, 100)
    for tenant in ("ann", "bob"):
        for number in range(10):
            queue.enter(tenant, f"{tenant}{number}")
    started = drain(queue, ["ann", "ann"])
    assert Counter(ticket[:3] for ticket in started[:8]) == {"ann": 4, "bob": 4}
    assert [ticket for ticket in started if ticket.startswith("bob")] == [f"bob{number}" for number in range(10)]


def test_who_runs_least_comes_first() -> None:
    queue: FairQueue[str] = FairQueue(3, 10)
    for tenant in ("ann", "ann", "bob"):
        queue.enter(tenant, "x")
    queue.enter("ann", "a2")
    queue.enter("bob", "b1")
    assert queue.leave("ann") == ("ann", "a2")  # each runs one now; ann was served before bob
    assert queue.leave("ann") == ("bob", "b1")


def test_turns_that_never_end_leave_an_eighth_of_the_permits_to_others() -> None:
    queue: FairQueue[str] = FairQueue(16, 100)
    assert queue.enter("bob", "b0").state == "runs"
    assert queue.leave("bob") is None
    states = [queue.enter("ann", f"a{number}").state for number in range(20)]
    assert states == ["runs"] * 14 + ["waits"] * 6
    assert [queue.enter(name, "x").state for name in ("bob", "cyd", "bob")] == ["runs", "runs", "waits"]
    assert queue.leave("bob") == ("bob", "x")
    assert queue.leave("bob") is None, "what is left to others stays free"
    assert queue.leave("ann") == ("ann", "a14")
    assert queue.running == 15


def test_of_four_permits_one_is_left_to_others() -> None:
    queue: FairQueue[str] = FairQueue(4, 100)
    queue.enter("bob", "b0")
    queue.leave("bob")
    assert [queue.enter("ann", f"a{number}").state for number in range(5)] == ["runs"] * 3 + ["waits"] * 2
    assert queue.enter("bob", "b1").state == "runs"


def test_who_is_alone_may_have_all_permits_until_another_comes() -> None:
    queue: FairQueue[str] = FairQueue(8, 100)
    assert [queue.enter("ann", f"a{number}").state for number in range(10)] == ["runs"] * 8 + ["waits"] * 2
    assert queue.enter("bob", "b0").state == "waits"
    assert queue.leave("ann") == ("bob", "b0")
    assert queue.leave("bob") is None
    assert queue.leave("ann") == ("ann", "a8")


def test_a_full_queue_refuses_the_tenant_that_filled_it() -> None:
    queue: FairQueue[str] = FairQueue(1, 3)
    assert [queue.enter("ann", f"a{n}").state for n in range(5)] == ["runs", "waits", "waits", "waits", "refused"]


def test_a_full_queue_makes_room_for_other_tenants() -> None:
    """The newest ticket of the longest queue is displaced, until the queues are equally long."""
    queue: FairQueue[str] = FairQueue(1, 4)
    for number in range(5):
        queue.enter("ann", f"a{number}")
    assert queue.enter("bob", "b0") == Admitted("waits", "a4")
    assert queue.enter("bob", "b1") == Admitted("waits", "a3")
    assert queue.enter("bob", "b2") == Admitted("refused")
    assert queue.enter("cyd", "c0") == Admitted("waits", "a2")


def test_who_would_be_refused_is_known_before() -> None:
    """A full queue refuses the tenant that filled it, and nobody else."""
    queue: FairQueue[str] = FairQueue(1, 2)
    for number in range(3):
        assert not queue.refuses("ann")
        queue.enter("ann", f"a{number}")
    assert [queue.refuses(tenant) for tenant in TENANTS] == [True, False, False]
    queue.enter("bob", "b0")
    assert [queue.refuses(tenant) for tenant in TENANTS] == [True, True, True]


def test_without_a_queue_no_turn_waits() -> None:
    queue: FairQueue[str] = FairQueue(1, 0)
    assert [queue.enter(tenant, "x").state for tenant in ("ann", "bob")] == ["runs", "refused"]


def test_a_withdrawn_ticket_is_not_started() -> None:
    queue: FairQueue[str] = FairQueue(1, 5)
    for number in range(3):
        queue.enter("ann", f"a{number}")
    assert (queue.withdraw("ann", "a1"), queue.withdraw("ann", "a1"), queue.withdraw("bob", "a2")) == (
        True,
        False,
        False,
    )
    assert queue.leave("ann") == ("ann", "a2")
    assert queue.leave("ann") is None
    assert (queue.running, queue.waiting) == (0, 0)


def test_clearing_takes_back_what_waits_and_nothing_that_runs() -> None:
    queue: FairQueue[str] = FairQueue(1, 9)
    for tenant, ticket in (("ann", "a0"), ("ann", "a1"), ("bob", "b0"), ("ann", "a2")):
        queue.enter(tenant, ticket)
    assert sorted(queue.clear()) == ["a1", "a2", "b0"]
    assert (queue.running, queue.waiting, queue.clear(), queue.leave("ann")) == (1, 0, [], None)
    assert queue.enter("bob", "b1").state == "runs"


def test_newcomers_hold_up_nobody_for_ever() -> None:
    """Two tenants send one turn after the other while a third waits."""
    queue: FairQueue[str] = FairQueue(1, 10)
    queue.enter("ann", "a0")
    queue.enter("ann", "a1")
    queue.enter("bob", "b0")
    running, started = "ann", []
    for _ in range(4):
        following = queue.leave(running)
        assert following is not None
        started.append(following[1])
        running = following[0]
        newcomer = "cyd" if running == "bob" else "bob"
        queue.enter(newcomer, newcomer)
    assert "a1" in started[:3]


@given(st.lists(st.tuples(st.sampled_from(TENANTS), st.booleans()), max_size=60), st.integers(1, 4))
def test_everybody_is_served_in_the_end(moves: list[tuple[str, bool]], limit: int) -> None:
    """Each tenant's turns start in the order they came."""
    queue: FairQueue[tuple[str, int]] = FairQueue(limit, 100)
    running: list[str] = []
    started: list[tuple[str, int]] = []
    for number, (tenant, ends) in enumerate(moves):
        if queue.enter(tenant, (tenant, number)).state == "runs":
            running.append(tenant)
            started.append((tenant, number))
        if ends and running:
            following = queue.leave(running.pop(0))
            if following is not None:
                running.append(following[0])
                started.append(following[1])
    while running:
        following = queue.leave(running.pop(0))
        if following is not None:
            running.append(following[0])
            started.append(following[1])
    for tenant in TENANTS:
        mine = [number for name, number in started if name == tenant]
        assert mine == [number for number, (name, _) in enumerate(moves) if name == tenant]


class Queueing(RuleBasedStateMachine):
    """Any sequence of turns that come, end and give up."""

    @initialize(limit=st.integers(1, 3), room=st.integers(0, 6))
    def open(self, limit: int, room: int) -> None:
        self.queue: FairQueue[tuple[str, int]] = FairQueue(limit, room)
        self.limit, self.room = limit, room
        self.running: list[str] = []
        self.lines: dict[str, list[tuple[str, int]]] = {tenant: [] for tenant in TENANTS}
        self.count = 0

    @rule(tenant=st.sampled_from(TENANTS))
    def come(self, tenant: str) -> None:
        self.count += 1
        ticket = (tenant, self.count)
        waiting = sum(map(len, self.lines.values()))
        state, displaced = self.queue.enter(tenant, ticket)
        if len(self.running) < self.limit:
            assert (state, displaced) == ("runs", None), "a permit was free"
            self.running.append(tenant)
        elif state == "waits":
            assert (displaced is not None) == (waiting == self.room)
            if displaced is not None:
                assert self.lines[displaced[0]].pop() == displaced, "the newest of its queue is displaced"
                assert len(self.lines[displaced[0]]) >= len(self.lines[tenant]) + 1
            self.lines[tenant].append(ticket)
        else:
            assert (state, waiting) == ("refused", self.room), "there was room"
            assert all(len(line) <= len(self.lines[tenant]) + 1 for line in self.lines.values())

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        tenant = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        following = self.queue.leave(tenant)
        waiting = [name for name, line in self.lines.items() if line]
        if not waiting:
            assert following is None
            return
        assert following is not None, "a permit is idle while a turn waits"
        chosen, ticket = following
        assert self.lines[chosen].pop(0) == ticket
        assert all(self.running.count(chosen) <= self.running.count(name) for name in waiting)
        self.running.append(chosen)

    @precondition(lambda self: any(self.lines.values()))
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        tenant, number = data.draw(st.sampled_from([ticket for line in self.lines.values() for ticket in line]))
        assert self.queue.withdraw(tenant, (tenant, number))
        self.lines[tenant].remove((tenant, number))

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            assert self.queue.running == len(self.running) <= self.limit
            assert self.queue.waiting == sum(map(len, self.lines.values())) <= self.room


TestQueueing = Queueing.TestCase
TestQueueing.settings = settings(max_examples=examples(150))

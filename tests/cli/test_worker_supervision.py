"""What the supervisor of workers does: a model of the processes that it launches, and every order of events."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from segue.cli.worker_supervision import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    SETTLED_S,
    SILENT_TICKS,
    Announce,
    Drain,
    Effect,
    End,
    Kill,
    Retire,
    Spawn,
    Tell,
    WorkerProcess,
    WorkerSupervision,
)
from tests.strategies import examples

A, B = WorkerProcess(1, 0), WorkerProcess(2, 1)


def running(workers: int = 2) -> WorkerSupervision:
    """A supervision whose workers are ready since the time 0."""
    supervision = WorkerSupervision(workers)
    launched = [effect.worker for effect in supervision.start(0.0) if isinstance(effect, Spawn)]
    told = [effect for worker in launched for effect in supervision.on_ready(worker, 0.0)]
    assert told == [Announce()]
    return supervision


def test_the_service_is_announced_when_every_worker_is_ready() -> None:
    supervision = WorkerSupervision(2)
    assert supervision.start(0.0) == [Spawn(A), Spawn(B)]
    assert supervision.on_ready(B, 1.0) == []
    assert supervision.ready == [B]
    assert supervision.on_ready(A, 2.0) == [Announce()]
    assert supervision.ready == [A, B]


def test_a_worker_that_cannot_start_ends_all_with_its_status() -> None:
    supervision = WorkerSupervision(2)
    supervision.start(0.0)
    assert supervision.on_exit(B, 2, 1.0) == [Drain(A)]
    assert supervision.on_exit(A, 0, 1.0) == [End(2)]


def test_one_that_says_it_is_well_and_ends_is_a_failure_too() -> None:
    supervision = WorkerSupervision(1)
    supervision.start(0.0)
    assert supervision.on_exit(A, 0, 1.0) == [End(1)]


def test_a_worker_that_has_lived_is_launched_again_at_once() -> None:
    supervision = running()
    effects = supervision.on_exit(A, -9, SETTLED_S)
    assert effects == [Tell("worker 1 has ended with status -9"), Spawn(WorkerProcess(3, 0))]
    assert supervision.ready == [B]


def test_one_that_dies_young_waits_for_a_pause_that_doubles() -> None:
    supervision = running(1)
    now, pauses, worker = 0.0, [], A
    for _ in range(6):
        supervision.on_exit(worker, 1, now)
        at = supervision.wake_at
        assert at is not None
        pauses.append(at - now)
        assert supervision.wake(at - 0.01) == []
        (launch,) = supervision.wake(at)
        assert isinstance(launch, Spawn)
        now, worker = at, launch.worker
    assert pauses == [FIRST_PAUSE_S, 1.0, 2.0, 4.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    supervision.on_ready(worker, now)
    supervision.on_exit(worker, 1, now + SETTLED_S)
    assert supervision.wake_at is None


def test_workers_are_replaced_one_after_the_other() -> None:
    supervision = running()
    assert supervision.roll(20.0) == [Spawn(WorkerProcess(3, 0))]
    assert supervision.on_ready(WorkerProcess(3, 0), 21.0) == [Retire(A)]
    assert supervision.on_exit(A, 0, 22.0) == [Spawn(WorkerProcess(4, 1))]
    assert supervision.on_ready(WorkerProcess(4, 1), 23.0) == [Retire(B)]
    assert supervision.on_exit(B, 0, 24.0) == []
    assert supervision.ready == [WorkerProcess(3, 0), WorkerProcess(4, 1)]


def test_a_new_worker_that_cannot_start_leaves_the_old_ones() -> None:
    supervision = running()
    supervision.roll(20.0)
    effects = supervision.on_exit(WorkerProcess(3, 0), 2, 21.0)
    assert effects == [Tell("worker 3 has ended with status 2"), Tell("no other worker is replaced")]
    assert supervision.ready == [A, B]


def test_the_new_worker_has_the_slot_if_the_old_one_dies_meanwhile() -> None:
    supervision = running()
    supervision.roll(20.0)
    assert supervision.on_exit(A, -9, 21.0) == [Tell("worker 1 has ended with status -9")]
    assert supervision.on_ready(WorkerProcess(3, 0), 22.0) == [Spawn(WorkerProcess(4, 1))]


def test_if_both_die_the_slot_is_filled_again() -> None:
    supervision = running()
    supervision.roll(20.0)
    supervision.on_exit(A, -9, 21.0)
    assert supervision.on_exit(WorkerProcess(3, 0), 2, 21.0)[0] == Tell("worker 3 has ended with status 2")
    assert supervision.wake_at == 21.0 + FIRST_PAUSE_S


def test_a_second_roll_begins_anew() -> None:
    supervision = running(1)
    supervision.roll(20.0)
    assert supervision.roll(20.5) == []
    supervision.on_ready(WorkerProcess(2, 0), 21.0)
    assert supervision.on_exit(A, 0, 22.0) == [Spawn(WorkerProcess(3, 0))]


def test_it_stops_gently_then_at_once_then_by_force() -> None:
    supervision = running()
    assert supervision.stop() == [Drain(A), Drain(B)]
    assert supervision.stop() == [Drain(A), Drain(B)]
    assert supervision.stop() == [Kill(A), Kill(B)]
    assert supervision.roll(1.0) == []
    assert supervision.on_exit(A, 0, 2.0) == []
    assert supervision.on_exit(B, 0, 2.0) == [End(0)]


def test_it_ends_if_nothing_runs_when_it_is_stopped() -> None:
    supervision = running(1)
    supervision.on_exit(A, 1, 1.0)
    assert supervision.stop() == [End(0)]
    assert supervision.wake_at is None


def test_one_that_stands_still_is_killed_and_replaced() -> None:
    supervision = running()
    for _ in range(SILENT_TICKS):
        supervision.on_beat(A)
        assert supervision.tick() == []
    supervision.on_beat(A)
    assert supervision.tick() == [Tell("worker 2 stands still, and is killed"), Kill(B)]
    for _ in range(SILENT_TICKS):
        supervision.on_beat(A)
        assert supervision.tick() == [], "it is killed once"
    supervision.on_beat(B)  # that was on the way
    told = supervision.on_exit(B, -9, SETTLED_S)
    assert told == [Tell("worker 2 has ended with status -9"), Spawn(WorkerProcess(3, 1))]


def test_one_that_is_not_ready_yet_may_be_silent() -> None:
    supervision = WorkerSupervision(1)
    supervision.start(0.0)
    assert not any(supervision.tick() for _ in range(20))


def test_one_that_stands_still_while_it_drains_or_is_replaced_does_not_hold_up_the_others() -> None:
    supervision = running(1)
    supervision.roll(1.0)
    successor = WorkerProcess(2, 0)
    assert supervision.on_ready(successor, 2.0) == [Retire(A)]
    for _ in range(SILENT_TICKS):
        supervision.on_beat(successor)
        assert supervision.tick() == []
    assert Kill(A) in supervision.tick()
    supervision.on_exit(A, -9, 3.0)
    supervision.stop()
    assert Kill(successor) in [effect for _ in range(SILENT_TICKS + 2) for effect in supervision.tick()]
    assert supervision.on_exit(successor, -9, 4.0) == [End(0)]


class Processes(RuleBasedStateMachine):
    """Workers that get ready and end in any order, beside rolls and stops."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.supervision = WorkerSupervision(3)
        self.alive: dict[WorkerProcess, bool] = {}
        """Every worker that runs, and whether it is ready."""
        self.seen: set[int] = set()
        self.ends: list[int] = []
        self.announced = self.stopped = False
        self.carry_out(self.supervision.start(self.now))

    def carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Spawn(worker):
                    assert worker.number not in self.seen
                    assert not self.stopped
                    self.seen.add(worker.number)
                    self.alive[worker] = False
                case Retire(worker):
                    assert any(
                        ready and other.slot == worker.slot for other, ready in self.alive.items() if other != worker
                    )
                case Drain(worker):
                    self.stopped = True
                    assert worker in self.alive
                case Kill(worker):
                    assert worker in self.alive
                case Announce():
                    assert not self.announced
                    self.announced = True
                case End(status):
                    assert not self.alive
                    self.ends.append(status)
                case Tell():
                    pass

    @rule(data=st.data())
    @precondition(lambda self: not all(self.alive.values()))
    def one_is_ready(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from([worker for worker, ready in self.alive.items() if not ready]))
        self.alive[worker] = True
        self.carry_out(self.supervision.on_ready(worker, self.now))

    @rule(data=st.data(), status=st.sampled_from([0, 2, -9]), later_s=st.sampled_from([0.0, 0.6, 11.0]))
    @precondition(lambda self: self.alive)
    def one_ends(self, data: st.DataObject, status: int, later_s: float) -> None:
        self.now += later_s
        worker = data.draw(st.sampled_from(list(self.alive)))
        del self.alive[worker]
        self.carry_out(self.supervision.on_exit(worker, status, self.now))

    @rule(data=st.data())
    @precondition(lambda self: any(self.alive.values()))
    def one_stands_still(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from([worker for worker, ready in self.alive.items() if ready]))
        effects: list[Effect] = []
        for _ in range(SILENT_TICKS + 1):
            for other in self.alive:
                if other != worker:
                    self.supervision.on_beat(other)
            effects += self.supervision.tick()
        assert [effect for effect in effects if not isinstance(effect, Tell)] == [Kill(worker)]
        del self.alive[worker]
        self.carry_out(self.supervision.on_exit(worker, -9, self.now))

    @rule()
    @precondition(lambda self: self.supervision.wake_at is not None)
    def time_passes(self) -> None:
        self.now = max(self.now, self.supervision.wake_at or 0.0)
        self.carry_out(self.supervision.wake(self.now))

    @rule()
    def rolled(self) -> None:
        self.carry_out(self.supervision.roll(self.now))

    @rule()
    @precondition(lambda self: self.announced and not self.ends)
    def stopped_by_a_signal(self) -> None:
        self.carry_out(self.supervision.stop())
        self.stopped = True

    @invariant()
    def what_is_known_is_what_runs(self) -> None:
        assert sorted(self.supervision.workers) == sorted(self.alive)
        assert all(self.alive[worker] for worker in self.supervision.ready)

    @invariant()
    def every_slot_is_filled_or_will_be(self) -> None:
        if self.stopped or self.ends:
            return
        waiting = self.supervision.wake_at is not None
        assert waiting or {worker.slot for worker in self.alive} == {0, 1, 2}

    @invariant()
    def one_at_a_time_is_replaced(self) -> None:
        assert len(self.alive) <= 4

    @invariant()
    def it_ends_once_and_when_nothing_runs(self) -> None:
        assert len(self.ends) <= 1
        assert not (self.stopped and not self.alive and not self.ends)


TestProcesses = Processes.TestCase
TestProcesses.settings = settings(max_examples=examples(200), stateful_step_count=40)

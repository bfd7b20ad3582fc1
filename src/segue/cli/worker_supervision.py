"""What the supervisor of several workers does, and when: it launches, replaces and ends them. Pure.

A *slot* is one of the N places for a worker. The supervisor holds the listening sockets of each slot, so a connection
that waits in one is accepted by whichever worker has the slot. A worker that ends by itself is launched again: at once
if it had lived for a while, else after a pause that doubles. In a rolling restart each slot gets a new worker, one
after the other; the old one ends when the new one is ready. A worker that is ready has a heartbeat; one that is silent
for several ticks of the supervisor's own clock stands still, and is killed. Ticks are counted, and not seconds: a
supervisor that stood still itself has heard nothing meanwhile. Every call returns what is to be done, in order. Not
here: processes, signals and sockets (`workers`).
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

#: A worker that has lived for so long is not one that cannot start.
SETTLED_S = 10.0
#: The pause before a worker is launched again that has not: it doubles up to the second figure.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
#: So many ticks a worker may be silent.
SILENT_TICKS = 5


class WorkerProcess(msgspec.Struct, frozen=True, order=True):
    """One worker process. `number` is never used again, `slot` is."""

    number: int
    slot: int


class Spawn(msgspec.Struct, frozen=True):
    """Start this worker."""

    worker: WorkerProcess


class Retire(msgspec.Struct, frozen=True):
    """Let this worker end what runs, and accept nothing more: another one has its slot."""

    worker: WorkerProcess


class Drain(msgspec.Struct, frozen=True):
    """Send this worker SIGTERM: its first lets it drain, its second ends it."""

    worker: WorkerProcess


class Kill(msgspec.Struct, frozen=True):
    """End this worker by force."""

    worker: WorkerProcess


class Announce(msgspec.Struct, frozen=True):
    """Say that the service is there: each slot has a worker that is ready."""


class Tell(msgspec.Struct, frozen=True):
    """Write this warning to the log."""

    line: str


class End(msgspec.Struct, frozen=True):
    """Nothing is left: end with this status."""

    status: int


Effect: TypeAlias = Spawn | Retire | Drain | Kill | Announce | Tell | End


class _WorkerSlot(msgspec.Struct):
    current: WorkerProcess | None = None
    successor: WorkerProcess | None = None
    launched_at: float = 0.0
    pause_s: float = 0.0
    launch_at: float | None = None
    """When a worker is launched in place of one that has ended."""


class WorkerSupervision:
    """The state of all slots. `now` is monotonic, in seconds."""

    def __init__(self, workers: int) -> None:
        self._slots = [_WorkerSlot() for _ in range(workers)]
        self._numbers = 0
        self._ready: set[WorkerProcess] = set()
        self._silent: dict[WorkerProcess, int] = {}
        """How many ticks each worker that was ready has been silent."""
        self._retiring: dict[int, WorkerProcess] = {}
        """Workers whose slot has another one, by number."""
        self._to_roll: list[int] = []
        """Slots that still get a new worker, the next one first."""
        self._announced = False
        self._stops = 0
        self._status = 0

    @property
    def workers(self) -> list[WorkerProcess]:
        """Every worker that has not ended."""
        slots = (worker for slot in self._slots for worker in (slot.current, slot.successor))
        return [worker for worker in (*slots, *self._retiring.values()) if worker is not None]

    @property
    def ready(self) -> list[WorkerProcess]:
        """Those that serve: ready, and in possession of their slot."""
        return [slot.current for slot in self._slots if slot.current in self._ready and slot.current is not None]

    @property
    def wake_at(self) -> float | None:
        """When `wake` has something to do."""
        return min((slot.launch_at for slot in self._slots if slot.launch_at is not None), default=None)

    def start(self, now: float) -> list[Effect]:
        """Launch a worker in each slot."""
        return [self._launch(slot, now) for slot in range(len(self._slots))]

    def on_ready(self, worker: WorkerProcess, now: float) -> list[Effect]:
        """Note that a worker accepts connections."""
        self._ready.add(worker)
        self._silent[worker] = 0
        slot = self._slots[worker.slot]
        if slot.successor == worker:
            return self._succeed(slot, now)
        if not self._announced and all(slot.current in self._ready for slot in self._slots):
            self._announced = True
            return [Announce()]
        return []

    def on_exit(self, worker: WorkerProcess, status: int, now: float) -> list[Effect]:
        """Note that a worker has ended."""
        self._ready.discard(worker)
        self._silent.pop(worker, None)
        slot = self._slots[worker.slot]
        was_retiring = self._retiring.pop(worker.number, None) is not None
        was_successor, was_current = slot.successor == worker, slot.current == worker
        if was_successor:
            slot.successor = None
        if was_current:
            slot.current = None
        if self._stops:
            return self._ended()
        if was_retiring:
            return self._roll_on(now)
        if not self._announced:
            return self._give_up(status)
        told: list[Effect] = [Tell(f"worker {worker.number} has ended with status {status}")]
        if was_successor and self._to_roll:
            self._to_roll.clear()
            told.append(Tell("no other worker is replaced"))
        return [*told, *self._fill(worker.slot, now)]

    def on_beat(self, worker: WorkerProcess) -> None:
        """Note that the event loop of a worker turns."""
        if worker in self._silent:
            self._silent[worker] = 0

    def tick(self) -> list[Effect]:
        """Kill who has been silent for too long, whatever it does: it serves nobody, and ends nothing."""
        effects: list[Effect] = []
        for worker, silent in list(self._silent.items()):
            self._silent[worker] = silent + 1
            if silent >= SILENT_TICKS:
                del self._silent[worker]
                effects += [Tell(f"worker {worker.number} stands still, and is killed"), Kill(worker)]
        return effects

    def wake(self, now: float) -> list[Effect]:
        """Launch what has waited for its pause."""
        due = [
            number for number, slot in enumerate(self._slots) if slot.launch_at is not None and slot.launch_at <= now
        ]
        return [self._launch(number, now) for number in due]

    def roll(self, now: float) -> list[Effect]:
        """Give each slot a new worker, one after the other; while that is under way already, begin it anew."""
        if self._stops or not self._announced:
            return []
        under_way = bool(self._retiring) or any(slot.successor for slot in self._slots)
        self._to_roll = list(range(len(self._slots)))
        return [] if under_way else self._roll_on(now)

    def stop(self) -> list[Effect]:
        """Let all workers drain; the second time end them, the third time by force."""
        self._stops += 1
        self._to_roll.clear()
        for slot in self._slots:
            slot.launch_at = None
        effect = Drain if self._stops <= 2 else Kill  # noqa: PLR2004 - the second time
        return [*(effect(worker) for worker in self.workers), *self._ended()]

    # --- private -----------------------------------------------------------------------------------------------------

    def _launch(self, number: int, now: float) -> Spawn:
        slot = self._slots[number]
        slot.current = self._next(number)
        slot.launched_at, slot.launch_at = now, None
        return Spawn(slot.current)

    def _next(self, slot: int) -> WorkerProcess:
        self._numbers += 1
        return WorkerProcess(self._numbers, slot)

    def _succeed(self, slot: _WorkerSlot, now: float) -> list[Effect]:
        """Give a slot to the successor, which is ready."""
        before, slot.current, slot.successor = slot.current, slot.successor, None
        if before is None:  # it has ended in between
            return self._roll_on(now)
        self._retiring[before.number] = before
        return [Retire(before)]

    def _give_up(self, status: int) -> list[Effect]:
        """End all: a worker could not start, and the others were to start like it."""
        self._status, self._stops = status or 1, 1
        return [*(Drain(other) for other in self.workers), *self._ended()]

    def _fill(self, number: int, now: float) -> list[Effect]:
        """See to it that a slot has a worker, or gets one."""
        slot = self._slots[number]
        if slot.current is not None or slot.successor is not None:
            return []
        if now - slot.launched_at >= SETTLED_S:
            slot.pause_s = 0.0
            return [self._launch(number, now)]
        slot.pause_s = min(max(FIRST_PAUSE_S, 2 * slot.pause_s), LONGEST_PAUSE_S)
        slot.launch_at = now + slot.pause_s
        return []

    def _roll_on(self, now: float) -> list[Effect]:
        """Give the next slot a new worker."""
        if not self._to_roll:
            return []
        number = self._to_roll.pop(0)
        slot = self._slots[number]
        if slot.current is None:  # the one that it waits for is new, too
            return self._roll_on(now)
        slot.successor, slot.launched_at = self._next(number), now
        return [Spawn(slot.successor)]

    def _ended(self) -> list[Effect]:
        return [] if self.workers else [End(self._status)]

"""The engine: one thread that owns the model, and how others reach it.

`Engine` takes jobs from any thread. A bounded number run at once and the others wait; places go to tenants in turn.
When a job is cancelled, the step that is being computed goes on if it has other jobs; otherwise it is interrupted
within one operation. Nothing here knows asyncio.

The thread is not a daemon, since a thread that dies inside llama.cpp takes the process with it: you must stop an engine
that you start. Not here: what happens in a step (`worker`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, Thread

from segue.engine.counters import EngineCounters
from segue.engine.job import Job, stopped
from segue.engine.model import LoadedModel, ModelFile, Unavailable
from segue.engine.worker import Worker
from segue.protocol.problems import Problem, Refused
from segue.upstreams.fair_queue import FairQueue

_log = logging.getLogger("segue.engine.upstream")

#: The longest timeout that is given to a condition.
_LONGEST_WAIT_S = 3600.0

#: A step that computes for longer leaves the interpreter to other threads for long enough: no pause is due behind it.
_PAUSE_BELOW_S = 0.002

#: How long the thread may take to end. A step is interrupted, but nothing interrupts the choice of a token.
JOIN_S = 10.0


class Engine:
    """The thread and its queue. `start`, then `stop` and `join`, each once; a job is submitted in between.

    `clock` is any clock, in seconds.
    """

    def __init__(self, file: ModelFile, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._changed = Condition()  # guards everything below
        self._queue: FairQueue[Job] = FairQueue(file.parallel, file.waiting)
        self._arrived: list[Job] = []
        self._actions: list[Callable[[Worker], None]] = []
        self._woken = False
        self._computing_jobs: Sequence[Job] = ()
        self._model: LoadedModel | None = None
        self._stopping = False
        self._thread: Thread | None = None
        self.counters = EngineCounters()

    @property
    def model(self) -> LoadedModel:
        """The model; other threads may only call what its docstring allows. Raises `Refused` if it does not run."""
        model = self._model
        if model is None or self._stopping:
            raise Refused(stopped())
        return model

    @property
    def running(self) -> int:
        """How many turns run."""
        return self._queue.running

    @property
    def waiting(self) -> int:
        """How many turns wait for others to end."""
        return self._queue.waiting

    def start(self, ready: Callable[[Unavailable | None], None], *, pause: Callable[[], None] = lambda: None) -> None:
        """Start the thread, which loads the model and then calls `ready`, with the reason if it cannot.

        It calls `pause` behind each short step, so that others have the interpreter, too.
        """
        self._thread = Thread(target=self._run, args=(ready, pause), name="segue-local-model")
        self._thread.start()

    def check_place(self, tenant: str) -> None:
        """Raise `Refused` if a turn of the tenant would find no place now, not even one that another gives up."""
        with self._changed:
            if self._queue.refuses(tenant):
                raise Refused(overloaded(self._queue.waiting))

    def submit(self, job: Job) -> None:
        """Queue a turn, or raise `Refused`."""
        displaced = None
        with self._changed:
            if self._stopping or self._thread is None:
                raise Refused(stopped())
            entered = self._queue.enter(job.request.tenant, job)
            match entered.state:
                case "refused":
                    raise Refused(overloaded(self._queue.waiting))
                case "runs":
                    self._arrived.append(job)
                    self._notify()
                case "waits":
                    displaced = entered.displaced
        if displaced is not None:
            displaced.put(overloaded(self._file.waiting))

    def call_between_steps(self, action: Callable[[Worker], None]) -> None:
        """Call `action` in the engine's thread, between two steps. Returns at once; an engine that does not run
        never calls it.
        """
        with self._changed:
            if self._stopping or self._thread is None:
                return
            self._actions.append(action)
            self._notify()

    def cancel(self, job: Job) -> None:
        """Stop a turn, whether it waits or runs; does nothing if it is over. Returns at once."""
        with self._changed:
            job.cancelled = True
            if not self._queue.withdraw(job.request.tenant, job):
                self._interrupt()
                self._notify()

    def stop(self) -> None:
        """End all turns with a problem, and stop the thread. Returns at once."""
        with self._changed:
            self._stopping = True
            self._interrupt()
            self._notify()

    def join(self, timeout_s: float = JOIN_S) -> bool:
        """Wait until the thread has ended and the model is released, but not for too long. Blocks.

        Return False if it has not ended. What else is to be closed can be then; the process ends after the thread.
        """
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _log.warning("action=close the local model is still at a token, and ends after it")
        return not self._thread.is_alive()

    # --- private -----------------------------------------------------------------------------------------------------

    def _notify(self) -> None:
        self._woken = True
        self._changed.notify()

    def _interrupt(self) -> None:
        """Interrupt the step that is being computed, if all of its jobs are cancelled or the engine stops."""
        if self._computing_jobs and (self._stopping or all(job.cancelled for job in self._computing_jobs)):
            assert self._model is not None, "a step is computed on a loaded model"
            self._model.interrupt()

    def _run(self, ready: Callable[[Unavailable | None], None], pause: Callable[[], None]) -> None:
        try:
            model = LoadedModel(self._file)
            try:
                worker = Worker(
                    model, self._file, self.counters, computing=self._computing, left=self._left, clock=self._clock
                )
            except OSError as error:
                model.close()
                raise Unavailable(f"kv_directory cannot be used: {error}") from error
        except Unavailable as reason:
            with self._changed:
                self._stopping = True
            ready(reason)
            return
        self._model = model
        ready(None)
        try:
            self._work(worker, pause)
        finally:
            self._end(worker)
            model.close()

    def _work(self, worker: Worker, pause: Callable[[], None]) -> None:
        while True:
            with self._changed:
                due_in_s = worker.due_in_s
                timeout_s = None if due_in_s is None else min(due_in_s, _LONGEST_WAIT_S)
                self._changed.wait_for(lambda: self._woken or worker.busy, timeout_s)
                self._woken = False
                if self._stopping:
                    return
                arrived, self._arrived = self._arrived, []
                actions, self._actions = self._actions, []
            for job in arrived:
                worker.add(job)
            for action in actions:
                _guarded(worker, action)
            _guarded(worker, Worker.step)
            if worker.computed_s < _PAUSE_BELOW_S:
                worker.announce()
                pause()

    def _end(self, worker: Worker) -> None:
        """End all jobs that run or wait with a problem."""
        with self._changed:
            self._stopping = True
            left, self._arrived = self._arrived, []
            left += self._queue.clear()
        worker.stop(stopped())
        for job in left:
            job.put(stopped())

    @contextmanager
    def _computing(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Allow interrupts while a step is computed, and only then."""
        with self._changed:
            self._computing_jobs = jobs
            self._interrupt()  # its last job may have been cancelled just now
        try:
            yield
        finally:
            with self._changed:
                self._computing_jobs = ()
                assert self._model is not None, "a step is computed on a loaded model"
                self._model.resume()  # an interrupt has worked, or came too late

    def _left(self, job: Job) -> None:
        """Start the next turn in the place of one that is over."""
        with self._changed:
            follower = self._queue.leave(job.request.tenant)
            if follower is not None:
                self._arrived.append(follower[1])
                self._woken = True


def _guarded(worker: Worker, action: Callable[[Worker], None]) -> None:
    """Call `action`; if it fails, log that and end all turns, so that none waits for ever."""
    try:
        action(worker)
    except Exception:  # noqa: BLE001 - the thread must go on whatever fails
        _log.exception("action=step")
        worker.start_over()


def overloaded(waiting: int) -> Problem:
    """Return the problem of a turn that comes while too many wait."""
    message = f"The local model is busy, and {waiting} turns are waiting already. Try again later."
    return Problem("server_overloaded", message)

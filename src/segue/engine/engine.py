"""The engine: one thread that owns the model, and how others reach it.

`Engine` takes jobs from any thread. So many run at once, the others wait, and who runs next is fair to tenants. A job
that is cancelled leaves the step that is being computed alone if others are in it; a step that nobody wants any more is
broken off within one operation. Nothing here knows asyncio.

The thread is not a daemon, since a thread that dies inside llama.cpp takes the process with it: who starts an engine
must stop it. Not here: what is done in a step (`worker`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, Thread

from segue.engine.job import Job, stopped
from segue.engine.model import LoadedModel, ModelFile, Unavailable
from segue.engine.worker import Counts, Worker
from segue.protocol.problems import Problem, Refused
from segue.upstreams.fair_queue import FairQueue

_log = logging.getLogger("segue.engine.upstream")

#: A condition cannot be waited for without end.
_LONGEST_WAIT_S = 3600.0


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
        self._news = False
        self._computed: Sequence[Job] = ()
        self._model: LoadedModel | None = None
        self._stopping = False
        self._thread: Thread | None = None
        self.counts = Counts()

    @property
    def model(self) -> LoadedModel:
        """The model; only what it says may be used from any thread. Raises `Refused` if it does not run."""
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

    def start(self, ready: Callable[[Unavailable | None], None]) -> None:
        """Start the thread, which loads the model and then calls `ready`, with the reason if it cannot."""
        self._thread = Thread(target=self._run, args=(ready,), name="segue-local-model")
        self._thread.start()

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

    def act(self, action: Callable[[Worker], None]) -> None:
        """Have something done between two steps; returns at once. An engine that does not run never does it."""
        with self._changed:
            if self._stopping or self._thread is None:
                return
            self._actions.append(action)
            self._notify()

    def cancel(self, job: Job) -> None:
        """Stop a turn, wherever it is; nothing happens if it is over. Returns at once."""
        with self._changed:
            job.cancelled = True
            if not self._queue.withdraw(job.request.tenant, job):
                self._interrupt()
                self._notify()

    def stop(self) -> None:
        """Stop all turns with a problem, and the thread. Returns at once."""
        with self._changed:
            self._stopping = True
            self._interrupt()
            self._notify()

    def join(self) -> None:
        """Wait until the thread has ended and the model is released. Blocks."""
        if self._thread is not None:
            self._thread.join()

    # --- private -----------------------------------------------------------------------------------------------------

    def _notify(self) -> None:
        self._news = True
        self._changed.notify()

    def _interrupt(self) -> None:
        """Break off the step that is computed, if nobody wants it any more."""
        if self._computed and (self._stopping or all(job.cancelled for job in self._computed)):
            assert self._model is not None, "a step is computed on a loaded model"
            self._model.interrupt()

    def _run(self, ready: Callable[[Unavailable | None], None]) -> None:
        try:
            model = LoadedModel(self._file)
            try:
                worker = Worker(
                    model, self._file, self.counts, computing=self._computing, left=self._left, clock=self._clock
                )
            except OSError as error:
                model.close()
                raise Unavailable(f"spill_directory cannot be used: {error}") from error
        except Unavailable as reason:
            with self._changed:
                self._stopping = True
            ready(reason)
            return
        self._model = model
        ready(None)
        try:
            self._work(worker)
        finally:
            self._end(worker)
            model.close()

    def _work(self, worker: Worker) -> None:
        while True:
            with self._changed:
                due_in_s = worker.due_in_s
                timeout_s = None if due_in_s is None else min(due_in_s, _LONGEST_WAIT_S)
                self._changed.wait_for(lambda: self._news or worker.busy, timeout_s)
                self._news = False
                if self._stopping:
                    return
                arrived, self._arrived = self._arrived, []
                actions, self._actions = self._actions, []
            for job in arrived:
                worker.add(job)
            for do in (*actions, Worker.step):
                try:
                    do(worker)
                except Exception:  # noqa: BLE001 - one that goes unnoticed would leave everybody waiting
                    _log.exception("action=step")
                    worker.start_over()

    def _end(self, worker: Worker) -> None:
        """Tell everybody that there will be no answer."""
        with self._changed:
            self._stopping = True
            left, self._arrived = self._arrived, []
            left += self._queue.clear()
        worker.stop(stopped())
        for job in left:
            job.put(stopped())

    @contextmanager
    def _computing(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Let a step be interrupted while it is computed, and not a moment longer."""
        with self._changed:
            self._computed = jobs
            self._interrupt()  # it may have lost its last reader just now
        try:
            yield
        finally:
            with self._changed:
                self._computed = ()
                assert self._model is not None, "a step is computed on a loaded model"
                self._model.resume()  # an interruption was obeyed, or came too late

    def _left(self, job: Job) -> None:
        """Let the next turn run in the place of one that is over."""
        with self._changed:
            follower = self._queue.leave(job.request.tenant)
            if follower is not None:
                self._arrived.append(follower[1])
                self._news = True


def overloaded(waiting: int) -> Problem:
    """Too many turns wait."""
    message = f"The local model is busy, and {waiting} turns are waiting already. Try again later."
    return Problem("server_overloaded", message)

"""The engine: one thread that owns the model and runs turns one after the other, in the order they came.

`Engine` takes jobs from any thread. What happens to a job is put into the job's own outbox, and its owner is woken once
however much is in there: text that comes faster than it is fetched is joined, bounded by the model's context. Nothing
here knows asyncio; the owner says how it wants to be woken.

The thread is not a daemon, since a thread that dies inside llama.cpp takes the process with it: who starts an engine
must stop it. Not here: what the model is (`model`) and how a history becomes its prompt (`prompt`, `fitting`).
"""

from __future__ import annotations

import logging
import zlib
from collections import deque
from collections.abc import Callable
from threading import Condition, Lock, Thread
from typing import TypeAlias

import msgspec

from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem, Refused
from segue.upstreams.interface import UpstreamRequest
from segue.upstreams.local import prompt
from segue.upstreams.local.fitting import Fitting, Limits
from segue.upstreams.local.model import LoadedModel, ModelFile, Unavailable
from segue.upstreams.local.vocabulary import TextDecoder

logger = logging.getLogger("segue.upstreams.local")


class Began(msgspec.Struct, frozen=True):
    """The turn began: its prompt has this many tokens, and fits."""

    input_tokens: int


class Finished(msgspec.Struct, frozen=True):
    """The answer is over: the model ended it (`whole`), or no more tokens were allowed or fit.

    `output_tokens` counts the tokens of the answer without the one that ends it.
    """

    output_tokens: int
    whole: bool


#: What happens to a job: Began, pieces of text, Finished; a Problem takes the place of what it prevents.
Update: TypeAlias = Began | str | Finished | Problem


class Job:
    """One turn to run.

    `response_id` names it and `parent_id` names the turn that it continues. They are the seam for continuing without
    computing again: this version computes the whole history of every turn; a later one keeps under `response_id` the
    turn's token ids (input and sampled output) and its KV sequence, finds those of `parent_id`, copies the sequence if
    the parent is continued twice, and computes only the tokens of the new items behind it.
    """

    def __init__(self, request: UpstreamRequest, wake: Callable[[], None]) -> None:
        parent = request.history.parent
        self.response_id: ResponseId = request.response_id
        self.parent_id: ResponseId | None = None if parent is None else parent.id
        self.history = request.history
        self.settings = request.settings
        self.cancelled = False  # owned by the engine
        self._wake = wake
        self._lock = Lock()
        self._outbox: list[Update] = []

    def put(self, update: Update) -> None:
        """Add what happened; wakes the owner if it has fetched everything before."""
        with self._lock:
            first = not self._outbox
            self._outbox.append(update)
        if first:
            self._wake()

    def take(self) -> list[Update]:
        """Fetch what happened since the last time."""
        with self._lock:
            updates, self._outbox = self._outbox, []
        return updates


class Engine:
    """The thread and its queue. `start`, then `stop` and `join`, each once; a job is submitted in between."""

    def __init__(self, file: ModelFile) -> None:
        self._file = file
        self._changed = Condition()  # guards everything below
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._model: LoadedModel | None = None
        self._stopping = False
        self._thread: Thread | None = None

    def start(self, ready: Callable[[Unavailable | None], None]) -> None:
        """Start the thread, which loads the model and then calls `ready`, with the reason if it cannot."""
        self._thread = Thread(target=self._run, args=(ready,), name="segue-local-model")
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a turn, or raise `Refused`."""
        with self._changed:
            if self._stopping or self._thread is None:
                raise Refused(_stopped())
            if len(self._waiting) >= self._file.waiting:
                raise Refused(_overloaded(len(self._waiting)))
            self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Stop a turn, wherever it is; nothing happens if it is over. Returns at once."""
        with self._changed:
            self._cancel(job)

    def stop(self) -> None:
        """Stop all turns with a problem, and the thread. Returns at once."""
        with self._changed:
            self._stopping = True
            waiting = list(self._waiting)
            if self._running is not None:
                self._cancel(self._running)
            self._waiting.clear()
            self._changed.notify()
        for job in waiting:
            job.put(_stopped())

    def join(self) -> None:
        """Wait until the thread has ended and the model is released. Blocks."""
        if self._thread is not None:
            self._thread.join()

    def _cancel(self, job: Job) -> None:
        job.cancelled = True
        if job is self._running:
            # under the lock, so that it cannot hit the turn that comes after this one
            assert self._model is not None, "a turn runs on a loaded model"
            self._model.interrupt()
        elif job in self._waiting:
            self._waiting.remove(job)

    def _run(self, ready: Callable[[Unavailable | None], None]) -> None:
        try:
            model = LoadedModel(self._file)
        except Unavailable as reason:
            ready(reason)
            return
        self._model = model
        ready(None)
        try:
            while (job := self._next(model)) is not None:
                job.put(self._outcome(model, job))
        finally:
            model.close()

    def _next(self, model: LoadedModel) -> Job | None:
        with self._changed:
            self._running = None
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if self._stopping:
                return None
            model.reset()
            self._running = self._waiting.popleft()
            return self._running

    def _outcome(self, model: LoadedModel, job: Job) -> Finished | Problem:
        try:
            return run_turn(model, job)
        except Refused as refused:
            return refused.problem
        except InterruptedError:
            return _stopped()  # only read when the engine stops; who cancels a turn has turned away from it
        except Exception:
            logger.exception("A turn of the local model failed.")
            return Problem("upstream_error", "The local model failed; the gateway's log says why.")


def run_turn(model: LoadedModel, job: Job) -> Finished:
    """Run one turn on a model that was reset. Raises `Refused` only before the job's `Began`."""

    def tokenize(text: str, control: bool) -> list[int]:  # noqa: FBT001 - the shape of fitting.Tokenizer
        if job.cancelled:
            raise InterruptedError
        return model.tokenize(text, control)

    settings = job.settings
    conversation = prompt.read(job.history, settings.instructions)
    quarter = model.context // 4
    limits = Limits(model.context, min(settings.max_output_tokens or quarter, quarter))
    tokens = Fitting(model.template, tokenize, limits).fit(conversation, settings.truncation).tokens
    job.put(Began(len(tokens)))
    model.prefill(tokens)
    return _answer(model, job, len(tokens))


def _answer(model: LoadedModel, job: Job, position: int) -> Finished:
    """Produce tokens behind the first `position`, until the model ends its answer or no more may follow."""
    sampler = model.sampler(job.settings, seed=zlib.crc32(job.response_id.encode()))
    room = model.context - position
    limit = min(job.settings.max_output_tokens or room, room)
    decoder = TextDecoder()
    for count in range(limit):
        token = sampler.choose()
        if model.ends_answer(token):
            return Finished(count, whole=True)
        if job.cancelled:
            raise InterruptedError
        text = decoder.feed(model.piece(token))
        if text:
            job.put(text)
        if count + 1 < limit:
            model.extend(token, position + count)
    return Finished(limit, whole=False)


def _stopped() -> Problem:
    return Problem("server_overloaded", "The local model was stopped. Try again later, or use another model.")


def _overloaded(waiting: int) -> Problem:
    message = f"The local model runs one turn at a time, and {waiting} turns are waiting already. Try again later."
    return Problem("server_overloaded", message)

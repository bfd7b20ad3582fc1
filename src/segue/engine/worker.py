"""What the engine's thread does: continuous batching of many turns on one model.

A *step* computes the next tokens of every turn that runs (`scheduler`). Before each step, waiting turns begin for which
there is room, each on the sequence that shares the longest prefix with its prompt (`sequence_pool`). When an answer
finds the context full and there is nothing idle to evict, the turn that began last is *preempted*: its state goes to
host memory, and it resumes when there is room, before any new turn begins. So the turn that began first always
progresses. A turn that ends leaves its sequence to the next one. A cancelled turn leaves the part of its prompt that
was prefilled, and a failed one leaves nothing.

Everything here belongs to one thread. Not here: the thread, and how others reach it (`engine`).
"""

from __future__ import annotations

import logging
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from math import inf
from typing import Literal

from segue.engine.counters import EngineCounters
from segue.engine.grammar.json_schema import GrammarError
from segue.engine.job import Job, TurnBegan, TurnFinished, cannot_follow, stopped
from segue.engine.kv.cache import KvSequence
from segue.engine.kv.retention import ResponseKey
from segue.engine.model import BatchEntry, LoadedModel, ModelFile, Sampler
from segue.engine.prompt_lookup import DraftGain, PromptLookup
from segue.engine.scheduler import Scheduler, Share
from segue.engine.sequence_pool import SequencePool
from segue.engine.slow_answers import LONGEST_S, SlowAnswers
from segue.protocol.problems import Problem

_log = logging.getLogger("segue.engine.upstream")

#: A preempted turn resumes when there is room for this many tokens of its answer; with less it would soon be preempted.
_RESUME_HEADROOM = 64

#: Tokens of an answer that come within so many seconds are told together. To tell one takes the event loop and the
#: reader processor time, and the model computes on all processors. It is as often as a film shows pictures.
_TOGETHER_S = 0.03


class _ActiveTurn:
    """A turn that has begun. `tokens` are those of its prompt and of its answer so far, the newest not computed yet."""

    def __init__(self, job: Job, sequence: KvSequence, sampler: Sampler) -> None:
        self.job = job
        self.sequence = sequence
        self.sampler = sampler
        self.tokens = list(job.prompt.tokens)
        self.prompt_length = len(self.tokens)
        self.lookup = PromptLookup(self.tokens)

    @property
    def output_length(self) -> int:
        """How many tokens the answer has."""
        return len(self.tokens) - self.prompt_length

    @property
    def unread(self) -> int:
        """How many tokens there are to prefill; 0 if only the newest token of the answer is not computed."""
        left = len(self.tokens) - len(self.sequence.tokens)
        return 0 if self.output_length and left == 1 else left


class Worker:
    """The turns of one model. `computing` is entered around each computation, with its jobs.

    `left` is called with each job that is over. `clock` and `wall_time` are any clocks, in seconds; `processor_time` is
    the thread's.
    """

    def __init__(
        self,
        model: LoadedModel,
        file: ModelFile,
        counters: EngineCounters,
        *,
        computing: Callable[[Sequence[Job]], AbstractContextManager[None]],
        left: Callable[[Job], None],
        clock: Callable[[], float],
        processor_time: Callable[[], float] = time.thread_time,
        wall_time: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model = model
        self._file = file
        self._computing = computing
        self._left = left
        self._processor_time = processor_time
        self._wall_time = wall_time
        self._slow: SlowAnswers[int] = SlowAnswers()
        self._gain = DraftGain()
        self._pool = SequencePool(model, file, counters, clock=clock)
        self._scheduler = self._new_scheduler()
        self._turns: dict[int, _ActiveTurn] = {}  # by the key of their sequence, in the order they began
        self._preempted: list[_ActiveTurn] = []
        self._waiting: deque[Job] = deque()  # for room
        self._counters = counters
        self._unannounced: dict[Job, None] = {}  # their answers have got tokens of which nobody knows
        self._announced_at = -inf
        #: How long the newest step computed, in seconds; other threads had the interpreter meanwhile.
        self.computed_s = 0.0

    def _new_scheduler(self) -> Scheduler[int]:
        return Scheduler(self._model.batch, min(self._file.chunk, self._model.batch))

    @property
    def sequences(self) -> list[KvSequence]:
        """All sequences that are kept; one that a turn works on is pinned."""
        return self._pool.sequences

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self._turns or self._preempted or self._waiting)

    @property
    def due_in_s(self) -> float | None:
        """In how many seconds some state expires; None: never."""
        return self._pool.expires_in_s

    def add(self, job: Job) -> None:
        """Take in a turn; it begins when there is room for it."""
        self._waiting.append(job)

    def step(self) -> None:
        """Drop what is cancelled or expired, begin what can begin, and compute the next tokens of all that runs."""
        self.computed_s = 0.0
        if self._waiting:  # to make room for another turn may take a while
            self.announce()
        self._drop_cancelled()
        self._pool.expire()
        self._begin_waiting()
        self._reserve_for_answers()
        self._compute()
        self._pool.count()
        if not self.busy:
            self.announce()

    def announce(self) -> None:
        """Wake those whose answers have got tokens.

        They need the interpreter, which the thread has between two computations, and not while one lasts. So they are
        woken as the next one begins: at once for the first token of an answer, and before a computation of more than a
        token for each answer, which lasts longer. Else as often as `_TOGETHER_S` says.
        """
        for job in self._unannounced:
            job.announce()
        self._unannounced.clear()

    def evict_idle(self, to: Literal["host", "disk"]) -> None:
        """Move every sequence that no turn works on out of the context, and for the disk out of host memory too."""
        self._pool.evict_idle(to)
        self._pool.count()

    def forget(self, responses: Sequence[ResponseKey]) -> None:
        """Drop what only these responses retain. What a turn works on stays until the turn ends."""
        self._drop_cancelled()  # what a cancelled turn leaves is known now
        self._pool.forget(responses)

    def forget_tenant(self, tenant: str) -> None:
        """Drop what the responses of a tenant retain."""
        self._drop_cancelled()
        self._pool.forget_tenant(tenant)

    def release(self, response: ResponseKey) -> None:
        """Treat a response as one that no client can continue by its id."""
        self._pool.release(response)

    def start_over(self) -> None:
        """End all turns and drop all state, after a failure that nothing here foresees."""
        jobs = [*(turn.job for turn in (*self._turns.values(), *self._preempted)), *self._waiting]
        self._clear()
        self._pool.reset()
        self._scheduler = self._new_scheduler()
        self._slow = SlowAnswers()
        for job in jobs:
            self._leave(job, _failed())

    def stop(self, problem: Problem) -> None:
        """End all turns with a problem."""
        for turn in [*self._turns.values(), *self._preempted]:
            turn.job.put(problem)
        for job in self._waiting:
            job.put(problem)
        self._clear()
        self._pool.close()

    def _clear(self) -> None:
        self._turns.clear()
        self._preempted.clear()
        self._waiting.clear()

    # --- beginning ---------------------------------------------------------------------------------------------------

    def _begin_waiting(self) -> None:
        while self._preempted and self._resume(self._preempted[0]):
            self._preempted.pop(0)
        while self._waiting and not self._preempted and self._begin(self._waiting[0]):
            self._waiting.popleft()

    def _begin(self, job: Job) -> bool:
        """Begin a turn, or end it if that fails; return False if there is no room for it."""
        prompt = job.prompt.tokens
        opened = self._pool.open(prompt, job.request.tenant, alone=not self._turns)
        if opened is None:
            return False
        sequence = opened.sequence
        reused = len(sequence.tokens)
        try:
            turn = _ActiveTurn(job, sequence, self._sampler(job, ()))
        except Exception:  # noqa: BLE001 - the seam to foreign code
            _log.exception("action=begin response_id=%s", job.request.response_id)
            sequence.pins -= 1
            self._pool.trim([sequence.key])
            self._leave(job, _failed())
            return True
        self._pool.continue_from(sequence)
        self._run(turn)
        self._counters.reused_tokens += reused
        self._counters.restored_tokens += reused if opened.restored else 0
        self._counters.prefilled_tokens += len(prompt) - reused
        job.put(TurnBegan(len(prompt), reused))
        return True

    def _run(self, turn: _ActiveTurn) -> None:
        self._turns[turn.sequence.key] = turn
        self._scheduler.add(turn.sequence.key, turn.unread)

    def _sampler(self, job: Job, sampled: Sequence[int]) -> Sampler:
        """Return a sampler for the next tokens, under the grammar that the answer has reached."""
        grammar, job.parser.grammar = job.parser.grammar, None
        seed = job.sampling_params.seed
        if seed is None:
            seed = zlib.crc32(job.request.response_id.encode())
        return self._model.sampler(job.request.settings, seed, grammar, sampled)

    # --- preemption --------------------------------------------------------------------------------------------------

    def _reserve_for_answers(self) -> None:
        """Give each turn that answers a cell for its next token; preempt the latest turns until there are enough."""
        for turn in list(self._turns.values()):
            while turn.output_length and turn.sequence.key in self._turns:
                if self._pool.reserve(turn.sequence, len(turn.tokens)):
                    break
                self._preempt(next(reversed(self._turns.values())))

    def _preempt(self, turn: _ActiveTurn) -> None:
        key = turn.sequence.key
        del self._turns[key]
        self._scheduler.remove(key)
        self._pool.evict(turn.sequence)
        self._preempted.insert(0, turn)
        self._counters.preemptions += 1

    def _resume(self, turn: _ActiveTurn) -> bool:
        """Let a preempted turn go on, or return False if there is no room yet."""
        longest = turn.prompt_length + self._max_output_tokens(turn)
        room = min(len(turn.tokens) + _RESUME_HEADROOM, longest) if self._turns else len(turn.tokens)
        if not self._pool.restore(turn.sequence, room):
            return False
        self._pool.reserve(turn.sequence, len(turn.tokens))
        self._run(turn)
        return True

    # --- computing ---------------------------------------------------------------------------------------------------

    def _compute(self) -> None:
        shares = self._scheduler.step(self._slow.held(self._turns.keys()))
        if not shares:
            return
        draft = self._draft(shares)
        self._pool.make_context_room(sum(share.tokens for share in shares) + len(draft))
        turns = [self._turns[share.key] for share in shares]
        entries = []
        for share, turn in zip(shares, turns, strict=True):
            at = len(turn.sequence.tokens)
            tokens = turn.tokens[at : at + share.tokens] + draft
            entries.append(BatchEntry(turn.sequence.slot, tokens, at, sampled=share.sampled, drafted=len(draft)))
        begun_at, wall_at = self._processor_time(), self._wall_time()
        if wall_at - self._announced_at >= _TOGETHER_S or len(draft) + sum(one.tokens for one in shares) > len(shares):
            self._announced_at = wall_at
            self.announce()
        try:
            with self._computing([turn.job for turn in turns]):
                ends = self._model.compute(entries)
        except InterruptedError:
            for turn, entry in zip(turns, entries, strict=True):
                rewound = self._model.rewind(entry.slot, entry.position)
                outcome = None if turn.job.cancelled else stopped()  # else it is the engine that ends
                self._end(turn, outcome, broken=not rewound)
            return
        except Exception:  # noqa: BLE001 - the seam to foreign code
            _log.exception("action=compute turns=%d", len(turns))
            for turn in turns:
                self._end(turn, _failed(), broken=True)
            return
        self.computed_s = self._wall_time() - wall_at
        self._slow.computed({turn.sequence.key for turn in turns}, self._processor_time() - begun_at)
        for turn, entry in zip(turns, entries, strict=True):
            turn.sequence.tokens += entry.tokens
        if draft:
            self._sample_drafted(turns[0], draft, ends[0])
        else:
            self._sample_all(turns, entries, ends)

    def _sample_all(self, turns: Sequence[_ActiveTurn], entries: Sequence[BatchEntry], ends: Sequence[int]) -> None:
        """Sample the next token of every answer in a step."""
        if len(turns) == 1 and turns[0].output_length:
            self._gain.add_plain(self.computed_s)
        for turn, entry, end in zip(turns, entries, ends, strict=True):
            if entry.sampled and not turn.job.cancelled:
                self._sample(turn, end)

    def _draft(self, shares: Sequence[Share[int]]) -> list[int]:
        """Return tokens to compute behind the newest one of an answer, if it is alone in the step and that pays."""
        turn = self._turns[shares[0].key]
        if len(shares) > 1 or not turn.output_length or turn.unread or not self._model.divisible:
            return []
        left = self._max_output_tokens(turn) - turn.output_length - 1
        most = min(self._file.draft_tokens, left, self._model.batch - 1)
        if most < 1 or not self._gain.is_tried():
            return []
        draft = turn.lookup.draft(most)
        return draft if draft and self._pool.reserve(turn.sequence, len(turn.tokens) + len(draft)) else []

    def _sample_drafted(self, turn: _ActiveTurn, draft: Sequence[int], end: int) -> None:
        """Sample the tokens of an answer as far as they are those of the draft, and one more."""
        sequence = turn.sequence
        del sequence.tokens[-len(draft) :]
        before = turn.output_length
        for at, drafted in enumerate((*draft, None)):
            if turn.job.cancelled:
                break
            self._sample(turn, end + at)
            if sequence.key not in self._turns or turn.tokens[-1] != drafted:
                break
            sequence.tokens.append(turn.tokens[-1])
        self._pool.discard(sequence)
        made = turn.output_length - before
        accepted = max(0, made - 1)
        turn.lookup.judge(accepted)
        self._gain.add_drafted(self.computed_s, made)
        self._counters.drafted_tokens += len(draft)
        self._counters.accepted_tokens += accepted

    def _sample(self, turn: _ActiveTurn, end: int) -> None:
        """Sample the next token of an answer."""
        if turn.job.prefill_only:
            self._end(turn, TurnFinished(0, complete=True))
            return
        job = turn.job
        try:
            token = self._choose(turn, end)
            if self._model.is_end_of_answer(token):
                self._finish(turn, complete=True)
                return
            turn.tokens.append(token)
            self._counters.output_tokens += 1
            top = job.reader.top_logprobs
            score = None if top is None else self._model.score(end, token, top)
            for part in job.reader.feed(self._model.piece(token), score):
                job.add(part)
            self._unannounced[job] = None
            if turn.output_length == 1:
                self._announced_at = -inf  # somebody waits for the first one
            if job.reader.stopped:
                self._finish(turn, complete=True)
                return
            if job.parser.grammar is not None:
                turn.sampler = self._sampler(job, turn.tokens[turn.prompt_length :])
            if turn.output_length >= self._max_output_tokens(turn):
                self._finish(turn, complete=False)
        except GrammarError as error:
            self._end(turn, cannot_follow(error))
        except Exception:  # noqa: BLE001 - the seam to foreign code
            _log.exception("action=answer response_id=%s", job.request.response_id)
            self._end(turn, _failed(), broken=True)

    def _choose(self, turn: _ActiveTurn, end: int) -> int:
        """Return the next token of an answer. Raises `GrammarError` if there is none, or none within the limit."""
        begun_at = self._processor_time()
        token = turn.sampler.sample(end)
        took_s = self._processor_time() - begun_at
        if took_s > LONGEST_S:
            raise GrammarError("an answer takes too long to be held to it")
        self._slow.sampled(turn.sequence.key, took_s)
        return token

    def _max_output_tokens(self, turn: _ActiveTurn) -> int:
        room = self._model.context - turn.prompt_length
        return min(turn.job.request.settings.max_output_tokens or room, room)

    # --- ending ------------------------------------------------------------------------------------------------------

    def _finish(self, turn: _ActiveTurn, *, complete: bool) -> None:
        for part in turn.job.reader.close():
            turn.job.put(part)
        turn.sequence.protected = turn.prompt_length
        reader = turn.job.reader
        complete = complete or reader.stopped
        self._end(turn, TurnFinished(turn.output_length, complete, reader.reasoning_tokens))

    def _end(self, turn: _ActiveTurn, outcome: TurnFinished | Problem | None, *, broken: bool = False) -> None:
        """End a turn that runs. `outcome` is None for a cancelled one; a `broken` one leaves no state."""
        sequence, request = turn.sequence, turn.job.request
        del self._turns[sequence.key]
        self._scheduler.remove(sequence.key)
        self._slow.forget(sequence.key)
        sequence.pins -= 1
        sequence.disk_allowed = sequence.disk_allowed and request.store
        if broken:
            self._pool.drop(sequence)
        else:
            finished = isinstance(outcome, TurnFinished)
            length = len(sequence.tokens)
            self._pool.rewind(sequence, length if finished else min(length, turn.prompt_length))
            response = (request.tenant, request.response_id)
            self._pool.retain(sequence, response, expiring=not (finished and request.held))
        self._leave(turn.job, outcome)

    def _leave(self, job: Job, outcome: TurnFinished | Problem | None) -> None:
        if outcome is not None:
            job.put(outcome)
        self._left(job)

    def _drop_cancelled(self) -> None:
        for turn in [turn for turn in self._turns.values() if turn.job.cancelled]:
            self._end(turn, None)
        for turn in [turn for turn in self._preempted if turn.job.cancelled]:
            self._preempted.remove(turn)
            self._pool.drop(turn.sequence)
            self._leave(turn.job, None)
        for job in [job for job in self._waiting if job.cancelled]:
            self._waiting.remove(job)
            self._leave(job, None)


def _failed() -> Problem:
    return Problem("upstream_error", "The local model failed; the gateway's log says why.")

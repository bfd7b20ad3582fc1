"""What the engine's thread does: turns on one model, many at a time, each on the state of what it continues.

A step computes the next tokens of every turn that runs (`scheduler`). Before it, turns begin for which there is room
(`memory`), each from the sequence that has most of its prompt (`reuse`). When an answer finds the context full and
nothing idle is left to evict, the turn that began last is *parked*: its state goes to host memory, and it goes on when
there is room, before any other begins; the turn that began first always gets on. A turn that ends leaves its sequence
to the next; one that was cancelled leaves what was read of its prompt, and one that failed leaves nothing. What of a
sequence no response needs any more (`needs`) is let go of before the next step.

Everything here belongs to one thread. Not here: the thread, and how others reach it (`engine`).
"""

from __future__ import annotations

import logging
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Literal, get_args

import msgspec

from segue.engine.job import Began, Finished, Job, stopped
from segue.engine.kv.cache import Budget, Memory, Moved, Place
from segue.engine.kv.cache import Sequence as Held
from segue.engine.kv.defrag import moves
from segue.engine.kv.disk_tier import Spill
from segue.engine.kv.prefix_match import Candidate, Start, choose_start, continues
from segue.engine.kv.retention import Name, Need, Needs
from segue.engine.model import LoadedModel, ModelFile, Part, Sampler
from segue.engine.scheduler import Scheduler
from segue.protocol.problems import Problem

_log = logging.getLogger("segue.engine.upstream")

#: A parked turn comes back when there is room for this many tokens of its answer, or it would soon be parked again.
_BREATH = 64
#: One part in so many of the context is free after its sequences were moved together, so that it is not soon again.
_SPARE = 8


class Counts(msgspec.Struct):
    """What was counted so far. Tokens of prompts are reused (some of them after they were restored) or prefilled."""

    reused_tokens: int = 0
    restored_tokens: int = 0
    prefilled_tokens: int = 0
    output_tokens: int = 0
    evictions: int = 0
    parked: int = 0
    compactions: int = 0
    sequences: dict[Place, int] = msgspec.field(default_factory=lambda: {"context": 0, "host": 0, "disk": 0})
    context_tokens: int = 0
    host_bytes: int = 0
    disk_bytes: int = 0

    def tokens(self, kind: Literal["reused", "restored", "prefilled", "output"]) -> int:
        """Return the tokens of one kind."""
        match kind:
            case "reused":
                return self.reused_tokens
            case "restored":
                return self.restored_tokens
            case "prefilled":
                return self.prefilled_tokens
            case "output":
                return self.output_tokens


class _State:
    """A sequence: its tokens, how many of them finished turns need, and its bytes while it is in host memory."""

    def __init__(self, held: Held) -> None:
        self.held = held
        self.tokens: list[int] = []
        self.needed = 0
        self.turn: _Turn | None = None
        self.data: Sequence[bytes] | None = None


class _Turn:
    """A turn that runs. `tokens` are those of its prompt and of its answer so far, the newest not computed yet."""

    def __init__(self, job: Job, state: _State, sampler: Sampler) -> None:
        self.job = job
        self.state = state
        self.sampler = sampler
        self.tokens = list(job.prompt.tokens)
        self.prompt_length = len(self.tokens)

    @property
    def count(self) -> int:
        """How many tokens the answer has."""
        return len(self.tokens) - self.prompt_length

    @property
    def unread(self) -> int:
        """How many tokens the scheduler has to know of: none, if only the newest of the answer is not computed."""
        left = len(self.tokens) - len(self.state.tokens)
        return 0 if self.count and left == 1 else left


class Worker:
    """The turns and sequences of one model. `computing` is entered around each computation, with its jobs.

    `clock` is any clock, in seconds.
    """

    def __init__(
        self,
        model: LoadedModel,
        file: ModelFile,
        counts: Counts,
        *,
        computing: Callable[[Sequence[Job]], AbstractContextManager[None]],
        left: Callable[[Job], None],
        clock: Callable[[], float],
    ) -> None:
        self._model = model
        self._file = file
        self._computing = computing
        self._left = left
        self._clock = clock
        disk_bytes = 0 if file.spill_directory is None else file.disk_bytes
        self._budget = Budget(model.cells, file.slots, file.host_bytes, disk_bytes)
        self._memory = Memory(self._budget)
        self._spill = Spill(file.spill_directory) if file.spill_directory is not None and disk_bytes else None
        self._states: dict[int, _State] = {}
        self._needs = Needs()
        self._scheduler = self._new_scheduler()
        self._turns: dict[int, _Turn] = {}  # by the key of their sequence, in the order they began
        self._parked: list[_Turn] = []
        self._waiting: deque[Job] = deque()  # for room
        self.counts = counts

    def _new_scheduler(self) -> Scheduler[int]:
        return Scheduler(self._model.batch, min(self._file.chunk, self._model.batch))

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self._turns or self._parked or self._waiting)

    @property
    def due_in_s(self) -> float | None:
        """In how many seconds there is something to let go of; None: never."""
        end = self._needs.next_end()
        return None if end is None else max(0.0, end - self._clock())

    def add(self, job: Job) -> None:
        """Take in a turn; it begins when there is room for it."""
        self._waiting.append(job)

    def step(self) -> None:
        """Let go of what was cancelled, begin what can begin, and compute the next tokens of all that runs."""
        self._drop_cancelled()
        self._let_go_of(self._needs.expire(self._clock()))
        self._begin_waiting()
        self._make_room_for_answers()
        self._compute()
        self._count()

    def evict_idle(self, to: Literal["host", "disk"]) -> None:
        """Move every sequence that no turn works on out of the context, and for the disk out of memory too."""
        for state in [state for state in self._states.values() if not state.held.pins]:
            if state.held.place == "context":
                self._evict(state)
            if to == "disk" and state.held.place == "host" and state.held.key in self._states:  # it may have had to go
                self._settle(self._memory.spill(state.held))
        self._count()

    def forget(self, names: Sequence[Name]) -> None:
        """Let go of what only these responses need. What a turn is working on waits for its end."""
        self._drop_cancelled()  # nobody waits for those: what they leave is known now
        self._let_go_of(self._needs.forget(names))

    def release(self, name: Name) -> None:
        """Treat a response as one that nobody can continue by its id."""
        self._needs.release(name, self._clock() + self._file.idle_s)

    def start_over(self) -> None:
        """End all turns and forget all state, after something went wrong that nothing here has foreseen."""
        jobs = [*(turn.job for turn in (*self._turns.values(), *self._parked)), *self._waiting]
        self._turns.clear()
        self._parked.clear()
        self._waiting.clear()
        for key in list(self._states):
            self._forget(key)
        self._model.clear_all()
        self._memory = Memory(self._budget)
        self._scheduler = self._new_scheduler()
        for job in jobs:
            self._leave(job, _failed())

    def stop(self, problem: Problem) -> None:
        """End all turns with a problem."""
        for turn in [*self._turns.values(), *self._parked]:
            turn.job.put(problem)
        for job in self._waiting:
            job.put(problem)
        self._turns.clear()
        self._parked.clear()
        self._waiting.clear()
        if self._spill is not None:
            self._spill.close()

    # --- beginning ---------------------------------------------------------------------------------------------------

    def _begin_waiting(self) -> None:
        while self._parked and self._return(self._parked[0]):
            self._parked.pop(0)
        while self._waiting and not self._parked and self._begin(self._waiting[0]):
            self._waiting.popleft()

    def _begin(self, job: Job) -> bool:
        """Begin a turn, or end it if that fails; return False if there is no room for it."""
        prompt = job.prompt.tokens
        start = choose_start(prompt, self._candidates(job.request.tenant, prompt))
        restored = start is not None and self._states[start.key].held.place != "context"
        state = self._open(prompt, start, job.request.tenant)
        if state is None:
            return False
        reused = len(state.tokens)
        try:
            turn = _Turn(job, state, self._sampler(job, ()))
        except Exception:  # noqa: BLE001 - the seam to foreign code
            _log.exception("action=begin response_id=%s", job.request.response_id)
            state.held.pins -= 1
            self._let_go_of([state.held.key])
            self._leave(job, _failed())
            return True
        state.turn = turn
        self._needs.begin(state.held.key, reused)
        self._turns[state.held.key] = turn
        self._scheduler.add(state.held.key, turn.unread)
        self.counts.reused_tokens += reused
        self.counts.restored_tokens += reused if restored else 0
        self.counts.prefilled_tokens += len(prompt) - reused
        job.put(Began(len(prompt), reused))
        return True

    def _sampler(self, job: Job, said: Sequence[int]) -> Sampler:
        """Return what chooses the next tokens, under the grammar that the answer has reached."""
        grammar, job.answering.grammar = job.answering.grammar, None
        seed = job.wishes.seed
        if seed is None:
            seed = zlib.crc32(job.request.response_id.encode())
        return self._model.sampler(job.request.settings, seed, grammar, said)

    def _candidates(self, tenant: str, prompt: Sequence[int]) -> list[Candidate]:
        """Return the tenant's sequences; of a model that cannot divide them, those that the prompt continues."""
        return [
            Candidate(state.held.key, state.tokens, state.needed, state.turn is not None, state.held.place == "context")
            for state in self._states.values()
            if state.held.tenant == tenant
            and (self._model.divides or (state.turn is None and continues(prompt, state.tokens)))
        ]

    def _open(self, prompt: Sequence[int], start: Start | None, tenant: str) -> _State | None:
        """Return a pinned sequence with room for the whole prompt, and its beginning as far as it was there."""
        if start is None:
            return self._open_empty(prompt, tenant)
        source = self._states[start.key]
        source.held.pins += 1
        try:
            if source.held.place == "context":
                state = source if start.how == "take over" else self._copied(source, start.length)
            elif start.how == "take over":
                state = source if self._restore(source, len(prompt)) else None
            else:
                state = self._restored_copy(source, len(prompt))
        finally:
            source.held.pins -= 1
        if state is None:
            # what is worth reusing may itself stand in the way
            return self._open_empty(prompt, tenant) if not self._turns else None
        if state is source:
            state.held.pins += 1
        self._rewind(state, min(start.length, len(state.tokens)))
        if self._reserve(state, len(prompt)):
            self._memory.touch(state.held)
            return state
        state.held.pins -= 1
        if state is not source:
            self._drop(state)
        return None

    def _open_empty(self, prompt: Sequence[int], tenant: str) -> _State | None:
        if not self._make_room(len(prompt), slot=True):
            return None
        state = self._new(self._memory.create(tenant))
        self._memory.extend(state.held, len(prompt))
        return state

    def _new(self, held: Held) -> _State:
        state = self._states[held.key] = _State(held)
        return state

    def _copied(self, source: _State, length: int) -> _State | None:
        if not self._make_room(0, slot=True):
            return None
        state = self._new(self._memory.copy(source.held, length))
        self._model.copy(source.held.slot, state.held.slot, length)
        state.tokens = source.tokens[:length]
        return state

    def _restore(self, state: _State, room: int) -> bool:
        """Bring a sequence back into the context, if there is room for it and for as many tokens as asked for."""
        data = self._load(state)
        if data is None or not self._make_room(max(room, len(state.tokens)), slot=True):
            return False
        self._make_model_room(len(state.tokens))
        self._memory.restore(state.held, len(state.tokens))
        if self._spill is not None:
            self._spill.remove(state.held.key)
        state.data = None
        if not self._model.restore(state.held.slot, data, len(state.tokens)):
            self._memory.truncate(state.held, 0)
            state.tokens = []
        return True

    def _restored_copy(self, source: _State, room: int) -> _State | None:
        data = self._load(source)
        if data is None or not self._make_room(max(room, len(source.tokens)), slot=True):
            return None
        self._make_model_room(len(source.tokens))
        state = self._new(self._memory.create(source.held.tenant))
        state.held.may_spill = source.held.may_spill
        if self._model.restore(state.held.slot, data, len(source.tokens)):
            self._memory.extend(state.held, len(source.tokens))
            state.tokens = list(source.tokens)
        return state

    def _load(self, state: _State) -> Sequence[bytes] | None:
        """Return the bytes of a sequence that is not in the context; None if they are lost."""
        if state.data is not None or self._spill is None:
            return state.data
        data = self._spill.read(state.held.key)
        if data is None:
            state.tokens = []
            state.needed = 0
        return data

    def _rewind(self, state: _State, length: int) -> None:
        """Forget what stands behind the first `length` tokens; all of it, if the model cannot forget a part."""
        if length < len(state.tokens) and not self._model.rewind(state.held.slot, length):
            self._model.clear(state.held.slot)
            length = 0
        del state.tokens[length:]
        self._memory.truncate(state.held, length)

    def _reserve(self, state: _State, length: int) -> bool:
        """Give a sequence the cells for `length` tokens."""
        missing = length - len(state.held.cells)
        if missing > 0:
            if not self._make_room(missing):
                return False
            self._memory.extend(state.held, missing)
        return True

    # --- room --------------------------------------------------------------------------------------------------------

    def _make_room(self, cells: int, *, slot: bool = False) -> bool:
        victims = self._memory.make_room(cells, slot=slot)
        if victims is None:
            return False
        for key in victims:
            self._evict(self._states[key])
        return True

    def _make_model_room(self, tokens: int) -> None:
        """Move what is in the context together if there is no room behind it; some of what is idle then gives way."""
        if tokens <= self._model.room:
            return
        self._make_room(self._model.cells // _SPARE)
        placed = [state for state in self._states.values() if state.held.place == "context"]
        self._model.compact(moves((one.held.slot, one.held.cells[: len(one.tokens)]) for one in placed))
        self.counts.compactions += 1

    def _evict(self, state: _State) -> None:
        """Move a sequence to host memory, and what that has no room for further on."""
        if self._model.divides and self._needs.dismiss(state.held.key):
            self._let_go_of([state.held.key])  # later it would have to go whole
        slot = state.held.slot
        worth = self._file.host_bytes or self._spill is not None or state.held.pins
        state.data = self._model.save(slot, 0, len(state.tokens)) if worth and state.tokens else ()
        self._model.clear(slot)
        self.counts.evictions += 1
        self._settle(self._memory.evict(state.held, max(1, sum(map(len, state.data)))))

    def _settle(self, moved: Iterable[Moved]) -> None:
        for one in moved:
            state = self._states[one.key]
            if one.to == "disk" and self._spill is not None and self._spill.write(one.key, state.data or ()):
                state.data = None
            elif one.to == "disk":
                self._drop(state)
            else:
                self._forget(one.key)

    def _drop(self, state: _State) -> None:
        if state.held.place == "context":
            self._model.clear(state.held.slot)
        self._memory.drop(state.held)
        self._forget(state.held.key)

    def _forget(self, key: int) -> None:
        del self._states[key]
        self._needs.drop(key)
        if self._spill is not None:
            self._spill.remove(key)

    def _make_room_for_answers(self) -> None:
        """Give each turn that answers a cell for its next token; park those that began last until there are enough."""
        for turn in list(self._turns.values()):
            while turn.count and turn.state.held.key in self._turns:
                if self._reserve(turn.state, len(turn.tokens)):
                    break
                self._park(next(reversed(self._turns.values())))

    def _park(self, turn: _Turn) -> None:
        key = turn.state.held.key
        del self._turns[key]
        self._scheduler.remove(key)
        self._evict(turn.state)
        self._parked.insert(0, turn)
        self.counts.parked += 1

    def _return(self, turn: _Turn) -> bool:
        """Let a parked turn go on, or return False if there is no room yet."""
        state = turn.state
        most = turn.prompt_length + self._limit(turn)
        room = min(len(turn.tokens) + _BREATH, most) if self._turns else len(turn.tokens)
        if not self._restore(state, room):
            return False
        self._reserve(state, len(turn.tokens))
        self._turns[state.held.key] = turn
        self._scheduler.add(state.held.key, turn.unread)
        return True

    # --- computing ---------------------------------------------------------------------------------------------------

    def _compute(self) -> None:
        shares = self._scheduler.step()
        if not shares:
            return
        self._make_model_room(sum(share.tokens for share in shares))
        turns = [self._turns[share.key] for share in shares]
        parts = []
        for share, turn in zip(shares, turns, strict=True):
            at = len(turn.state.tokens)
            parts.append(Part(turn.state.held.slot, turn.tokens[at : at + share.tokens], at, share.answers))
        try:
            with self._computing([turn.job for turn in turns]):
                ends = self._model.compute(parts)
        except InterruptedError:
            for turn, part in zip(turns, parts, strict=True):
                rewound = self._model.rewind(part.slot, part.position)
                outcome = None if turn.job.cancelled else stopped()  # else it is the engine that ends
                self._end(turn, outcome, broken=not rewound)
            return
        except Exception:  # noqa: BLE001 - the seam to foreign code
            _log.exception("action=compute turns=%d", len(turns))
            for turn in turns:
                self._end(turn, _failed(), broken=True)
            return
        for turn, part in zip(turns, parts, strict=True):
            turn.state.tokens += part.tokens
        for turn, part, end in zip(turns, parts, ends, strict=True):
            if part.answers and not turn.job.cancelled:
                self._answer(turn, end)

    def _answer(self, turn: _Turn, end: int) -> None:
        """Choose the token that follows."""
        if not turn.job.answers:
            self._end(turn, Finished(0, whole=True))
            return
        job = turn.job
        try:
            token = turn.sampler.choose(end)
            if self._model.ends_answer(token):
                self._finish(turn, whole=True)
                return
            turn.tokens.append(token)
            self.counts.output_tokens += 1
            top = job.reader.top_logprobs
            score = None if top is None else self._model.score(end, token, top)
            for part in job.reader.feed(self._model.piece(token), score):
                job.put(part)
            if job.reader.stopped:
                self._finish(turn, whole=True)
                return
            if job.answering.grammar is not None:
                turn.sampler = self._sampler(job, turn.tokens[turn.prompt_length :])
            if turn.count >= self._limit(turn):
                self._finish(turn, whole=False)
        except Exception:  # noqa: BLE001 - the seam to foreign code
            _log.exception("action=answer response_id=%s", job.request.response_id)
            self._end(turn, _failed(), broken=True)

    def _limit(self, turn: _Turn) -> int:
        room = self._model.context - turn.prompt_length
        return min(turn.job.request.settings.max_output_tokens or room, room)

    # --- ending ------------------------------------------------------------------------------------------------------

    def _finish(self, turn: _Turn, *, whole: bool) -> None:
        for part in turn.job.reader.close():
            turn.job.put(part)
        turn.state.needed = turn.prompt_length
        self._end(turn, Finished(turn.count, whole=whole or turn.job.reader.stopped))

    def _end(self, turn: _Turn, outcome: Finished | Problem | None, *, broken: bool = False) -> None:
        """End a turn that runs; None: nobody asks for its outcome any more."""
        state = turn.state
        del self._turns[state.held.key]
        self._scheduler.remove(state.held.key)
        state.turn = None
        state.held.pins -= 1
        state.held.may_spill = state.held.may_spill and turn.job.request.store
        if broken:
            self._drop(state)
        else:
            whole = isinstance(outcome, Finished)
            kept = len(state.tokens) if whole else min(len(state.tokens), turn.prompt_length)
            self._rewind(state, kept)
            self._memory.touch(state.held)
            self._note_need(turn, whole=whole)
            self._let_go_of([state.held.key])
        self._leave(turn.job, outcome)

    def _note_need(self, turn: _Turn, *, whole: bool) -> None:
        """Note what a turn leaves: to its response, or for a while to whoever sends the same again."""
        request, state = turn.job.request, turn.state
        length = len(state.tokens)
        need = Need(length, min(state.needed, length), state.held.may_spill)
        until = None if whole and request.held else self._clock() + self._file.idle_s
        self._needs.add(state.held.key, (request.tenant, request.response_id), need, until)

    def _let_go_of(self, keys: Iterable[int]) -> None:
        """Cut what no response needs any more off sequences that no turn works on; what is evicted goes whole."""
        for state in [self._states[key] for key in keys]:
            if state.turn is not None or state.held.pins:
                continue
            need = self._needs.of(state.held.key)
            state.needed = need.firm
            if 0 < need.length < len(state.tokens) and state.held.place == "context":
                self._rewind(state, need.length)
                state.held.may_spill = need.may_spill
            if not state.tokens or len(state.tokens) > need.length:
                self._drop(state)

    def _leave(self, job: Job, outcome: Finished | Problem | None) -> None:
        if outcome is not None:
            job.put(outcome)
        self._left(job)

    def _drop_cancelled(self) -> None:
        for turn in [turn for turn in self._turns.values() if turn.job.cancelled]:
            self._end(turn, None)
        for turn in [turn for turn in self._parked if turn.job.cancelled]:
            self._parked.remove(turn)
            self._drop(turn.state)
            self._leave(turn.job, None)
        for job in [job for job in self._waiting if job.cancelled]:
            self._waiting.remove(job)
            self._leave(job, None)

    def _count(self) -> None:
        counts, memory = self.counts, self._memory
        places = [held.place for held in memory]
        counts.sequences = {place: places.count(place) for place in get_args(Place)}
        counts.context_tokens = self._model.cells - memory.free_cells
        counts.host_bytes, counts.disk_bytes = memory.host_bytes, memory.disk_bytes


def _failed() -> Problem:
    return Problem("upstream_error", "The local model failed; the gateway's log says why.")

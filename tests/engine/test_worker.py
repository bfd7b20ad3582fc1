"""The worker by itself, one step after the other: batching, chunked prefill, preemption, and how turns end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import repeat
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from segue.engine.counters import EngineCounters
from segue.engine.job import Job, TurnBegan, TurnFinished, Update
from segue.engine.model import BatchEntry, LoadedModel, ModelFile, Sampler
from segue.engine.output.logprobs import ScoredText
from segue.engine.prompt.chat_template import DEFAULT_CALL_FORMAT
from segue.engine.prompt.messages import Tools
from segue.engine.prompt.rendering import Prompt
from segue.engine.prompt_lookup import DraftGain, PromptLookup
from segue.engine.sampling_params import read_sampling_params
from segue.engine.worker import Worker
from segue.protocol.problems import Problem
from segue.protocol.requests import Settings
from segue.testing.tiny_model import write_tiny_model
from tests.engine.grammar.byte_grammars import parser_for
from tests.engine.kept import Clock
from tests.engine.turns import request

pytestmark = pytest.mark.local_engine

FAILED = Problem("upstream_error", "The local model failed; the gateway's log says why.")
STOPPED = Problem("server_overloaded", "stopped")
STEP_S = 0.02


class Working:
    """A worker on a tiny model, and the jobs that left it."""

    def __init__(self, file: ModelFile) -> None:
        self.file = file
        self.model = LoadedModel(file)
        self.counters = EngineCounters()
        self.clock = Clock()
        self.left: list[Job] = []
        self.computed: list[list[Job]] = []
        self.processor = Clock()
        self.wall, self.step_s = Clock(), 0.0
        self.worker = Worker(
            self.model,
            file,
            self.counters,
            computing=self.computing,
            left=self.left.append,
            clock=self.clock,
            processor_time=self.processor,
            wall_time=self.wall,
        )

    def computing(self, jobs: Sequence[Job]) -> AbstractContextManager[None]:
        self.computed.append(list(jobs))
        self.wall.now += self.step_s
        return nullcontext()

    @property
    def turn_length(self) -> int:
        """How many tokens are computed of the sequence that a turn works on."""
        return next(len(one.tokens) + 1 for one in self.worker.sequences if one.pins)

    def finish(self) -> None:
        """Step until there is nothing to compute."""
        while self.worker.busy:
            self.worker.step()

    def answer(self, job: Job) -> list[Update]:
        self.worker.add(job)
        self.finish()
        return job.take()


def new_job(
    length: int,
    *,
    first: int = 20,
    prefill_only: bool = False,
    wake: Callable[[], None] = lambda: None,
    **fields: Any,  # noqa: ANN401 - of `request`
) -> Job:
    """A job whose prompt has this many tokens."""
    tokens = [first + one % 50 for one in range(length)]
    parser = parser_for(DEFAULT_CALL_FORMAT, Tools())
    asked = request("", **fields)
    params = read_sampling_params(asked.settings)
    made = Prompt(tokens, length)
    return Job(asked, made, parser, wake=wake, prefill_only=prefill_only, sampling_params=params)


def seeded(job: Job) -> Job:
    """The same job with the same random numbers, whatever the id of its response."""
    job.sampling_params = msgspec.structs.replace(job.sampling_params, seed=7)
    return job


def scores(updates: Sequence[Update]) -> list[object]:
    """Every token of an answer, with what the model made of it."""
    return [token for one in updates if isinstance(one, ScoredText) for token in one.logprobs]


def text_of(updates: Sequence[Update]) -> str:
    return "".join(one for one in updates if isinstance(one, str))


@pytest.fixture
def options() -> dict[str, Any]:
    return {}


@pytest.fixture
def working(tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Working]:
    path = tmp_path / "tiny.gguf"
    write_tiny_model(path)
    monkeypatch.setattr(LoadedModel, "is_end_of_answer", lambda model, token: False)
    working = Working(
        ModelFile(
            path,
            "tiny",
            **{"context": 256, "threads": 1, "kv_bytes": 1, "chunk": 8, "batch_invariant": True, **options},
        )
    )
    yield working
    working.worker.stop(STOPPED)
    working.model.close()


class Entries:
    """Sees the batch of each step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[list[BatchEntry]] = []
        compute = LoadedModel.compute

        def watched(model: LoadedModel, entries: Sequence[BatchEntry]) -> list[int]:
            self.steps.append(list(entries))
            return compute(model, entries)

        monkeypatch.setattr(LoadedModel, "compute", watched)


class TestTurns:
    def test_a_turn_begins_answers_and_finishes(self, working: Working) -> None:
        job = new_job(30)
        first, *parts, last = working.answer(job)
        assert (first, last) == (TurnBegan(30, 0), TurnFinished(8, complete=False))
        assert all(isinstance(part, str) for part in parts)
        assert working.left == [job]
        assert (working.counters.prefilled_tokens, working.counters.output_tokens) == (30, 8)

    def test_a_turn_that_may_write_as_much_as_fits_ends_with_the_context(self, working: Working) -> None:
        updates = working.answer(new_job(200, max_output_tokens=None))
        assert updates[-1] == TurnFinished(56, complete=False)

    def test_the_model_can_end_it(self, working: Working, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(LoadedModel, "is_end_of_answer", lambda model, token: True)
        assert working.answer(new_job(30)) == [TurnBegan(30, 0), TurnFinished(0, complete=True)]

    def test_what_is_only_prefilled_is_there_for_the_next(self, working: Working) -> None:
        assert working.answer(new_job(30, prefill_only=True)) == [TurnBegan(30, 0), TurnFinished(0, complete=True)]
        assert working.answer(new_job(30))[0] == TurnBegan(30, 29)
        assert working.counters.reused_tokens == 29

    def test_turns_share_a_step(self, working: Working, monkeypatch: pytest.MonkeyPatch) -> None:
        """Continuous batching: a turn joins while another answers, and leaves while it goes on."""
        entries, long, short = Entries(monkeypatch), new_job(4), new_job(4, first=80, max_output_tokens=2)
        working.worker.add(long)
        working.worker.step()
        working.worker.add(short)
        working.finish()
        assert [len(step) for step in entries.steps] == [1, 2, 2, 1, 1, 1, 1, 1]
        assert working.computed[1] == [long, short]
        assert working.left == [short, long]

    def test_who_waits_for_tokens_is_woken_as_the_next_ones_are_computed(self, working: Working) -> None:
        """All of them then, and not between two computations, when the thread needs the interpreter itself.

        Here each token takes longer than tokens wait for each other.
        """
        computed_when_woken: list[tuple[int, int]] = []

        def woken(number: int) -> None:
            computed_when_woken.append((number, len(working.computed)))
            jobs[number].take()

        jobs = [new_job(5, max_output_tokens=3, wake=partial(woken, number)) for number in range(2)]
        for job in jobs:
            working.worker.add(job)
        working.worker.step()
        working.worker.step()
        working.wall.now += 1
        assert computed_when_woken == [(0, 0), (1, 0), (0, 1), (1, 1)], "the turns began, and got a token each"
        working.worker.announce()
        assert computed_when_woken[4:] == [(0, 2), (1, 2)]
        working.finish()
        assert computed_when_woken[6:] == [(0, 3), (1, 3)], "the last token comes with the end"

    def test_tokens_that_come_quickly_are_told_together(self, working: Working) -> None:
        """But for the first one, which somebody waits for, and the last ones, behind which no other comes."""
        told: list[list[Update]] = []
        job = new_job(5, max_output_tokens=9, wake=lambda: told.append(job.take()))
        working.worker.add(job)
        while working.worker.busy:
            working.worker.step()
            working.wall.now += 0.0125
        assert [len([one for one in updates if isinstance(one, str)]) for updates in told] == [0, 1, 3, 3, 2]

    def test_tokens_do_not_wait_for_a_long_computation(self, working: Working) -> None:
        """Such as one that reads a part of another prompt."""
        told: list[list[Update]] = []
        job = new_job(5, max_output_tokens=9, wake=lambda: told.append(job.take()))
        working.worker.add(job)
        for _ in range(4):
            working.worker.step()
        assert [len(updates) for updates in told] == [1, 1], (
            "it has begun, and got its first token; three are kept back"
        )
        working.worker.add(new_job(40, first=80))
        working.worker.step()
        working.worker.step()
        assert [len(updates) for updates in told] == [1, 1, 3, 1]

    def test_prompts_are_prefilled_in_chunks_beside_an_answer(
        self, working: Working, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entries = Entries(monkeypatch)
        working.worker.add(new_job(4, max_output_tokens=20))
        working.worker.step()
        working.worker.add(new_job(40, first=80))
        for _ in range(5):
            working.worker.step()
        assert [[len(one.tokens) for one in step] for step in entries.steps[1:6]] == [[1, 8]] * 5


class TestSlowAnswers:
    """Answers whose tokens take long to choose, as under a grammar that was made for it."""

    def test_neighbours_compute_half_of_the_time(self, working: Working, monkeypatch: pytest.MonkeyPatch) -> None:
        neighbour, slow = (
            new_job(5, max_output_tokens=200),
            [new_job(5, first=40 + n, max_output_tokens=60) for n in range(3)],
        )
        self.slow_down(working, monkeypatch, slow, 0.3)
        for job in (neighbour, *slow):
            working.worker.add(job)
        while neighbour not in working.left:
            working.worker.step()
        assert working.computed.count([neighbour]) > 3
        computing_s = STEP_S * sum(neighbour in jobs for jobs in working.computed)
        assert computing_s / working.processor.now > 0.45
        working.finish()
        assert all(isinstance(job.take()[-1], TurnFinished) for job in (neighbour, *slow))

    def test_a_token_that_takes_too_long_ends_its_turn(self, working: Working, monkeypatch: pytest.MonkeyPatch) -> None:
        slow, neighbour = new_job(5), new_job(5, first=40, max_output_tokens=4)
        self.slow_down(working, monkeypatch, [slow], 1.1)
        for job in (slow, neighbour):
            working.worker.add(job)
        working.finish()
        last = slow.take()[-1]
        assert isinstance(last, Problem)
        assert (last.code, "takes too long" in last.message) == ("invalid_value", True)
        assert isinstance(neighbour.take()[-1], TurnFinished)

    def slow_down(self, working: Working, monkeypatch: pytest.MonkeyPatch, slow: list[Job], took_s: float) -> None:
        working.processor.now = 0.0
        compute, sample, seed = LoadedModel.compute, Sampler.sample, LoadedModel.sampler

        def computed(model: LoadedModel, entries: Sequence[BatchEntry]) -> list[int]:
            working.processor.now += STEP_S
            return compute(model, entries)

        def sampler(model: LoadedModel, settings: Settings, *rest: Any) -> Sampler:  # noqa: ANN401 - as they come
            made = seed(model, settings, *rest)
            delays[id(made)] = took_s if any(settings is job.request.settings for job in slow) else 0.0
            kept.append(made)
            return made

        def sampled(one: Sampler, index: int) -> int:
            working.processor.now += delays[id(one)]
            return sample(one, index)

        delays: dict[int, float] = {}
        kept: list[Sampler] = []
        monkeypatch.setattr(LoadedModel, "compute", computed)
        monkeypatch.setattr(LoadedModel, "sampler", sampler)
        monkeypatch.setattr(Sampler, "sample", sampled)


class TestPreemption:
    def test_the_latest_turn_gives_way_and_resumes(self, working: Working) -> None:
        """Two answers outgrow the context; each is the one that it is alone."""
        jobs = [new_job(20, first=first, max_output_tokens=150) for first in (20, 80)]
        alone = [text_of(working.answer(new_job(20, first=first, max_output_tokens=150))) for first in (20, 80)]
        for job in jobs:
            working.worker.add(job)
        while not working.counters.preemptions:
            working.worker.step()
        assert working.worker.busy
        working.finish()
        assert working.left[-2:] == jobs, "the first turn ends first"
        assert [text_of(job.take()) for job in jobs] == alone

    def preempt(self, working: Working) -> list[Job]:
        jobs = [new_job(20, first=first, max_output_tokens=200) for first in (20, 80)]
        for job in jobs:
            working.worker.add(job)
        while not working.counters.preemptions:
            working.worker.step()
        return jobs

    def test_a_preempted_turn_can_be_cancelled(self, working: Working) -> None:
        _, preempted = self.preempt(working)
        preempted.cancelled = True
        working.worker.step()
        assert working.left == [preempted]
        assert [one.pins for one in working.worker.sequences] == [1], "only the other is there"

    def test_no_turn_begins_before_a_preempted_one(self, working: Working) -> None:
        running, preempted = self.preempt(working)
        late = new_job(4, first=140, max_output_tokens=1)
        working.worker.add(late)
        working.worker.step()
        assert late.take() == []
        working.finish()
        assert working.left.index(running) < working.left.index(preempted)
        assert late in working.left

    def test_stopping_ends_it_too(self, working: Working) -> None:
        jobs = self.preempt(working)
        waiting = new_job(4)
        working.worker.add(waiting)
        working.worker.stop(STOPPED)
        assert [job.take()[-1] for job in (*jobs, waiting)] == [STOPPED] * 3
        assert not working.worker.busy


class TestEnding:
    def test_a_cancelled_turn_leaves_its_prompt(self, working: Working) -> None:
        job = new_job(30, max_output_tokens=100)
        working.worker.add(job)
        for _ in range(5):
            working.worker.step()
        job.cancelled = True
        working.worker.step()
        assert working.left == [job]
        assert [len(one.tokens) for one in working.worker.sequences] == [30]
        assert working.worker.due_in_s == 900

    def test_a_job_that_is_cancelled_before_it_begins(self, working: Working) -> None:
        job = new_job(30)
        job.cancelled = True
        assert working.answer(job) == []
        assert (working.left, working.worker.sequences) == ([job], [])

    def test_an_interrupted_step_is_rewound(self, working: Working, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only a stopping engine interrupts a turn that is not cancelled; the turn is refused then."""
        job = new_job(30)

        def interrupted(model: LoadedModel, entries: Sequence[BatchEntry]) -> list[int]:
            raise InterruptedError

        monkeypatch.setattr(LoadedModel, "compute", interrupted)
        updates = working.answer(job)
        assert isinstance(updates[-1], Problem)
        assert updates[-1].code == "server_overloaded"
        assert working.worker.sequences == []

    @pytest.mark.parametrize("method", ["compute", "sampler", "piece"])
    def test_a_failure_ends_the_turn_and_leaves_nothing(
        self, working: Working, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
    ) -> None:
        def broken(*given: object) -> None:
            raise RuntimeError("llama.cpp failed")

        with monkeypatch.context() as patch:
            patch.setattr(LoadedModel, method, broken)
            assert working.answer(new_job(30))[-1] == FAILED
        assert "llama.cpp failed" in caplog.text
        assert working.worker.sequences == []
        assert working.answer(new_job(30))[-1] == TurnFinished(8, complete=False)

    def test_starting_over_ends_all_turns(self, working: Working) -> None:
        jobs = [new_job(30), new_job(30, first=80)]
        for job in jobs:
            working.worker.add(job)
        working.worker.step()
        working.worker.start_over()
        assert [job.take()[-1] for job in jobs] == [FAILED] * 2
        assert (working.left, working.worker.busy, working.worker.sequences) == (jobs, False, [])
        assert working.answer(new_job(30))[0] == TurnBegan(30, 0)


class TestRetention:
    def test_a_forgotten_response_takes_its_state_along(self, working: Working) -> None:
        job = new_job(30)
        working.answer(job)
        working.worker.forget([(job.request.tenant, job.request.response_id)])
        assert working.worker.sequences == []

    def test_a_forgotten_tenant_takes_its_state_along(self, working: Working) -> None:
        job = new_job(30)
        working.answer(job)
        working.worker.forget_tenant("nobody")
        assert len(working.worker.sequences) == 1
        working.worker.forget_tenant(job.request.tenant)
        assert working.worker.sequences == []

    def test_a_cancelled_turn_is_forgotten_with_its_response(self, working: Working) -> None:
        """Though no step has come since it was cancelled."""
        job = new_job(30, max_output_tokens=100)
        working.worker.add(job)
        for _ in range(5):
            working.worker.step()
        job.cancelled = True
        working.worker.forget([(job.request.tenant, job.request.response_id)])
        assert (working.left, working.worker.sequences) == ([job], [])

    @pytest.mark.parametrize(("held", "due_in_s"), [(True, None), (False, 900)])
    def test_only_a_held_response_keeps_its_state_for_long(
        self, working: Working, held: bool, due_in_s: float | None
    ) -> None:
        working.answer(new_job(30, held=held))
        assert working.worker.due_in_s == due_in_s

    def test_a_released_response_keeps_it_for_a_while(self, working: Working) -> None:
        job = new_job(30)
        working.answer(job)
        working.worker.release((job.request.tenant, job.request.response_id))
        assert working.worker.due_in_s == 900
        working.clock.now += 900
        working.worker.step()
        assert working.worker.sequences == []

    def test_idle_state_is_evicted_on_demand(self, working: Working) -> None:
        working.answer(new_job(30))
        working.worker.evict_idle("host")
        assert working.counters.sequences == {"context": 0, "host": 1, "disk": 0}
        assert working.answer(new_job(30))[0] == TurnBegan(30, 29)
        assert working.counters.restored_tokens == 29


class TestTimes:
    def test_a_step_tells_how_long_it_computed(self, working: Working) -> None:
        """Not at all, if there was nothing to compute."""
        working.step_s = 0.5
        working.worker.add(new_job(30))
        working.worker.step()
        assert working.worker.computed_s == 0.5
        working.finish()
        working.worker.step()
        assert working.worker.computed_s == 0.0


class TestDrafts:
    """The answers of drafted tokens are those without, to the last bit, in fewer steps."""

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"draft_tokens": 0}

    def drafting(self, working: Working, patch: pytest.MonkeyPatch, drafts: Iterator[list[int]]) -> None:
        """Let a draft be made in every step: the next of these."""
        made = msgspec.structs.replace(working.file, draft_tokens=5)
        patch.setattr(working.worker, "_file", made)
        patch.setattr(DraftGain, "is_tried", lambda gain: True)
        patch.setattr(PromptLookup, "draft", lambda lookup, most: next(drafts)[:most])

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("sampled", [{}, {"temperature": 1.0}, {"frequency_penalty": 1.0}])
    def test_whatever_is_drafted(
        self, seed: int, sampled: dict[str, Any], working: Working, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Right, half right or wrong; and what is kept afterwards goes on as before."""
        random = Random(seed)
        asked: dict[str, Any] = {"max_output_tokens": 40, "top_logprobs": 2, **sampled}
        alone = working.answer(seeded(new_job(30, **asked)))
        written = list(working.worker.sequences[0].tokens[30:])
        entries = Entries(monkeypatch)

        def drafts() -> Iterator[list[int]]:
            while True:
                at = working.turn_length - 30
                right = written[at : at + random.randrange(6)]
                yield [token if random.random() < 0.8 else 0 for token in right]

        self.drafting(working, monkeypatch, drafts())
        again = working.answer(seeded(new_job(30, first=20, tenant="another", **asked)))
        assert scores(again) == scores(alone) != []
        assert again[-1] == alone[-1]
        assert len(entries.steps) < 40
        assert working.counters.accepted_tokens > 0
        kept = working.worker.sequences[-1]
        assert kept.tokens[30:] == written
        assert working.model.rewind(kept.slot, len(kept.tokens))

    def test_two_answers_at_once_are_not_drafted(self, working: Working, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drafting(working, monkeypatch, repeat([1, 2]))
        entries = Entries(monkeypatch)
        jobs = [new_job(20), new_job(20, first=40)]
        for job in jobs:
            working.worker.add(job)
        working.finish()
        assert working.counters.drafted_tokens == 0
        assert all(len(entry.tokens) == 1 for step in entries.steps for entry in step if entry.position >= 20)

    def test_a_draft_is_no_longer_than_the_answer_may_be(
        self, working: Working, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.drafting(working, monkeypatch, repeat([1, 2, 3, 4, 5]))
        entries = Entries(monkeypatch)
        job = new_job(20, max_output_tokens=3)
        assert working.answer(job)[-1] == TurnFinished(3, complete=False)
        assert [entry.drafted for step in entries.steps for entry in step] == [0, 1, 0]

    def test_a_cancelled_answer_leaves_its_prompt(self, working: Working, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drafting(working, monkeypatch, repeat([1, 2]))
        job = new_job(20, max_output_tokens=30)
        working.worker.add(job)
        for _ in range(8):
            working.worker.step()
        job.cancelled = True
        working.finish()
        (kept,) = working.worker.sequences
        assert kept.tokens == job.prompt.tokens

"""Sequences on a real context: opened for prompts, moved between tiers, trimmed when their responses are gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from segue.engine.counters import EngineCounters
from segue.engine.kv.cache import KvSequence
from segue.engine.kv.disk_tier import DiskTier
from segue.engine.kv.retention import ResponseKey
from segue.engine.model import BatchEntry, LoadedModel, ModelFile
from segue.engine.sequence_pool import SequencePool
from segue.protocol.ids import ResponseId
from segue.protocol.requests import Settings
from segue.testing.tiny_model import write_tiny_model
from tests.engine.kept import Clock

pytestmark = pytest.mark.local_engine

FIRST, SECOND, THIRD = ([number * 50 + one for one in range(40)] for number in (1, 2, 3))


class Pool:
    """A pool on a tiny model with a small context, and turns on it that compute and end at once."""

    def __init__(self, file: ModelFile) -> None:
        self.model = LoadedModel(file)
        self.counters = EngineCounters()
        self.clock = Clock()
        self.pool = SequencePool(self.model, file, self.counters, clock=self.clock)

    def begin(self, prompt: Sequence[int], tenant: str = "alice", *, alone: bool = True) -> KvSequence | None:
        """Open a sequence and prefill the prompt, all but what is there."""
        opened = self.pool.open(prompt, tenant, alone=alone)
        if opened is None:
            return None
        sequence = opened.sequence
        self.pool.continue_from(sequence)
        for at in range(len(sequence.tokens), len(prompt), self.model.batch):
            tokens = list(prompt[at : at + self.model.batch])
            self.pool.make_context_room(len(tokens))
            self.model.compute([BatchEntry(sequence.slot, tokens, at, sampled=False)])
            sequence.tokens += tokens
        return sequence

    def end(self, sequence: KvSequence, name: str, *, expiring: bool = False, store: bool = True) -> None:
        sequence.pins -= 1
        sequence.protected = len(sequence.tokens)
        sequence.disk_allowed = sequence.disk_allowed and store
        self.pool.retain(sequence, response(name), expiring=expiring)

    def turn(self, prompt: Sequence[int], name: str, **options: Any) -> KvSequence:  # noqa: ANN401 - options of `end`
        sequence = self.begin(prompt)
        assert sequence is not None
        self.end(sequence, name, **options)
        return sequence

    def next_tokens(self, sequence: KvSequence) -> list[int]:
        """What the model samples behind a sequence, which is left as it was."""
        sampler, at = self.model.sampler(Settings(model="tiny"), 1), len(sequence.tokens)
        written = [7]
        for position in range(at, at + 6):
            (end,) = self.model.compute([BatchEntry(sequence.slot, written[-1:], position, sampled=True)])
            written.append(sampler.sample(end))
        self.model.rewind(sequence.slot, at)
        return written


def response(name: str) -> ResponseKey:
    return "alice", ResponseId(name)


@pytest.fixture
def options() -> dict[str, Any]:
    return {}


@pytest.fixture
def made(tmp_path: Path, options: dict[str, Any]) -> Iterator[Pool]:
    path = tmp_path / "tiny.gguf"
    write_tiny_model(path)
    given = {
        "context": 128,
        "threads": 1,
        "kv_bytes": 1,
        "slots": 6,
        "idle_s": 60.0,
        "batch_invariant": True,
        **options,
    }
    if "disk_bytes" in given:
        given["spill_directory"] = tmp_path / "spill"
    made = Pool(ModelFile(path, "tiny", **given))
    yield made
    made.pool.close()
    made.model.close()


def with_options(**options: Any) -> pytest.MarkDecorator:  # noqa: ANN401 - fields of ModelFile
    return pytest.mark.parametrize("options", [options])


class TestOpening:
    def test_a_prompt_takes_over_what_it_continues(self, made: Pool) -> None:
        before = made.turn(FIRST, "one")
        opened = made.pool.open([*FIRST, 7, 8], "alice", alone=True)
        assert opened is not None
        assert (opened.sequence, opened.restored, opened.sequence.pins) == (before, False, 1)
        assert opened.sequence.tokens == FIRST
        assert len(opened.sequence.cells) == 42, "there is room for all of the prompt"

    def test_a_prompt_copies_from_a_turn_that_runs(self, made: Pool) -> None:
        running = made.begin(FIRST)
        opened = made.pool.open([*FIRST[:30], 7, 8], "alice", alone=False)
        assert running is not None
        assert opened is not None
        assert opened.sequence is not running
        assert opened.sequence.tokens == FIRST[:30]
        assert opened.sequence.cells[:30] == running.cells[:30], "the copy shares the cells"

    def test_another_tenant_starts_empty(self, made: Pool) -> None:
        made.turn(FIRST, "one")
        opened = made.pool.open(FIRST, "mallory", alone=True)
        assert opened is not None
        assert opened.sequence.tokens == []

    def test_a_prompt_waits_for_room(self, made: Pool) -> None:
        """Pinned sequences are not evicted; when one ends, it is."""
        running = [made.begin(prompt) for prompt in (FIRST, SECOND, THIRD)]
        assert made.pool.open([1] * 60, "alice", alone=False) is None
        assert running[0] is not None
        made.end(running[0], "one")
        assert made.pool.open([1] * 40, "alice", alone=False) is not None
        assert (running[0].tier, made.counters.evictions) == ("host", 1)

    def test_what_it_would_reuse_may_take_the_room(self, made: Pool) -> None:
        """If the copy of an evicted sequence does not fit beside it, a turn that is alone starts empty."""
        long = made.turn(list(range(10, 120)), "one")
        made.pool.evict(long)
        running = made.begin(SECOND)
        prompt = [*range(10, 60), 7, 8]
        assert made.pool.open(prompt, "alice", alone=False) is None
        opened = made.pool.open(prompt, "alice", alone=True)
        assert running is not None
        assert opened is not None
        assert (opened.sequence.tokens, opened.sequence is long) == ([], False)


class TestIdleState:
    @with_options(host_bytes=2**20, idle_tokens=30, batch_invariant=False)
    def test_it_leaves_the_context_when_a_turn_begins_that_does_not_need_it(self, made: Pool) -> None:
        """Attention would go through it for every token of that turn."""
        first = made.turn(FIRST, "one")
        expected = made.next_tokens(first)
        running = made.begin(SECOND)
        assert running is not None
        assert (first.tier, made.counters.evictions) == ("host", 1)
        opened = made.pool.open([*FIRST, 7], "alice", alone=False)
        assert opened is not None
        assert (opened.sequence, opened.restored, running.tier) == (first, True, "context")
        assert made.next_tokens(first) == expected

    @with_options(host_bytes=2**20, idle_tokens=30, batch_invariant=False)
    def test_what_a_turn_continues_stays(self, made: Pool) -> None:
        made.turn(FIRST, "one")
        opened = made.pool.open([*FIRST, 7], "alice", alone=True)
        assert opened is not None
        assert (opened.restored, made.counters.evictions) == (False, 0)

    @with_options(host_bytes=2**20, idle_tokens=40, batch_invariant=False)
    def test_a_little_of_it_stays(self, made: Pool) -> None:
        made.turn(FIRST, "one")
        assert made.begin(SECOND) is not None
        assert made.counters.evictions == 0

    @with_options(host_bytes=15_000, idle_tokens=0, batch_invariant=False)
    def test_it_takes_no_place_from_what_the_turn_continues(self, made: Pool) -> None:
        """Host memory holds one of these sequences, and the turn needs the older one."""
        first = made.turn(FIRST, "one")
        made.turn(SECOND, "two")
        assert (first.tier, made.counters.evictions) == ("host", 1)
        opened = made.pool.open([*FIRST, 7], "alice", alone=True)
        assert opened is not None
        assert (opened.sequence, opened.restored, opened.sequence.tokens) == (first, True, FIRST)

    @with_options(host_bytes=2**20, idle_tokens=30)
    def test_it_stays_where_its_cells_would_not_be_used_again(self, made: Pool) -> None:
        made.turn(FIRST, "one")
        assert made.begin(SECOND) is not None
        assert made.counters.evictions == 0


class TestTiers:
    @with_options(host_bytes=2**20)
    def test_an_evicted_sequence_comes_back_the_same(self, made: Pool) -> None:
        sequence = made.turn(FIRST, "one")
        expected = made.next_tokens(sequence)
        made.pool.evict_idle("host")
        assert (sequence.tier, sequence.cells, made.counters.evictions) == ("host", [], 1)
        opened = made.pool.open([*FIRST, 7], "alice", alone=True)
        assert opened is not None
        assert (opened.sequence, opened.restored, opened.sequence.saved) == (sequence, True, None)
        assert made.next_tokens(opened.sequence) == expected

    def test_a_prefix_of_an_evicted_sequence_is_copied(self, made: Pool) -> None:
        """The other branch stays where it is."""
        sequence = made.turn(FIRST, "one")
        made.pool.evict_idle("host")
        opened = made.pool.open([*FIRST[:30], 7], "alice", alone=True)
        assert opened is not None
        assert (opened.restored, opened.sequence.tokens) == (True, FIRST[:30])
        assert (sequence.tier, sequence.tokens) == ("host", FIRST)

    def test_state_that_does_not_load_is_computed_again(self, made: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        made.turn(FIRST, "one")
        made.pool.evict_idle("host")
        monkeypatch.setattr(LoadedModel, "restore", lambda model, slot, state, length: False)
        opened = made.pool.open([*FIRST, 7], "alice", alone=True)
        assert opened is not None
        assert opened.sequence.tokens == []
        assert len(opened.sequence.cells) == 41

    @with_options(host_bytes=15_000)
    def test_host_memory_has_room_before_a_sequence_is_saved(self, made: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is taken beyond it for a moment, the process keeps."""
        save, taken = LoadedModel.save, list[int]()

        def saving(model: LoadedModel, slot: int, start: int, end: int) -> tuple[bytes, ...]:
            saved = save(model, slot, start, end)
            made.pool.count()
            taken.append(made.counters.host_bytes + sum(map(len, saved)))
            return saved

        monkeypatch.setattr(LoadedModel, "save", saving)
        for name, prompt in {"one": FIRST, "two": SECOND, "three": THIRD}.items():
            made.turn(prompt, name)
            made.pool.evict_idle("host")
        assert len(taken) == 3
        assert max(taken) <= 15_000
        assert [one.tokens for one in made.pool.sequences] == [THIRD]

    @with_options(host_bytes=0)
    def test_without_host_memory_eviction_drops(self, made: Pool) -> None:
        made.turn(FIRST, "one")
        made.pool.evict_idle("host")
        assert made.pool.sequences == []


@with_options(host_bytes=2**20, disk_bytes=2**20)
class TestDisk:
    def test_it_goes_to_disk_and_back(self, made: Pool, tmp_path: Path) -> None:
        stored, unstored = made.turn(FIRST, "one"), made.turn(SECOND, "two", store=False)
        expected = made.next_tokens(stored)
        made.pool.evict_idle("disk")
        assert [one.tier for one in made.pool.sequences] == ["disk"], "what is not stored is dropped instead"
        assert unstored not in made.pool.sequences
        made.pool.count()
        assert made.counters.sequences == {"context": 0, "host": 0, "disk": 1}
        assert made.counters.disk_bytes > 0
        opened = made.pool.open([*FIRST, 7], "alice", alone=True)
        assert opened is not None
        assert made.next_tokens(opened.sequence) == expected
        assert not [path for path in (tmp_path / "spill").rglob("*") if path.is_file()]

    def test_a_full_disk_drops_it(self, made: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        made.turn(FIRST, "one")
        monkeypatch.setattr(DiskTier, "write", lambda disk, key, pieces: False)
        made.pool.evict_idle("disk")
        made.pool.count()
        assert (made.pool.sequences, made.counters.disk_bytes) == ([], 0)

    def test_a_lost_file_starts_empty(self, made: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        sequence = made.turn(FIRST, "one")
        made.pool.evict_idle("disk")
        monkeypatch.setattr(DiskTier, "read", lambda disk, key: None)
        opened = made.pool.open([*FIRST, 7], "alice", alone=True)
        assert opened is not None
        assert (opened.sequence is sequence, opened.sequence.tokens) == (False, [])


class TestTrimming:
    def test_a_sequence_is_cut_to_what_is_retained(self, made: Pool) -> None:
        made.turn(FIRST, "parent")
        sequence = made.turn([*FIRST, *SECOND], "child")
        made.pool.forget([response("child")])
        assert (sequence.tokens, len(sequence.cells), sequence.protected) == (FIRST, 40, 40)
        made.pool.forget([response("parent")])
        assert made.pool.sequences == []

    def test_a_tenant_is_forgotten_and_nobody_else(self, made: Pool) -> None:
        made.turn(FIRST, "parent")
        made.pool.forget_tenant("nobody")
        assert len(made.pool.sequences) == 1
        made.pool.forget_tenant(response("parent")[0])
        assert made.pool.sequences == []

    def test_an_evicted_one_is_dropped_whole(self, made: Pool) -> None:
        made.turn(FIRST, "parent")
        made.turn([*FIRST, *SECOND], "child")
        made.pool.evict_idle("host")
        made.pool.forget([response("child")])
        assert made.pool.sequences == []

    def test_what_a_turn_works_on_stays(self, made: Pool) -> None:
        made.turn(FIRST, "parent")
        sequence = made.begin([*FIRST, *SECOND])
        assert sequence is not None
        made.pool.forget([response("parent")])
        assert sequence.tokens == [*FIRST, *SECOND]
        made.end(sequence, "child")
        assert made.pool.sequences == [sequence]

    def test_expiring_state_goes_in_time(self, made: Pool) -> None:
        made.turn(FIRST, "one", expiring=True)
        expires_in_s = made.pool.expires_in_s
        assert expires_in_s == 60
        made.clock.now += 59
        made.pool.expire()
        assert len(made.pool.sequences) == 1
        made.clock.now += 1
        made.pool.expire()
        assert (made.pool.sequences, made.pool.expires_in_s) == ([], None)

    def test_a_released_response_expires(self, made: Pool) -> None:
        made.turn(FIRST, "one")
        assert made.pool.expires_in_s is None
        made.pool.release(response("one"))
        assert made.pool.expires_in_s == 60

    def test_eviction_leaves_the_expiring_tail_behind(self, made: Pool) -> None:
        """Saved bytes cannot be cut when it expires, so it is cut before."""
        made.turn(FIRST, "parent")
        sequence = made.turn([*FIRST, *SECOND], "child", expiring=True)
        made.pool.evict_idle("host")
        assert (sequence.tier, sequence.tokens) == ("host", FIRST)


class TestContext:
    def test_it_is_defragmented_when_no_room_is_left_at_the_end(self, made: Pool) -> None:
        """Sequences keep their state, and the freed cells can be used again."""
        sequence = made.turn(FIRST, "kept")
        expected = made.next_tokens(sequence)
        for number in range(6):
            made.turn(SECOND, f"gone {number}")
            made.pool.forget([response(f"gone {number}")])
        assert made.counters.defrags > 0
        assert made.pool.sequences == [sequence]
        assert made.next_tokens(sequence) == expected

    def test_a_model_that_cannot_rewind_forgets_all(self, made: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        sequence = made.turn(FIRST, "one")
        monkeypatch.setattr(LoadedModel, "rewind", lambda model, slot, length: False)
        made.pool.rewind(sequence, 10)
        assert (sequence.tokens, sequence.cells) == ([], [])

    def test_reset_drops_everything(self, made: Pool) -> None:
        made.turn(FIRST, "one", expiring=True)
        made.begin(SECOND)
        made.pool.reset()
        made.pool.count()
        assert (made.pool.sequences, made.pool.expires_in_s, made.counters.context_tokens) == ([], None, 0)
        assert made.begin(THIRD) is not None

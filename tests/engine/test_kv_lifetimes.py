"""What the local engine keeps of a response goes with it, and takes nothing along that others need."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any, Literal

import pytest

from segue.engine import ModelFile
from segue.engine.engine import Engine
from segue.engine.job import Job
from segue.engine.model import LoadedModel
from segue.engine.prompt.rendering import Prompt, PromptRenderer
from segue.engine.upstream import LocalUpstream
from segue.engine.worker import Worker
from segue.history.chains import Turn
from segue.protocol.ids import ResponseId
from segue.protocol.items import Item, user_message
from segue.protocol.problems import Refused
from segue.testing.tiny_model import write_tiny_model
from segue.upstreams.interface import Forgetting
from tests.engine.kept import Clock, look, prompts
from tests.engine.turns import ask, ask_alone, begin, cell_bytes, first_text, request, tiny
from tests.logs import logged

pytestmark = [pytest.mark.local_engine, pytest.mark.untraced]

PATIENCE_S = 20.0
LONG = "many words about the number of people who call one another " * 6


@pytest.fixture(autouse=True)
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers end where they are cut or cancelled; the model's own whim would end some before."""
    monkeypatch.setattr(LoadedModel, "is_end_of_answer", lambda model, token: False)


@asynccontextmanager
async def timed(clock: Clock, **options: Any) -> AsyncIterator[LocalUpstream]:  # noqa: ANN401 - fields of ModelFile
    """A tiny model whose time a test moves."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "tiny.gguf"
        write_tiny_model(file)
        upstream = LocalUpstream(
            ModelFile(file, "tiny", 1024, 1, kv_bytes=4096 * cell_bytes(), **options, batch_invariant=True), clock
        )
        await upstream.start()
        try:
            yield upstream
        finally:
            await upstream.aclose()


@asynccontextmanager
async def roomy(**options: Any) -> AsyncIterator[LocalUpstream]:  # noqa: ANN401 - fields of ModelFile
    """A tiny model with room for many conversations."""
    async with tiny(**{"kv_bytes": 4096 * cell_bytes(), **options}) as upstream:
        yield upstream


def replay(*turns: Turn, more: str) -> list[Item]:
    """What a client sends that has no id to send: its history, and what is new."""
    return [*(item for turn in turns for item in (*turn.input, *turn.output)), user_message(more)]


@contextmanager
def held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the engine compute nothing inside a block."""
    gate, compute = Event(), LoadedModel.compute

    def gated(model: LoadedModel, parts: Any) -> Any:  # noqa: ANN401 - as it is
        gate.wait(PATIENCE_S)
        return compute(model, parts)

    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "compute", gated)
        yield
    gate.set()


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


class TestGone:
    async def test_a_response_takes_its_state_along(self) -> None:
        """Sequence and prompt are gone before anything else is computed, and the same question is read anew."""
        async with roomy() as upstream:
            assert isinstance(upstream, Forgetting)
            got = await ask(upstream, request(LONG, store=True))
            other = await ask(upstream, request(f"other {LONG}", store=True))
            upstream.forget("alice", [got.turn.id])
            (kept,) = await look(upstream)
            assert len(kept.tokens) >= other.input_tokens
            assert prompts(upstream) == {other.turn.id}
            await look(upstream)
            assert upstream.counters.sequences == {"context": 1, "host": 0, "disk": 0}
            assert (await ask(upstream, request(LONG))).cached < 30, "what both questions begin with, at most"

    @pytest.mark.parametrize("place", ["host", "disk"])
    async def test_wherever_it_is(self, tmp_path: Path, place: Literal["host", "disk"]) -> None:
        async with roomy(disk_bytes=2**26, spill_directory=tmp_path) as upstream:
            got = await ask(upstream, request(LONG, store=True))
            await upstream.evict(place)
            assert upstream.counters.sequences[place] == 1
            assert bool(files_in(tmp_path)) == (place == "disk")
            upstream.forget("alice", [got.turn.id])
            assert await look(upstream) == []
            assert files_in(tmp_path) == []
            await look(upstream)
            counts = upstream.counters
            assert (sum(counts.sequences.values()), counts.host_bytes, counts.disk_bytes) == (0, 0, 0)

    async def test_a_living_child_keeps_what_it_has_seen(self) -> None:
        """As its history does; the parent's id stands for nothing any more."""
        async with roomy() as upstream:
            parent = await ask(upstream, request(LONG, store=True))
            child = await ask(upstream, request("go on", parent.turn, store=True))
            upstream.forget("alice", [parent.turn.id])
            grandchild = await ask(upstream, request("and on", child.turn, store=True))
            assert grandchild.input_tokens - grandchild.cached < 60
            assert prompts(upstream) == {child.turn.id, grandchild.turn.id}
            upstream.forget("alice", [child.turn.id, grandchild.turn.id])
            assert await look(upstream) == []

    async def test_a_parent_loses_only_what_its_child_added(self) -> None:
        """The sequence that both had is cut; going on from the parent finds all of it, and its answer."""
        async with roomy() as upstream:
            parent = await ask(upstream, request(LONG, store=True))
            (before,) = await look(upstream)
            child = await ask(upstream, request(f"secret {LONG}", parent.turn, store=True))
            upstream.forget("alice", [child.turn.id])
            (after,) = await look(upstream)
            assert after.tokens == before.tokens[: len(after.tokens)]
            assert len(after.tokens) >= parent.input_tokens
            again = await ask(upstream, request(f"secret {LONG}", parent.turn, store=True))
            assert again.cached == len(after.tokens)
            assert len(await look(upstream)) == 1, "it is taken over: nobody needs more of it"
            alone = await ask_alone(upstream, again.turn, request("").settings)
            assert again.text == alone.text

    async def test_what_is_left_is_still_needed(self) -> None:
        """Another conversation that begins alike takes nothing of it away."""
        async with roomy() as upstream:
            parent = await ask(upstream, request(LONG, store=True))
            child = await ask(upstream, request("go on", parent.turn, store=True))
            upstream.forget("alice", [child.turn.id])
            await ask(upstream, request(f"other {LONG}", store=True))
            assert (await ask(upstream, request("or", parent.turn, store=True))).cached >= parent.input_tokens

    async def test_what_was_lost_before_takes_nothing_along(self, caplog: pytest.LogCaptureFixture) -> None:
        """There was no room for it any more when it was forgotten."""
        async with roomy(host_bytes=0) as upstream:
            lost = await ask(upstream, request(LONG, store=True))
            await upstream.evict("host")
            await ask(upstream, request(f"other {LONG}", store=True))
            upstream.forget("alice", [lost.turn.id])
            assert len(await look(upstream)) == 1
            assert logged(caplog) == ""

    async def test_what_is_evicted_goes_whole(self) -> None:
        """Its bytes cannot be cut, so the parent is read again."""
        async with roomy() as upstream:
            parent = await ask(upstream, request(LONG, store=True))
            child = await ask(upstream, request("go on", parent.turn, store=True))
            await upstream.evict("host")
            upstream.forget("alice", [child.turn.id])
            assert await look(upstream) == []
            assert (await ask(upstream, request("or", parent.turn, store=True))).cached == 0

    async def test_branches_go_one_by_one(self) -> None:
        async with roomy() as upstream:
            trunk = await ask(upstream, request(LONG, store=True))
            left, right = [await ask(upstream, request(text, trunk.turn, store=True)) for text in ("left", "right")]
            upstream.forget("alice", [left.turn.id])
            assert (await ask(upstream, request("more", right.turn, store=True))).cached > trunk.input_tokens
            upstream.forget("alice", [trunk.turn.id])
            assert (await ask(upstream, request("even more", right.turn, store=True))).cached > trunk.input_tokens

    async def test_another_tenants_id_and_unknown_ones_are_nothing(self) -> None:
        async with roomy() as upstream:
            got = await ask(upstream, request(LONG, store=True))
            upstream.forget("mallory", [got.turn.id])
            upstream.forget("alice", [ResponseId("resp_unknown")])
            upstream.forget("alice", [])
            assert len(await look(upstream)) == 1

    async def test_an_engine_that_does_not_run_has_nothing_to_forget(self, tmp_path: Path) -> None:
        upstream = LocalUpstream(ModelFile(tmp_path))
        upstream.forget("alice", [ResponseId("resp_1")])
        async with roomy() as upstream:
            pass
        upstream.forget("alice", [ResponseId("resp_1")])

    def test_an_engine_that_does_not_run_keeps_no_orders(self, tmp_path: Path) -> None:
        """Nobody would ever carry them out."""
        engine = Engine(ModelFile(tmp_path))

        def order(worker: Worker) -> None:
            raise AssertionError

        engine.call_between_steps(order)  # it never started
        engine.stop()
        engine.call_between_steps(order)
        kept = weakref.ref(order)
        del order
        assert kept() is None

    async def test_a_long_conversation_is_forgotten_turn_by_turn(self) -> None:
        """As a connection does it: each turn but the newest."""
        async with roomy() as upstream:
            got = await ask(upstream, request("and then"))
            for _ in range(12):
                before, got = got, await ask(upstream, request("and then", got.turn))
                upstream.forget("alice", [before.turn.id])
            assert got.input_tokens - got.cached < 60
            assert len(await look(upstream)) == 1
            assert prompts(upstream) == {got.turn.id}

    async def test_of_a_model_that_cannot_divide_a_sequence_all_goes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with roomy() as upstream:
            monkeypatch.setattr(upstream.model, "divisible", False)
            monkeypatch.setattr(LoadedModel, "rewind", lambda model, slot, length: False)
            first = await ask(upstream, request("undivided"))
            second = await ask(upstream, request([*first.turn.input, *first.turn.output, user_message("more")]))
            await upstream.evict("host")
            upstream.forget("alice", [second.turn.id])
            for kept in await look(upstream):
                assert len(kept.tokens) <= first.input_tokens + 8


class TestUnderWay:
    async def test_a_turn_whose_response_is_gone_ends_and_leaves_nothing(self) -> None:
        """It answers as it would have, since nobody has stopped it."""
        async with roomy() as upstream:
            asked = request(LONG, max_output_tokens=40)
            stream = await begin(upstream, asked)
            upstream.forget("alice", [asked.response_id])
            rest = [event async for batch in stream for event in batch]
            assert rest
            assert (await look(upstream), prompts(upstream)) == ([], set())

    async def test_a_cancelled_turn_that_is_forgotten_leaves_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Though the engine computes it still, beside another, and hears of both at once."""
        async with roomy() as upstream:
            asked, other = (request(f"{text} {LONG}", max_output_tokens=None) for text in ("this", "other"))
            streams = [await begin(upstream, one) for one in (asked, other)]
            for stream in streams:
                await first_text(stream)
            with held_up(monkeypatch):
                await streams[0].aclose()
                upstream.forget("alice", [asked.response_id])
            assert await look(upstream) == []
            await streams[1].aclose()
            assert len(await look(upstream)) == 1
            assert prompts(upstream) == set()

    async def test_a_parent_may_go_while_its_child_runs(self) -> None:
        """The child was promised its history, and keeps it; when it is gone too, all is."""
        async with roomy() as upstream:
            parent = await ask(upstream, request(LONG, store=True))
            asked = request("go on", parent.turn, store=True, max_output_tokens=40)
            stream = await begin(upstream, asked)
            upstream.forget("alice", [parent.turn.id])
            async for _ in stream:
                pass
            (kept,) = await look(upstream)
            assert len(kept.tokens) > parent.input_tokens
            upstream.forget("alice", [asked.response_id])
            assert await look(upstream) == []

    async def test_a_child_that_is_cancelled_then_leaves_the_rest_to_its_time(self) -> None:
        clock = Clock()
        async with timed(clock) as upstream:
            parent = await ask(upstream, request(LONG, store=True))
            stream = await begin(upstream, request("go on", parent.turn, store=True, max_output_tokens=None))
            await first_text(stream)
            upstream.forget("alice", [parent.turn.id])
            await stream.aclose()
            assert len(await look(upstream)) == 1, "whoever sends the same again finds it"
            clock.now += 900
            assert await look(upstream) == []

    async def test_a_turn_that_cannot_begin_leaves_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(model: LoadedModel, *given: Any) -> Any:  # noqa: ANN401 - as it is
            raise RuntimeError("no sampler")

        async with roomy() as upstream:
            with monkeypatch.context() as patch:
                patch.setattr(LoadedModel, "sampler", broken)
                with pytest.raises(Refused):
                    await ask(upstream, request(LONG))
            assert (await look(upstream), prompts(upstream)) == ([], set())

    async def test_waiting_and_preempted_turns_end_too(self) -> None:
        """Four turns in a context for two answers, all of them forgotten at once."""
        async with tiny(context=256, kv_bytes=1, parallel=3) as upstream:
            asked = [request(f"{index} {'words ' * 10}", max_output_tokens=150) for index in range(5)]
            running = [asyncio.ensure_future(ask(upstream, one)) for one in asked]
            while not upstream.counters.preemptions:
                await look(upstream)
            upstream.forget("alice", [one.response_id for one in asked])
            for got in await asyncio.gather(*running):
                assert got.finished.status in {"completed", "incomplete"}
            assert await look(upstream) == []

    async def test_prompts_that_nobody_can_continue_are_not_kept(self) -> None:
        """Of turns that nobody waits for any more, that are refused, or whose response nobody will be able to name."""
        async with roomy() as upstream:
            given_up = asyncio.ensure_future(ask(upstream, request(LONG * 5)))
            await asyncio.sleep(0)
            given_up.cancel()
            await ask(upstream, request("short", held=False))
            with pytest.raises(Refused):
                await ask(upstream, request(LONG * 20))
            assert prompts(upstream) == set()

    async def test_a_prompt_that_is_rendered_too_late_is_not_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rendering goes on in its thread when its turn is gone already."""
        reached, gate, render = Event(), Event(), PromptRenderer.render

        def late(renderer: PromptRenderer, *given: Any, **named: Any) -> Prompt:  # noqa: ANN401 - as it is
            reached.set()
            gate.wait(PATIENCE_S)
            return render(renderer, *given, **{**named, "tokenizer": lambda text, control: [1]})

        monkeypatch.setattr(PromptRenderer, "render", late)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        async with roomy() as upstream:
            asked = asyncio.ensure_future(ask(upstream, request(LONG)))
            await asyncio.sleep(0)
            assert reached.wait(PATIENCE_S)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            gate.set()
            await asyncio.to_thread(lambda: None)  # comes after it
            assert prompts(upstream) == set()


class TestIdle:
    async def test_a_client_that_sends_its_history_finds_its_state_for_a_while(self) -> None:
        """However it got its answers: by whole histories, each time later than the last; then it is idle too long."""
        clock = Clock()
        async with timed(clock, idle_s=60) as upstream:
            turns: list[Turn] = []
            for number in range(4):
                got = await ask(upstream, request(replay(*turns, more=f"{number} {LONG}"), held=False))
                fresh = Turn(
                    id=got.turn.id,
                    parent=None,
                    input=got.turn.input[-1:],
                    output=got.turn.output,
                    calls=frozenset(),
                    stored=False,
                )
                turns.append(fresh)
                if number:
                    assert got.input_tokens - got.cached < 150
                    assert got.cached > 100 * number
                clock.now += 50
            assert len(await look(upstream)) == 1
            clock.now += 10
            assert await look(upstream) == []
            assert (await ask(upstream, request(replay(*turns, more="late"), held=False))).cached == 0

    async def test_also_when_it_was_evicted(self) -> None:
        clock = Clock()
        async with timed(clock, idle_s=60) as upstream:
            await ask(upstream, request(LONG, held=False))
            await upstream.evict("host")
            clock.now += 60
            assert await look(upstream) == []

    async def test_nobody_has_to_ask(self) -> None:
        """The engine wakes up for it."""
        async with roomy(idle_s=0.01) as upstream:
            await ask(upstream, request(LONG, held=False))
            while upstream.counters.sequences != {"context": 0, "host": 0, "disk": 0}:  # noqa: ASYNC110 - it is the engine's
                await asyncio.sleep(0.001)

    async def test_held_responses_do_not_go_for_being_idle(self) -> None:
        clock = Clock()
        async with timed(clock, idle_s=60) as upstream:
            held = await ask(upstream, request(LONG, store=False))
            await ask(upstream, request(replay(held.turn, more=f"aside {LONG}"), held=False))
            clock.now += 1e6
            (kept,) = await look(upstream)
            assert len(kept.tokens) < held.input_tokens + 16
            got = await ask(upstream, request("go on", held.turn))
            assert got.cached >= held.input_tokens

    async def test_at_once(self) -> None:
        """With no time at all nothing is kept that has no holder, not even what was cancelled."""
        async with roomy(idle_s=0) as upstream:
            await ask(upstream, request(LONG, held=False))
            stream = await begin(upstream, request(f"other {LONG}", max_output_tokens=None))
            await first_text(stream)
            await stream.aclose()
            assert await look(upstream) == []
            held = await ask(upstream, request(LONG))
            assert (await ask(upstream, request("go on", held.turn))).cached >= held.input_tokens

    async def test_eviction_leaves_the_expiring_tail_behind(self, tmp_path: Path) -> None:
        """So that the rest need not go with it later; if that is stored, it may go to the disk again."""
        clock = Clock()
        async with timed(clock, idle_s=60, disk_bytes=2**26, spill_directory=tmp_path) as upstream:
            stored = await ask(upstream, request(LONG, store=True))
            await ask(upstream, request(f"aside {LONG}", stored.turn, held=False))
            await upstream.evict("disk")
            (kept,) = await look(upstream)
            assert kept.tier == "disk"
            assert stored.input_tokens <= len(kept.tokens) < stored.input_tokens + 16
            clock.now += 60
            got = await ask(upstream, request("go on", stored.turn, store=True))
            assert got.cached >= stored.input_tokens

    async def test_an_end_that_nobody_heard_of_is_like_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A turn may end in the moment in which its client goes away: nobody will ever name its response."""
        clock, ended, left = Clock(), Event(), Engine._left  # noqa: SLF001 - the moment is to be met

        def noted(engine: Engine, job: Job) -> None:
            left(engine, job)
            ended.set()

        monkeypatch.setattr(Engine, "_left", noted)
        async with timed(clock, idle_s=60) as upstream:
            with held_up(monkeypatch):
                stream = await begin(upstream, request(LONG, max_output_tokens=1))
                waiting = asyncio.ensure_future(anext(stream))
                await asyncio.sleep(0)
            assert ended.wait(PATIENCE_S), "and meanwhile the loop tells nobody"
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert (len(await look(upstream)), prompts(upstream)) == (1, set())
            clock.now += 60
            assert await look(upstream) == []

"""The engine on a tiny model: whatever state an answer starts from, it is the answer of a full prefill."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.engine import ModelFile, Unavailable
from segue.engine.engine import Engine
from segue.engine.grammar.token_matcher import AnswerGrammar, TokenMatcher
from segue.engine.job import Job
from segue.engine.kv.cache import KvCache
from segue.engine.model import BatchEntry, LoadedModel
from segue.engine.prompt.chat_template import DEFAULT_CALL_FORMAT
from segue.engine.prompt.messages import Tools
from segue.engine.prompt.rendering import Prompt
from segue.engine.upstream import LocalUpstream
from segue.history.chains import Turn
from segue.protocol.events import Ended
from segue.protocol.items import user_message
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import Settings
from segue.testing.tiny_model import write_tiny_model
from tests.engine.grammar.byte_grammars import parser_for
from tests.engine.turns import Answer, ask, ask_alone, begin, cell_bytes, first_text, request, tiny
from tests.strategies import examples

pytestmark = pytest.mark.local_engine

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Oslo"]}, "unit": {"type": "boolean"}},
        "required": ["city", "unit"],
    },
}
PATIENCE_S = 20.0
LONG = "many words about the number of people who call one another " * 12


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[LocalUpstream]:
    async with tiny(kv_bytes=4096 * cell_bytes()) as upstream:
        yield upstream


async def same_alone(upstream: LocalUpstream, got: Answer, **fields: Any) -> None:  # noqa: ANN401 - fields of Settings
    """An answer is the one that its conversation gets alone, read from the first token on, of as many tokens."""
    asked = request("", **fields).settings
    alone = await ask_alone(upstream, got.turn, asked)
    assert (got.text, got.input_tokens) == (alone.text, alone.input_tokens)


@pytest.mark.asyncio(loop_scope="module")
class TestContinuing:
    async def test_only_what_is_new_is_computed(self, upstream: LocalUpstream) -> None:
        """The state of all but the newest tokens is there, and the work does not grow with the conversation."""
        work: list[int] = []
        got = await ask(upstream, request("and then what"))
        for _ in range(8):
            got = await ask(upstream, request("and then what", got.turn))
            work.append(got.input_tokens - got.cached)
            await same_alone(upstream, got)
        assert max(work) < 60 < got.input_tokens / 4
        assert got.cached > 200

    async def test_a_fork_shares_its_trunk(self, upstream: LocalUpstream) -> None:
        """Both branches continue the same turn, and neither loses its state to the other."""
        trunk = await ask(upstream, request(LONG))
        branches = [await ask(upstream, request(text, trunk.turn)) for text in ("one", "two", "three")]
        again = [await ask(upstream, request("more", branch.turn)) for branch in branches]
        for got in [*branches, *again]:
            assert got.input_tokens - got.cached < 60
            await same_alone(upstream, got)

    async def test_branches_that_run_at_once(self, upstream: LocalUpstream) -> None:
        """A turn may be copied from while another works on its sequence."""
        trunk = await ask(upstream, request(LONG))
        texts = ("one", "two", "three", "four")
        for got in await asyncio.gather(*(ask(upstream, request(text, trunk.turn)) for text in texts)):
            await same_alone(upstream, got)
            assert got.input_tokens - got.cached < 60

    async def test_cancel_and_continue(self, upstream: LocalUpstream) -> None:
        """What was cancelled is rewound, and its parent is continued as if nothing had happened."""
        first = await ask(upstream, request(LONG))
        stream = await begin(upstream, request("go on", first.turn, max_output_tokens=None))
        await first_text(stream)
        await stream.aclose()
        got = await ask(upstream, request("stop", first.turn))
        assert got.input_tokens - got.cached < 60
        await same_alone(upstream, got)

    async def test_the_same_again_is_read_only_once(self, upstream: LocalUpstream) -> None:
        """A client that repeats a request whose answer it never got does not pay for the prompt again."""
        asked = [user_message(LONG), user_message("repeated")]
        stream = await begin(upstream, request(asked, max_output_tokens=None))
        await first_text(stream)
        await stream.aclose()
        got = await ask(upstream, request(asked))
        assert got.input_tokens - got.cached == 1

    async def test_a_replay_finds_the_state_too(self, upstream: LocalUpstream) -> None:
        """A client that sends its whole history has the same prompt, so all but the news is there."""
        first = await ask(upstream, request(LONG))
        second = await ask(upstream, request("go on", first.turn))
        items = [*first.turn.input, *first.turn.output, *second.turn.input]
        replayed = await ask(upstream, request(items))
        assert replayed.text == second.text
        assert replayed.input_tokens - replayed.cached == 1

    async def test_another_tenant_finds_nothing(self, upstream: LocalUpstream) -> None:
        """How fast an answer comes tells nobody what somebody else has asked."""
        secret = "the secret word is water " + LONG
        await ask(upstream, request(secret))
        assert (await ask(upstream, request(secret, tenant="mallory"))).cached == 0

    async def test_other_instructions_are_another_prompt(self, upstream: LocalUpstream) -> None:
        """They stand before everything, so nothing can be kept; the answer is right."""
        first = await ask(upstream, request(LONG, instructions="be short"))
        got = await ask(upstream, request("go on", first.turn, instructions="talk long"))
        assert got.cached < 20
        await same_alone(upstream, got, instructions="talk long")

    async def test_a_warm_up_reads_and_says_nothing(self, upstream: LocalUpstream) -> None:
        """What is asked next finds its beginning read."""
        counted = await upstream.prefill(request(f"warm {LONG}"))
        assert (counted.input_tokens > 200, counted.output_tokens) == (True, 0)
        got = await ask(upstream, request(f"warm {LONG}"))
        assert got.input_tokens - got.cached == 1

    async def test_instructions_can_be_read_before_there_is_a_question(self, upstream: LocalUpstream) -> None:
        """What a client has set up is read ahead, and what is asked then begins behind it."""
        first = f"set up {LONG}"
        await upstream.prefill(request([], instructions=first))
        got = await ask(upstream, request("now", instructions=first))
        assert got.input_tokens - got.cached < 30
        assert (await upstream.prefill(request([]))).output_tokens == 0

    async def test_an_engine_that_fails_leaves_no_state(
        self, upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A computation that broke off may have left anything behind: it is all computed anew."""
        first = await ask(upstream, request(f"failing {LONG}"))

        def broken(model: LoadedModel, parts: object) -> list[int]:
            raise RuntimeError("llama_decode failed")

        with monkeypatch.context() as patch:
            patch.setattr(LoadedModel, "compute", broken)
            failed = await ask(upstream, request("go on", first.turn))
        assert failed.finished.status == "failed"
        assert "llama_decode failed" in caplog.text
        got = await ask(upstream, request("go on", first.turn))
        assert got.cached < 100
        await same_alone(upstream, got)

    async def test_a_model_that_cannot_divide_a_sequence(
        self, upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As recurrent ones cannot: what is continued exactly is reused, everything else is computed anew."""
        monkeypatch.setattr(upstream.model, "divisible", False)
        monkeypatch.setattr(LoadedModel, "rewind", lambda model, slot, length: False)
        first = await ask(upstream, request("undivided"))
        exact = await ask(upstream, request([*first.turn.input, *first.turn.output, user_message("more")]))
        fork = await ask(upstream, request("other", first.turn))
        assert fork.cached == 0
        for got in (exact, fork):
            await same_alone(upstream, got)

    async def test_what_nobody_has_foreseen_ends_all_turns_and_no_more(
        self, upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The engine starts over, without any state, instead of leaving everybody waiting."""
        first = await ask(upstream, request(LONG))

        def broken(memory: KvCache, cells: int, *, slot: bool = False) -> list[int] | None:
            raise RuntimeError("a cell is gone")

        with monkeypatch.context() as patch:
            patch.setattr(KvCache, "choose_victims", broken)
            asked = (ask(upstream, request("go on", first.turn)) for _ in range(3))
            refused = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in refused] == [Refused] * 3
        assert "a cell is gone" in caplog.text
        got = await ask(upstream, request("go on", first.turn))
        assert got.cached == 0
        await same_alone(upstream, got)

    async def test_penalties_are_obeyed(self, upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
        """A model that repeats itself can be made to stop that."""
        monkeypatch.setattr(LoadedModel, "is_end_of_answer", lambda model, token: False)
        plain = await ask(upstream, request("repeat", max_output_tokens=150))
        varied = await ask(upstream, request("repeat", max_output_tokens=150, frequency_penalty=2.0))
        assert len(set(varied.text.split(" "))) > len(set(plain.text.split(" ")))


@pytest.mark.asyncio(loop_scope="module")
class TestTools:
    async def test_a_demanded_call_is_one(self, upstream: LocalUpstream) -> None:
        """Of a model that knows nothing: the call parses, and its arguments are of the function's schema."""
        for name in ("one", "two", "three"):
            got = await ask(
                upstream,
                request(name, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, max_output_tokens=99),
            )
            (call,) = got.items
            assert (call["type"], call["name"], call["status"]) == ("function_call", "weather", "completed")
            arguments = json.loads(call["arguments"])
            assert arguments["city"] in {"Rome", "Oslo"}
            assert isinstance(arguments["unit"], bool)

    async def test_calls_and_their_outputs_are_continued(self, upstream: LocalUpstream) -> None:
        """A call, its output and the next call are a conversation like any other."""
        fields: dict[str, Any] = {
            "tools": [WEATHER],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "max_output_tokens": 99,
        }
        got = await ask(upstream, request(LONG, **fields))
        for _ in range(3):
            output = {"type": "function_call_output", "call_id": got.items[-1]["call_id"], "output": "12 degrees"}
            got = await ask(upstream, request([json.dumps(output).encode()], got.turn, **fields))
            assert got.input_tokens - got.cached < 160
            alone = await ask_alone(upstream, got.turn, request("", **fields).settings)
            assert [one["arguments"] for one in alone.items] == [one["arguments"] for one in got.items]
            assert alone.input_tokens == got.input_tokens

    async def test_a_named_function_is_called(self, upstream: LocalUpstream) -> None:
        other = {"type": "function", "name": "other", "parameters": {"type": "object", "properties": {}}}
        choice = {"type": "function", "name": "other"}
        fields: dict[str, Any] = {"tools": [WEATHER, other], "tool_choice": choice, "parallel_tool_calls": False}
        got = await ask(upstream, request("x", **fields, max_output_tokens=60))
        assert {one["name"] for one in got.items} == {"other"}

    async def test_a_call_that_the_model_begins_is_held_to_its_schema(
        self, upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its mark is a control token here; from there on the grammar holds, and arguments parse."""
        (mark,) = upstream.model.tokenize("<tool_call>", True)
        sampler = LoadedModel.sampler

        class Marking:
            def sample(self, index: int) -> int:
                return mark

        def marking(
            model: LoadedModel,
            given: Settings,
            seed: int,
            grammar: TokenMatcher | None = None,
            sampled: Sequence[int] = (),
        ) -> object:
            return Marking() if grammar is None else sampler(model, given, seed, grammar, sampled)

        monkeypatch.setattr(LoadedModel, "sampler", marking)
        got = await ask(upstream, request("x", tools=[WEATHER], max_output_tokens=200, parallel_tool_calls=False))
        (call,) = got.items
        assert (call["type"], call["name"], call["status"]) == ("function_call", "weather", "completed")
        assert set(json.loads(call["arguments"])) == {"city", "unit"}

    async def test_json_of_a_schema(self, upstream: LocalUpstream) -> None:
        """The text of an answer is JSON if that is demanded."""
        schema = {
            "type": "object",
            "properties": {"kind": {"enum": ["a", "b"]}, "sure": {"type": "boolean"}},
            "required": ["kind", "sure"],
        }
        form = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
        got = await ask(upstream, request("x", text=form, max_output_tokens=99))
        value = json.loads(got.text)
        assert set(value) == {"kind", "sure"}

    async def test_grammars_are_made_beside_the_loop(
        self, upstream: LocalUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A large schema takes a tenth of a second, in which everybody else must not stand still."""
        threads: list[threading.Thread] = []
        compile_grammar = LoadedModel.compile_grammar

        def noted(model: LoadedModel, lark: str) -> AnswerGrammar:
            threads.append(threading.current_thread())
            return compile_grammar(model, lark)

        monkeypatch.setattr(LoadedModel, "compile_grammar", noted)
        await ask(upstream, request("x", tools=[WEATHER]))
        assert threads
        assert threading.current_thread() not in threads

    async def test_a_schema_that_cannot_be_followed_is_refused(self, upstream: LocalUpstream) -> None:
        form = {"format": {"type": "json_schema", "name": "x", "schema": {"$ref": "#/$defs/none"}}}
        asked = request("x", text=form)
        with pytest.raises(Exception, match="leads nowhere"):
            await anext(upstream.stream(asked))

    async def test_a_schema_of_many_readings_ends_its_own_answer(self, upstream: LocalUpstream) -> None:
        """Two kinds of arrays of each other: what may be meant doubles with each bracket, and is bounded."""
        arrays = [{"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1, "maxItems": most} for most in (3, 4)]
        schema = {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": arrays}}}
        form = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
        asked = request("x", text=form, max_output_tokens=200)
        *_, last = [event async for batch in upstream.stream(asked) for event in batch]
        assert isinstance(last, Ended)
        assert last.status == "failed"
        assert last.error is not None
        assert last.error.code == "invalid_value"
        assert last.error.message.startswith("The local model cannot follow a schema: ")


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


class TestMemory:
    """A context that holds four conversations, and many more of them."""

    CELLS = 1024

    async def interleaved(self, upstream: LocalUpstream, rounds: int, *, store: bool = False) -> int:
        """Hold 16 conversations in turns; return how many tokens were reused."""
        parents: list[Turn | None] = [None] * 16
        answers: list[Answer] = []
        for number in range(rounds):
            for index in range(16):
                text = f"{index} of {'many words ' * 30}" if not number else f"more {number}"
                got = await ask(upstream, request(text, parents[index], store=store))
                parents[index] = got.turn
                answers.append(got)
        for got in answers:
            await same_alone(upstream, got)
        return sum(got.cached for got in answers)

    @pytest.mark.deep  # `test_at_once` is the quick one
    async def test_sixteen_conversations_through_a_context_for_four(self) -> None:
        """Each is evicted and restored again and again, and every answer is that of the conversation alone."""
        async with tiny(context=320, kv_bytes=self.CELLS * cell_bytes()) as upstream:
            reused = await self.interleaved(upstream, 4)
            counts = upstream.counters
            assert counts.evictions > 16
            assert counts.restored_tokens > 16 * 3 * 70
            assert reused > 16 * 3 * 70
            assert counts.context_tokens <= self.CELLS

    @pytest.mark.untraced
    async def test_at_once(self) -> None:
        """The same with all sixteen turns of a round running at the same time, two for each place."""
        async with tiny(context=256, kv_bytes=self.CELLS * cell_bytes(), parallel=8) as upstream:
            parents: list[Turn | None] = [None] * 16
            answers: list[Answer] = []
            for number in range(3):
                turns = (
                    ask(upstream, request(f"{index} of {'many words ' * 30}", parents[index]))
                    if not number
                    else ask(upstream, request(f"more {number}", parents[index]))
                    for index in range(16)
                )
                got = await asyncio.gather(*turns)
                parents = [one.turn for one in got]
                answers += got
            assert upstream.counters.evictions > 0
            for one in answers:
                await same_alone(upstream, one)

    @pytest.mark.untraced
    async def test_turns_that_outgrow_the_context_give_way(self) -> None:
        """Answers that together need more than there is are preempted and resume later; nothing is lost of them."""
        async with tiny(context=256, kv_bytes=1, parallel=4) as upstream:
            asked = [request(f"{index} {'words ' * 10}", max_output_tokens=150) for index in range(4)]
            answers = await asyncio.gather(*(ask(upstream, one) for one in asked))
            assert upstream.counters.preemptions > 0
            for one in answers:
                await same_alone(upstream, one, max_output_tokens=150)

    @pytest.mark.untraced
    async def test_without_host_memory_everything_is_read_again(self) -> None:
        """Eviction then forgets, and the answers are the same."""
        async with tiny(context=256, kv_bytes=self.CELLS * cell_bytes(), host_bytes=0) as upstream:
            await self.interleaved(upstream, 2)
            assert upstream.counters.restored_tokens == 0
            assert upstream.counters.host_bytes == 0

    @pytest.mark.untraced
    @pytest.mark.parametrize("store", [True, False])
    async def test_only_stored_turns_go_to_disk(self, tmp_path: Path, store: bool) -> None:
        """With no host memory, stored conversations are restored from files; others never touch the disk."""
        options: dict[str, Any] = {"host_bytes": 0, "disk_bytes": 2**26, "spill_directory": tmp_path}
        async with tiny(context=256, kv_bytes=self.CELLS * cell_bytes(), **options) as upstream:
            await self.interleaved(upstream, 2, store=store)
            files = files_in(tmp_path)
            assert bool(files) == store
            assert (upstream.counters.sequences["disk"] > 0) == store
            assert (upstream.counters.restored_tokens > 0) == store
            assert all(path.stat().st_mode & 0o077 == 0 for path in files)
        assert not files_in(tmp_path), "nothing is left when the engine ends"

    async def test_a_lost_file_is_only_slower(self, tmp_path: Path) -> None:
        options: dict[str, Any] = {"host_bytes": 0, "disk_bytes": 2**26, "spill_directory": tmp_path}
        async with tiny(context=256, kv_bytes=1, **options) as upstream:
            first = await ask(upstream, request("many words " * 30, store=True))
            await ask(upstream, request("other words " * 30, store=True))
            for path in files_in(tmp_path):
                path.unlink()
            got = await ask(upstream, request("go on", first.turn, store=True))
            assert got.cached < 50
            await same_alone(upstream, got)


class TestPlaces:
    """The queue of an engine by itself: one turn runs, two may wait."""

    @pytest.fixture
    def engine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
        """An engine that computes nothing until it is stopped."""
        path, gate, compute = tmp_path / "tiny.gguf", threading.Event(), LoadedModel.compute

        def gated(model: LoadedModel, entries: Sequence[BatchEntry]) -> list[int]:
            gate.wait(PATIENCE_S)
            return compute(model, entries)

        write_tiny_model(path)
        engine, ready = Engine(ModelFile(path, "tiny", 256, 1, kv_bytes=1, parallel=1, waiting=2)), threading.Event()
        engine.start(lambda reason: ready.set())
        try:
            assert ready.wait(PATIENCE_S)
            monkeypatch.setattr(LoadedModel, "compute", gated)
            yield engine
        finally:
            gate.set()
            engine.stop()
            engine.join()

    def submitted(self, engine: Engine, tenant: str) -> Job:
        parser = parser_for(DEFAULT_CALL_FORMAT, Tools())
        job = Job(request("x", tenant=tenant), Prompt([20, 21], 2), parser, wake=lambda: None)
        engine.submit(job)
        return job

    def test_whoever_closes_an_engine_does_not_wait_for_ever(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The store can be closed while the model is still at a token, and the log says what the process waits for."""
        entered, compute = threading.Event(), LoadedModel.compute

        def noted(model: LoadedModel, entries: Sequence[BatchEntry]) -> list[int]:
            entered.set()
            return compute(model, entries)

        monkeypatch.setattr(LoadedModel, "compute", noted)
        self.submitted(engine, "mallory")
        assert entered.wait(PATIENCE_S)
        engine.stop()
        assert not engine.join(0.01)

    def test_a_full_queue_refuses_its_longest_tenant(self, engine: Engine) -> None:
        for _ in range(3):
            self.submitted(engine, "alice")
        assert (engine.running, engine.waiting) == (1, 2)
        with pytest.raises(Refused, match="2 turns are waiting"):
            self.submitted(engine, "alice")

    def test_a_newcomer_displaces_the_last_turn_of_the_longest_tenant(self, engine: Engine) -> None:
        _, waiting, last = [self.submitted(engine, "alice") for _ in range(3)]
        other = self.submitted(engine, "bob")
        assert [one.code for one in last.take() if isinstance(one, Problem)] == ["server_overloaded"]
        assert (waiting.take(), other.take(), engine.waiting) == ([], [], 2)

    def test_a_cancelled_turn_leaves_the_queue(self, engine: Engine) -> None:
        _, waiting = [self.submitted(engine, "alice") for _ in range(2)]
        engine.cancel(waiting)
        assert (engine.running, engine.waiting, waiting.take()) == (1, 0, [])

    def test_stopping_refuses_whatever_comes(self, engine: Engine) -> None:
        engine.stop()
        with pytest.raises(Refused, match="was stopped"):
            self.submitted(engine, "alice")
        with pytest.raises(Refused, match="was stopped"):
            _ = engine.model

    async def test_a_directory_that_cannot_be_used_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "tiny.gguf"
        write_tiny_model(path)
        upstream = LocalUpstream(ModelFile(path, "tiny", disk_bytes=1, spill_directory=path))
        with pytest.raises(Unavailable, match=r"^kv_directory cannot be used"):
            await upstream.start()


class TestFairness:
    async def test_a_long_prompt_does_not_stall_an_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """While one turn answers, another's prompt is read in small pieces between its tokens."""
        monkeypatch.setattr(LoadedModel, "is_end_of_answer", lambda model, token: False)
        async with tiny(context=2048, kv_bytes=8192 * cell_bytes(), chunk=16) as upstream:
            stream = await begin(upstream, request("tell", max_output_tokens=None))
            await first_text(stream)
            reading = asyncio.ensure_future(ask(upstream, request(LONG * 2, max_output_tokens=1)))
            seen = 0
            while not reading.done():
                await anext(stream)
                seen += 1
            await stream.aclose()
            assert seen > 10


turns = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["one", "two words", "many words " * 12]), st.booleans()),
    min_size=1,
    max_size=7,
)


@pytest.mark.timeout(600)
@settings(max_examples=examples(25))
@given(turns)
def test_any_tree_of_turns_is_answered_as_if_alone(plan: list[tuple[int, str, bool]]) -> None:
    """For any turns, each continuing any earlier one, some of them cancelled first: the same tokens."""

    async def hold() -> None:
        async with tiny(context=512, kv_bytes=1, host_bytes=60_000, slots=4) as upstream:
            done: list[Answer] = []
            for choice, text, cancelled in plan:
                parent = done[choice % len(done)].turn if done and choice else None
                if cancelled:
                    stream = await begin(upstream, request(f"{text} no", parent, max_output_tokens=None))
                    await first_text(stream)
                    await stream.aclose()
                done.append(await ask(upstream, request(text, parent)))
            for got in done:
                await same_alone(upstream, got)

    asyncio.run(hold())

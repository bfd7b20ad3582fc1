"""The local model beside another server: both do the same work, by turns, and the report compares neighbours."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from segue.bench import engine_comparison
from segue.bench.arms.engine_servers import EngineServerSpec, ModelServer, serve_engine
from segue.bench.engine_comparison import OURS, THEIRS, ComparisonPlan, Prompts, measure, render
from segue.bench.meters.chat_stream import TimedAnswer
from segue.testing.tiny_model import write_tiny_model
from tests.bench.arms.processes import InProcess
from tests.terminals import terminal_of

PLAN = ComparisonPlan(lengths=(100,), tokens=4, at_once=(2,), turns=2, beside=200, rounds=2)


@pytest.mark.local_engine
async def test_both_do_the_same_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here both are the local model, in this process."""
    specs: list[ModelServer] = []

    @asynccontextmanager
    async def here(spec: ModelServer, module: str) -> AsyncIterator[InProcess]:
        specs.append(spec)
        ours = EngineServerSpec(file=spec.file, context=4096, cells=4096, parallel=spec.parallel, threads=spec.threads)
        async with serve_engine(ours) as address:
            yield InProcess(address)

    monkeypatch.setattr(engine_comparison, "launched", here)
    monkeypatch.setitem(engine_comparison.PROBES, THEIRS, {"health check": ("/healthz", None)})
    file = tmp_path / "tiny.gguf"
    write_tiny_model(file)
    shown = io.StringIO()
    report = await measure(file, PLAN, threads=1)
    render(report, terminal_of(file=shown, width=160))
    assert [(one.file, one.parallel, one.threads) for one in specs] == [(str(file), 2, 1)] * 4, (
        "new processes in each round"
    )
    by_name = {one.name: one for one in report.figures}
    names = ["first token, 100 tokens", "writing behind 100 tokens", "2 at once", "2 turns"]
    names += ["first token, a turn that goes on", "health check beside 200 tokens, p99"]
    for name in names:
        assert name in shown.getvalue()
        for server in (OURS, THEIRS):
            assert (by_name[f"{name}, {server}"].value or 0) > 0
    ratio, ours, theirs = (by_name[f"2 turns{end}"] for end in (", times as fast", f", {OURS}", f", {THEIRS}"))
    assert min(ratio.low or 0, ratio.high or 0) > 0
    assert (ours.low or 0) / (theirs.high or 1) <= (ratio.value or 0) <= (ours.high or 0) / (theirs.low or 1)
    assert (report.settings["against"], report.settings["cells"]) == (THEIRS, 16384)
    assert {*report.settings["llama.cpp"]} == {OURS, THEIRS}
    assert (by_name[f"scripted turn beside 200 tokens, p50, {OURS}"].value or 0) > 0
    assert (
        f"scripted turn beside 200 tokens, p50, {THEIRS}" not in by_name
        or not by_name[f"scripted turn beside 200 tokens, p50, {THEIRS}"].value
    )
    assert "scripted turn beside 200 tokens, p99" in shown.getvalue()


async def test_only_the_pieces_that_are_named_are_measured() -> None:
    assert PLAN.pieces() == ["prompt-100", "at-once-2", "turns", "beside"]
    none = ComparisonPlan(lengths=(7,), at_once=(), turns=0, beside=0)
    assert none.pieces() == ["prompt-7"]
    for only, count in {(): 4, ("turns",): 1, ("beside", "prompt-100"): 2}.items():
        plan = msgspec.structs.replace(PLAN, only=only)
        assert len(engine_comparison._works(plan, Prompts())) == count  # noqa: SLF001 - what is done needs servers


def test_prompts_are_as_long_as_they_are_named() -> None:
    """Once an answer has told how long a token is."""
    prompts = Prompts()
    first, second = prompts.message(100, "one"), prompts.message(400, "two")
    prompts.learn([(one, 30 + len(one["content"]) // 5) for one in (first, second)])
    longer = prompts.message(1000, "three")
    assert abs(len(longer["content"]) / 5 - 1000) < 5


class _Listener(engine_comparison.Server, frozen=True):
    """Notes what it is asked."""

    asked: list[str]

    async def ask(self, messages: Sequence[Mapping[str, str]], tokens: int) -> TimedAnswer:
        if len(messages) == 1:
            self.asked.append(messages[0]["content"])
        return TimedAnswer(text="one", prompt_tokens=7, output_tokens=tokens, first_token_s=0.1, time_s=1.0)

    async def probe(self, path: str, body: bytes | None) -> float:
        return 0.0


async def test_no_two_prompts_of_all_rounds_begin_alike() -> None:
    """Else a server would have read a part of a longer one when it read a shorter one."""
    plan = ComparisonPlan(lengths=(100, 200), at_once=(1, 2), turns=2, beside=100)
    listener = _Listener(OURS, None, None, [])  # type: ignore[arg-type]  # it has neither a process nor a session
    for number in (1, 2):
        for work in engine_comparison._works(plan, Prompts()):  # noqa: SLF001 - what is done needs servers
            await work(listener, number)
    assert len(listener.asked) == 2 * 7
    assert len({text[:30] for text in listener.asked}) == 2 * 7


def test_percentiles() -> None:
    times = [float(one) for one in range(100, 0, -1)]
    assert [engine_comparison._percentile(times, share) for share in (0.5, 0.99)] == [51.0, 100.0]  # noqa: SLF001 - of times alone
    assert engine_comparison._percentile([3.0], 0.99) == 3.0  # noqa: SLF001 - as above


def test_less_time_and_more_tokens_are_both_faster() -> None:
    """So a ratio above 1 always says that the local model was."""
    speed = engine_comparison.Speed
    found = {
        OURS: {"a": [speed("a", 1.0, "s", "less")], "b": [speed("b", 30.0, "tokens/s", "more")]},
        THEIRS: {"a": [speed("a", 2.0, "s", "less")], "b": [speed("b", 20.0, "tokens/s", "more")]},
    }
    ratios = [one.value for one in engine_comparison._figures(found) if one.unit == "x"]  # noqa: SLF001 - what it computes from the speeds alone
    assert ratios == [2.0, 1.5]

"""The local model beside another server: both do the same work, by turns, and the report compares neighbours."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from segue.bench import engine_comparison
from segue.bench.arms.engine_servers import EngineServerSpec, ModelServer, serve_engine
from segue.bench.engine_comparison import OURS, THEIRS, ComparisonPlan, Prompts, measure, render
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
        ours = EngineServerSpec(file=spec.file, context=1024, cells=1024, parallel=spec.parallel, threads=spec.threads)
        async with serve_engine(ours) as address:
            yield InProcess(address)

    monkeypatch.setattr(engine_comparison, "launched", here)
    monkeypatch.setitem(engine_comparison.PROBES, THEIRS, {"health check": ("/healthz", None)})
    file = tmp_path / "tiny.gguf"
    write_tiny_model(file)
    shown = io.StringIO()
    report = await measure(file, PLAN, threads=1)
    render(report, terminal_of(file=shown, width=160))
    assert [(one.file, one.parallel, one.threads) for one in specs] == [(str(file), 2, 1)] * 2
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
    """Once an answer has told how long a token is; and no two begin alike."""
    prompts = Prompts()
    first, second = prompts.message(100, 1), prompts.message(400, 2)
    prompts.learn([(one, 30 + len(one["content"]) // 5) for one in (first, second)])
    longer = prompts.message(1000, 3)
    assert abs(len(longer["content"]) / 5 - 1000) < 5
    assert len({one["content"][:2] for one in (first, second, longer)}) == 3


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

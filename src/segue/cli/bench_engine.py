"""`segue bench engine`: measures what a turn costs the local engine, by its context, or beside another engine."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from segue.bench import engine_comparison
from segue.bench.arms.engine_servers import why_no_llama_server
from segue.bench.engine import LENGTHS, QUICK_LENGTHS, ROUNDS, TINY, measure, render
from segue.bench.engine_comparison import FULL_PLAN, QUICK_PLAN, ComparisonPlan
from segue.bench.reports.chart_selection import charts_of
from segue.bench.reports.svg import stand_alone
from segue.cli.bench_output import progress_console, show, told
from segue.cli.loop import run
from segue.cli.output_file import ReportFiles, writing
from segue.config import has_openmp_policy, models_directory
from segue.engine import MODEL_NAME, find_model, why_no_engine, why_unavailable
from segue.engine.model import usable_processors
from segue.engine.openmp import shorten_spinning
from segue.terminal import terminal
from segue.testing.tiny_model import BENCH_SHAPE, write_tiny_model


def run_bench_engine(
    model: str | None,
    *,
    template: Path | None,
    threads: int | None,
    rounds: int | None,
    quick: bool,
    files: ReportFiles,
    plot: Path | None,
) -> int:
    """Measure the named model. Without a name, measure the model in the box, or the tiny one if `quick` is set."""
    named = model or (TINY if quick or find_model(models_directory()) is None else MODEL_NAME)
    file = find_model(models_directory()) if named == MODEL_NAME else Path(named)
    reason = why_no_engine() if named == TINY else why_unavailable(file)
    if reason is not None:
        print(f"segue: {reason}", file=sys.stderr)
        return 2
    if not has_openmp_policy():
        shorten_spinning()
    console = terminal()
    report = run(
        measure(
            None if named == TINY else file,
            QUICK_LENGTHS if quick else LENGTHS,
            rounds=rounds or ROUNDS,
            threads=threads,
            template=template,
            console=progress_console(),
        )
    )
    show(report, render, console, files=files)
    if plot is not None:
        with writing(plot):
            plot.write_text(stand_alone(charts_of(report)[0]), encoding="utf-8")
        told(plot, console)
    return 0


def comparison_plan(*, quick: bool, rounds: int | None, only: tuple[str, ...]) -> ComparisonPlan:
    """Return what is compared."""
    plan = QUICK_PLAN if quick else FULL_PLAN
    return msgspec.structs.replace(plan, rounds=rounds or plan.rounds, only=only)


def run_bench_engine_against(
    model: str | None,
    *,
    template: Path | None,
    threads: int | None,
    plan: ComparisonPlan,
    files: ReportFiles,
) -> int:
    """Compare the named model, or the one in the box, with llama.cpp's own server; without that, say so and pass."""
    unknown = sorted({*plan.only} - {*plan.pieces()})
    if unknown:
        print(f"segue: there is no {', '.join(unknown)}, only {', '.join(plan.pieces())}", file=sys.stderr)
        return 2
    missing = why_no_engine() or why_no_llama_server()
    if missing is not None:
        print(f"segue: skipped: {missing}", file=sys.stderr)
        return 0
    named = model or (MODEL_NAME if find_model(models_directory()) is not None else TINY)
    with TemporaryDirectory() as folder:
        file = find_model(models_directory()) if named == MODEL_NAME else Path(named)
        if named == TINY:
            file = Path(folder) / f"{TINY}.gguf"
            write_tiny_model(file, BENCH_SHAPE)
        reason = why_unavailable(file)
        if reason is not None or file is None:
            print(f"segue: {reason}", file=sys.stderr)
            return 2
        report = run(
            engine_comparison.measure(
                file,
                plan,
                threads=threads or usable_processors(),
                template=template,
                console=progress_console(),
            )
        )
    show(report, engine_comparison.render, terminal(), files=files)
    return 0

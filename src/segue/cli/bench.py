"""`segue bench …`: runs a benchmark and renders its report."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from segue.bench import dialects
from segue.bench.gateway import measure, render
from segue.bench.reports.report import write
from segue.cli.loop import run


def run_bench_gateway(*, quick: bool, json_file: Path | None) -> int:
    """Measure the gateway; a missed budget is shown, and is no error."""
    console = Console()
    report = run(measure(quick=quick, console=console))
    render(report, console)
    if json_file is not None:
        write(report, json_file)
        console.print(f"written to {json_file}", style="dim")
    return 0


def run_bench_dialects(*, quick: bool, json_file: Path | None) -> int:
    """Measure what it costs to send a whole history to a provider."""
    console = Console()
    report = run(dialects.measure(quick=quick, console=console))
    dialects.render(report, console)
    if json_file is not None:
        write(report, json_file)
        console.print(f"written to {json_file}", style="dim")
    return 0

"""What every `segue bench` command does with its report: shows it, and writes it to the file that the user named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from segue.bench.reports.report import BenchReport, write


def show(
    report: BenchReport, render: Callable[[BenchReport, Console], None], console: Console, *, json_file: Path | None
) -> None:
    """Render a report, and write it as JSON if there is a file for it."""
    render(report, console)
    if json_file is not None:
        write(report, json_file)
        console.print(f"written to {json_file}", style="dim")

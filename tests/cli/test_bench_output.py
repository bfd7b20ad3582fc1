"""A benchmark's report is shown, and written to a file if one is named."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from segue.bench.reports.report import BenchReport, figure, make_report
from segue.cli.bench_output import show

REPORT = make_report([], {"rounds": 1}, [figure("cost", [1.0], "ms")])


def render(report: BenchReport, console: Console) -> None:
    console.print(*(one.name for one in report.figures))


@pytest.mark.parametrize("named", [False, True])
def test_shows_and_writes_the_same_report(named: bool, tmp_path: Path) -> None:
    shown, file = io.StringIO(), tmp_path / "report.json"
    show(REPORT, render, Console(file=shown, width=200), json_file=file if named else None)
    assert shown.getvalue() == ("cost\n" + (f"written to {file}\n" if named else ""))
    assert file.exists() == named
    if named:
        assert msgspec.json.decode(file.read_bytes(), type=BenchReport) == REPORT

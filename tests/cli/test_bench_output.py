"""A benchmark's report is shown, and written to the files that are named."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from segue.bench.reports.html_report import to_html
from segue.bench.reports.markdown_report import to_markdown
from segue.bench.reports.report import BenchReport, figure, make_report
from segue.cli.bench_output import refuse, show, told_steps
from segue.cli.output_file import NO_FILES, ReportFiles
from tests.terminals import terminal_of

REPORT = make_report([], {"rounds": 1}, [figure("cost", [1.0], "ms")])


def render(report: BenchReport, console: Console) -> None:
    console.print(*(one.name for one in report.figures))


@pytest.mark.parametrize("kinds", [[], ["json"], ["markdown"], ["json", "html", "markdown"]])
def test_shows_and_writes_the_same_report(kinds: list[str], tmp_path: Path) -> None:
    """Under the name of the file."""
    shown = io.StringIO()
    named = {kind: tmp_path / f"[red] costs.{kind}" for kind in kinds}
    files = ReportFiles(**named) if named else NO_FILES
    show(REPORT, render, terminal_of(file=shown, width=20), files=files)
    order = [named[kind] for kind in ("json", "markdown", "html") if kind in named]
    assert shown.getvalue() == "cost\n" + "".join(f"written to {file}\n" for file in order)
    made = {file.suffix[1:]: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    assert set(made) == set(kinds)
    if "json" in made:
        assert msgspec.json.decode(made["json"], type=BenchReport) == REPORT
    assert made.get("markdown", to_markdown({"[red] costs": REPORT})) == to_markdown({"[red] costs": REPORT})
    assert made.get("html", to_html({"[red] costs": REPORT})) == to_html({"[red] costs": REPORT})


def test_a_refusal_is_one_line_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert refuse("there is no link 'x'") == 2
    assert capsys.readouterr() == ("", "segue: there is no link 'x'\n")


def test_steps_are_told_line_by_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """So a log shows how far a long measurement is, and stdout has the report alone."""
    with told_steps() as on_step:
        on_step("one [bold]")
        on_step("two")
    assert capsys.readouterr() == ("", "segue: one [bold]\nsegue: two\n")

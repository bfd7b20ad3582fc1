"""How every `segue bench` command ends: it shows its report and writes it to files, or it says why it has none.

Not here: measuring, and how a report looks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from segue.bench.reports.html_report import to_html
from segue.bench.reports.markdown_report import to_markdown
from segue.bench.reports.report import BenchReport, write
from segue.cli.output_file import ReportFiles, writing
from segue.config.explanations import explain_value
from segue.terminal import terminal


def progress_console() -> Console | None:
    """Return where progress is shown: the terminal at stderr, since the report may go into a pipe; None without one."""
    console = terminal(stderr=True)
    return console if console.is_terminal else None


@contextmanager
def told_steps() -> Iterator[Callable[[str], None]]:
    """Yield what tells the present step on stderr: in place on a terminal, else line by line."""
    console = progress_console()
    if console is None:
        yield lambda step: print(f"segue: {step}", file=sys.stderr, flush=True)
        return
    with console.status("") as status:
        yield lambda step: status.update(Text(step))


def show(
    report: BenchReport, render: Callable[[BenchReport, Console], None], console: Console, *, files: ReportFiles
) -> None:
    """Render a report, and write it to each file that there is for it."""
    render(report, console)
    if files.json is not None:
        with writing(files.json):
            write(report, files.json)
        told(files.json, console)
    named = next((file.stem for file in (files.json, files.html, files.markdown) if file is not None), "report")
    write_pages({named: report}, console, files=files)


def write_pages(reports: Mapping[str, BenchReport], console: Console, *, files: ReportFiles) -> None:
    """Write reports, each under its name, for readers: as Markdown and as a page."""
    for file, make in ((files.markdown, to_markdown), (files.html, to_html)):
        if file is not None:
            with writing(file):
                file.write_text(make(reports), encoding="utf-8")
            told(file, console)


def told(file: Path, console: Console) -> None:
    """Say that a file was written."""
    console.print(f"written to {file}", style="dim", highlight=False, soft_wrap=True)


def refuse(reason: str) -> int:
    """Say in one line why nothing is measured; returns the exit status for wrong options and files."""
    print(f"segue: {reason}", file=sys.stderr)
    return 2


def option_fault(error: Exception) -> str:
    """Say what is wrong with an option, whose value msgspec has checked under its name; all else is said as it is."""
    what, _, path = str(error).partition(" - at `$.")
    return f"--{path.rstrip('`').replace('_', '-')} {explain_value(what, None)}" if path else what

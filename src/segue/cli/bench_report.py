"""`segue bench report`: writes result files for readers, as a page with plots or as Markdown. Not here: measuring."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from segue.bench.reports.markdown_report import to_markdown
from segue.bench.reports.report import BenchReport
from segue.bench.reports.result_file import ResultFileError, read_results
from segue.cli.bench_output import write_pages
from segue.cli.output_file import ReportFiles
from segue.terminal import terminal


def run_bench_report(results: Sequence[Path], *, files: ReportFiles) -> int:
    """Write result files to the files that the user named; without any, write Markdown to stdout."""
    try:
        reports = read_named(results)
    except ResultFileError as error:
        print(f"segue: {error}", file=sys.stderr)
        return 2
    if not reports:
        print("segue: name at least one result file", file=sys.stderr)
        return 2
    if files.markdown is None and files.html is None:
        print(to_markdown(reports), end="")
        return 0
    write_pages(reports, terminal(), files=files)
    return 0


def read_named(results: Sequence[Path]) -> dict[str, BenchReport]:
    """Read result files. Each is named by its file, or by its path where two files have the same name."""
    stems = [file.stem for file in results]
    names = [str(file) if stems.count(file.stem) > 1 else file.stem for file in results]
    return {name: read_results(file) for name, file in zip(names, results, strict=True)}

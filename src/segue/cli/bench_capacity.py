"""`segue bench capacity`: computes what continuation saves a fleet of agents, and what it costs, and shows how."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from segue.bench.capacity import (
    ASSUMPTIONS,
    FleetWorkload,
    arms,
    figures,
    problem_of,
    savings_by_turns,
    with_measured_costs,
)
from segue.bench.reports.report import BenchReport, make_report
from segue.bench.reports.result_file import ResultFileError, read_results
from segue.cli.bench_output import show
from segue.cli.output_file import ReportFiles
from segue.terminal import print_table, terminal

_WHOLE_FROM = 10_000  # from there on, whole numbers have digits enough
_SHOWN_TURNS = (1, 2, 5, 10, 20, 50, 84)


def run_bench_capacity(workload: FleetWorkload, *, results: Path | None, files: ReportFiles) -> int:
    """Compute, show, and write if there is a file for it."""
    try:
        priced = workload if results is None else _priced(workload, results)
    except ResultFileError as error:
        print(f"segue: {error}", file=sys.stderr)
        return 2
    if problem := problem_of(priced):
        print(f"segue: {problem}", file=sys.stderr)
        return 2
    settings = {name: getattr(priced, name) for name in priced.__struct_fields__}
    report = make_report(arms(priced), settings, figures(priced))
    show(report, lambda made, console: _render(made, priced, console), terminal(), files=files)
    return 0


def _priced(workload: FleetWorkload, results: Path) -> FleetWorkload:
    priced = with_measured_costs(workload, read_results(results))
    if isinstance(priced, str):
        raise ResultFileError(f"{results} {priced}")
    return priced


def _render(report: BenchReport, workload: FleetWorkload, console: Console) -> None:
    for table in (_assumptions(workload), _result(report), _by_turns(workload)):
        print_table(console, table)
    unpriced = workload.cpu_ms is None or workload.connection_bytes is None
    priced = "Give --results FILE of `segue bench gateway` to see what connections and CPU cost. " if unpriced else ""
    console.print(
        f"{priced}Rates are means over a task; peaks are higher. Continuation does not change which tokens are billed.",
        style="dim",
        highlight=False,
    )


def _assumptions(workload: FleetWorkload) -> Table:
    table = Table("assumption", title="What is assumed", title_justify="left", box=None, pad_edge=False)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("option", no_wrap=True)
    table.add_column("default from")
    for assumption in ASSUMPTIONS:
        value = getattr(workload, assumption.field)
        table.add_row(
            assumption.meaning, "not given" if value is None else _number(value), assumption.option, assumption.source
        )
    return table


def _result(report: BenchReport) -> Table:
    table = Table("\nfigure", box=None, pad_edge=False)
    table.add_column("\nvalue", justify="right")
    table.add_column("\nunit")
    for one in report.figures:
        assert one.value is not None, "every figure is computed"
        table.add_row(one.name, _number(one.value), one.unit)
    return table


def _number(value: float) -> str:
    return f"{value:,.4g}" if value < _WHOLE_FROM else f"{value:,.0f}"


def _by_turns(workload: FleetWorkload) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in ("\nturns", "\nreplay KB", "\ndelta KB", "\nsaved"):
        table.add_column(head, justify="right")
    for turns, replayed, changed, part in savings_by_turns(workload, _SHOWN_TURNS):
        table.add_row(f"{turns:,}", f"{replayed / 1e3:,.1f}", f"{changed / 1e3:,.1f}", f"{100 * part:.1f} %")
    return table

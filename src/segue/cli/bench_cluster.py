"""`segue bench cluster`: measures several gateways on this machine, and plans for a number of sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from segue.bench.arms.database_servers import ServersMissing
from segue.bench.cluster import ClusterBench, costs_of, measure_cluster, verdicts_of
from segue.bench.cluster_plan import AGREES_WITHIN, ClusterPlan, plan_figures, problem_of
from segue.bench.reports.report import BenchReport, make_report
from segue.bench.reports.result_file import ResultFileError, read_results
from segue.cli.bench_output import option_fault, refuse, show, told_steps
from segue.cli.loop import run
from segue.cli.output_file import ReportFiles
from segue.terminal import print_table, terminal, verdict


def run_bench_cluster(settings: dict[str, Any], plan: ClusterPlan, *, results: Path | None, files: ReportFiles) -> int:
    """Measure, or take the costs of an earlier report, and plan. Where a server is missing, say so; the status is 0."""
    try:
        chosen = msgspec.convert({**settings, "plan": msgspec.to_builtins(plan)}, ClusterBench)
    except msgspec.ValidationError as error:
        return refuse(option_fault(error))
    if problem := problem_of(plan):
        return refuse(problem)
    try:
        report = _measured(chosen) if results is None else _planned(plan, results)
    except ResultFileError as error:
        return refuse(str(error))
    except ServersMissing as missing:
        terminal().print(f"skipped: {missing}", highlight=False)
        return 0
    show(report, _render, terminal(), files=files)
    return 0


def _measured(chosen: ClusterBench) -> BenchReport:
    with told_steps() as on_step:
        return run(measure_cluster(chosen, on_step))


def _planned(plan: ClusterPlan, results: Path) -> BenchReport:
    costs = costs_of(read_results(results))
    if costs is None:
        raise ResultFileError(f"{results} has no costs of turns; `segue bench cluster --json` measures them")
    settings = {"plan": msgspec.to_builtins(plan), "costs": msgspec.to_builtins(costs)}
    return make_report([], settings, plan_figures(plan, costs))


def _render(report: BenchReport, console: Console) -> None:
    table = Table(title="Several gateways", title_justify="left", box=None, pad_edge=False)
    for name in ("what", "median", "spread", ""):
        table.add_column(name, justify="left" if name in {"what", ""} else "right")
    for one in report.figures:
        spread = "" if one.low is None or one.low == one.high else f"{one.low:.3g} - {one.high:.3g}"
        value = "not measured" if one.value is None else f"{one.value:,.4g} {one.unit}"
        table.add_row(one.name, value, spread, verdict(met=one.met))
    print_table(console, table)
    limited = report.settings.get("limited")
    if limited is not None:
        share = 100 * float(report.settings["share"])
        each = f"Busy workers had {share:g} % of a core each." if limited else "No worker was limited: that takes root."
        console.print(f"{each} The model is scripted. Rates are means; peaks are higher.", style="dim", highlight=False)
    for said in verdicts_of(report):
        verb = "agrees with" if said.agrees else "does not agree with"
        bound = f"off by {said.off_by:.3g} % at most, the bound is {100 * AGREES_WITHIN:g} %"
        line = f"What was predicted of {said.load} {verb} what was measured: {bound}."
        console.print(line, style="green" if said.agrees else "bold red", highlight=False)

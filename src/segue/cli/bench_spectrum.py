"""`segue bench spectrum`: where a conversation's state can be, how long it lasts there, and what that costs."""

from __future__ import annotations

import sys
from pathlib import Path

from segue.bench.arms.measurement import DifferentWorkError, MeasurementPlan
from segue.bench.arms.tls import why_no_tls
from segue.bench.links.profiles import LINKS
from segue.bench.reports.result_file import ResultFileError, read_results
from segue.bench.spectrum import measure, render
from segue.bench.workloads.workload import UnknownWorkloadError, read_workload
from segue.cli.bench_output import progress_console, refuse, show
from segue.cli.loop import run
from segue.cli.output_file import ReportFiles
from segue.terminal import terminal


def run_bench_spectrum(
    workload: str, *, link: str, tokens_s: float | None, rounds: int, engine: Path | None, files: ReportFiles
) -> int:
    """Measure every row that can be measured; the exit status is 1 if one did other work than the others."""
    if link not in LINKS:
        return refuse(f"there is no link {link!r}; `segue bench links` lists them")
    if rounds < 1 or (tokens_s is not None and not tokens_s > 0):
        return refuse("--rounds must be at least 1, and --tokens-s more than 0")
    if (reason := why_no_tls()) is not None:
        return refuse(reason)
    console = terminal()
    try:
        chosen = read_workload(workload)
        local = None if engine is None else read_results(engine)
        plan = MeasurementPlan(link=LINKS[link], tokens_s=tokens_s)
        report = run(measure(chosen, plan, rounds=rounds, engine=local, console=progress_console()))
    except (UnknownWorkloadError, ResultFileError) as error:
        return refuse(str(error))
    except DifferentWorkError as error:
        print(f"segue: the arms cannot be compared: {error}", file=sys.stderr)
        return 1
    show(report, render, console, files=files)
    return 0

"""`segue bench times`: how long workloads take on the main arms, over links and at model speeds."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.progress import Progress

from segue.bench.arms.measurement import DifferentWorkError, MeasurementPlan
from segue.bench.arms.tls import why_no_tls
from segue.bench.links.profiles import LINKS
from segue.bench.reports.report import BenchReport, write_whole
from segue.bench.reports.result_file import ResultFileError, read_results
from segue.bench.time_grid import (
    LONG_WORKLOADS,
    MAIN_LINKS,
    ROUNDS,
    SPEEDS,
    WORKLOADS,
    Save,
    TimeGrid,
    UnlikeGridError,
    measure,
)
from segue.bench.time_tables import render
from segue.bench.workloads.workload import UnknownWorkloadError, read_workload
from segue.cli.bench_output import refuse, show
from segue.cli.loop import run
from segue.cli.output_file import ReportFiles, writing
from segue.terminal import terminal

_QUICK_SPEEDS = SPEEDS[-1:]


def grid_of(
    workloads: Sequence[str],
    *,
    computed: Sequence[str],
    links: Sequence[str],
    speeds: Sequence[float],
    rounds: int | None,
    tls: bool,
    quick: bool,
) -> TimeGrid:
    """Return what these options say; where they say nothing, the default."""
    return TimeGrid(
        workloads=tuple(dict.fromkeys(workloads or WORKLOADS)),
        computed=tuple(dict.fromkeys(computed or (() if quick else LONG_WORKLOADS))),
        links=tuple(dict.fromkeys(links or MAIN_LINKS)),
        speeds=tuple(dict.fromkeys(speeds or (_QUICK_SPEEDS if quick else SPEEDS))),
        rounds=(1 if quick else ROUNDS) if rounds is None else rounds,
        tls=tls,
    )


def run_bench_times(grid: TimeGrid, *, resume: Path | None, files: ReportFiles) -> int:
    """Measure and compute; the exit status is 1 if one round did other work than another."""
    files = replace(files, json=files.json or resume)
    if (reason := _problem(grid) or _no_place(files.json)) is not None:
        return refuse(reason)
    try:
        before = None if resume is None else read_results(resume)
        return _measure(grid, before, files)
    except ResultFileError as error:
        return refuse(str(error))
    except UnlikeGridError as error:
        return refuse(f"{resume} is of another measurement: {error}")
    except DifferentWorkError as error:
        print(f"segue: the arms cannot be compared: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if files.json is not None and files.json.is_file():
            print(f"segue: stopped; with --resume {files.json} it goes on", file=sys.stderr)
        raise


def _problem(grid: TimeGrid) -> str | None:
    """Return why these options cannot be used."""
    if unknown := [name for name in grid.links if name not in LINKS]:
        return f"there is no link {unknown[0]!r}; `segue bench links` lists them"
    if not all(speed > 0 for speed in grid.speeds):
        return "--tokens-s must be more than 0"
    if grid.rounds < 1:
        return "--rounds must be at least 1"
    try:
        for name in (*grid.workloads, *grid.computed):
            read_workload(name)
    except UnknownWorkloadError as error:
        return str(error)
    reason = why_no_tls() if grid.tls else None
    return None if reason is None else f"{reason}; or give --no-tls"


def _no_place(file: Path | None) -> str | None:
    """Return why results cannot be kept while there are more to come."""
    if file is None or not _kept(file) or os.access(file.parent, os.W_OK):
        return None
    return f"{file} is replaced as results come, and you may not write in {file.parent}"


def _kept(file: Path) -> bool:
    """Tell whether what is written to a file can be replaced: it is no pipe and no terminal."""
    return file.is_file() or not file.exists()


def _measure(grid: TimeGrid, before: BenchReport | None, files: ReportFiles) -> int:
    screen = terminal(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        shown = progress.add_task("", total=None)

        def tell(done: int, steps: int, what: str) -> None:
            progress.update(shown, completed=done, total=steps, description=what)

        report = run(measure(grid, MeasurementPlan(), before=before, save=_saving(files.json), progressed=tell))
    show(report, render, terminal(), files=files)
    return 0


def _saving(file: Path | None) -> Save | None:
    if file is None or not _kept(file):
        return None

    def save(report: BenchReport) -> None:
        with writing(file):
            write_whole(report, file)

    return save

"""Runs the benchmarks that `make bench` has room for, one after the other, and puts their results into a folder.

    python -m tools.run_benchmarks FOLDER [--quick]

The commands are those of `result_files`. They run in FOLDER/.running, so that what is in the folder is replaced only at
the end. If it is stopped, the same command goes on: with the benchmark that was running, or within it where that can
go on. One that fails does not stop the others; they are told at the end, and the exit status is 1. Not here: measuring.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from segue import __version__
from segue.bench.reports.html_report import to_html
from segue.bench.reports.report import BenchReport, this_commit, write
from segue.bench.reports.result_file import read_results
from tools.result_files import RESULT_FILES, ResultFile

RUNNING = ".running"
PROGRESS = "progress.json"
PAGE = "report.html"

_PATIENCE = 4  # times what a benchmark takes on a quiet machine
_LEAST_PATIENCE_S = 120.0
_QUICK_S = 60.0
_ENDING_S = 10.0

#: Runs a command in a folder for at most so long, and returns its exit status.
Run: TypeAlias = Callable[[Sequence[str], Path, float], int]


class BenchProgress(msgspec.Struct):
    """What was run so far, and of what. `took_s` has the benchmarks that are done."""

    version: str
    commit: str
    quick: bool
    took_s: dict[str, float] = {}


def main(arguments: Sequence[str]) -> int:
    """Run what the command line says; returns the exit status."""
    folders = [one for one in arguments if one != "--quick"]
    if len(folders) != 1 or folders[0].startswith("-"):
        print("usage: run_benchmarks FOLDER [--quick]")
        return 2
    try:
        return run_all(Path(folders[0]), quick="--quick" in arguments)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here")
        return 130


def run_all(folder: Path, *, quick: bool, run: Run | None = None) -> int:
    """Run what is not done yet, and put everything in its place."""
    running = folder / RUNNING
    running.mkdir(parents=True, exist_ok=True)
    progress = _progress(running, quick=quick)
    files = [file for file in RESULT_FILES if file.about_s is not None]
    _introduce(files, progress)
    failed: list[str] = []
    for number, file in enumerate(files, start=1):
        if file.name in progress.took_s:
            continue
        print(f"\n[{number}/{len(files)}] {file.command}", flush=True)
        started = time.monotonic()
        status = _measure(file, running, quick=quick, run=run or run_command)
        if status == 0:
            progress.took_s[file.name] = time.monotonic() - started
            _save(progress, running)
        else:
            failed.append(f"{file.name}: exit status {status}" if status > 0 else f"{file.name}: took too long")
    _put_in_place(progress, folder)
    return _tell(progress, failed, folder)


def _progress(running: Path, *, quick: bool) -> BenchProgress:
    """Return what an earlier run of the same program did, or a new start."""
    commit = (this_commit() or "").removesuffix("-dirty")  # results that are committed make a checkout dirty
    new = BenchProgress(version=__version__, commit=commit, quick=quick)
    with contextlib.suppress(OSError, msgspec.DecodeError):
        old = msgspec.json.decode((running / PROGRESS).read_bytes(), type=BenchProgress)
        if (old.version, old.commit, old.quick) == (new.version, new.commit, new.quick):
            return old
    for left in running.iterdir():
        left.unlink()
    _save(new, running)
    return new


def _save(progress: BenchProgress, running: Path) -> None:
    (running / PROGRESS).write_bytes(msgspec.json.encode(progress))


def _introduce(files: Sequence[ResultFile], progress: BenchProgress) -> None:
    left = [file for file in files if file.name not in progress.took_s]
    done = f"; {len(files) - len(left)} are done" if progress.took_s else ""
    whole_s = sum(min(file.about_s or 0, _QUICK_S) if progress.quick else file.about_s or 0 for file in left)
    print(f"{len(files)} benchmarks{done}: about {max(1, round(whole_s / 60))} min")
    load = os.getloadavg()[0]
    if load > 1:
        print(f"Other programs are running (load {load:.1f}), so times will be noisy.")


def _measure(file: ResultFile, running: Path, *, quick: bool, run: Run) -> int:
    """Run one benchmark. Its file gets its name when it is whole."""
    assert file.about_s is not None, "only those that `make bench` has room for are run"
    partial = running / f"{file.name}.part"
    command = [*shlex.split(file.command), *(["--quick"] if quick and file.has_quick else [])]
    command += ["--resume", partial.name] if file.resumes and partial.exists() else []
    command += ["--json", partial.name]
    status = run(command, running, max(_LEAST_PATIENCE_S, _PATIENCE * file.about_s))
    if status == 0:
        partial.replace(running / file.name)
    return status


def run_command(command: Sequence[str], folder: Path, patience_s: float) -> int:
    """Run a command of segue in a group of its own, so that nothing of it outlives it. -1: it took too long."""
    with subprocess.Popen(  # noqa: S603 - the commands are those of RESULT_FILES
        [sys.executable, "-m", *command], cwd=folder, process_group=0
    ) as child:
        try:
            return child.wait(patience_s)
        except subprocess.TimeoutExpired:
            return -1
        finally:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_ENDING_S)
        os.killpg(child.pid, signal.SIGKILL)


def _put_in_place(progress: BenchProgress, folder: Path) -> None:
    """Move the results out of the folder in which they were made, and write a page of them all."""
    running = folder / RUNNING
    reports: dict[str, BenchReport] = {}
    for file in RESULT_FILES:
        if file.name in progress.took_s:
            made = running / file.name if (running / file.name).exists() else folder / file.name
            report = read_results(made)
            reports[file.name.removesuffix(".json")] = report
            if file.without_turns:
                write(_without_turns(report), made)
            made.replace(folder / file.name)
    if reports:
        (folder / PAGE).write_text(to_html(reports), encoding="utf-8")


def _without_turns(report: BenchReport) -> BenchReport:
    return replace(report, arms=[replace(arm, turns=[]) for arm in report.arms])


def _tell(progress: BenchProgress, failed: Sequence[str], folder: Path) -> int:
    print()
    width = max(map(len, [*progress.took_s, "in all"]))
    for name, took_s in {**progress.took_s, "in all": sum(progress.took_s.values())}.items():
        print(f"{name:{width}} {took_s:6.0f} s")
    print(f"all plots are in {folder / PAGE}")
    for one in failed:
        print(f"failed: {one}")
    if failed:
        print("the same command tries these again")
        return 1
    for left in (folder / RUNNING).iterdir():
        left.unlink()
    (folder / RUNNING).rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

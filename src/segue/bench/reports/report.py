"""The report of a benchmark: one JSON object of one shape, whatever was measured.

A figure that an arm cannot have is null, never zero. Besides the arms, a report lists single figures. Some have a
budget, and then the report says whether it was met. Not here: measuring, and how a report looks on a screen.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from segue import __version__

Status = Literal["completed", "failed"]


class MachineInfo(msgspec.Struct, frozen=True):
    """The machine that the benchmark ran on. `cores` counts those that this process may use."""

    cpu: str
    cores: int
    python: str
    platform: str


class TurnFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one turn. Wire bytes are everything that TCP carried; payload is the JSON of the request."""

    bytes_up_payload: int | None = None
    bytes_up_wire: int | None = None
    bytes_down_wire: int | None = None
    ttft_s: float | None = None
    time_s: float | None = None
    server_cpu_s: float | None = None
    tokens_reused: int | None = None
    tokens_processed: int | None = None


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One way of doing the same work, turn by turn."""

    name: str
    status: Status
    turns: list[TurnFigures]
    totals: TurnFigures


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number. `value` is the median where it was measured more than once, `low` and `high` the extremes.

    `budget` is an upper bound; `met` is null where there is no budget, or no value.
    """

    name: str
    value: float | None
    unit: str
    low: float | None = None
    high: float | None = None
    budget: float | None = None
    met: bool | None = None


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a benchmark writes. `commit` is null outside a git checkout; `-dirty` marks uncommitted changes."""

    machine: MachineInfo
    version: str
    commit: str | None
    settings: dict[str, Any]
    arms: list[Arm]
    figures: list[Figure] = []


def arm(
    name: str, turns: Sequence[TurnFigures], *, status: Status = "completed", server_cpu_s: float | None = None
) -> Arm:
    """Make an arm. Give `server_cpu_s` of all turns together if it was not measured turn by turn."""
    totals = _add_up(turns)
    if server_cpu_s is not None:
        totals = msgspec.structs.replace(totals, server_cpu_s=server_cpu_s)
    return Arm(name=name, status=status, turns=list(turns), totals=totals)


def figure(name: str, values: Sequence[float], unit: str, budget: float | None = None) -> Figure:
    """Make a figure of repeated measurements: median and spread. Without values, the figure's value is None."""
    if not values:
        return Figure(name=name, value=None, unit=unit, budget=budget)
    ordered = sorted(values)
    middle = len(ordered) // 2
    value = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    met = None if budget is None else value <= budget
    return Figure(name=name, value=value, unit=unit, low=ordered[0], high=ordered[-1], budget=budget, met=met)


def make_report(arms: Sequence[Arm], settings: Mapping[str, Any], figures: Sequence[Figure] = ()) -> BenchReport:
    """Make a report, with the machine, version and commit of this process."""
    return BenchReport(
        machine=this_machine(),
        version=__version__,
        commit=this_commit(),
        settings=dict(settings),
        arms=list(arms),
        figures=list(figures),
    )


def write(report: BenchReport, path: Path) -> None:
    """Write a report as one JSON object on one line, since it may have thousands of turns."""
    path.write_bytes(msgspec.json.encode(report) + b"\n")


def write_report(path: Path, arms: Mapping[str, Sequence[TurnFigures]], settings: Mapping[str, Any]) -> None:
    """Write the report of arms that all completed."""
    write(make_report([arm(name, turns) for name, turns in arms.items()], settings), path)


def this_machine() -> MachineInfo:
    """Describe this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return MachineInfo(_cpu_name(), cores, platform.python_version(), platform.platform())


def this_commit() -> str | None:
    """Return the commit of the checkout that this package is in; None if it is in none."""
    git, here = shutil.which("git"), Path(__file__)
    if git is None:
        return None
    at = (git, "--no-optional-locks", "-C", str(here.parent))
    # An installed package may lie inside an unrelated checkout; segue's own checkout tracks this file.
    if _output(*at, "ls-files", "--error-unmatch", "../__init__.py") is None:
        return None
    return _output(*at, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _output(*command: str) -> str | None:
    """Return what a program prints, or None if it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - the commands are those above
            command, check=True, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _add_up(turns: Sequence[TurnFigures]) -> TurnFigures:
    """Add up each figure; the total is None if one turn lacks the figure."""
    totals: dict[str, Any] = {}
    for name in TurnFigures.__struct_fields__:
        values = [getattr(turn, name) for turn in turns]
        totals[name] = sum(values) if values and None not in values else None
    return TurnFigures(**totals)

"""The report of a benchmark: one JSON object of one shape, whatever was measured.

A figure that an arm cannot have is null, never zero. An arm may stand in a report more than once: for another workload,
link or speed of the model. Besides the arms, a report lists single figures. Some have a budget, and then the report
says whether it was met. Files of earlier versions lack fields that came later; those have their defaults. Not here:
measuring, and how a report looks on a screen.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import msgspec

from segue import __version__

Status = Literal["completed", "failed"]
#: Where the figures of an arm come from: a run, or a formula.
Basis = Literal["measured", "computed"]


class MachineInfo(msgspec.Struct, frozen=True):
    """The machine that the benchmark ran on. `cores` counts those that this process may use."""

    cpu: str
    cores: int
    python: str
    platform: str


class TurnFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one turn, or of all turns of a task together.

    Payload is the JSON of requests and events. Wire bytes are everything that the path's sockets carried: heads,
    framing and TLS, but not the headers of TCP and IP. What sets a connection up is in neither (`RoundFigures`).
    """

    bytes_up_payload: int | None = None
    bytes_up_wire: int | None = None
    bytes_down_wire: int | None = None
    ttft_s: float | None = None
    """From sending the request to the first piece of output that the client could read."""
    time_s: float | None = None
    server_cpu_s: float | None = None
    tokens_reused: int | None = None
    tokens_processed: int | None = None
    bytes_down_payload: int | None = None
    bytes_repeated: int | None = None
    """What of the payload up the server had got before: instructions, tools, and items of earlier turns."""
    bytes_settings_repeated: int | None = None
    """The instructions and tools among these: each request brings its own, so an id does not save them."""
    bytes_parsed: int | None = None
    """The JSON that the server had to parse for this turn."""
    memory_bytes: int | None = None
    """What the server held in memory after this turn, beyond what it held before the task; in all, the most."""
    state_bytes: int | None = None
    """What the server kept of this conversation after this turn; in all, the most."""
    at_s: float | None = None
    """When the turn began, in seconds since the task did."""
    requests: int | None = None
    """How many requests the agent sent for this turn: more than one if some failed."""


class RoundFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one repetition of a task as a whole: from several of them comes the spread of each."""

    task_s: float | None = None
    """From the beginning of the task to its end: set-up, turns, and tools in between."""
    turns_s: float | None = None
    """The turns alone, added up."""
    ttft_first_s: float | None = None
    """The time to the first token of the first turn, with the set-up of its connection."""
    ttft_median_s: float | None = None
    """The median of the times to the first token of all turns."""
    set_up_s: float | None = None
    """What of `ttft_first_s` went into setting the connection up: TCP, TLS, and the upgrade to WebSocket."""
    set_up_up_bytes: int | None = None
    set_up_down_bytes: int | None = None
    bytes_up_wire: int | None = None
    bytes_down_wire: int | None = None
    server_cpu_s: float | None = None


class FailedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that failed, when, and how long the agent waited before the next one; null: it gave up."""

    turn: int
    """The first is 1."""
    at_s: float
    """When it failed, in seconds since the task began."""
    failure: str
    wait_s: float | None


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One way of doing the same work, turn by turn; each figure of a turn is the median of its rounds."""

    name: str
    status: Status
    turns: list[TurnFigures]
    totals: TurnFigures
    workload: str | None = None
    link: str | None = None
    """A name of `segue bench links`; null: the loopback interface of the machine."""
    tokens_s: float | None = None
    """How fast the model wrote; null: all at once."""
    basis: Basis = "measured"
    failed_turn: int | None = None
    """The turn at which the arm failed; the first is 1."""
    problem: str | None = None
    """Why it failed, in one line."""
    rounds: list[RoundFigures] = []
    failures: list[FailedRequest] = []

    @property
    def identity(self) -> tuple[str, str | None, str | None, float | None]:
        """What no other arm of the same report has."""
        return (self.name, self.workload, self.link, self.tokens_s)

    @property
    def label(self) -> str:
        """The identity in words."""
        speed = None if self.tokens_s is None else f"{self.tokens_s:g} tokens/s"
        return ", ".join(part for part in (self.name, self.workload, self.link, speed) if part)


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
    name: str,
    turns: Sequence[TurnFigures],
    *,
    status: Status = "completed",
    server_cpu_s: float | None = None,
    rounds: Sequence[RoundFigures] = (),
) -> Arm:
    """Make an arm. Give `server_cpu_s` of all turns together if it was not measured turn by turn.

    The time in the totals is that of the median round, or that of the turns if there are no rounds.
    """
    totals = _add_up(turns)
    if server_cpu_s is not None:
        totals = msgspec.structs.replace(totals, server_cpu_s=server_cpu_s)
    if task_s := [one.task_s for one in rounds if one.task_s is not None]:
        totals = msgspec.structs.replace(totals, time_s=median(task_s))
    return Arm(name=name, status=status, turns=list(turns), totals=totals, rounds=list(rounds))


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


def write_whole(report: BenchReport, path: Path) -> None:
    """Write a report in place of an earlier one, so that there is one of them whole at any time."""
    beside = path.with_name(f"{path.name}.new")
    write(report, beside)
    beside.replace(path)


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


#: What is there after a turn, and not what a turn used.
_LEVELS = frozenset({"memory_bytes", "state_bytes"})
_MOMENTS = frozenset({"at_s"})


def _add_up(turns: Sequence[TurnFigures]) -> TurnFigures:
    """Take each figure of all turns together: None if one turn lacks it."""
    return TurnFigures(**{name: _total(name, turns) for name in TurnFigures.__struct_fields__})


def _total(name: str, turns: Sequence[TurnFigures]) -> Any:  # noqa: ANN401 - whole numbers or seconds
    values = [getattr(turn, name) for turn in turns]
    if not values or None in values or name in _MOMENTS:
        return None
    return max(values) if name in _LEVELS else sum(values)

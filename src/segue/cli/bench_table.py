"""`segue bench table`: measures workloads on every arm, or what one agent session costs on the wire."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from segue.bench import workload_table
from segue.bench.arms import agent_paths as paths
from segue.bench.arms.agent_paths import why_no_http2
from segue.bench.arms.measurement import DifferentWorkError, MeasurementPlan
from segue.bench.arms.paths import straight_path
from segue.bench.arms.table import ARMS
from segue.bench.arms.tls import why_no_tls
from segue.bench.arms.tunnelled import COLD, WARM, first_request, sidecar_path, warmed
from segue.bench.documents import SIZES, measure_documents
from segue.bench.links.profiles import LINKS
from segue.bench.table import QUICK_ROUNDS, RAW, ROUNDS, measure, render
from segue.bench.workloads.clients import AgentKind
from segue.bench.workloads.sessions import make_session
from segue.bench.workloads.trace import TraceError, read_trace
from segue.bench.workloads.workload import UnknownWorkloadError, read_workload
from segue.cli.bench_output import progress_console, refuse, show
from segue.cli.loop import run
from segue.cli.output_file import ReportFiles
from segue.terminal import terminal
from segue.testing.recorded_session import RecordedSession

#: What is measured if no workload is named: the article's ten turns.
DEFAULT = "article"


def run_bench_workloads(
    names: Sequence[str],
    *,
    arms: Sequence[str],
    link: str | None,
    tokens_s: float | None,
    rounds: int | None,
    tls: bool,
    quick: bool,
    files: ReportFiles,
) -> int:
    """Measure workloads on every arm; the exit status is 1 if an arm did other work than the others."""
    if (reason := _problem(arms, link=link, tokens_s=tokens_s, rounds=rounds, tls=tls)) is not None:
        return refuse(reason)
    try:
        workloads = [read_workload(name) for name in names or (DEFAULT,)]
    except UnknownWorkloadError as error:
        return refuse(str(error))
    console = terminal()
    plan = MeasurementPlan(link=None if link is None else LINKS[link], tokens_s=tokens_s, tls=tls)
    times = rounds or (workload_table.QUICK_ROUNDS if quick else workload_table.ROUNDS)
    chosen = workload_table.arms_named(arms)
    try:
        report = run(workload_table.measure(workloads, chosen, plan, rounds=times, console=progress_console()))
    except DifferentWorkError as error:
        print(f"segue: the arms cannot be compared: {error}", file=sys.stderr)
        return 1
    show(report, workload_table.render, console, files=files)
    return 0


def _problem(
    arms: Sequence[str], *, link: str | None, tokens_s: float | None, rounds: int | None, tls: bool
) -> str | None:
    """Return why these options cannot be used."""
    if unknown := [name for name in arms if name not in ARMS]:
        return f"there is no arm {unknown[0]!r}; there are {', '.join(repr(name) for name in ARMS)}"
    if link is not None and link not in LINKS:
        return f"there is no link {link!r}; `segue bench links` lists them"
    if tokens_s is not None and not tokens_s > 0:
        return "--tokens-s must be more than 0"
    if rounds is not None and rounds < 1:
        return "--rounds must be at least 1"
    return _missing(arms, tls=tls)


def _missing(arms: Sequence[str], *, tls: bool) -> str | None:
    """Return what is not installed and would be needed."""
    if tls and (reason := why_no_tls()) is not None:
        return f"{reason}; or give --no-tls"
    over_http2 = any(arm.open_path is paths.over_http2 for arm in workload_table.arms_named(arms))
    if over_http2 and (reason := why_no_http2()) is not None:
        return f"{reason}; or name other --arms"
    return None


def run_bench_table(
    session: AgentKind, *, turns: int, rounds: int | None, quick: bool, trace: Path | None, files: ReportFiles
) -> int:
    """Measure one session, generated or recorded."""
    if turns < 1 or (rounds is not None and rounds < 1):
        return refuse("--turns and --rounds must be at least 1")
    console = terminal()
    try:
        chosen, earlier = _generated(session, turns) if trace is None else _recorded(trace)
    except TraceError as error:
        return refuse(str(error))
    rounds = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    paths = {RAW: straight_path, COLD: sidecar_path, WARM: warmed(earlier)}
    report = run(measure(chosen, paths, rounds=rounds, console=progress_console()))
    documents = measure_documents(SIZES[:1] if quick else SIZES)
    report = replace(report, figures=[*report.figures, *documents])
    show(report, render, console, files=files)
    return 0


def _generated(kind: AgentKind, turns: int) -> tuple[RecordedSession, RecordedSession]:
    """Return a session, and an earlier session of the same agent with another task."""
    return make_session(kind, turns=turns), make_session(kind, turns=turns, task=1)


def _recorded(trace: Path) -> tuple[RecordedSession, RecordedSession]:
    """Return a session and, since there is no other of the same agent, its first request as the earlier session."""
    session = read_trace(trace)
    return session, first_request(session)

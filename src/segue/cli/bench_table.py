"""`segue bench table`: measures what one agent session costs on the wire, and shows the report."""

from __future__ import annotations

import sys
from pathlib import Path

from msgspec.structs import replace
from rich.console import Console

from segue.bench.arms.paths import straight_path
from segue.bench.arms.tunnelled import COLD, WARM, first_request, sidecar_path, warmed
from segue.bench.documents import SIZES, measure_documents
from segue.bench.table import QUICK_ROUNDS, RAW, ROUNDS, measure, render
from segue.bench.workloads.clients import AgentKind
from segue.bench.workloads.sessions import make_session
from segue.bench.workloads.trace import TraceError, read_trace
from segue.cli.bench_output import show
from segue.cli.loop import run
from segue.cli.output_file import ReportFiles
from segue.testing.recorded_session import RecordedSession


def run_bench_table(session: AgentKind, *, turns: int, quick: bool, trace: Path | None, files: ReportFiles) -> int:
    """Measure one session, generated or recorded."""
    if turns < 1:
        print("segue: --turns must be at least 1", file=sys.stderr)
        return 2
    console = Console()
    try:
        chosen, earlier = _generated(session, turns) if trace is None else _recorded(trace)
    except TraceError as error:
        print(f"segue: {error}", file=sys.stderr)
        return 2
    rounds = QUICK_ROUNDS if quick else ROUNDS
    paths = {RAW: straight_path, COLD: sidecar_path, WARM: warmed(earlier)}
    report = run(measure(chosen, paths, rounds=rounds, console=console))
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

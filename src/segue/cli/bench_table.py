"""`segue bench table`: measures what a session costs on the wire and renders it."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from segue.bench.clients import Kind
from segue.bench.report import write
from segue.bench.sessions import make_session
from segue.bench.table import QUICK_ROUNDS, RAW, ROUNDS, measure, render, straight_path
from segue.bench.trace import TraceError, read_trace
from segue.cli.loop import run


def run_bench_table(session: Kind, *, turns: int, quick: bool, trace: Path | None, json_file: Path | None) -> int:
    """Measure one session, generated or recorded."""
    if turns < 1:
        print("segue: --turns must be at least 1", file=sys.stderr)
        return 2
    console = Console()
    try:
        chosen = make_session(session, turns=turns) if trace is None else read_trace(trace)
    except TraceError as error:
        print(f"segue: {error}", file=sys.stderr)
        return 2
    rounds = QUICK_ROUNDS if quick else ROUNDS
    report = run(measure(chosen, {RAW: straight_path}, rounds=rounds, console=console))
    render(report, console)
    if json_file is not None:
        write(report, json_file)
        console.print(f"written to {json_file}", style="dim")
    return 0

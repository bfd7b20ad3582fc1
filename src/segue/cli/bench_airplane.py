"""`segue bench airplane`: flies a task of an agent over a bad link, plain and through a sidecar, and shows its fate."""

from __future__ import annotations

from collections.abc import Sequence

from segue.bench.airplane import FAST, QUICK_TURNS, SLOW, TURNS, Flight, measure, render
from segue.bench.arms.tls import why_no_tls
from segue.bench.links.profiles import LINKS
from segue.bench.workloads.flight_plan import FLIGHT, QUICK_FLIGHT, FlightPlanError, read_events
from segue.bench.workloads.retry_rules import RetryingAgent
from segue.cli.bench_output import progress_console, refuse, show
from segue.cli.loop import run
from segue.cli.output_file import ReportFiles
from segue.terminal import terminal


def run_bench_airplane(
    agent: RetryingAgent,
    *,
    link: str | None,
    turns: int | None,
    tokens_s: float | None,
    events: Sequence[str],
    seed: int,
    quick: bool,
    files: ReportFiles,
) -> int:
    """Fly both ways; the exit status is 0 whatever became of the plain agent."""
    flown = LINKS.get(link or ("leo-in-flight" if quick else "geo-in-flight"))
    turns = (QUICK_TURNS if quick else TURNS) if turns is None else turns
    tokens_s = (FAST if quick else SLOW) if tokens_s is None else tokens_s
    if flown is None:
        return refuse(f"there is no link {link!r}; `segue bench links` lists them")
    if turns < 1 or not tokens_s > 0:
        return refuse("--turns must be at least 1, and --tokens-s more than 0")
    if (reason := why_no_tls()) is not None:
        return refuse(reason)
    try:
        planned = read_events(events) if events else QUICK_FLIGHT if quick else FLIGHT
    except FlightPlanError as error:
        return refuse(str(error))
    console = terminal()
    flight = Flight(link=flown, agent=agent, turns=turns, tokens_s=tokens_s, events=planned, seed=seed)
    show(run(measure(flight, console=progress_console())), render, console, files=files)
    return 0

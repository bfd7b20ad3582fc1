"""Shows on a screen how long workloads take over links and at model speeds: tables of at most 80 columns.

Not here: measuring (`time_grid`), and the tables of files (`reports.report_tables`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from textwrap import fill

from rich.console import Console, JustifyMethod
from rich.table import Table

from segue.bench.reports.chart_selection import task_time_s
from segue.bench.reports.report import Arm, BenchReport
from segue.terminal import print_table

#: How many digits of a time below so many seconds are shown behind the point; of longer ones, none.
_DIGITS = ((10.0, 2), (1000.0, 1))
_HEAD = 9  # heads have lines of that length at least, since their longest word has it

_LEGEND = (
    "Medians of the rounds; behind a task's time how much less or more it is than the first arm's. first token: of the "
    "first turn, with the set-up of its connection (TCP, TLS, and the upgrade to WebSocket; a sidecar has its link "
    "before). A link with a star is computed from the bytes of each turn, by the timing model of the emulated link. "
    "segue bench links has the links; --json, --markdown and --html have the ranges of the rounds."
)


def render(report: BenchReport, console: Console) -> None:
    """Show the task times of each workload, and the first tokens of those that were measured."""
    settings = report.settings
    timed = [arm for arm in report.arms if arm.link is not None]
    tls = "TLS" if settings["tls"] else "no TLS"
    for workload in dict.fromkeys(arm.workload for arm in timed):
        arms = [arm for arm in timed if arm.workload == workload]
        turns = max(len(arm.turns) for arm in arms)
        title = f"{workload}, {turns} turns, {tls}"
        _print_table(f"{title}: task, s", arms, _task, console)
        if workload in settings["workloads"]:
            _print_table(f"{title}: first token, s", arms, _first_token, console)
    for arm in report.arms:
        if arm.status == "failed":
            told = f"{arm.label} failed at turn {arm.failed_turn}: {arm.problem}"
            console.print(told, style="bold red")
    for one in report.figures:
        value, low, high = (number or 0.0 for number in (one.value, one.low, one.high))
        console.print(f"{one.name}: {value:.2f} ({low:.2f} to {high:.2f})", highlight=False)
    console.print(_LEGEND, style="dim", highlight=False)


def _print_table(title: str, arms: Sequence[Arm], cell: Callable[[Arm, Arm | None], str], console: Console) -> None:
    names = list(dict.fromkeys(arm.name for arm in arms))
    rows: list[list[str]] = []
    for tokens_s, link in dict.fromkeys((arm.tokens_s, arm.link) for arm in arms):
        there = {arm.name: arm for arm in arms if (arm.tokens_s, arm.link) == (tokens_s, link)}
        star = "*" if any(arm.basis == "computed" for arm in there.values()) else ""
        cells = [cell(there[name], there.get(names[0])) if name in there else "" for name in names]
        rows.append([f"{link}{star}", f"{tokens_s:,g}", *cells])
    table = Table(box=None, pad_edge=False)
    for head, *column in zip(("link", "tokens\n/s", *names), *rows, strict=True):
        wide = max(_HEAD, *map(len, column))
        justify: JustifyMethod = "left" if head == "link" else "right"
        lines = head if "\n" in head else fill(head, wide, break_long_words=False)
        table.add_column(lines, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(title, style="bold", highlight=False)
    print_table(console, table)
    console.print()


def _task(arm: Arm, first: Arm | None) -> str:
    if arm.status == "failed":
        return f"failed: {arm.failed_turn}"
    taken_s, compared_s = task_time_s(arm), None if first is None else task_time_s(first)
    shown = "" if taken_s is None else _seconds(taken_s)
    if arm is first or first is None or first.status == "failed" or not taken_s or not compared_s:
        return shown
    return f"{shown} {round(100 * (taken_s / compared_s - 1)):+4d}%"


def _first_token(arm: Arm, _: Arm | None) -> str:
    values = [one.ttft_first_s for one in arm.rounds if one.ttft_first_s is not None]
    return _seconds(median(values)) if values and arm.status == "completed" else ""


def _seconds(value: float) -> str:
    digits = next((digits for below, digits in _DIGITS if value < below), 0)
    return f"{value:,.{digits}f}"

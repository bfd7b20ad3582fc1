"""`segue bench compare`: shows how two result files differ, and fails if something got worse by more than a limit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segue.bench.reports.comparison import ComparedValue, Comparison, Verdict, compare
from segue.bench.reports.result_file import ResultFileError, read_results
from segue.cli.bench_output import refuse
from segue.cli.output_file import writing
from segue.terminal import print_table, print_text, terminal

_WORSE = 1
_WHOLE_FROM = 1000
_SHOWN_AS: dict[Verdict, str] = {"same": "same", "noise": "within noise", "differs": "clear", "once": "once"}


def run_bench_compare(before: Path, after: Path, *, fail_over: float | None, json_file: Path | None) -> int:
    """Compare two files. The exit status is 1 if something got worse by more than `fail_over` percent."""
    if fail_over is not None and not fail_over >= 0:
        return refuse("--fail-over must be 0 or more")
    try:
        comparison = compare(read_results(before), read_results(after))
    except ResultFileError as error:
        return refuse(str(error))
    if not comparison.values and not comparison.newly_failed:
        return refuse(f"{before} and {after} have no figure in common that can be compared")
    console = terminal()
    _render(comparison, console)
    if json_file is not None:
        with writing(json_file):
            json_file.write_bytes(msgspec.json.encode(comparison) + b"\n")
        console.print(f"written to {json_file}", style="dim")
    return 0 if fail_over is None else _judge(comparison, fail_over)


def _judge(comparison: Comparison, limit: float) -> int:
    for name in comparison.newly_failed:
        print(f"segue: {name} failed", file=sys.stderr)
    worse = comparison.worse_than(limit)
    for one in worse:
        print(f"segue: {one.name} is worse by {one.worse_percent:.1f} %", file=sys.stderr)
    return _WORSE if worse or comparison.newly_failed else 0


def _render(comparison: Comparison, console: Console) -> None:
    print_table(console, _table(comparison.values))
    for difference in comparison.differences:
        print_text(console, f"{difference.name}: {_plain(difference.before)} -> {_plain(difference.after)}")
    if comparison.missing:
        print_text(console, f"not compared: {'; '.join(comparison.missing)}")
    console.print(
        "Within noise: one median lies in the other's range, or a sign test over the turns (5 %) cannot tell. "
        "Once: measured once, so nobody knows. Two files are two runs: what differs between runs is in no range.",
        style="dim",
        highlight=False,
    )


def _table(values: Sequence[ComparedValue]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("median of", overflow="fold")
    for head in ("before", "after", "ratio"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for one in values:
        ratio = "" if one.ratio is None else f"{one.ratio:.3f}"
        shown = [f"{_digits(value)} {one.unit}".rstrip() for value in (one.before, one.after)]
        table.add_row(Text(one.name), *shown, ratio, _SHOWN_AS[one.verdict])
    return table


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= _WHOLE_FROM else f"{value:.3g}"


def _plain(value: object) -> str:
    return "none" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()

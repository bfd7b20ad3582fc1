"""Shows what the endpoint benchmark found, as tables that fit 80 columns. Not here: measuring and judging."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segue.bench.endpoint.checks import CheckResult
from segue.bench.endpoint.measure import ArmVerdict, EndpointResult
from segue.bench.endpoint.plan import ENDPOINT_ARMS
from segue.bench.reports.report import Arm
from segue.terminal import print_table

_KB = 1000
_GOOD, _BAD = frozenset({"yes", "kept", "refuses"}), frozenset({"forgets"})


def render_endpoint(result: EndpointResult, console: Console) -> None:
    """Show the ways, what they cost, and the single checks."""
    print_table(console, _bytes(result))
    _note(
        console,
        "Kept: whether the model saw the earlier turns. KB up: the JSON of all requests of a conversation, of the "
        "first, and the median of the later ones. Saved: beside the replay over the same transport.",
    )
    print_table(console, _times(result.report.arms))
    _note(
        console,
        "First token: of the first turn with its connection, and the median of the later turns. Task: connection and "
        "turns, one after the other; the median of the rounds, and the extremes.",
    )
    for verdict in result.verdicts:
        for reason in _reasons(verdict):
            console.print(Text(f"{verdict.name}: {reason}"), highlight=False)
    print_table(console, _checks(result.checks))


def _note(console: Console, text: str) -> None:
    console.print(text, style="dim", highlight=False)


def _bytes(result: EndpointResult) -> Table:
    table = _table("way", "served", "kept", title=str(result.report.settings["endpoint"]))
    for head in ("KB up", "first", "later", "saved"):
        table.add_column(f"\n{head}", justify="right", no_wrap=True)
    arms = {one.name: one for one in result.report.arms}
    for way, verdict in zip(ENDPOINT_ARMS, result.verdicts, strict=True):
        one, replay = arms[way.name], arms[f"{way.transport} replay"]
        kept = _kept(verdict, replays=way.history == "replay")
        sizes = _sizes(one, None if one is replay else replay) if one.status == "completed" else []
        table.add_row(way.name, _coloured(verdict.support), kept, *sizes)
    return table


def _table(*heads: str, title: str | None = None) -> Table:
    table = Table(title=None if title is None else Text(title), title_justify="left", box=None, pad_edge=False)
    for head in heads:
        table.add_column(f"\n{head}", no_wrap=True)
    return table


def _kept(verdict: ArmVerdict, *, replays: bool) -> Text:
    if replays:
        return Text("is sent" if verdict.support == "yes" else "")
    shown = "" if verdict.history is None else verdict.history.verdict
    return _coloured("unclear" if shown == "inconclusive" else shown)


def _sizes(one: Arm, replay: Arm | None) -> list[str]:
    up = [turn.bytes_up_payload or 0 for turn in one.turns]
    whole = None if replay is None or replay.status == "failed" else replay.totals.bytes_up_payload
    saved = f"{100 * (1 - sum(up) / whole):.0f} %" if whole else ""
    return [*(f"{size / _KB:,.1f}" for size in (sum(up), up[0], median(up[1:]))), saved]


def _times(arms: Sequence[Arm]) -> Table:
    table = _table("way")
    for head in ("first token\nms", "later\nms", "task\ns", "\nleast", "\nmost"):
        table.add_column(head, justify="right", no_wrap=True)
    for one in arms:
        if one.status == "completed":
            table.add_row(one.name, *_seconds(one))
    return table


def _seconds(one: Arm) -> list[str]:
    first_s = [round_.ttft_first_s for round_ in one.rounds if round_.ttft_first_s is not None]
    later_s = [turn.ttft_s for turn in one.turns[1:] if turn.ttft_s is not None]
    task_s = sorted(round_.task_s for round_ in one.rounds if round_.task_s is not None)
    tokens = [f"{1e3 * median(seconds):,.1f}" if seconds else "" for seconds in (first_s, later_s)]
    return [*tokens, *(f"{seconds:,.3f}" for seconds in (median(task_s), task_s[0], task_s[-1]))]


def _reasons(verdict: ArmVerdict) -> list[str]:
    """Return why a way is not served, or not shown to keep the history."""
    reasons = [] if verdict.problem is None else [verdict.problem]
    if verdict.history is not None and verdict.history.verdict != "kept":
        reasons.append(f"{verdict.history.verdict}: {verdict.history.why}")
    return reasons


def _checks(checks: Sequence[CheckResult]) -> Table:
    table = _table("check", "found")
    table.add_column("", overflow="fold")
    for one in checks:
        table.add_row(one.name, _coloured(one.verdict), Text(one.detail))
    return table


def _coloured(word: str) -> Text:
    return Text(word, style="green" if word in _GOOD else "bold red" if word in _BAD else "")

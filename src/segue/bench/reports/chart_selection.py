"""Which charts a report has: that follows from what was measured.

Arms that did the same work over the same link at the same speed are compared in one chart. An arm keeps its colour in
all charts of a report. What a chart has no room for, it leaves out, and its description says so. Not here: what a chart
is (`charts`), and how it is drawn (`svg`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import NamedTuple

import msgspec

from segue.bench.reports.charts import (
    MOST_POINTS,
    STYLES,
    Bar,
    BarChart,
    BarGroup,
    Chart,
    Curve,
    Distribution,
    DistributionChart,
    LineChart,
    Point,
    Span,
    TimeLine,
    TimeLineChart,
)
from segue.bench.reports.report import Arm, BenchReport, Figure, TurnFigures
from segue.bench.reports.shown_values import finite, shown_number, shown_value

#: So many conditions of a report are shown.
MOST_CONDITIONS = 60

_MOST_GROUPS = 12  # charts of one kind in a report
_MOST_SPANS = 200  # turns of a time line that can be told apart
_LEAST_TURNS = 3  # of which a distribution says something
_LOG_FROM = 30.0  # the greatest value by the least from which a linear axis hides the least
_DEPTH = re.compile(r"CPU per turn: (?P<name>.+), depth (?P<depth>\d{1,9})")


class Conditions(NamedTuple):
    """What arms that are compared have in common. `link` is null on this machine, `tokens_s` for a model that answers
    at once.
    """

    workload: str | None
    link: str | None
    tokens_s: float | None

    def __str__(self) -> str:
        speed = None if self.tokens_s is None else f"{shown_number(self.tokens_s)} tokens/s"
        return ", ".join(part for part in (self.workload, self.link, speed) if part)


class ComparedArms(NamedTuple):
    """Arms under the same conditions."""

    conditions: Conditions
    arms: list[Arm]


def compared_arms(report: BenchReport) -> list[ComparedArms]:
    """Return the arms of a report by their conditions, in the report's order: as many as anybody reads."""
    groups: dict[Conditions, list[Arm]] = {}
    for arm in report.arms:
        conditions = Conditions(arm.workload, arm.link, arm.tokens_s)
        if conditions in groups or len(groups) < MOST_CONDITIONS:
            groups.setdefault(conditions, []).append(arm)
    return [ComparedArms(*group) for group in groups.items()]


def charts_of(report: BenchReport) -> list[Chart]:
    """Return the charts of a report, in the order in which they are read."""
    styles = {name: number % STYLES for number, name in enumerate(dict.fromkeys(arm.name for arm in report.arms))}
    groups = compared_arms(report)
    lengths = _context_lengths(report)
    if lengths is not None:
        chart = _by_length(report.arms, lengths, styles, model=shown_value(report.settings.get("model")))
        return _present([chart])
    first = {group.conditions.workload: group for group in reversed(groups)}
    # where depths are compared, the turns of an arm are repetitions, and not one conversation
    conversations = [] if "depths" in report.settings else list(reversed(first.values()))
    return [
        *_each(conversations, lambda group: _bytes_per_turn(group, styles)),
        *_each(conversations, lambda group: _cumulative_bytes(group, styles)),
        *_task_times(groups, styles),
        *_each(groups, lambda group: _time_lines(group, styles)),
        *_each(groups, lambda group: _first_tokens(group, styles)),
        *_present([_cpu_by_depth(report.figures)]),
    ]


def _present(charts: Iterable[Chart | None]) -> list[Chart]:
    return [chart for chart in charts if chart is not None]


def _each(groups: Sequence[ComparedArms], make: Callable[[ComparedArms], Chart | None]) -> list[Chart]:
    """Make the chart of each group that has one, up to as many as are readable."""
    made = _present(map(make, groups))
    if len(made) <= _MOST_GROUPS:
        return made
    shown, left_out = made[:_MOST_GROUPS], len(made) - _MOST_GROUPS
    last = shown[-1]
    more = f"{last.description} {left_out} more of these are not shown."
    return [*shown[:-1], msgspec.structs.replace(last, description=more)]


def _named(title: str, conditions: Conditions) -> str:
    shown = str(conditions)
    return f"{title}: {shown}" if shown else title


def _room(text: str, names: Sequence[str]) -> str:
    """Add to a description which arms there was no room for."""
    return f"{text} Not shown: {', '.join(names)}." if names else text


# --- over turns ------------------------------------------------------------------------------------------------------


def _bytes_per_turn(group: ComparedArms, styles: dict[str, int]) -> LineChart | None:
    curves = _curves(group.arms, styles, lambda turns: turns)
    if curves is None:
        return None
    values = [point.y for curve in curves for point in curve.points if point.y > 0]
    wide = bool(values) and max(values) >= _LOG_FROM * min(values)
    scale = " The axis is logarithmic: each line of it is ten times the one below." if wide else ""
    return LineChart(
        title=_named("Bytes sent per turn", group.conditions),
        description=_room(
            f"Everything that the agent's side sent, turn by turn.{scale}", _without_room(group.arms, curves)
        ),
        x_label="turn",
        y_label="sent",
        unit="B",
        curves=curves,
        y_log=wide,
    )


def _cumulative_bytes(group: ComparedArms, styles: dict[str, int]) -> LineChart | None:
    curves = _curves(group.arms, styles, _sums)
    if curves is None:
        return None
    return LineChart(
        title=_named("Bytes sent so far", group.conditions),
        description=_room("The sum of all turns until then.", _without_room(group.arms, curves)),
        x_label="turn",
        y_label="sent so far",
        unit="B",
        curves=curves,
    )


def _curves(
    arms: Sequence[Arm], styles: dict[str, int], shape: Callable[[list[float]], list[float]]
) -> list[Curve] | None:
    """Return what each arm sent on the wire; None if no two turns have it."""
    curves: list[Curve] = []
    for arm in arms:
        sent = [finite(turn.bytes_up_wire) for turn in arm.turns]
        known = [value for value in sent if value is not None and value >= 0]
        if len(known) == len(sent) > 1:
            points = [Point(number, value) for number, value in enumerate(shape(known), start=1)]
            curves.append(Curve(arm.name, styles[arm.name], _thinned(points)))
    return curves[:STYLES] or None


def _sums(values: list[float]) -> list[float]:
    sums: list[float] = []
    for value in values:
        sums.append(value + (sums[-1] if sums else 0))
    return sums


def _thinned(points: list[Point]) -> list[Point]:
    """Return as many points as are drawn, the first and the last among them."""
    if len(points) <= MOST_POINTS:
        return points
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(number * step)] for number in range(MOST_POINTS)]


def _without_room(arms: Sequence[Arm], curves: Sequence[Curve]) -> list[str]:
    if len(curves) < STYLES:
        return []
    drawn = {curve.name for curve in curves}
    return [arm.name for arm in arms if arm.name not in drawn][:STYLES]


# --- times -----------------------------------------------------------------------------------------------------------


def _task_times(groups: Sequence[ComparedArms], styles: dict[str, int]) -> list[BarChart]:
    """Compare the time of the whole task over each link: a chart for each workload and speed."""
    charts: dict[Conditions, list[BarGroup]] = {}
    for group in groups:
        bars = [bar for arm in group.arms if (bar := _task_time(arm, styles)) is not None]
        if bars and group.conditions.link is not None:
            where = group.conditions._replace(link=None)
            charts.setdefault(where, []).append(BarGroup(group.conditions.link, bars[:STYLES]))
    return [
        BarChart(
            title=_named("Time of the whole task by link", where),
            description="The median, and a line from the shortest to the longest repetition. Each link has a scale of "
            "its own; arms that failed are left out.",
            unit="s",
            groups=bars[:_MOST_GROUPS],
        )
        for where, bars in list(charts.items())[:_MOST_GROUPS]
        if sum(len(group.bars) for group in bars) > 1
    ]


def _task_time(arm: Arm, styles: dict[str, int]) -> Bar | None:
    total = task_time_s(arm)
    if total is None or arm.status == "failed":
        return None
    repeated = _repeated_s(arm)
    low, high = (min(repeated), max(repeated)) if repeated else (None, None)
    return Bar(arm.name, styles[arm.name], total, low, high, computed=arm.basis == "computed")


def task_time_s(arm: Arm) -> float | None:
    """Return how long the whole task took: the median of the repetitions, or the total if there are none."""
    repeated = _repeated_s(arm)
    total = median(repeated) if repeated else finite(arm.totals.time_s)
    return None if total is None or total < 0 else total


def _repeated_s(arm: Arm) -> list[float]:
    return [value for one in arm.rounds if (value := finite(one.task_s)) is not None and value >= 0]


def _time_lines(group: ComparedArms, styles: dict[str, int]) -> TimeLineChart | None:
    lines = [line for arm in group.arms if (line := _time_line(arm, styles)) is not None]
    if not lines:
        return None
    return TimeLineChart(
        title=_named("Time lines of turns", group.conditions),
        description="Each block is a turn: pale until its first token, full until its end. Between turns the agent's "
        "tools run.",
        lines=lines[:STYLES],
    )


def _time_line(arm: Arm, styles: dict[str, int]) -> TimeLine | None:
    timed = [turn for turn in arm.turns if turn.at_s is not None]
    spans = [span for turn in timed if (span := _span(turn)) is not None]
    if not spans or len(spans) > _MOST_SPANS:
        return None
    end = shown_number(max(span.end_s for span in spans), "s")
    if arm.status == "failed":
        turn = "" if arm.failed_turn is None else f" in turn {arm.failed_turn}"
        end = f"failed{turn} at {end}{'' if arm.problem is None else f': {arm.problem}'}"
    return TimeLine(name=arm.name, style=styles[arm.name], spans=spans, end=end, failed=arm.status == "failed")


def _span(turn: TurnFigures) -> Span | None:
    start, taken, first = finite(turn.at_s), finite(turn.time_s), finite(turn.ttft_s)
    if start is None or start < 0:
        return None
    longest = max(0.0, taken or 0.0, first or 0.0)
    return Span(start, None if first is None or first < 0 else start + first, start + longest)


def _first_tokens(group: ComparedArms, styles: dict[str, int]) -> DistributionChart | None:
    rows = []
    for arm in group.arms:
        values = sorted(value for turn in arm.turns if (value := finite(turn.ttft_s)) is not None and value >= 0)
        if len(values) >= _LEAST_TURNS:
            rows.append(Distribution(arm.name, styles[arm.name], values))
    if not rows:
        return None
    return DistributionChart(
        title=_named("Time to the first token", group.conditions),
        description="Of all turns: a line from 5 % to 95 %, a box around the middle half, and the median in it. Few "
        "turns are drawn as points, too.",
        unit="s",
        rows=rows[: 2 * STYLES],
    )


# --- by depth and length ---------------------------------------------------------------------------------------------


def _cpu_by_depth(figures: Sequence[Figure]) -> LineChart | None:
    found: dict[str, list[Point]] = {}
    for one in figures:
        match, value = _DEPTH.fullmatch(one.name), finite(one.value)
        if match is not None and value is not None and value >= 0 and int(match["depth"]) > 0:
            point = Point(int(match["depth"]), value, finite(one.low), finite(one.high))
            found.setdefault(match["name"], []).append(point)
    curves = [
        Curve(name, number, sorted(points))
        for number, (name, points) in enumerate(
            [entry for entry in found.items() if len(entry[1]) > 1][:STYLES],
        )
    ]
    if not curves:
        return None
    return LineChart(
        title="CPU per turn by depth",
        description="The server's CPU time for one turn, by the number of turns in the conversation before it. A line "
        "through a point goes from the least to the greatest of the repetitions.",
        x_label="depth",
        y_label="CPU per turn",
        unit="ms",
        curves=curves,
        x_log=True,
    )


def _context_lengths(report: BenchReport) -> list[float] | None:
    """Return the lengths of context that the turns of all arms stand for, if they do."""
    lengths = report.settings.get("lengths")
    try:
        known = msgspec.convert(lengths, list[float])
    except msgspec.ValidationError:
        return None
    same = report.arms and all(len(arm.turns) == len(known) for arm in report.arms)
    return known if same and known and all(0 < one < 1e9 for one in known) else None  # noqa: PLR2004 - no context is


def _by_length(
    arms: Sequence[Arm], lengths: Sequence[float], styles: dict[str, int], *, model: str
) -> LineChart | None:
    curves = []
    for arm in arms:
        times = [finite(turn.ttft_s) for turn in arm.turns]
        points = [Point(at, value) for at, value in zip(lengths, times, strict=True) if value is not None and value > 0]
        if points:
            curves.append(Curve(arm.name, styles[arm.name], _thinned(sorted(points))))
    if not curves:
        return None
    return LineChart(
        title=f"Time to the first token by length of the context: {model}",
        description="Both axes are logarithmic.",
        x_label="tokens of context",
        y_label="first token",
        unit="s",
        curves=curves[:STYLES],
        x_log=True,
        y_log=True,
    )

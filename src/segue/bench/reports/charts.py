"""What a chart shows, as values: curves, time lines, distributions, bars, each with its data as a table.

Not here: which charts a report has (`chart_selection`), and how a chart is drawn (`svg`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, assert_never

import msgspec

from segue.bench.reports.shown_values import shown_number

#: So many arms have a colour and a mark of their own.
STYLES = 10
#: So many points of a curve are drawn, and rows of a table shown.
MOST_POINTS = 400

_NUMBER = (*"0123456789-", "≤ ", "not measured", "too large")


class ReportTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table of texts that are not escaped yet. The first column names the row."""

    title: str
    heads: list[str]
    rows: list[list[str]]
    note: str = ""


def has_words(table: ReportTable, column: int) -> bool:
    """Tell whether a column has words, which stand at the left, and not numbers."""
    cells = [row[column] for row in table.rows if row[column]]
    return column == 0 or any(not cell.startswith(_NUMBER) for cell in cells)


class Point(NamedTuple):
    """A point of a curve, with the range that was measured there, if it was measured more than once."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


class Curve(msgspec.Struct, frozen=True):
    """The points of one arm, in order. `style` chooses its colour and mark."""

    name: str
    style: int
    points: list[Point]


class LineChart(msgspec.Struct, frozen=True, kw_only=True):
    """One value over another."""

    title: str
    description: str
    x_label: str
    y_label: str
    unit: str
    curves: list[Curve]
    x_log: bool = False
    y_log: bool = False


class Span(NamedTuple):
    """One turn on a time line, in seconds since the task began."""

    start_s: float
    first_token_s: float | None
    end_s: float


class TimeLine(msgspec.Struct, frozen=True, kw_only=True):
    """The turns of one arm; `end` says how it ended."""

    name: str
    style: int
    spans: list[Span]
    end: str
    failed: bool = False


class TimeLineChart(msgspec.Struct, frozen=True, kw_only=True):
    """What each arm does when."""

    title: str
    description: str
    lines: list[TimeLine]


class Distribution(msgspec.Struct, frozen=True):
    """All values of one arm, from the least to the most."""

    name: str
    style: int
    values: list[float]


class DistributionChart(msgspec.Struct, frozen=True, kw_only=True):
    """How the values of each arm are spread."""

    title: str
    description: str
    unit: str
    rows: list[Distribution]


class Bar(NamedTuple):
    """One value of one arm, with the range of its repetitions."""

    name: str
    style: int
    value: float
    low: float | None = None
    high: float | None = None
    computed: bool = False


class BarGroup(NamedTuple):
    """Bars that are compared with each other, on a scale of their own."""

    name: str
    bars: Sequence[Bar]


class BarChart(msgspec.Struct, frozen=True, kw_only=True):
    """The values of all arms, group by group."""

    title: str
    description: str
    unit: str
    groups: list[BarGroup]


Chart: TypeAlias = LineChart | TimeLineChart | DistributionChart | BarChart


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the value below which that part of the ordered values lies, between its two neighbours."""
    place = part * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def data_of(chart: Chart) -> ReportTable:
    """Return what a chart shows as a table, for those who do not see it."""
    match chart:
        case LineChart():
            return _line_data(chart)
        case TimeLineChart():
            return _time_line_data(chart)
        case DistributionChart():
            return _distribution_data(chart)
        case BarChart():
            return _bar_data(chart)
        case _:
            assert_never(chart)


def _line_data(chart: LineChart) -> ReportTable:
    places = sorted({point.x for curve in chart.curves for point in curve.points})
    columns = [{point.x: point.y for point in curve.points} for curve in chart.curves]
    rows = [
        [f"{place:,g}", *(shown_number(one[place], chart.unit) if place in one else "" for one in columns)]
        for place in places
    ]
    return ReportTable(title=chart.title, heads=[chart.x_label, *(curve.name for curve in chart.curves)], rows=rows)


def _time_line_data(chart: TimeLineChart) -> ReportTable:
    rows = [
        [f"{line.name}, turn {number}", *("" if one is None else shown_number(one, "s") for one in span)]
        for line in chart.lines
        for number, span in enumerate(line.spans, start=1)
    ]
    return ReportTable(title=chart.title, heads=["turn", "began at", "first token at", "ended at"], rows=rows)


_SHOWN_PARTS = {"5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95}


def _distribution_data(chart: DistributionChart) -> ReportTable:
    rows = [
        [row.name, f"{len(row.values):,}"]
        + [shown_number(quantile(row.values, part), chart.unit) for part in _SHOWN_PARTS.values()]
        for row in chart.rows
    ]
    return ReportTable(title=chart.title, heads=["arm", "turns", *_SHOWN_PARTS], rows=rows)


def _bar_data(chart: BarChart) -> ReportTable:
    rows = [
        [f"{group.name}: {bar.name}", shown_number(bar.value, chart.unit), _range(bar, chart.unit), _basis(bar)]
        for group in chart.groups
        for bar in group.bars
    ]
    return ReportTable(title=chart.title, heads=["arm", "median", "range", "basis"], rows=rows)


def _range(bar: Bar, unit: str) -> str:
    if bar.low is None or bar.high is None or bar.low == bar.high:
        return ""
    return f"{shown_number(bar.low, unit)} to {shown_number(bar.high, unit)}"


def _basis(bar: Bar) -> str:
    return "computed" if bar.computed else "measured"

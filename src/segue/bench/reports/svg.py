"""Draws a chart as SVG, written as text: no plotting library is needed, and a new measurement is a small difference.

Colours are classes. `STYLE` gives them their values for light and for dark screens. Text is never coloured, and each
arm has a mark as well as a colour. Everything that comes from a report is escaped here. Not here: what a chart shows
(`charts`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import NamedTuple, assert_never

import msgspec

from segue.bench.reports.axes import LinearScale, LogScale, Scale, axis_unit
from segue.bench.reports.charts import (
    STYLES,
    Bar,
    BarChart,
    Chart,
    Curve,
    Distribution,
    DistributionChart,
    LineChart,
    TimeLine,
    TimeLineChart,
    quantile,
)
from segue.bench.reports.shown_values import shown_number, shown_text

#: The width of a picture, in its own units: that of a telephone, so that its text can be read there.
WIDTH = 400

_FONT = 12.0
_EM = 0.56  # a character is about so wide
_ROW = 17.0
_LOG_FROM = 20.0
_DOTS = 60  # so many values are drawn as points, too
_MARKED = 40  # so many points of a curve can have a mark
_NAME = 40
_RATIO = 0.5  # the height of a plot by its width

_LIGHT = "#0b62a4 #b3410e #1b7a4b #7a3fa0 #8a6100 #b0246e #00757f #4b4bb8 #a12b2b #5a5f66"
_DARK = "#6cb6ff #ff9e64 #5fd19a #c9a0f0 #e0b84c #f58cc0 #4fd0dc #a3a3ff #ff8a80 #b5b9bf"


def _colours(palette: str, *, text: str, quiet: str, grid: str, page: str) -> str:
    names = {"text": text, "quiet": quiet, "grid": grid, "page": page}
    names |= {f"c{number}": colour for number, colour in enumerate(palette.split())}
    return ";".join(f"--{name}:{colour}" for name, colour in names.items())


#: What the classes of the pictures look like, on a page and in a file of their own.
STYLE = (
    f":root{{{_colours(_LIGHT, text='#1d2126', quiet='#4d545c', grid='#d5dae0', page='#ffffff')}}}\n"
    "@media (prefers-color-scheme: dark){:root{"
    + _colours(_DARK, text="#e8eaed", quiet="#b4bac2", grid="#3a4149", page="#14171a")
    + "}}\n"
    "svg text{font:12px system-ui,sans-serif;fill:var(--text)}svg .quiet{fill:var(--quiet)}\n"
    "svg .head{font-weight:600}svg .grid{stroke:var(--grid);fill:none}svg .axis{stroke:var(--quiet);fill:none}\n"
    "svg .page{fill:var(--page)}svg .curve{fill:none;stroke-width:2;stroke-linejoin:round}\n"
    "svg .pale{fill-opacity:.3}svg .outline{fill-opacity:.18;stroke-dasharray:3 2}svg .median{stroke-width:3}\n"
    + "".join(f"svg .s{number}{{stroke:var(--c{number});fill:var(--c{number})}}" for number in range(STYLES))
    + "\nsvg .curve{fill:none}\n"
)


class Drawing(NamedTuple):
    """The parts of a picture, and how high it is."""

    parts: list[str]
    height: float


def draw(chart: Chart, identifier: str, *, width: float = WIDTH) -> str:
    """Draw a chart for a page that has `STYLE`. The identifier must be a name that no other element of the page has."""
    return _svg(chart, identifier, _drawing(chart, width), width=width)


def stand_alone(chart: Chart, subject: str = "", *, width: float = 2 * WIDTH) -> str:
    """Draw a chart as a file of its own, with its title above it, which begins with the subject if there is one."""
    drawn = _drawing(chart, width)
    chart = msgspec.structs.replace(chart, title=f"{subject}: {chart.title}" if subject else chart.title)
    moved = [
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{width:g}" height="{drawn.height + 30:.0f}"/>',
        _text(10, 22, chart.title, css="head", limit=int((width - 20) / (_FONT * _EM))),
        f'<g transform="translate(0 30)">\n{chr(10).join(drawn.parts)}\n</g>',
    ]
    return _svg(chart, "chart", Drawing(moved, drawn.height + 30), width=width, own_file=True)


def _svg(chart: Chart, identifier: str, drawn: Drawing, *, width: float, own_file: bool = False) -> str:
    space = f' xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{drawn.height:.0f}"' if own_file else ""
    parts = "\n".join(drawn.parts)
    return (
        f'<svg{space} viewBox="0 0 {width:g} {drawn.height:.0f}" role="img" '
        f'aria-labelledby="{identifier}-title {identifier}-about">\n'
        f'<title id="{identifier}-title">{_escaped(chart.title, limit=200)}</title>\n'
        f'<desc id="{identifier}-about">{_escaped(chart.description, limit=1000)}</desc>\n{parts}\n</svg>\n'
    )


def _drawing(chart: Chart, width: float) -> Drawing:
    match chart:
        case LineChart():
            return _draw_lines(chart, width)
        case TimeLineChart():
            return _draw_time_lines(chart, width)
        case DistributionChart():
            return _draw_distributions(chart, width)
        case BarChart():
            return _draw_bars(chart, width)
        case _:
            assert_never(chart)


# --- curves ----------------------------------------------------------------------------------------------------------


def _draw_lines(chart: LineChart, width: float) -> Drawing:
    points = [point for curve in chart.curves for point in curve.points]
    values = [value for point in points for value in (point.y, point.low, point.high) if value is not None]
    shown = axis_unit(max(values), chart.unit)
    bottom = 30 + width * _RATIO
    y = _scale(values, bottom, 30.0, log=chart.y_log, zero=True)
    labels = [(y.at(tick), f"{tick / shown.size:,g}") for tick in y.ticks()]
    left = 14 + max(_width(label) for _, label in labels)
    x = _scale([point.x for point in points], left + 6, width - 20, log=chart.x_log, zero=False)
    parts = [_text(4, 16, f"{chart.y_label}, {shown.name}", css="quiet")]
    for at, label in labels:
        parts += [_line(left, at, width - 8, at, "grid"), _text(left - 5, at + 4, label, anchor="end")]
    parts += _x_axis(chart, x, bottom)
    for curve in chart.curves:
        parts += _curve(curve, x, y)
    legend, height = _legend([(curve.name, curve.style) for curve in chart.curves], bottom + 46, width)
    return Drawing([*parts, *legend], height)


def _x_axis(chart: LineChart, x: Scale, bottom: float) -> Iterator[str]:
    """Label the places that were measured if there are few, or else round ones."""
    measured = sorted({point.x for curve in chart.curves for point in curve.points})
    few = len(measured) <= 6  # noqa: PLR2004 - so many labels have room
    last = -math.inf
    for tick in measured if few else x.ticks():
        label, at = f"{tick:,g}", x.at(tick)
        if at - _width(label) / 2 > last:
            last = at + _width(label) / 2 + 6
            yield _line(at, bottom, at, bottom + 4, "axis")
            yield _text(at, bottom + 17, label, anchor="middle")
    yield _line(x.start, bottom, x.end, bottom, "axis")
    yield _text((x.start + x.end) / 2, bottom + 34, chart.x_label, anchor="middle", css="quiet")


def _curve(curve: Curve, x: Scale, y: Scale) -> Iterator[str]:
    css = f"s{curve.style}"
    joined = " ".join(f"{x.at(point.x):.1f},{y.at(point.y):.1f}" for point in curve.points)
    yield f'<polyline class="{css} curve" points="{joined}"/>'
    for point in curve.points:
        if point.low is not None and point.high is not None and point.low < point.high:
            yield _line(x.at(point.x), y.at(point.low), x.at(point.x), y.at(point.high), css)
    step = math.ceil(len(curve.points) / _MARKED)
    yield from (_mark(x.at(point.x), y.at(point.y), curve.style) for point in curve.points[::step])


_MARKS: tuple[Callable[[float, float], str], ...] = (
    lambda x, y: f'<circle{{}} cx="{x:.1f}" cy="{y:.1f}" r="3"/>',
    lambda x, y: f'<rect{{}} x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>',
    lambda x, y: f'<path{{}} d="M{x:.1f} {y - 4:.1f}l4 7h-8z"/>',
    lambda x, y: f'<path{{}} d="M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4-4z"/>',
    lambda x, y: f'<path{{}} d="M{x:.1f} {y + 4:.1f}l4-7h-8z"/>',
)


def _mark(x: float, y: float, style: int) -> str:
    return _MARKS[style % len(_MARKS)](x, y).format(f' class="s{style}"')


def _legend(entries: Sequence[tuple[str, int]], top: float, width: float) -> tuple[list[str], float]:
    """Lay out names with their marks, line by line; returns them and where they end."""
    parts: list[str] = []
    x, y = 12.0, top + 10
    for name, style in entries:
        needed = 26 + _width(shown_text(name, _NAME))
        if x > 12 and x + needed > width:  # noqa: PLR2004 - where a line begins
            x, y = 12.0, y + _ROW
        parts += [_line(x - 6, y - 4, x + 6, y - 4, f"s{style} curve"), _mark(x, y - 4, style)]
        parts.append(_text(x + 11, y, name))
        x += needed
    return parts, y + 12


# --- time lines ------------------------------------------------------------------------------------------------------


def _draw_time_lines(chart: TimeLineChart, width: float) -> Drawing:
    end_s = max(span.end_s for line in chart.lines for span in line.spans)
    x = LinearScale(0.0, end_s or 1.0, 10.0, width - 14)
    parts: list[str] = []
    top = 4.0
    for line in chart.lines:
        parts += _time_line(line, x, top, width)
        top += 40
    return Drawing([*parts, *_axis_below(x, top + 2, "s")], top + 24)


def _time_line(line: TimeLine, x: LinearScale, top: float, width: float) -> Iterator[str]:
    room = int((width - 30) / (_FONT * _EM))
    name = shown_text(line.name, max(12, room - len(line.end) - 2))
    yield _text(10, top + 12, name)
    yield _text(
        width - 10, top + 12, shown_text(line.end, max(12, room - len(name) - 1)), anchor="end", css="quiet", limit=200
    )
    yield _line(10, top + 25, width - 10, top + 25, "grid")
    for span in line.spans:
        first_s = span.end_s if span.first_token_s is None else min(span.first_token_s, span.end_s)
        start, first, end = x.at(span.start_s), x.at(first_s), x.at(span.end_s)
        yield _rect(start, top + 18, first - start, 14, f"s{line.style} pale")
        yield _rect(first, top + 18, end - first, 14, f"s{line.style}")
    if line.failed:
        at = x.at(line.spans[-1].end_s)
        yield f'<path class="axis median" d="M{at - 5:.1f} {top + 20:.1f}l10 10m0-10l-10 10"/>'


# --- distributions ---------------------------------------------------------------------------------------------------


def _draw_distributions(chart: DistributionChart, width: float) -> Drawing:
    least, most = min(row.values[0] for row in chart.rows), max(row.values[-1] for row in chart.rows)
    x = _scale([least, most], 14.0, width - 14, log=least > 0 and most > _LOG_FROM * least, zero=True)
    parts: list[str] = []
    top = 4.0
    for row in chart.rows:
        parts += _distribution(row, x, top, width=width, unit=chart.unit)
        top += 40
    return Drawing([*parts, *_axis_below(x, top + 2, chart.unit)], top + 24)


def _distribution(row: Distribution, x: Scale, top: float, *, width: float, unit: str) -> Iterator[str]:
    css, middle = f"s{row.style}", top + 26
    low, first, median, third, high = (x.at(quantile(row.values, part)) for part in (0.05, 0.25, 0.5, 0.75, 0.95))
    yield _text(10, top + 12, row.name)
    yield _text(width - 10, top + 12, shown_number(quantile(row.values, 0.5), unit), anchor="end", css="quiet")
    yield _line(10, middle, width - 10, middle, "grid")
    yield _line(low, middle, high, middle, css)
    yield _rect(first, middle - 6, max(third - first, 1), 12, f"{css} pale")
    yield _line(median, middle - 8, median, middle + 8, f"{css} median")
    if len(row.values) <= _DOTS:
        yield from (f'<circle class="{css}" cx="{x.at(value):.1f}" cy="{middle:.1f}" r="2"/>' for value in row.values)


# --- bars ------------------------------------------------------------------------------------------------------------


def _draw_bars(chart: BarChart, width: float) -> Drawing:
    longest = max(_width(_bar_name(bar)) for group in chart.groups for bar in group.bars)
    left = min(longest, width * 0.46) + 16
    values = max(_width(shown_number(bar.value, chart.unit)) for group in chart.groups for bar in group.bars)
    parts: list[str] = []
    top = 4.0
    for group in chart.groups:
        most = max(max(bar.value, bar.high or 0) for bar in group.bars)
        x = LinearScale(0.0, most or 1.0, left, width - values - 16)
        parts += [_text(10, top + 13, group.name, css="head"), _line(10, top + 18, width - 10, top + 18, "grid")]
        top += 22
        for bar in group.bars:
            parts += _bar(bar, x, top, width=width, unit=chart.unit)
            top += _ROW
        top += 8
    return Drawing(parts, top + 4)


def _bar_name(bar: Bar) -> str:
    return shown_text(bar.name, _NAME) + (" (computed)" if bar.computed else "")


def _bar(bar: Bar, x: LinearScale, top: float, *, width: float, unit: str) -> Iterator[str]:
    room = max(8, int((x.start - 14) / (_FONT * _EM)))
    yield _text(x.start - 6, top + 12, _bar_name(bar), anchor="end", limit=room)
    yield _rect(x.start, top + 3, x.at(bar.value) - x.start, 11, f"s{bar.style}{' outline' if bar.computed else ''}")
    if bar.low is not None and bar.high is not None and bar.low < bar.high:
        yield _line(x.at(bar.low), top + 8.5, x.at(bar.high), top + 8.5, "axis")
    yield _text(width - 10, top + 12, shown_number(bar.value, unit), anchor="end")


# --- pieces ----------------------------------------------------------------------------------------------------------


def _scale(values: Sequence[float], start: float, end: float, *, log: bool, zero: bool) -> Scale:
    """Make an axis that has all values on it. A logarithmic one has no place for zero: it begins at the least value."""
    positive = [value for value in values if value > 0]
    if log and positive:
        return LogScale(min(positive), max(positive), start, end, tight=not zero)
    least = min(*values, 0.0) if zero else min(values)
    return LinearScale(least, max(values), start, end)


def _axis_below(x: Scale, top: float, unit: str) -> Iterator[str]:
    yield _line(x.start, top, x.end, top, "axis")
    last = -math.inf
    for tick in x.ticks():
        label, at = shown_number(tick, unit), x.at(tick)
        half = _width(label) / 2
        place = min(max(at, half + 2), x.end + 10 - half)
        if place - half > last:
            last = place + half + 6
            yield _line(at, top, at, top + 4, "axis")
            yield _text(place, top + 17, label, anchor="middle")


def _width(text: str) -> float:
    return len(text) * _FONT * _EM


def _escaped(text: str, limit: int = _NAME) -> str:
    return escape(shown_text(text, limit))


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _rect(x: float, y: float, width: float, height: float, css: str) -> str:
    return f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", css: str = "", limit: int = _NAME) -> str:
    names = f' class="{css}"' if css else ""
    placed = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text{names} x="{x:.1f}" y="{y:.1f}"{placed}>{_escaped(text, limit)}</text>'

"""Draws the engine benchmark as an SVG: time to first token by length of the context, both on logarithmic axes.

The SVG is written as text, so segue needs no plotting library, and a new measurement is a small diff. Not here:
measuring (`engine`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from segue.bench.reports.report import BenchReport

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 170, 46, 50
_COLOURS = ("#7b7d7d", "#b03a2e", "#b9770e", "#1f618d", "#117a65", "#6c3483")


def to_svg(report: BenchReport) -> str:
    """Draw a report."""
    lengths = [float(length) for length in report.settings["lengths"]]
    curves = {one.name: [1e3 * (turn.ttft_s or 0) for turn in one.turns] for one in report.arms}
    low, high = _decades([value for curve in curves.values() for value in curve])
    across = _LogScale(min(lengths), max(lengths), _LEFT, _WIDTH - _RIGHT)
    up = _LogScale(low, high, _HEIGHT - _BOTTOM, _TOP)
    title = f"{report.settings['model']}: time to first token by context length, {report.machine.cores} cores"
    parts = [_text(_LEFT, 24, title, size=15, anchor="start")]
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        y = up.at(10.0**power)
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, "#ddd"))
        parts.append(_text(_LEFT - 8, y + 4, _milliseconds(10.0**power), anchor="end"))
    parts += [_text(across.at(length), _HEIGHT - _BOTTOM + 20, f"{length:,.0f}") for length in lengths]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, "tokens of context"))
    ends = _apart({name: up.at(curve[-1]) for name, curve in curves.items()})
    for (name, curve), colour in zip(curves.items(), _COLOURS, strict=True):
        points = [(across.at(length), up.at(value)) for length, value in zip(lengths, curve, strict=True)]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        label = f"{name} {_milliseconds(curve[-1])}"
        parts.append(_text(_WIDTH - _RIGHT + 8, ends[name] + 4, label, anchor="start", colour=colour))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>\n{body}\n</svg>\n'
    )


class _LogScale:
    """A logarithmic axis."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low = math.log(low)
        self._span = (math.log(high) - self._low) or 1.0
        self._start, self._length = start, end - start

    def at(self, value: float) -> float:
        return self._start + self._length * (math.log(value) - self._low) / self._span


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Return the powers of ten around all values."""
    return 10.0 ** math.floor(math.log10(min(values))), 10.0 ** math.ceil(math.log10(max(values)))


def _apart(ends: dict[str, float]) -> dict[str, float]:
    """Move the labels at the ends of the curves apart until all can be read."""
    placed: dict[str, float] = {}
    last = -math.inf
    for name, y in sorted(ends.items(), key=lambda entry: entry[1]):
        last = placed[name] = max(y, last + 16)
    return placed


def _milliseconds(value: float) -> str:
    if value < 1000:  # noqa: PLR2004 - ms in a second
        return f"{value:,.3g} ms"
    return f"{value / 1000:,.3g} s" if value < 100_000 else f"{value / 1000:,.0f} s"  # noqa: PLR2004 - no exponents


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "middle", colour: str = "#333") -> str:
    at = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {at}>{escape(text)}</text>"

"""How the numbers and texts of a report are written for a reader, whatever a result file has in them.

A result file may be anybody's, so a number may be huge, and a text may be long or have characters that steer a screen.
What is written here is short and printable. Not here: escaping (`html_report`, `markdown_report`, `svg`).
"""

from __future__ import annotations

import msgspec

_MOST = 1e15  # more bytes, seconds or tokens than anybody measures
_LEAST = 1e-12
_KILO = 1000
_WHOLE_FROM = 1000  # from there on, whole numbers have digits enough
_MINUTES_S = 100
_SHOWN = 200
_VALUE = 600
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_BYTES = ((1e3, "KB"), (1e6, "MB"), (1e9, "GB"))
_UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"


def finite(value: float | None) -> float | None:
    """Return a number that can be drawn and written; None if there is none."""
    if value is None or not -_MOST < value < _MOST:
        return None
    return float(value) if abs(value) > _LEAST else 0.0


def shown_text(text: str, limit: int = _SHOWN) -> str:
    """Return a text on one line, without characters that steer a screen, and shortened."""
    kept = "".join(map(_printable, text[:limit]))
    return kept if len(text) <= limit else kept[:-1] + "…"


def _printable(character: str) -> str:
    return " " if character.isspace() else character if character.isprintable() else _UNPRINTABLE


def shown_value(value: object, limit: int = _VALUE) -> str:
    """Return a setting, which may be any JSON value."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return shown_text(value, limit)
    try:
        return shown_text(msgspec.json.encode(value).decode(), limit)
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists in lists in …
        return "too large to show"


def shown_number(value: float, unit: str = "") -> str:
    """Return a number with its unit: three digits, or all before the point. Bytes and seconds get a fitting unit."""
    number = finite(value)
    if number is None:
        return "too large to show"
    match unit:
        case "B":
            return _bytes(number)
        case "s":
            return _seconds(number)
        case _:
            return f"{_digits(number)} {shown_text(unit, 20)}".rstrip()


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= _WHOLE_FROM else f"{value:.3g}"


def _bytes(value: float) -> str:
    if abs(value) < _KILO:
        return f"{value:.0f} B" if value == round(value) else f"{value:.3g} B"
    size, unit = next((pair for pair in _BYTES if abs(value) < pair[0] * _KILO), _BYTES[-1])
    return f"{value / size:,.1f} {unit}"


def _seconds(value: float) -> str:
    size, unit = next((pair for pair in _SECONDS if abs(value) >= pair[0] or not value), _SECONDS[-1])
    if size < 1:
        return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s" if abs(value) < _MINUTES_S else f"{value:,.0f} s"

"""When a provider wants to be asked again, as the body of its error says it: in a field, or in words.

Gemini sends no `Retry-After` but `retryDelay` in its body, and an error within a stream has no header lines at all. Not
here: the header line, which comes first (`upstreams.retries`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

Json = dict[str, Any]

#: Fields that say it, in lower case and without punctuation, and how many of their units are a second.
_FIELDS: Mapping[str, float] = MappingProxyType(
    {"retryafter": 1.0, "retryafters": 1.0, "retryafterseconds": 1.0, "retrydelay": 1.0, "retryafterms": 1000.0}
)
#: Objects of an error where those fields stand too: OpenRouter's `metadata.headers`, Gemini's `details`.
_PLACES = ("metadata", "headers", "details")
_MAX_PLACES = 16
#: Nobody waits for longer than a week.
_LONGEST_S = 7 * 86_400.0

_UNITS: Mapping[str, float] = MappingProxyType({"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0})
_DURATION = r"(?:\d{1,7}(?:\.\d{1,9})?\s?(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?)(?![a-z])\s?)+"
# OpenAI and Groq: "Please try again in 1m30.5s"; Gemini: "Please retry in 41.2s"; Moonshot: "please try again after 1
# seconds".
_WORDS = re.compile(rf"(?:try(?: \w+){{0,2}} again|retry(?:ing)?)(?: in| after) (?P<time>{_DURATION})", re.IGNORECASE)
_PIECE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s?(?P<unit>ms|mil|s|m|h)", re.IGNORECASE)


def read_retry_hint(layers: Sequence[Json], message: str) -> float | None:
    """Return after how many seconds a provider wants to be asked again, from the objects of its error and its words."""
    places = list(layers)
    for place in places:  # grows while it is read
        inner = [place.get(name) for name in _PLACES]
        inner += [detail for value in inner if isinstance(value, list) for detail in value[:_MAX_PLACES]]
        places += [value for value in inner if isinstance(value, dict)][: max(0, _MAX_PLACES - len(places))]
    for place in places:
        for name, value in place.items():
            unit = _FIELDS.get(re.sub(r"[^a-z]", "", name[:40].lower()))
            seconds = None if unit is None else _seconds(value, unit)
            if seconds is not None:
                return seconds
    said = _WORDS.search(message)
    return None if said is None else _sum(said["time"])


def _seconds(value: object, unit: float) -> float | None:
    if isinstance(value, str):
        if re.fullmatch(_DURATION, value):
            return _sum(value)
        value = float(value) if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", value) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value / unit <= _LONGEST_S:
        return None
    return value / unit


def _sum(duration: str) -> float | None:
    total = 0.0
    for piece in _PIECE.finditer(duration):
        unit = piece["unit"].lower()
        total += float(piece["number"]) * _UNITS["ms" if unit == "mil" else unit]
    return total if total <= _LONGEST_S else None

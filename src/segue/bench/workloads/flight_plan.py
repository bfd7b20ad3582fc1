"""What happens to the link on a flight, and when: a schedule that is the same in every run.

Pure. The times are ours, made so that each kind of trouble is met once; you give others with `--event`. Not here: what
a link is like without trouble (`segue.bench.links`), and carrying the plan out (`segue.bench.arms.flight`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Literal, get_args

import msgspec

Trouble = Literal["dark", "handover", "portal"]

#: What each kind of trouble is.
TROUBLES: Mapping[Trouble, str] = {
    "dark": "nothing moves, and neither end is told",
    "handover": "open connections are reset, and then nothing moves",
    "portal": "open connections are reset, and new ones reach a captive portal with another certificate",
}

_EVENT = re.compile(r"(?P<what>[a-z]+)@(?P<at>\d+(?:\.\d+)?)\+(?P<length>\d+(?:\.\d+)?)")


class FlightPlanError(ValueError):
    """The plan cannot be flown; the message is for the user, in one line."""


class FlightEvent(msgspec.Struct, frozen=True):
    """One trouble: from `at_s`, counted from the first request of the task, for `length_s`."""

    what: Trouble
    at_s: float
    length_s: float

    @property
    def end_s(self) -> float:
        """When it is over."""
        return self.at_s + self.length_s

    def __str__(self) -> str:
        return f"{self.what}@{self.at_s:g}+{self.length_s:g}"


#: The flight of `segue bench airplane`, and that of `--quick`.
FLIGHT = (FlightEvent("handover", 7, 8), FlightEvent("dark", 25, 15), FlightEvent("portal", 50, 30))
QUICK_FLIGHT = (FlightEvent("handover", 0.5, 0.3), FlightEvent("portal", 1.6, 1.0))


def read_events(texts: Iterable[str]) -> tuple[FlightEvent, ...]:
    """Read events as `dark@40+20` says them: what, when, and for how long, in seconds.

    Raises:
        FlightPlanError: this is no event, or two overlap.
    """
    events = sorted((_event(text) for text in texts), key=lambda event: event.at_s)
    for before, after in pairwise(events):
        if after.at_s < before.end_s:
            raise FlightPlanError(f"{after} begins before {before} is over")
    return tuple(events)


def _event(text: str) -> FlightEvent:
    found = _EVENT.fullmatch(text)
    kinds = get_args(Trouble)
    if found is None or found["what"] not in kinds:
        raise FlightPlanError(f"{text!r} is no event such as dark@40+20; there are {', '.join(kinds)}")
    event = FlightEvent(found["what"], float(found["at"]), float(found["length"]))  # type: ignore[arg-type] # it is one
    if not event.length_s:
        raise FlightPlanError(f"{text!r} has no length")
    return event

"""Compares two results of a benchmark, figure by figure and arm by arm, and says which differences are within noise.

- A figure that was measured several times has a median and a range. The difference is *within noise* if either median
  lies in the range of the other.
- An arm has turns. Both files' turns are paired by number. The difference is within noise if a two-sided sign test
  cannot tell it from chance: if more than 5 % of as many tosses of a coin would be as one-sided.
- The rounds of an arm are repeated measurements of the whole task, and are judged as figures are.
- What was measured once has no noise that anybody knows: it is told as *once*.

An arm of one file is that of the other if name, workload, link and speed of the model are the same.

Two files are two runs. What differs between the runs, such as the load of the machine, is in no range. Less is better,
except for what `_MORE_IS_BETTER` names. Not here: reading the files (`result_file`) and how a comparison is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median
from typing import Any, Literal

import msgspec

from segue.bench.reports.report import Arm, BenchReport, Figure, RoundFigures, TurnFigures, figure

#: What a difference is: none, within noise, clear, or measured once, so that nobody knows.
Verdict = Literal["same", "noise", "differs", "once"]

_CHANCE = 0.05
_MORE_IS_BETTER = ("tokens_reused", "saved")


class ComparedValue(msgspec.Struct, frozen=True, kw_only=True):
    """One number of both files. `ratio` is after / before, and null where before is not more than 0."""

    name: str
    unit: str
    before: float
    after: float
    ratio: float | None
    verdict: Verdict
    worse_percent: float | None = None
    """By how much it got worse; negative if it got better; null without a ratio."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Something beside the numbers that is not the same: of the machine, the program, the settings, or an arm's end."""

    name: str
    before: Any
    after: Any


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two results, compared. `missing` are the names that one file alone has, or that cannot be compared."""

    values: list[ComparedValue]
    differences: list[Difference]
    missing: list[str]
    newly_failed: list[str]
    """Arms that completed before and failed after."""

    def worse_than(self, percent: float) -> list[ComparedValue]:
        """Return what got worse by more than that, noise aside."""
        return [
            one
            for one in self.values
            if one.worse_percent is not None and one.worse_percent > percent and one.verdict in {"differs", "once"}
        ]


def compare(before: BenchReport, after: BenchReport) -> Comparison:
    """Compare what both have under the same name."""
    values: list[ComparedValue] = []
    missing: list[str] = []
    figures = {one.name: one for one in after.figures}
    for one in before.figures:
        _add(values, missing, one.name, _figure(one, figures.pop(one.name, None)))
    arms = {arm.identity: arm for arm in after.arms}
    newly_failed: list[str] = []
    for arm in before.arms:
        other = arms.pop(arm.identity, None)
        if other is not None and (arm.status, other.status) == ("completed", "failed"):
            newly_failed.append(arm.label)
        _add(values, missing, arm.label, _arm(arm, other, same_settings=before.settings == after.settings))
    missing += [*figures, *(arm.label for arm in arms.values())]
    return Comparison(
        values=values, differences=_differences(before, after), missing=missing, newly_failed=newly_failed
    )


def _add(values: list[ComparedValue], missing: list[str], name: str, found: Sequence[ComparedValue]) -> None:
    values += found
    if not found:
        missing.append(name)


def _figure(before: Figure, after: Figure | None) -> list[ComparedValue]:
    if after is None or before.value is None or after.value is None or before.unit != after.unit:
        return []
    ranges = [(one.low, one.high) for one in (before, after) if one.low is not None and one.high is not None]
    verdict: Verdict = "same" if before.value == after.value else "once"
    if verdict == "once" and any(low < high for low, high in ranges):
        medians = (before.value, after.value)
        covered = any(all(low <= value <= high for value in medians) for low, high in ranges)
        verdict = "noise" if covered else "differs"
    return [_compared(before.name, before.unit, before.value, after.value, verdict=verdict)]


def _arm(before: Arm, after: Arm | None, *, same_settings: bool) -> list[ComparedValue]:
    """Compare turn by turn; or the totals, if they are all there is, and of the same work."""
    if after is None or len(before.turns) != len(after.turns):
        return []
    found: list[ComparedValue] = []
    for field in TurnFigures.__struct_fields__:
        pairs = [(getattr(one, field), getattr(two, field)) for one, two in zip(before.turns, after.turns, strict=True)]
        if not pairs and same_settings:
            pairs = [(getattr(before.totals, field), getattr(after.totals, field))]
        if not pairs or any(None in pair for pair in pairs):
            continue
        was, became = median(one for one, _ in pairs), median(two for _, two in pairs)
        found.append(_compared(f"{before.label}: {field}", _unit(field), was, became, verdict=_verdict(pairs)))
    return found + _rounds(before, after)


def _rounds(before: Arm, after: Arm) -> list[ComparedValue]:
    found: list[ComparedValue] = []
    for field in RoundFigures.__struct_fields__:
        ends = [[getattr(one, field) for one in arm.rounds] for arm in (before, after)]
        if all(values and None not in values for values in ends):
            was, became = (figure(f"{before.label}: {field}, rounds", values, _unit(field)) for values in ends)
            found += _figure(was, became)
    return found


def _unit(field: str) -> str:
    if "bytes" in field:
        return "B"
    return "s" if field.endswith("_s") else "tokens" if field.startswith("tokens") else field


def _verdict(pairs: Sequence[tuple[float, float]]) -> Verdict:
    if all(one == two for one, two in pairs):
        return "same"
    if len(pairs) == 1:
        return "once"
    more, less = sum(two > one for one, two in pairs), sum(two < one for one, two in pairs)
    return "noise" if sign_test(more, less) > _CHANCE else "differs"


def sign_test(more: int, less: int) -> float:
    """Return the probability that as many tosses of a fair coin are at least as one-sided."""
    tosses, few = more + less, min(more, less)
    tail = sum(comb(tosses, heads) for heads in range(few + 1))
    return min(1.0, 2 * tail / (1 << tosses))


def _compared(name: str, unit: str, before: float, after: float, *, verdict: Verdict) -> ComparedValue:
    ratio = after / before if before > 0 else None
    sign = -1 if any(word in name for word in _MORE_IS_BETTER) else 1
    worse = None if ratio is None else 100 * (ratio - 1) * sign
    return ComparedValue(
        name=name, unit=unit, before=before, after=after, ratio=ratio, verdict=verdict, worse_percent=worse
    )


def _differences(before: BenchReport, after: BenchReport) -> list[Difference]:
    ends = [
        {**msgspec.structs.asdict(one.machine), "version": one.version, "commit": one.commit}
        | {f"settings: {name}": value for name, value in one.settings.items()}
        | {f"{arm.label}: status": arm.status for arm in one.arms}
        for one in (before, after)
    ]
    names = list(dict.fromkeys([*ends[0], *ends[1]]))
    pairs = [(name, ends[0].get(name), ends[1].get(name)) for name in names]
    return [Difference(name=name, before=was, after=became) for name, was, became in pairs if was != became]

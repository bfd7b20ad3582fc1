"""What kill tests have seen, counted, for whoever reads the end of a test run. Not here: what is wrong (`ledger`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from tests.faults.cluster.ledger import Ledger

#: Under this name a test's report has what it has seen.
FINDINGS: Final = "kill test"
_FAULT: Final = "fault: "


def find(ledger: Ledger, faults: Mapping[str, int]) -> dict[str, int]:
    """Return what was seen: faults by kind, turns and exchanges by outcome."""
    exchanges = ledger.exchanges.values()
    return {
        **{f"turns {outcome}": count for outcome, count in _sorted(turn.outcome for turn in ledger.turns.values())},
        **{f"exchanges {outcome}": count for outcome, count in _sorted(one.outcome for one in exchanges)},
        "of the unknown forwarded": sum(bool(one.forwarded) for one in exchanges if one.outcome == "unknown"),
        "attempts of exchanges": sum(one.attempts for one in exchanges),
        "attempts forwarded": sum(len(one.forwarded) for one in exchanges),
        "limit compared": ledger.counted,
        **{_FAULT + kind: count for kind, count in sorted(faults.items())},
    }


def told(found: Mapping[str, Mapping[str, int]]) -> Sequence[str]:
    """Return a line for each test, and one for all if there are several."""
    lines = [f"{name}: {_line(counts)}" for name, counts in found.items()]
    if len(found) > 1:
        total = Counter[str]()
        for counts in found.values():
            total.update(counts)
        lines.append(f"all {len(found)}: {_line(total)}")
    return lines


def _line(counts: Mapping[str, int]) -> str:
    seen = ", ".join(f"{name} {count}" for name, count in counts.items() if not name.startswith(_FAULT))
    faults = ", ".join(
        f"{name.removeprefix(_FAULT)} {count}" for name, count in counts.items() if name.startswith(_FAULT)
    )
    return f"{seen}; faults: {faults}"


def _sorted(outcomes: Iterable[str]) -> list[tuple[str, int]]:
    return sorted(Counter(outcomes).items())

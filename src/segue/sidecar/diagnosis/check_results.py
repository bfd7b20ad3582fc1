"""The result of one check: passed, failed with a cure, skipped, or a warning: something is wrong that may not matter.

Findings quote what peers have sent, so every text goes through `one_line`. Pure. Not here: the checks themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

CheckStatus = Literal["passed", "warning", "failed", "skipped"]

_MAX_LENGTH = 300


class DiagnosticResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one check. `cure`: what to do about it, in one sentence; empty if there is nothing to do."""

    name: str
    status: CheckStatus
    finding: str
    cure: str = ""


def passed(name: str, finding: str, cure: str = "") -> DiagnosticResult:
    """Return the result of a check that found nothing wrong. `cure`: what to do before something is."""
    return DiagnosticResult(name=name, status="passed", finding=one_line(finding), cure=one_line(cure))


def failed(name: str, finding: str, cure: str) -> DiagnosticResult:
    """Return the result of a check that found something wrong."""
    return DiagnosticResult(name=name, status="failed", finding=one_line(finding), cure=one_line(cure))


def warning(name: str, finding: str, cure: str = "") -> DiagnosticResult:
    """Return the result of a check that found something wrong that the agent may have no need of."""
    return DiagnosticResult(name=name, status="warning", finding=one_line(finding), cure=one_line(cure))


def skipped(name: str, finding: str, cure: str = "") -> DiagnosticResult:
    """Return the result of a check that was not made; why."""
    return DiagnosticResult(name=name, status="skipped", finding=one_line(finding), cure=one_line(cure))


def is_well(results: Sequence[DiagnosticResult]) -> bool:
    """Tell whether no check has failed; a warning is no failure."""
    return all(result.status != "failed" for result in results)


def one_line(text: str, limit: int = _MAX_LENGTH) -> str:
    """Return text that may be a peer's as one short line that controls no terminal."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[: limit + 1])
    return line if len(line) <= limit else f"{line[: limit - 1]}…"

"""`segue store copy`: copies a store into another one, and tells how far it is. Not here: how (`stores.copying`)."""

from __future__ import annotations

import sys
import time

import msgspec

from segue.cli.loop import run
from segue.config import ConfigError
from segue.stores.copying import CopyReport, CopyTally, copy_store
from segue.stores.interface import StoreError
from segue.stores.store_url import open_copy_end

_PROGRESS_S = 1.0


def run_store_copy(source: str, target: str, *, as_json: bool) -> int:
    """Copy a store; the status is 1 if the target does not hold the same."""
    if source == target:
        raise ConfigError("FROM and TO are the same store")
    report = run(_copy(source, target))
    if as_json:
        sys.stdout.write(f"{msgspec.json.encode(report).decode()}\n")
    else:
        sys.stdout.write(_told(report))
    return 0 if report.verified else 1


async def _copy(source: str, target: str) -> CopyReport:
    try:
        from_end = await open_copy_end(source, new=False)
        try:
            to_end = await open_copy_end(target, new=True)
            try:
                return await copy_store(from_end, to_end, _Progress())
            finally:
                await to_end.aclose()
        finally:
            await from_end.aclose()
    except (StoreError, ValueError) as error:
        raise ConfigError(str(error)) from None


class _Progress:
    """Writes a line on a terminal now and then."""

    def __init__(self) -> None:
        self._shown_at = time.monotonic()

    def __call__(self, what: str, tally: CopyTally) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._shown_at >= _PROGRESS_S:
            self._shown_at = now
            sys.stderr.write(f"{what} {tally.turns:,} turns, {tally.conversations:,} conversations\n")


def _told(report: CopyReport) -> str:
    source, target = report.source, report.target
    lines = [
        (
            f"copied {report.written_turns:,} of {source.turns:,} turns and {report.written_conversations:,} of "
            f"{source.conversations:,} conversations; the others were there"
        ),
    ]
    if report.verified:
        lines.append(f"verified: the target holds the same, sha256 sum {source.digest}")
    else:
        lines.append(
            f"NOT THE SAME: the target holds {target.turns:,} turns and {target.conversations:,} conversations, "
            f"sha256 sum {target.digest} instead of {source.digest}; was one of the stores in use, or not empty?"
        )
    return "".join(f"{line}\n" for line in lines)

"""Judges what the tests reach: of all code, and of each package by the tests of its own folder alone.

    make coverage                        run the tests with coverage, then judge
    python -m tools.check_coverage       judge the data file of the last run

A package that only the tests of others reach has rules that nobody wrote down where they are looked for. The data file
knows for each line in which folders the tests are that ran it (contexts), so one run answers both questions. What runs
while a module is imported counts for everyone. Not here: running tests.
"""

from __future__ import annotations

import io
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from coverage import Coverage

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "segue"
DATA_FILE = ROOT / ".coverage"

#: Percent of lines and branches.
OVERALL = 97.0
OWN = 90.0


class Share(NamedTuple):
    """How much of something is reached, in percent, and what that should be at least."""

    name: str
    percent: float
    least: float

    @property
    def enough(self) -> bool:
        """Whether it is at least what it should be."""
        return round(self.percent, 2) >= self.least


def packages() -> list[str]:
    """Return the packages of segue, in alphabetical order."""
    return sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def overall() -> Share:
    """Return what all tests together reach."""
    return Share("all of segue", _percent(["*/segue/*"]), OVERALL)


def own(package: str) -> Share:
    """Return what the tests in the folder of a package reach of it."""
    # an empty context is an import
    contexts = [rf"^tests/{package}/", "^$"]
    return Share(package, _percent([f"*/segue/{package}/*"], contexts), OWN)


def _percent(include: list[str], contexts: list[str] | None = None) -> float:
    coverage = Coverage(data_file=DATA_FILE, config_file=ROOT / "pyproject.toml")
    coverage.load()
    return coverage.report(include=include, contexts=contexts, file=io.StringIO())


def main() -> int:
    """Print a line for each share; returns 1 if one is too small."""
    if not DATA_FILE.exists():
        sys.exit("no coverage data: run `make coverage`")
    with ProcessPoolExecutor() as processes:  # all files are parsed for the one, and again for the others
        asked = [processes.submit(overall), *(processes.submit(own, package) for package in packages())]
        shares = [one.result() for one in asked]
    for share in shares:
        verdict = "" if share.enough else f"  less than {share.least:g} %"
        print(f"{share.name:14} {share.percent:6.2f} %{verdict}")
    return 0 if all(share.enough for share in shares) else 1


if __name__ == "__main__":
    sys.exit(main())

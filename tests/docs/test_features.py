"""The table of features: every test that it names is there, so that no cell of ours says what nothing shows."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "features.md"

_NAMED = re.compile(r"`(?P<file>test_\w+\.py)::(?P<test>\w+)`")


def rows() -> list[list[str]]:
    """The rows of the page's tables, without their heads."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[1] != "segue" and not set(row[0]) <= {"-"}]


def test_every_cell_of_ours_names_a_test_that_is_there() -> None:
    """A file of tests/integration, and a test or test case in it."""
    assert len(rows()) > 20
    for row in rows():
        named = list(_NAMED.finditer(row[1]))
        assert named, f"{row[0]}: which test shows it?"
        for name in named:
            source = (ROOT / "tests" / "integration" / name["file"]).read_text(encoding="utf-8")
            there = re.search(rf"^(async def |def )?{name['test']}\b", source, re.MULTILINE)
            assert there, f"{row[0]}: {name['file']} has no {name['test']}"


def test_every_row_has_a_cell_for_everybody() -> None:
    """Empty cells would look like an answer."""
    for row in rows():
        assert len(row) == 9
        assert all(row)

"""The generator of the documentation's tables: what it writes, what it refuses, and what `--check` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.error_tables import problem_messages
from tools.generate_docs import PARTS, Stale, main, regenerate
from tools.markdown import table

MARKED = "Before.\n\n<!-- generated: one -->\nold\n<!-- /generated -->\n\nAfter.\n"


def checkout(root: Path) -> Path:
    """Make a documentation of one page that shows every part, none of them filled in."""
    page = root / "docs" / "all.md"
    page.parent.mkdir()
    page.write_text("".join(f"<!-- generated: {name} -->\n<!-- /generated -->\n" for name in PARTS), encoding="utf-8")
    return page


def test_only_what_is_marked_is_made_anew() -> None:
    """The text around the marks stays, and a page that is up to date does not change."""
    made = regenerate(MARKED, {"one": "new"})
    assert made == "Before.\n\n<!-- generated: one -->\n\nnew\n\n<!-- /generated -->\n\nAfter.\n"
    assert regenerate(made, {"one": "new"}) == made


def test_a_mark_must_name_a_part() -> None:
    """A misspelt mark is a mistake, not an empty table."""
    with pytest.raises(Stale, match="no part is called 'one'"):
        regenerate(MARKED, {"two": "new"})


def test_checking_tells_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` fails on a stale page until the page was written."""
    page = checkout(tmp_path)
    before = page.read_text("utf-8")
    assert main(["--check"], tmp_path) == 1
    assert "docs/all.md: stale" in capsys.readouterr().out
    assert page.read_text("utf-8") == before
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0
    assert page.read_text("utf-8") != before


def test_a_part_that_no_page_shows_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table cannot be lost from the documentation unseen."""
    page = checkout(tmp_path)
    page.write_text("Nothing.\n", encoding="utf-8")
    assert main(["--check"], tmp_path) == 1
    assert f"no page shows {', '.join(sorted(PARTS))}" in capsys.readouterr().out


def test_other_arguments_are_refused(tmp_path: Path) -> None:
    """A misspelt option must not write pages."""
    assert main(["--chekc"], checkout(tmp_path).parents[1]) == 2


def test_a_bar_does_not_end_a_cell() -> None:
    """Cells are escaped."""
    assert table(("a", "b"), [("x|y", "z")]) == "| a | b |\n| --- | --- |\n| x\\|y | z |"


def test_messages_are_found_where_they_are_written(tmp_path: Path) -> None:
    """Literals, names set before, both sides of a condition; what varies becomes an ellipsis."""
    (tmp_path / "code.py").write_text(
        'GONE = Failure("c", "At the top.")\n'
        "def f(x):\n"
        '    message = f"No {quoted(x)} at {x}."\n'
        '    Problem("a", message)\n'
        '    message = "Other."\n'
        '    return Problem("a", message) if x else Problem("b", f"{x}." if x else "Some.", "param")\n',
        encoding="utf-8",
    )
    found = {"a": ["No '…' at ….", "Other."], "b": ["Some."], "c": ["At the top."]}
    assert problem_messages(tmp_path) == found

"""The generator of the documentation's tables: what it writes, what it refuses, and what `--check` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import generate_docs
from tools.error_tables import problem_messages
from tools.generate_docs import Stale, main, regenerate
from tools.markdown import table

MARKED = "Before.\n\n<!-- generated: one -->\nold\n<!-- /generated -->\n\nAfter.\n"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The documentation of a project with two parts and a picture: one page that shows both, not yet filled in.

    The parts of segue itself are in `tests/docs`.
    """
    monkeypatch.setattr(generate_docs, "PARTS", {"one": lambda: "1", "two": lambda: "2"})
    monkeypatch.setattr(generate_docs, "PICTURES", {"docs/picture.svg": lambda: "<svg/>"})
    monkeypatch.setattr(generate_docs, "PICTURE_SETS", [])
    page = tmp_path / "docs" / "all.md"
    page.parent.mkdir()
    page.write_text("".join(f"<!-- generated: {name} -->\n<!-- /generated -->\n" for name in ("one", "two")))
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


def test_checking_tells_and_writes_nothing(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` fails on a stale page until the page was written, and so does it for a picture."""
    before, picture = page.read_text("utf-8"), page.with_name("picture.svg")
    assert main(["--check"], tmp_path) == 1
    told = capsys.readouterr().out
    assert "docs/all.md: stale" in told
    assert "docs/picture.svg: stale" in told
    assert (page.read_text("utf-8"), picture.exists()) == (before, False)
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0
    assert "<!-- generated: one -->\n\n1\n\n<!-- /generated -->" in page.read_text("utf-8")
    assert picture.read_text("utf-8") == "<svg/>"


def test_a_part_that_no_page_shows_is_a_mistake(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table cannot be lost from the documentation unseen."""
    page.write_text("Nothing.\n", encoding="utf-8")
    assert main(["--check"], tmp_path) == 1
    assert "no page shows one, two" in capsys.readouterr().out


@pytest.mark.usefixtures("page")
def test_other_arguments_are_refused(tmp_path: Path) -> None:
    """A misspelt option must not write pages."""
    assert main(["--chekc"], tmp_path) == 2


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

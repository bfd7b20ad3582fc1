"""Every result file of the documentation has its section there, and every section and picture has its file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from segue.bench.reports.report import write
from tests.bench.reports.sample_reports import with_links
from tools import result_files
from tools.result_files import RESULT_FILES, RESULTS, ResultFile, listing, pictures, read_result, sections

ROOT = RESULTS.parents[1]
PAGES = {page: page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]}
INDEX = PAGES[RESULTS / "index.md"]


def test_every_file_is_listed_and_has_its_section() -> None:
    there = {file.name for file in RESULTS.glob("*.json")}
    assert there <= {file.name for file in RESULT_FILES}, "say in tools/result_files.py what made it"
    marks = set(re.findall(r"<!-- generated: ([a-z-]+) -->", "".join(PAGES.values())))
    for file in RESULT_FILES:
        assert bool(file.heading) != bool(file.shown_by), f"{file.name} is shown by parts of its own, or by a section"
        assert set(file.shown_by) <= marks
        assert (f"[{file.name}]({file.name})" in INDEX) == (file.name in there)
        if file.heading:
            assert (f"## {file.heading}\n" in INDEX) == (file.name in there)


def test_every_picture_is_drawn_from_a_file_and_shown() -> None:
    drawn = {Path(name).name for name in pictures()}
    assert {file.name for file in RESULTS.glob("*.svg")} == drawn
    assert [name for name in drawn if not any(f"{name})" in text for text in PAGES.values())] == []


@pytest.fixture
def one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The documentation knows three files, and has one."""
    shown = ResultFile(
        name="links.json",
        command="segue bench x",
        about="what | it is",
        heading="Over links",
        words="Words.",
        subject="The subject",
        charts=("Bytes", "Time lines"),
        tables=("Arms",),
    )
    missing, elsewhere = replace(shown, name="missing.json"), ResultFile(name="y.json", command="", about="")
    monkeypatch.setattr(result_files, "RESULT_FILES", (missing, shown, elsewhere))
    write(with_links(), tmp_path / "links.json")
    return tmp_path


def test_a_section_has_plots_tables_the_command_and_the_machine(one_file: Path) -> None:
    made = sections(one_file)
    assert made.startswith(
        "## Over links\n\nWords.\n\n![Bytes sent per turn: article, slow-4g, 65 tokens/s](links-bytes-"
    )
    assert made.count("### Arms: article") == 2
    assert "### Figures" not in made
    assert "| http replay | 3 |" in made
    assert "`segue bench x`, on A processor, 2 cores, Python 3.11.7; segue 1.0." in made


def test_pictures_have_names_of_their_own(one_file: Path) -> None:
    drawn = pictures(one_file)
    assert list(drawn) == [
        f"docs/results/links-{name}.svg"
        for name in ("bytes-sent-per-turn", "bytes-sent-so-far", "time-lines-of-turns", "time-lines-of-turns-2")
    ]
    assert all(name.removeprefix("docs/results/") in sections(one_file) for name in drawn)
    assert "The subject: Bytes sent per turn: article" in drawn["docs/results/links-bytes-sent-per-turn.svg"]()


def test_a_file_that_is_not_there_is_left_out(one_file: Path) -> None:
    assert listing(one_file).count("\n") == 2
    assert "what \\| it is" in listing(one_file)
    assert read_result("links.json", one_file) == with_links()
    (one_file / "links.json").unlink()
    assert (sections(one_file), pictures(one_file)) == ("", {})

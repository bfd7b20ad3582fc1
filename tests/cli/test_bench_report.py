"""`segue bench report` writes result files for readers, and refuses what is none."""

from __future__ import annotations

from pathlib import Path

from segue.bench.reports.html_report import to_html
from segue.bench.reports.markdown_report import to_markdown
from segue.bench.reports.report import BenchReport, figure, make_report, write
from tests.cli.conftest import Command


def saved(file: Path, value: float) -> BenchReport:
    report = make_report([], {}, [figure("cost", [value], "ms")])
    file.parent.mkdir(exist_ok=True)
    write(report, file)
    return report


def test_files_are_written_together_each_under_its_name(command: Command, tmp_path: Path) -> None:
    reports = {"one": saved(tmp_path / "one.json", 1.0), "two": saved(tmp_path / "two.json", 2.0)}
    status, printed, told = command("bench", "report", "one.json", "two.json", "--html", "a.html", "--markdown", "a.md")
    assert (status, printed, told) == (0, "written to a.md\nwritten to a.html\n", "")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == to_html(reports)
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == to_markdown(reports)


def test_without_a_file_it_prints_markdown(command: Command, tmp_path: Path) -> None:
    """Two files with one name have their paths as names."""
    reports = {"a/x.json": saved(tmp_path / "a" / "x.json", 1.0), "b/x.json": saved(tmp_path / "b" / "x.json", 2.0)}
    assert command("bench", "report", *reports) == (0, to_markdown(reports), "")


def test_what_is_no_result_file_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("{}")
    for arguments, word in (
        ((), "name at least one"),
        (("none.json",), "is no result file"),
        (("x",), "cannot be read"),
    ):
        status, printed, told = command("bench", "report", *arguments, "--html", "out.html")
        assert (status, printed, word in told) == (2, "", True), told
    assert not (tmp_path / "out.html").exists()

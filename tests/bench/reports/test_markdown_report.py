"""Reports as Markdown: how they look, and that no text of theirs becomes markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings

from segue.bench.reports.charts import ReportTable
from segue.bench.reports.markdown_report import escaped_markdown, markdown_table, to_markdown
from segue.bench.reports.report_tables import link_sources
from tests.bench.reports.golden import check_golden
from tests.bench.reports.sample_reports import repeating, with_depths, with_links
from tests.strategies import any_text, examples


def test_reports_as_markdown() -> None:
    made = to_markdown({"links": with_links(), "gateway": with_depths()})
    check_golden(Path(__file__).parent / "golden" / "report.md", made)


def test_numbers_stand_at_the_right() -> None:
    table = ReportTable(title="t", heads=["arm", "sent"], rows=[["a|b", "1 KB"]])
    assert markdown_table(table) == "| arm | sent |\n| --- | ---: |\n| a\\|b | 1 KB |"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("sidecar cold: set-up, bytes up", "sidecar cold: set-up, bytes up"),
        ("<b>*x*</b>", r"\<b\>\*x\*\</b\>"),
        ("[a](javascript:b)", r"\[a\](javascript:b)"),
        ("https://x.example www.x.example a@b", r"https\://x.example www\.x.example a\@b"),
        ("a\n# b", r"a \# b"),
        ("&lt;", r"\&lt;"),
    ],
)
def test_markup_is_escaped(text: str, escaped: str) -> None:
    assert escaped_markdown(text) == escaped


@settings(max_examples=examples(200))
@given(any_text)
def test_whatever_a_report_says_it_is_text_within_a_cell(text: str) -> None:
    """Each line is one that the report writes: a head, a row of a table with as many cells as its head, or a note."""
    cells, report = 0, repeating(text)
    sources = link_sources(report)
    for line in [one for one in to_markdown({"name": report}).splitlines() if one not in sources]:
        bare = re.sub(r"\\.", "", line)
        assert not re.search(r"[*_`\[\]<>{}~@&]|https?:|www\.", bare, re.IGNORECASE), line
        if not line.startswith("| "):
            cells = 0
            assert line == "" or line[0].isalnum() or line.startswith(("## ", "### ")), line
        else:
            cells = cells or bare.count("|")
            assert bare.count("|") == cells, line

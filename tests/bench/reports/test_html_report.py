"""Reports as a page: how it looks to a parser, and that no text of a report becomes markup.

How it looks in a browser is in `tests/integration/test_report_page.py`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given, settings

from segue.bench.reports.html_report import to_html
from segue.bench.reports.report import Figure, TurnFigures, arm
from segue.bench.reports.shown_values import shown_text
from tests.bench.reports.golden import check_golden
from tests.bench.reports.sample_reports import repeating, report_of, with_depths, with_links
from tests.strategies import any_text, examples


class Page(HTMLParser):
    """The elements of a page, their attributes, and its texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.names: list[str] = []
        self.attributes: dict[str, set[str]] = {}
        self.identifiers: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")
        self.identifiers += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


_PAGE = "html head meta title style body h1 main section h2 p div table thead tr th tbody td details summary"
_FIGURES = "figure h3 figcaption svg desc rect line path circle polyline text"
ELEMENTS = {*_PAGE.split(), *_FIGURES.split()}
#: Presentation is in classes. Nothing loads, links, runs or is styled in place.
_MEANING = "lang charset http-equiv content name class id role tabindex aria-label aria-labelledby scope"
_PLACES = "viewbox x y x1 x2 y1 y2 cx cy r d points width height text-anchor"
ATTRIBUTES = {*_MEANING.split(), *_PLACES.split()}


def test_reports_as_a_page() -> None:
    made = to_html({"links": with_links(), "gateway": with_depths()})
    check_golden(Path(__file__).parent / "golden" / "report.html", made)


def test_a_page_is_well_formed_and_needs_nothing_else() -> None:
    page = Page(to_html({"links": with_links(), "gateway": with_depths()}))
    assert page.open == []
    assert set(page.names) <= ELEMENTS
    assert set(page.attributes) <= ATTRIBUTES
    assert len(page.identifiers) == len(set(page.identifiers))
    named = {name for value in page.attributes["aria-labelledby"] for name in value.split()}
    assert named == set(page.identifiers)
    assert page.names.count("svg") == page.names.count("details") == 9


def test_the_policy_allows_the_style_sheet_and_nothing_else() -> None:
    made = to_html({"x": with_links()})
    sheets = re.findall(r"<style>(.*?)</style>", made, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode() for sheet in sheets]
    policy = f"default-src 'none'; style-src 'sha256-{digests[0]}'; base-uri 'none'; form-action 'none'"
    assert f'content="{policy}"' in made
    assert len(digests) == 1
    assert not re.search(r"https?:(?!//www\.w3\.org)|url\(|@import", sheets[0])


def test_a_report_without_charts_has_tables_alone() -> None:
    bare = Page(to_html({"x": report_of(arm("computed", []), figures=(Figure(name="a", value=1.0, unit="x"),))}))
    assert "svg" not in bare.names
    assert bare.names.count("table") == 3


def test_a_long_table_of_data_says_what_it_leaves_out() -> None:
    turns = [TurnFigures(at_s=float(number), time_s=0.5) for number in range(200)]
    made = to_html({"x": report_of(*(arm(name, turns) for name in "abc"))})
    assert "<p>200 more rows are not shown.</p>" in made


@settings(max_examples=examples(200))
@given(any_text)
def test_whatever_a_report_says_it_is_text(text: str) -> None:
    page = Page(to_html({text: repeating(text)}))
    assert page.open == []
    assert set(page.names) <= ELEMENTS
    assert set(page.attributes) <= ATTRIBUTES
    assert shown_text(text) in "".join(page.texts)

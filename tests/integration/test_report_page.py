"""The page of a benchmark's report in a real browser: it loads nothing, complains of nothing, and can be read at every
width, on light and dark screens.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from segue.bench.reports.html_report import to_html
from segue.bench.reports.report import BenchReport
from segue.bench.reports.result_file import ResultFileError, read_results
from tests.bench.reports.sample_reports import repeating, with_depths, with_lengths, with_links
from tests.browser import BrowserPage, Scheme, browsing

pytestmark = [pytest.mark.deep, pytest.mark.chromium]

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
HOSTILE = "</text></svg></style><script>fetch('http://127.0.0.1:9/')</script><img src=http://127.0.0.1:9/ onerror=x()>"

#: What the scripts below share. Contrast is that of WCAG 2.2, between a colour and the page.
PRELUDE = """
const all = (selector, within = document) => [...within.querySelectorAll(selector)]
const told = element => element.outerHTML.slice(0, 200)
const light = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number)
    .map(part => part <= 10.31475 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0)
const contrast = colour => {
    const both = [light(colour), light(getComputedStyle(document.documentElement).backgroundColor)]
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05)
}
const texts = all('body *').filter(one => !one.matches('title, desc, script') &&
    [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
const textColour = one => one instanceof SVGElement ? getComputedStyle(one).fill : getComputedStyle(one).color
"""
SCRIPTS = {
    "elements beyond the screen, except in what scrolls by itself": """
        all('body *').filter(one => !one.closest('.scroll *') && one.getBoundingClientRect().right > innerWidth + 0.5)
            .map(told)""",
    "texts with a contrast below 4.5 to 1": "texts.filter(one => contrast(textColour(one)) < 4.5).map(told)",
    "curves, marks and bars with a contrast below 3 to 1": """
        all('svg [class]').filter(one => /\\bs\\d/.test(one.getAttribute('class')))
            .filter(one => contrast(getComputedStyle(one).stroke) < 3).map(told)""",
    "texts of a picture that lie on each other": """
        all('svg').flatMap(svg => all('text', svg).flatMap((one, at, others) => {
            const box = one.getBoundingClientRect()
            const over = other => box.left < other.right - 1 && other.left < box.right - 1
                && box.top < other.bottom - 3 && other.top < box.bottom - 3
            return others.slice(at + 1).filter(other => over(other.getBoundingClientRect()))
                .map(other => one.textContent + ' / ' + other.textContent)
        }))""",
    "texts beyond the edge of their picture": """
        all('svg').flatMap(svg => {
            const edge = svg.getBoundingClientRect()
            return all('text', svg).filter(one => {
                const box = one.getBoundingClientRect()
                return box.left < edge.left - 1 || box.right > edge.right + 1 || box.bottom > edge.bottom + 1
            }).map(told)
        })""",
    "pictures whose text is smaller than 10 pixels": """
        all('svg').filter(svg => 12 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width < 10).map(told)""",
    "pages that scroll sideways": "document.documentElement.scrollWidth > innerWidth ? [innerWidth] : []",
}


def mistakes(page: BrowserPage) -> dict[str, list[str]]:
    """Return what is wrong with the page that is shown, by kind."""
    kinds = {
        kind: page.evaluate(f"(() => {{{PRELUDE}\nreturn {script.strip()}}})()") for kind, script in SCRIPTS.items()
    }
    return {kind: found for kind, found in kinds.items() if found}


def committed() -> dict[str, BenchReport]:
    """The result files of the documentation that a benchmark wrote."""
    reports = {}
    for file in sorted(RESULTS.glob("*.json")):
        try:
            reports[file.stem] = read_results(file)
        except ResultFileError:
            continue  # one of another shape
    return reports


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserPage]:
    with browsing(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("width", [375, 800, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["made", "committed", "hostile"])
def test_the_page_can_be_read(page: BrowserPage, kind: str, scheme: Scheme, width: int, tmp_path: Path) -> None:
    made = {"links": with_links(), "depths": with_depths(), "lengths": with_lengths()}
    reports = {"made": made, "committed": committed(), "hostile": {HOSTILE: repeating(HOSTILE)}}[kind]
    file = tmp_path / "report.html"
    file.write_text(to_html(reports), encoding="utf-8")
    page.complaints.clear()
    page.requests.clear()
    page.show(file.as_uri(), width=width, scheme=scheme)
    assert page.evaluate("[innerWidth, document.querySelectorAll('svg').length > 0]") == [width, True]
    assert mistakes(page) == {}
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert mistakes(page) == {}
    assert (page.complaints, page.requests) == ([], [file.as_uri()])


BAD = """<!doctype html><html style='background:#fff'><body>
<p style='color:#eee;width:5000px'>faint and wide <img src='http://127.0.0.1:9/x.png'></p><script>oh()</script>
<svg viewBox='0 0 100 50' width=50><title>t</title><text x=1 y=9>A word</text><text x=2 y=9>Another</text>
<text x=90 y=40>Beyond</text><path class='s0' style='stroke:#eee'></path></svg>"""


def test_the_browser_would_tell(page: BrowserPage, tmp_path: Path) -> None:
    """A page with every mistake that the test above looks for: so that it can fail."""
    file = tmp_path / "bad.html"
    file.write_text(BAD, encoding="utf-8")
    page.complaints.clear()
    page.requests.clear()
    page.show(file.as_uri(), width=800, scheme="light")
    found = mistakes(page)
    assert set(found) == set(SCRIPTS)
    assert found["texts of a picture that lie on each other"] == ["A word / Another"]
    assert page.requests == [file.as_uri(), "http://127.0.0.1:9/x.png"]
    assert any("oh is not defined" in one for one in page.complaints)

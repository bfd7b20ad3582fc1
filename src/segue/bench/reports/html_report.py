"""Writes reports as one HTML page that needs nothing else: no network, no script, no font, no picture file.

Its content security policy allows one style sheet, by its digest, and nothing besides. Every chart has its data in a
table that opens below it. Every text that comes from a report is escaped. Not here: which charts and tables a report
has (`chart_selection`, `report_tables`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html import escape

from segue.bench.reports.chart_selection import charts_of
from segue.bench.reports.charts import Chart, ReportTable, data_of, has_words
from segue.bench.reports.report import BenchReport
from segue.bench.reports.report_tables import about, link_sources, tables_of
from segue.bench.reports.shown_values import shown_text
from segue.bench.reports.svg import STYLE, draw

_MOST_ROWS = 400
_CELL = 600
_PAGE_STYLE = """\
*{box-sizing:border-box}
html{color-scheme:light dark;background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif}
body{margin:0 auto;max-width:88rem;padding:1rem;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.3rem;margin:2.5rem 0 .5rem}h3{font-size:1rem;margin:1.5rem 0 .3rem}
p,figcaption,caption,summary{color:var(--quiet)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));gap:1rem 2rem}
figure{margin:0;min-width:0}figure h3{margin:1rem 0 0}figcaption{font-size:.9rem}
svg{display:block;width:100%;height:auto}
.scroll{overflow-x:auto;max-width:100%}.scroll:focus-visible{outline:2px solid var(--c0)}
table{border-collapse:collapse;font-size:.9rem}caption{text-align:left}
th,td{padding:.2rem .8rem .2rem 0;text-align:right;vertical-align:top;border-bottom:1px solid var(--grid)}
th,td{white-space:nowrap}
.words{text-align:left;min-width:9rem;max-width:24rem;white-space:normal}
th{font-weight:400}thead th{font-weight:600}
summary{cursor:pointer}
"""
_SHEET = f"\n{STYLE}{_PAGE_STYLE}"
_DIGEST = base64.b64encode(hashlib.sha256(_SHEET.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'"


def to_html(reports: Mapping[str, BenchReport]) -> str:
    """Write reports, each under its name."""
    title = f"segue benchmark: {', '.join(reports)}"
    sections = "\n".join(_section(number, name, report) for number, (name, report) in enumerate(reports.items()))
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_escaped(title)}</title>
<style>{_SHEET}</style>
</head>
<body>
<h1>{_escaped(title)}</h1>
<main>
{sections}
</main>
</body>
</html>
"""


def _section(number: int, name: str, report: BenchReport) -> str:
    return "\n".join(["<section>", f"<h2>{_escaped(name)}</h2>", *_parts(number, report), "</section>"])


def _parts(number: int, report: BenchReport) -> Iterator[str]:
    machine = report.machine
    commit = "no commit" if report.commit is None else f"commit {report.commit}"
    yield (
        f"<p>{_escaped(f'{machine.cpu}, {machine.cores} cores, Python {machine.python}')}; "
        f"segue {_escaped(report.version)}, {_escaped(commit)}</p>"
    )
    if charts := charts_of(report):
        yield '<div class="charts">'
        yield from (_figure(chart, f"r{number}c{place}") for place, chart in enumerate(charts))
        yield "</div>"
    for table in tables_of(report):
        yield from _titled(table)
    if sources := link_sources(report):
        yield "<h3>Sources of the links</h3>"
        yield from (f"<p>{_escaped(source, limit=1000)}</p>" for source in sources)
    yield from _titled(about(report))


def _figure(chart: Chart, identifier: str) -> str:
    data = data_of(chart)
    return (
        f"<figure>\n<h3>{_escaped(chart.title)}</h3>\n{draw(chart, identifier)}"
        f"<figcaption>{_escaped(chart.description, limit=1000)}</figcaption>\n"
        f"<details><summary>The data as a table</summary>\n{_table(data)}\n</details>\n</figure>"
    )


def _titled(table: ReportTable) -> Iterator[str]:
    yield f"<h3>{_escaped(table.title)}</h3>"
    yield _table(table)
    if table.note:
        yield f"<p>{_escaped(table.note, limit=1000)}</p>"


def _table(table: ReportTable) -> str:
    """Write a table that scrolls by itself where the screen is narrow."""
    classes = [' class="words"' if has_words(table, column) else "" for column in range(len(table.heads))]
    named = zip(classes, table.heads, strict=True)
    heads = "".join(f'<th scope="col"{css}>{_escaped(head)}</th>' for css, head in named)
    rows = "\n".join(_row(row, classes) for row in table.rows[:_MOST_ROWS])
    more = len(table.rows) - _MOST_ROWS
    left_out = f"\n<p>{more:,} more rows are not shown.</p>" if more > 0 else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_escaped(table.title)}">\n<table>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>{left_out}"
    )


def _row(cells: list[str], classes: list[str]) -> str:
    first, *others = zip(classes, cells, strict=True)
    values = "".join(f"<td{css}>{_escaped(cell, limit=_CELL)}</td>" for css, cell in others)
    return f'<tr><th scope="row"{first[0]}>{_escaped(first[1])}</th>{values}</tr>'


def _escaped(text: str, limit: int = 200) -> str:
    return escape(shown_text(text, limit))

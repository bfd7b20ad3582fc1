"""Writes reports as Markdown: every table of theirs, and what published the numbers of the links.

Every text that comes from a report is escaped, so that it shows as it is and begins no markup. Not here: which tables a
report has (`report_tables`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from segue.bench.reports.charts import ReportTable, has_words
from segue.bench.reports.report import BenchReport
from segue.bench.reports.report_tables import about, link_sources, tables_of
from segue.bench.reports.shown_values import shown_text

_CELL = 600
# A colon or dot within an address would make a link of it: https://github.github.com/gfm/#autolinks-extension-
_SPECIAL = re.compile(r"[\\`*_{}\[\]<>|#~$@!&]|(?<=http):|(?<=https):|(?<=ftp):|(?<=www)\.", re.IGNORECASE)


def to_markdown(reports: Mapping[str, BenchReport]) -> str:
    """Write reports, each under its name."""
    return "\n\n".join(_report(name, report) for name, report in reports.items()) + "\n"


def _report(name: str, report: BenchReport) -> str:
    parts = [f"## {escaped_markdown(name)}"]
    for table in (*tables_of(report), about(report)):
        parts += [f"### {escaped_markdown(table.title)}", markdown_table(table)]
        if table.note:
            parts.append(table.note)
    if sources := link_sources(report):
        parts += ["### Sources of the links", "\n".join(sources)]
    return "\n\n".join(parts)


def markdown_table(table: ReportTable) -> str:
    """Write a table; numbers stand at the right."""
    rule = ["---" if has_words(table, column) else "---:" for column in range(len(table.heads))]
    head, *rows = [[escaped_markdown(cell) for cell in row] for row in (table.heads, *table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


def escaped_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\g<0>", shown_text(text, _CELL))

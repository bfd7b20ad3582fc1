"""The terminal that commands print to: what users and peers wrote is shown as it is.

Rich reads `[…]` in a text as a style, and `:smile:` as a picture: an address like `http://[::1]:80` loses its host, a
path like `[/x]` ends the program. A terminal of this module reads neither. Where a style is wanted, write
`rich.text.Text(words, style=…)`. A table that is too wide for its terminal is printed in parts, each with the first
column, so that no figure is cut. Not here: what is printed, and stdout for scripts.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from rich.console import Console
from rich.measure import Measurement, measure_renderables
from rich.table import Column, Table
from rich.text import Text

#: Wider than any table: a table is measured as if it had all the room it wants.
_WIDEST = 10_000


def verdict(*, met: bool | None) -> Text:
    """Return whether a budget is met, for a column of a table; nothing where there is no budget."""
    if met is None:
        return Text()
    return Text("met", style="green") if met else Text("missed", style="bold red")


def terminal(*, stderr: bool = False, quiet: bool = False, highlight: bool = True) -> Console:
    """Return stdout, or stderr, as a terminal of its width; `quiet` prints nothing."""
    return Console(stderr=stderr, quiet=quiet, highlight=highlight, markup=False, emoji=False)


def print_text(console: Console, text: str, *, style: str = "") -> None:
    """Print a text broken between its words; one that is longer than a line, as an address is, is not broken."""
    for line in textwrap.wrap(text, console.width, break_long_words=False, break_on_hyphens=False):
        console.print(Text(line, style=style), soft_wrap=True)


def print_table(console: Console, table: Table) -> None:
    """Print a table: as it is if every word of it fits, else in parts with as many columns as do."""
    first, *others = table.columns
    for number, group in enumerate(_groups(console, table, first, others)):
        part = _part(table, [first, *group])
        part.title = table.title if number == 0 else None
        _keep_words(console, part)
        console.print(part)


def _keep_words(console: Console, table: Table) -> None:
    """Give each column the width of its longest word at least: Rich takes from the widest one, and may cut it."""
    options = console.options.update(width=_WIDEST)
    whole = Measurement.get(console, options, table)
    columns = [] if any(map(_is_free, table.columns)) else table.columns
    if whole.maximum <= console.width or whole.minimum > console.width or not columns:
        return
    sizes = [measure_renderables(console, options, [one.header, one.footer, *one.cells]) for one in columns]
    spare = console.width - whole.minimum
    for column, size in sorted(zip(columns, sizes, strict=True), key=lambda pair: (not pair[0].no_wrap, pair[1].span)):
        wanted = size.maximum if column.no_wrap else min(size.maximum, size.minimum + spare)
        column.width = wanted
        spare -= wanted - size.minimum


def _is_free(column: Column) -> bool:
    """Say whether a column has a rule of its own for its width."""
    return column.ratio is not None or column.max_width is not None


def _groups(console: Console, table: Table, first: Column, others: Sequence[Column]) -> Iterator[list[Column]]:
    """Yield the columns beside the first one, as many at a time as fit; those of one head together, if they fit."""
    group: list[Column] = []
    shared = _under_one_head(others)
    fitting = (
        [columns] if _width(console, table, [first, *columns]) <= console.width else _apart(columns)
        for columns in shared
    )
    for columns in chain.from_iterable(fitting):
        if group and _width(console, table, [first, *group, *columns]) > console.width:
            yield group
            group = []
        group += columns
    yield group


def _width(console: Console, table: Table, columns: Sequence[Column]) -> int:
    """Return how wide these columns are if no word of them is cut, and no line that must not be wrapped."""
    options = console.options.update(width=_WIDEST)
    whole = Measurement.get(console, options, _part(table, columns)).minimum
    lines = (Measurement.get(console, options, _part(table, [one])) for one in columns if one.no_wrap)
    return whole + sum(line.maximum - line.minimum for line in lines)


def _under_one_head(columns: Sequence[Column]) -> list[list[Column]]:
    """Keep columns together that share the first line of their heads: all but the first begin with an empty line.

    Where no head has a first line, nothing is shared.
    """
    together: list[list[Column]] = []
    for one in columns:
        if together and str(one.header).startswith("\n") and not str(together[-1][0].header).startswith("\n"):
            together[-1].append(one)
        else:
            together.append([one])
    return together


def _apart(columns: Sequence[Column]) -> list[list[Column]]:
    """Part columns that are too wide together; each gets the head that they share."""
    head, has_lines, _ = str(columns[0].header).partition("\n")
    if not has_lines:
        return [[one] for one in columns]
    return [[replace(one, header=f"{head}\n{str(one.header).partition(chr(10))[2]}")] for one in columns]


def _part(table: Table, columns: Sequence[Column]) -> Table:
    """Return a table like another one with some of its columns."""
    part = Table(box=table.box, pad_edge=table.pad_edge, collapse_padding=table.collapse_padding, padding=table.padding)
    part.title_justify, part.show_footer = table.title_justify, table.show_footer
    for one in columns:
        part.add_column(one.header, one.footer, justify=one.justify, overflow=one.overflow, no_wrap=one.no_wrap)
        part.columns[-1].max_width, part.columns[-1].ratio = one.max_width, one.ratio
    for row, cells in zip(table.rows, zip(*(one.cells for one in columns), strict=True), strict=True):
        part.add_row(*cells, style=row.style, end_section=row.end_section)
    return part

"""What is printed is what was written: addresses, paths and names of users are no markup."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

import segue
from segue.terminal import print_table, print_text, terminal, verdict
from tests.strategies import examples
from tests.terminals import terminal_of


@pytest.mark.parametrize("text", ["http://[fd00::1]:8080/v1", "/v1/[/x]", "[bold]x[/]", "[/]", ":smile:", "[link=x]y"])
def test_text_of_users_is_printed_as_it_is(text: str) -> None:
    """In a line, a cell, a head and a title."""
    console = terminal()
    table = Table(text, title=text, title_justify="left")
    table.add_row(text)
    with console.capture() as printed:
        console.print(text)
        console.print(table)
    assert printed.get().count(text) == 4


@settings(max_examples=examples(100))
@given(st.text(alphabet="[]/abc:=\\ ", max_size=30))
def test_no_text_ends_the_program(text: str) -> None:
    console = terminal()
    with console.capture() as printed:
        console.print(text, soft_wrap=True)
    assert printed.get() == f"{text}\n"


def test_a_quiet_terminal_prints_nothing() -> None:
    console = terminal(quiet=True)
    with console.capture() as printed:
        console.print("x")
    assert printed.get() == ""


def test_a_budget_is_met_or_missed_or_not_there() -> None:
    assert [verdict(met=met).plain for met in (True, False, None)] == ["met", "missed", ""]


@pytest.mark.parametrize("width", [50, 80, 120])
def test_what_is_to_be_copied_is_broken_only_where_no_line_has_room(width: int) -> None:
    """A column that may fold keeps its words too, as long as the terminal has room for them."""
    words = ["team-of-the-northern-office-in-blue", "2027-03-01T06:12+00:00", "qwen3-coder-480b-a35b-instruct*"]
    table = Table("name", *("abc"), box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    table.add_row("ci-of-blue", words[0], words[1], f"gpt-*, claude-*, {words[2]}")
    table.add_row("longest", "x" * 130, "y", "z")
    file = io.StringIO()
    print_table(terminal_of(file=file, width=width), table)
    shown = file.getvalue()
    assert all(word in shown for word in words)
    assert "".join(shown.split()).count("x") == 130
    assert all(len(line.rstrip()) <= width for line in shown.splitlines())


def test_a_text_is_broken_between_its_words_and_an_address_is_not() -> None:
    address = f"https://example.org/{'a' * 60}"
    file = io.StringIO()
    print_text(
        terminal_of(file=file, width=50), f"[7] Somebody who measured it: eight words that are longer. {address}"
    )
    assert file.getvalue() == f"[7] Somebody who measured it: eight words that are\nlonger.\n{address}\n"


def test_nothing_else_makes_a_terminal() -> None:
    """A console of Rich as it is reads markup."""
    source = Path(segue.__file__).parent
    made = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if re.search(r"\bConsole\(", path.read_text())
    }
    assert made == {"terminal.py"}


def _wide_table() -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("arm")
    for head in ("KB up", "Mbit/s\ndown", "\nup", "first", "later"):
        table.add_column(head, justify="right")
    for name in ("permessage-deflate", "sidecar"):
        table.add_row(name, "1,234.5", "22.57", "3.9", "100.5 %", "12.25")
    return table


@pytest.mark.parametrize("width", [36, 50, 80, 120])
def test_a_table_that_is_too_wide_is_printed_in_parts(width: int) -> None:
    """No figure is cut; each part has the first column, and columns under one head stay together."""
    shown = io.StringIO()
    print_table(terminal_of(file=shown, width=width), _wide_table())
    lines = shown.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    assert "…" not in shown.getvalue()
    rows = [line.split() for line in lines if line.startswith("permessage-deflate")]
    figures = [figure for row in rows for figure in row[1:]]
    assert figures == ["1,234.5", "22.57", "3.9", "100.5", "%", "12.25"]
    assert ["22.57", "3.9"] in [row[at : at + 2] for row in rows for at in range(len(row))]
    assert len(rows) == {36: 3, 50: 2}.get(width, 1)


def test_a_table_that_is_wrapped_keeps_its_words_whole() -> None:
    """Each column has room for its longest word, whatever another one holds; what must not be wrapped is not."""
    table = Table(box=None, pad_edge=False)
    table.add_column("what")
    table.add_column("line", no_wrap=True)
    table.add_column("said")
    table.add_row("gateway store=true, burst", "one two", "many short words in a long text that has to be wrapped")
    for width in (36, 44, 60):
        shown = io.StringIO()
        print_table(terminal_of(file=shown, width=width), table)
        assert {"store=true,", "one", "wrapped"} <= set(shown.getvalue().split())
        assert "one two" in shown.getvalue()
        assert all(len(line) <= width for line in shown.getvalue().splitlines())


def test_a_table_with_sums_has_them_in_each_part() -> None:
    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("turn", "sum")
    for head in ("bytes sent", "seconds"):
        table.add_column(head, "1,234,567")
    table.add_row("1", "1", "2")
    shown = io.StringIO()
    print_table(terminal_of(file=shown, width=20), table)
    assert shown.getvalue().count("1,234,567") == shown.getvalue().count("sum") == 2


def test_a_table_keeps_its_title_its_sections_and_its_styles() -> None:
    table = _wide_table()
    table.title = "What was measured"
    table.rows[0].end_section = True
    table.rows[1].style = "bold"
    shown = io.StringIO()
    print_table(terminal_of(file=shown, width=50), table)
    assert shown.getvalue().count("What was measured") == 1


def test_a_table_of_one_column_is_a_table() -> None:
    table = Table("name", box=None)
    table.add_row("x" * 10)
    shown = io.StringIO()
    print_table(terminal_of(file=shown, width=20), table)
    assert "x" * 10 in shown.getvalue()


def test_a_line_that_must_not_be_wrapped_is_not_cut() -> None:
    table = Table(box=None, pad_edge=False)
    for head in ("upstream", "body", "CPU per turn", "grows by"):
        table.add_column(head, no_wrap=True)
    table.add_row("responses over WebSocket", "2,212 KB", "1.69 ms", "0.661 x in all")
    shown = io.StringIO()
    print_table(terminal_of(file=shown, width=50), table)
    for text in ("responses over WebSocket", "2,212 KB", "CPU per turn", "1.69 ms", "0.661 x in all"):
        assert text in shown.getvalue()
    assert max(map(len, shown.getvalue().splitlines())) <= 50

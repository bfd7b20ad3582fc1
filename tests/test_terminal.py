"""What is printed is what was written: addresses, paths and names of users are no markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

import segue
from segue.terminal import terminal, verdict
from tests.strategies import examples


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


def test_nothing_else_makes_a_terminal() -> None:
    """A console of Rich as it is reads markup."""
    source = Path(segue.__file__).parent
    made = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if re.search(r"\bConsole\(", path.read_text())
    }
    assert made == {"terminal.py"}

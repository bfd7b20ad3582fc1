"""The user sees exactly what would run, and nothing runs without a yes."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.cli.agent_approval import NOBODY, REFUSED, TerminalApproval, approve_all, approve_none, visible
from tests.terminals import terminal_of


class Terminal:
    """What the user reads, and a pipe that they type into."""

    def __init__(self) -> None:
        self.shown = io.StringIO()
        self.reading, self.typing = os.pipe()
        self.paused = 0
        self.lock = asyncio.Lock()
        console = terminal_of(file=self.shown, force_terminal=False, width=80)
        self.ask = TerminalApproval(
            console, paused=self.pausing, lock=self.lock, folder=Path("/work"), answers=self.reading
        )

    @contextmanager
    def pausing(self) -> Iterator[None]:
        self.paused += 1
        yield
        self.paused -= 1

    def type(self, text: str) -> None:
        os.write(self.typing, text.encode())


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    os.close(made.typing)
    os.close(made.reading)


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("y\n", None),
        ("Yes\n", None),
        ("\n", REFUSED),
        ("no\n", REFUSED),
        ("use make test\n", f"{REFUSED}: use make test"),
        ("", REFUSED),
    ],
)
async def test_an_answer_is_taken(terminal: Terminal, typed: str, answer: str | None) -> None:
    terminal.type(typed or "\n")
    assert await terminal.ask("make") == answer
    assert terminal.shown.getvalue().startswith("The agent wants to run, in /work:\n  make\nRun it? ")
    assert terminal.paused == 0


async def test_always_is_not_asked_again(terminal: Terminal) -> None:
    terminal.type("a\n")
    assert [await terminal.ask("one"), await terminal.ask("two")] == [None, None]
    assert "two" not in terminal.shown.getvalue()


async def test_the_end_of_the_input_is_no(terminal: Terminal) -> None:
    reading, typing = os.pipe()
    os.close(typing)
    console = terminal_of(file=terminal.shown)
    ask = TerminalApproval(console, paused=terminal.pausing, lock=terminal.lock, folder=Path("/work"), answers=reading)
    assert await ask("make") == REFUSED
    os.close(reading)


async def test_one_question_stands_at_a_time(terminal: Terminal) -> None:
    first, second = (asyncio.create_task(terminal.ask(command)) for command in ("one", "two"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert ("one" in terminal.shown.getvalue(), "two" in terminal.shown.getvalue()) == (True, False)
    terminal.type("y\n")
    assert await first is None
    terminal.type("\n")
    assert await second == REFUSED


async def test_a_question_can_be_given_up(terminal: Terminal) -> None:
    """Ctrl-C while it stands; the next one finds the terminal free."""
    asking = asyncio.create_task(terminal.ask("one"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not terminal.lock.locked()


async def test_nothing_that_would_run_is_hidden(terminal: Terminal) -> None:
    terminal.type("\n")
    await terminal.ask("echo ok\r\x1b[2Krm -r \u202e~ #\n[red]" + "x" * 200)
    shown = terminal.shown.getvalue()
    assert "  echo ok\\r\\x1b[2Krm -r \\u202e~ #\n  [red]" + "x" * 200 + "\n" in shown


@given(st.text())
def test_every_character_is_visible(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


async def test_without_a_terminal() -> None:
    assert await approve_none("make") == NOBODY
    await approve_all("make")

"""What the screen shows of an agent at work: a line for each thing it does, and a table that is kept up to date.

Without a terminal there are only the lines. What a model writes is shown as it is, but for characters that a terminal
would obey. Not here: the loop, which tells what happens (`segue.agent.progress`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import msgspec
from rich import box
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.table import Table
from rich.text import Text

from segue.agent.progress import AgentTurn, RunObserver, RunResult
from segue.agent.tasks import TaskCheck
from segue.agent.toolbox import ToolOutput
from segue.cli.agent_approval import visible
from segue.client.function_calls import FunctionCall
from segue.client.session import AsyncSession

_SHOWN_CHARACTERS = 100
_HEADERS = ("run", "turn", "doing", "in", "cached", "out", "up", "down", "lost", "s")
_UNLIMITED = 10_000


class RunView(RunObserver):
    """One run on the screen. `session` is there from the moment the run has one."""

    def __init__(self, screen: AgentScreen, name: str) -> None:
        self.name = name
        self.session: AsyncSession | None = None
        self.result: RunResult | None = None
        self._screen = screen
        self._begun = time.perf_counter()
        self._doing = "starting"
        self._number = 0
        self._line = ""
        self._tokens = [0, 0, 0]

    def turn_started(self, number: int) -> None:
        """Count the turn."""
        self._number, self._doing = number, "model"

    def text_written(self, delta: str) -> None:
        """Show each line of a message when it is complete."""
        *lines, self._line = (self._line + delta).split("\n")
        for line in lines:
            self._say(line)

    def turn_finished(self, turn: AgentTurn) -> None:
        """Add up the tokens."""
        self._end_line()
        new = (turn.input_tokens, turn.cached_tokens, turn.output_tokens)
        self._tokens = [before + more for before, more in zip(self._tokens, new, strict=True)]

    def call_started(self, call: FunctionCall) -> None:
        """Show what is called."""
        self._doing = visible(call.name)
        self._say(f"→ {described(call)}", "cyan")

    def call_finished(self, call: FunctionCall, output: ToolOutput) -> None:
        """Show how it ended, by the first line of its output."""
        first = _shortened(output.text.split("\n", 1)[0])
        self._say(f"{'✗' if output.failed else '✓'} {visible(call.name)}: {first}", "red" if output.failed else "green")

    def finish(self, result: RunResult) -> None:
        """Show how the run ended."""
        self._end_line()
        self.result = result
        self._doing = result.ending
        if result.ending != "completed":
            self._say(f"{result.ending.replace('_', ' ')}: {result.reason}", "bold red")

    def checked(self, check: TaskCheck) -> None:
        """Show what the task's own check says."""
        self._say(
            f"check of {check.task}: {'passed' if check.passed else 'failed'}", "green" if check.passed else "red"
        )
        for line in check.missing:
            self._say(f"  {line}", "red")

    def cells(self) -> list[str]:
        """Return the row of the table."""
        meters = None if self.session is None else self.session.meters
        time_s = time.perf_counter() - self._begun if self.result is None else self.result.time_s
        counts = ["", "", ""] if meters is None else [
            f"{meters.bytes_up_wire:,}",
            f"{meters.bytes_down_wire:,}",
            str(meters.reconnects),
        ]  # fmt: skip
        return [self.name, str(self._number), self._doing, *(f"{n:,}" for n in self._tokens), *counts, f"{time_s:.1f}"]

    def _end_line(self) -> None:
        if self._line:
            self._say(self._line)
        self._line = ""

    def _say(self, line: str, style: str = "") -> None:
        self._screen.say(self.name, visible(line.replace("\t", "    ")), style)


class AgentScreen:
    """The screen of all runs. Use it with `with`."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self.console = console
        self.views = [RunView(self, name) for name in names]
        self._live = Live(self, console=console, refresh_per_second=8, transient=True) if console.is_terminal else None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
        rows = [view.cells() for view in self.views]
        for header in _HEADERS:
            table.add_column(header, justify="left" if header in {"run", "doing"} else "right")
        for row in rows:
            table.add_row(*map(Text, row))
        if table.__rich_measure__(console, options.update(max_width=_UNLIMITED)).maximum <= options.max_width:
            yield table
            return
        for row in rows:  # a table without its figures says nothing
            yield Text("; ".join(f"{header} {cell}" for header, cell in zip(_HEADERS, row, strict=True) if cell))

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Keep the table on a terminal around a block; print it at the end in any case."""
        with self._live or nullcontext():
            yield
        self.console.print(self)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the table away around a block, so that the terminal is free."""
        if self._live is None:
            yield
            return
        self._live.stop()
        try:
            yield
        finally:
            self._live.start()

    def say(self, name: str, line: str, style: str) -> None:
        """Print one line of one run."""
        prefix = f"{name}: " if len(self.views) > 1 else ""
        self.console.print(Text(prefix + line, style=style), soft_wrap=True)


def described(call: FunctionCall) -> str:
    """Return a call in one line: the tool, and what it is about."""
    try:
        given: Any = msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        given = call.arguments
    if isinstance(given, dict):
        shown = [f"{value}" for name, value in given.items() if name in {"path", "pattern", "command"}]
        given = " ".join(shown)
    return f"{visible(call.name)} {_shortened(str(given))}".rstrip()


def _shortened(text: str) -> str:
    text = visible(text[: _SHOWN_CHARACTERS + 1].replace("\n", "⏎"))
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"

"""Asks the user on the terminal whether a command of the agent may run.

What is shown is exactly what would run: characters that a terminal would obey or hide are written out. Without a
terminal nobody can be asked, and then nothing runs. Not here: how a command is run (`segue.agent.command`).
"""

from __future__ import annotations

import asyncio
import os
import termios
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

_ASK = "Run it? [y]es, [a]lways in this run, or the reason why not: "
_LONGEST_ANSWER = 4096

NOBODY = "nobody is there to allow it, since this is no terminal; the user can start the agent with --yes"
REFUSED = "the user said no"


async def approve_all(command: str) -> None:
    """Allow every command: the user said --yes."""


async def approve_none(command: str) -> str:  # noqa: ARG001 - whatever it is
    """Refuse every command: there is no terminal."""
    return NOBODY


class TerminalApproval:
    """Asks on a terminal, one question at a time. `paused` gives the terminal free while the question stands."""

    def __init__(
        self,
        console: Console,
        *,
        paused: Callable[[], AbstractContextManager[None]],
        lock: asyncio.Lock,
        folder: Path,
        answers: int = 0,
    ) -> None:
        self._console = console
        self._paused = paused
        self._lock = lock
        self._folder = folder
        self._answers = answers
        self._always = False

    async def __call__(self, command: str) -> str | None:
        """Return None if the command may run, else what to tell the model."""
        async with self._lock:
            if self._always:
                return None
            with self._paused():
                _forget_what_was_typed(self._answers)
                self._console.print(Text(f"The agent wants to run, in {visible(str(self._folder))}:", style="bold"))
                for line in command.split("\n"):
                    self._console.print(Text("  " + visible(line), style="yellow"), soft_wrap=True)
                self._console.print(Text(_ASK), end="")
                answer = (await _read_line(self._answers)).strip()
            return self._judge(answer)

    def _judge(self, answer: str) -> str | None:
        match answer.lower():
            case "y" | "yes":
                return None
            case "a" | "always":
                self._always = True
                return None
            case "" | "n" | "no":
                return REFUSED
            case _:
                return f"{REFUSED}: {answer}"


def visible(text: str) -> str:
    """Return a text in which every character can be seen: others, such as escapes, are written as their numbers."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _forget_what_was_typed(descriptor: int) -> None:
    """What was typed before a question is no answer to it."""
    with suppress(termios.error):  # it is no terminal
        termios.tcflush(descriptor, termios.TCIFLUSH)


async def _read_line(descriptor: int) -> str:
    """Read a line as soon as it is typed; the event loop goes on meanwhile."""
    loop, typed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, _LONGEST_ANSWER).decode(errors="replace")

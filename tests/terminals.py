"""A program in a terminal of its own, whose keys a test presses; and what is printed, in a file."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import IO, Any

from rich.console import Console

#: Gives the terminal of the file descriptor to a new session, and becomes the command in it. Keys have their usual
#: effect, as after a login: a shell lets what it runs in the background ignore SIGINT, and children inherit that.
LEADER = """
import fcntl, os, signal, sys, termios
for number in (signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)
os.setsid()
fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
os.execv(sys.argv[2], sys.argv[2:])
"""


@asynccontextmanager
async def in_terminal(command: Sequence[str], *, stdin: str) -> AsyncIterator[tuple[Process, int]]:
    """Run a command in a terminal of its own; yields it, and the keyboard. `stdin`: `terminal`, or something else."""
    keyboard, terminal = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LEADER, str(terminal), *command),
            stdin=terminal if stdin == "terminal" else DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            pass_fds=(terminal,),
        )
        try:
            yield process, keyboard
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.communicate()
    finally:
        os.close(keyboard)
        os.close(terminal)


async def line_of(process: Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()


def terminal_of(file: IO[str], **options: Any) -> Console:  # noqa: ANN401 - the options of Rich's console
    """A terminal as `segue.terminal` makes them, whose output is in a file."""
    return Console(file=file, markup=False, emoji=False, **options)

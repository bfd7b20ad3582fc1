"""Lends the terminal to a program that may have to ask its user something, and takes it back.

The program has a process group of its own. While it has the terminal, Ctrl-C is for it alone; afterwards no key of the
terminal reaches it, so that Ctrl-C in an agent does not end the agent's link. Not here: which program, and when
(`segue.sidecar.ssh_stream`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def has_terminal() -> bool:
    """Tell whether this process can ask its user something: it has a terminal, and the keys of it."""
    terminal = _open_terminal()
    if terminal is None:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


@contextmanager
def terminal_lent(group: int) -> Iterator[None]:
    """Let a process group have the terminal around a block; without one, nothing is done."""
    terminal = _open_terminal()
    if terminal is None:
        yield
        return
    try:
        _give(terminal, group)
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGCONT)  # it was stopped if it was quicker than we
        yield
    finally:
        _give(terminal, os.getpgrp())
        os.close(terminal)


def has_stopped(child: int) -> bool:
    """Tell whether a child was stopped, as by Ctrl-Z; whether it has ended is for others to find."""
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, child, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    return False


def _open_terminal() -> int | None:
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return None


def _give(terminal: int, group: int) -> None:
    """Give the terminal to a group. The kernel stops a process that does so in the background, unless it objects."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        with suppress(OSError):  # the group has ended, or the terminal has
            os.tcsetpgrp(terminal, group)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

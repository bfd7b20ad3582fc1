"""The terminal, lent and taken back. `tests/sidecar/test_ssh_stream.py` has it with a real terminal and real keys."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from segue.sidecar import foreground
from segue.sidecar.foreground import has_stopped, has_terminal, terminal_lent
from tests.terminals import in_terminal, line_of


def test_without_a_terminal_nothing_is_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreground, "_open_terminal", lambda: None)
    assert not has_terminal()
    with terminal_lent(os.getpgrp()):
        pass


def test_a_stopped_child_is_told_from_one_that_runs_or_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as child:
        seen = [has_stopped(child.pid)]
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        seen.append(has_stopped(child.pid))
        child.kill()
    assert [*seen, has_stopped(child.pid)] == [False, True, False]


#: Lends the terminal to a group that has ended, and to a child, and says whose it is.
LENDER = """
import os, subprocess, sys
from segue.sidecar.foreground import has_terminal, terminal_lent
with subprocess.Popen([sys.executable, "-c", "input()"], process_group=0, stdin=open("/dev/tty")) as child:
    with terminal_lent(child.pid):
        print(has_terminal(), flush=True)
        child.wait()
    print(has_terminal(), flush=True)
with terminal_lent(child.pid):
    print(has_terminal(), flush=True)
"""


async def test_a_group_has_the_keys_while_they_are_lent_to_it() -> None:
    async with in_terminal([sys.executable, "-c", LENDER], stdin="nothing") as (process, keyboard):
        assert await line_of(process) == "False"
        os.write(keyboard, b"a line\n")  # without the terminal, the child would be stopped when it reads
        assert [await line_of(process), await line_of(process)] == ["True", "True"]
        assert await process.wait() == 0

"""A program under `segue run` in a terminal: it gets each signal once, and the shell sees it stop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest

from segue.cli.child_process import ChildProcess
from tests.terminals import in_terminal, line_of

#: Says each signal that it gets, and ends with SIGTERM.
TELLER = """
import signal, sys
def told(number, _):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(9)
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, told)
print("ready", flush=True)
while True:
    signal.pause()
"""
#: Runs a job as a shell does, and continues it once it has stopped.
SHELL = """
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
terminal = os.open("/dev/tty", os.O_RDWR)
job = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, setpgroup=0, setsigdef=[signal.SIGTTOU])
os.tcsetpgrp(terminal, job)
_, status = os.waitpid(job, os.WUNTRACED)
print("stopped" if os.WIFSTOPPED(status) else "ended", flush=True)
os.tcsetpgrp(terminal, os.getpgrp())
os.tcsetpgrp(terminal, job)
os.killpg(job, signal.SIGCONT)
_, status = os.waitpid(job, os.WUNTRACED)
print("ended with", os.waitstatus_to_exitcode(status), flush=True)
"""
STOPPER = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP); print('went on', flush=True); raise SystemExit(7)"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_SIDECAR_CACHE", "false")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def segue_run(program: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "segue",
        "run",
        "--no-check",
        "--gateway",
        "ws://127.0.0.1:1",
        "--",
        sys.executable,
        "-c",
        program,
    ]


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


@pytest.mark.parametrize("stdin", ["terminal", "nothing"])
@pytest.mark.parametrize(("key", "name"), [(b"\x03", "SIGINT"), (b"\x1c", "SIGQUIT")])
async def test_a_key_of_the_terminal_comes_once(stdin: str, key: bytes, name: str) -> None:
    async with in_terminal(segue_run(TELLER), stdin=stdin) as (process, keyboard):
        assert await line_of(process) == "ready"
        for _ in range(3):
            os.write(keyboard, key)
            assert await line_of(process) == name
        process.terminate()
        assert await line_of(process) == "SIGTERM"
        assert await line_of(process) == ""
        assert await process.wait() == 9


#: The second key waits while the thread that receives keys is busy with the first, and the program ends meanwhile.
LATE_KEY = """
import os, signal, threading
from segue.cli.child_process import ChildProcess
child, busy, free = ChildProcess(print), threading.Event(), threading.Event()
child._receive = lambda *_, **__: (busy.set(), free.wait())
kill, signal.pthread_kill = signal.pthread_kill, lambda *about: (kill(*about), free.set())
with child.signals():
    child._stage = "ended"
    os.kill(os.getpid(), signal.SIGINT)
    busy.wait()
    os.kill(os.getpid(), signal.SIGINT)
print("over")
"""


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="keys are told apart in another way")
async def test_a_key_that_is_still_to_be_received_does_not_end_us_after_the_program() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", LATE_KEY, stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0] == b"over\n"
    assert process.returncode == 0


@pytest.mark.parametrize("stdin", ["terminal", "nothing"])
async def test_what_another_process_sends_us_alone_comes_once(stdin: str) -> None:
    async with in_terminal(segue_run(TELLER), stdin=stdin) as (process, _):
        assert await line_of(process) == "ready"
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
            assert await line_of(process) == number.name
        assert await line_of(process) == ""
        assert await process.wait() == 9


async def test_a_program_that_stops_itself_gives_a_prompt_and_goes_on_in_the_foreground() -> None:
    command = [sys.executable, "-c", SHELL, *segue_run(STOPPER)]
    async with in_terminal(command, stdin="terminal") as (process, _):
        assert await line_of(process) == "stopped"
        assert await line_of(process) == "went on"
        assert await line_of(process) == "ended with 7"


async def test_without_a_terminal_a_program_that_stops_does_not_stop_us() -> None:
    program = "import os, signal; print(os.getpid(), flush=True); os.kill(os.getpid(), signal.SIGSTOP); signal.pause()"
    process = await asyncio.create_subprocess_exec(
        *segue_run(program), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    try:
        child = int(await line_of(process))
        while state_of(child) != "T":  # noqa: ASYNC110 - it is another process that stops
            await asyncio.sleep(0.01)
        process.terminate()  # it is passed on, and waits until the program goes on
        os.kill(child, signal.SIGCONT)
        assert await asyncio.wait_for(process.wait(), 60) == 128 + signal.SIGTERM
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


SIGNALLED_EARLY = """
import os, signal, sys, threading

from segue.cli.child_process import ChildProcess
from tests.terminals import in_terminal, line_of

if sys.argv[1] == "no sender":
    del signal.sigwaitinfo  # as on macOS
interrupted = threading.Event()
handler = signal.getsignal(signal.SIGINT)
with ChildProcess(interrupted.set).signals():
    os.kill(os.getpid(), signal.SIGINT)
    assert interrupted.wait(20)
assert signal.getsignal(signal.SIGINT) is handler
assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
"""


@pytest.mark.parametrize("known", ["sender", "no sender"])
def test_a_signal_before_the_program_runs_ends_us(known: str) -> None:
    """In a process of its own: here are other threads, and one of them could get the signal."""
    ran = subprocess.run([sys.executable, "-c", SIGNALLED_EARLY, known], timeout=60, check=False)
    assert ran.returncode == 0


async def test_a_program_that_cannot_be_run_is_said() -> None:
    with pytest.raises(FileNotFoundError):
        await ChildProcess(lambda: None).run(["/no/such/program"], {})

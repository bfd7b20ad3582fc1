"""A program ends with all that it started: when it is done, when its time is up, when the caller is cancelled."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from segue.agent.processes import EndedProcess, run_process
from tests.loop_clock import LoopClock

ENVIRONMENT = {"PATH": os.environ["PATH"], "ONLY": "this"}


async def shell(command: str, folder: Path, *, time_limit_s: float = 30, max_output_bytes: int = 9999) -> EndedProcess:
    return await run_process(
        ("/bin/sh", "-c", command),
        folder=folder,
        environment=ENVIRONMENT,
        time_limit_s=time_limit_s,
        max_output_bytes=max_output_bytes,
    )


class Holder:
    """A named pipe that the processes of a command hold open; its end tells that the last of them is gone."""

    def __init__(self, folder: Path) -> None:
        path = folder / "held"
        os.mkfifo(path)
        self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        #: Starts a process in the background that would run for an hour, and says `+`.
        self.command = f"exec 3>{path}; sleep 3600 & echo + >&3; "

    async def begun(self) -> None:
        """Wait until the command has begun."""
        assert await self._read() == b"+\n"

    async def is_gone(self) -> bool:
        """Wait until nobody holds the pipe."""
        while await self._read():
            pass
        return True

    async def _read(self) -> bytes:
        loop, there = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._file, there.set)
        await there.wait()
        loop.remove_reader(self._file)
        return os.read(self._file, 9)


@pytest.fixture
def holder(tmp_path: Path) -> Holder:
    return Holder(tmp_path)


async def test_output_and_status(tmp_path: Path) -> None:
    assert await shell("echo out; echo err >&2; exit 3", tmp_path) == EndedProcess(3, "out\nerr\n", timed_out=False)
    assert await shell("kill -9 $$", tmp_path) == EndedProcess(-signal.SIGKILL, "", timed_out=False)


async def test_its_place_its_environment_and_no_input(tmp_path: Path) -> None:
    ended = await shell("pwd; echo $ONLY$HOME; cat; test -t 0 || echo no terminal", tmp_path)
    assert ended.output == f"{tmp_path}\nthis\nno terminal\n"


async def test_output_is_cut_in_the_middle(tmp_path: Path) -> None:
    ended = await shell("seq 1 100000", tmp_path, max_output_bytes=20)
    assert ended.output == "1\n2\n3\n4\n5\n\n… 588,875 bytes left out …\n99\n100000\n"


async def test_what_it_left_in_the_background_ends_with_it(tmp_path: Path, holder: Holder) -> None:
    assert (await shell(f"{holder.command}echo done", tmp_path)).output == "done\n"
    assert await holder.is_gone()


async def test_the_whole_group_is_killed_when_the_time_is_up(
    tmp_path: Path, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, command = LoopClock(monkeypatch), f"trap '' TERM INT; echo begun; {holder.command}sleep 3600"
    running = asyncio.create_task(shell(command, tmp_path, time_limit_s=60.0))
    await holder.begun()
    for _ in range(20):  # it has been started, and now its time is counted
        await asyncio.sleep(0)
    clock.forward(60.0)
    ended = await running
    assert ended == EndedProcess(-signal.SIGKILL, "begun\n", timed_out=True)
    assert await holder.is_gone()


async def test_the_whole_group_is_killed_when_the_caller_is_cancelled(tmp_path: Path, holder: Holder) -> None:
    running = asyncio.create_task(shell(f"{holder.command}sleep 3600", tmp_path))
    await holder.begun()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await holder.is_gone()


async def test_one_that_escaped_does_not_hold_the_caller_up(tmp_path: Path) -> None:
    """It keeps the output open in a session of its own; the answer comes without it."""
    escape = (
        "import os,sys,time\nif os.fork(): sys.exit()\nos.setsid()\nprint(os.getpid(),flush=True)\ntime.sleep(3600)"
    )
    (tmp_path / "escape.py").write_text(escape)
    ended = await shell(f"python3 {tmp_path}/escape.py | head -n 1", tmp_path)
    os.kill(int(ended.output), signal.SIGKILL)
    assert ended.status == 0


@pytest.mark.parametrize("loops", ["asyncio", "uvloop"])
def test_each_descriptor_is_closed_once_and_by_its_owner(
    loops: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second close could hit a file that another thread has opened under the same number."""
    loop_factory = pytest.importorskip(loops).new_event_loop
    made: list[int] = []
    closed: list[int] = []
    pipe, close = os.pipe, os.close

    def recorded_pipe() -> tuple[int, int]:
        ends = pipe()
        made.extend(ends)
        return ends

    def recorded_close(descriptor: int) -> None:
        closed.append(descriptor)
        close(descriptor)

    monkeypatch.setattr(os, "pipe", recorded_pipe)
    monkeypatch.setattr(os, "close", recorded_close)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(shell("echo out", tmp_path)).output == "out\n"
    reading, writing = made[:2]
    assert [number for number in closed if number in {reading, writing}][:2] == [writing, reading]


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await run_process(
            (str(tmp_path / "none"),), folder=tmp_path, environment={}, time_limit_s=1, max_output_bytes=1
        )

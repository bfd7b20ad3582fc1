"""Runs a program in a process group of its own, for a limited time, and keeps a bounded part of what it prints.

When the program ends, or its time is up, or the caller is cancelled, the whole group is killed: nothing that it started
goes on. (A program that makes a new session for itself escapes that.) It gets no input and has no terminal. Not here:
whether the user allows a command (`command`).
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from segue.agent.output_cutter import OutputCutter

_PIECE_BYTES = 64 * 1024
#: How long to wait for the end of the output when the group is gone: what escaped from it may hold the pipe open.
_DRAIN_S = 0.5


class EndedProcess(Struct, frozen=True):
    """How a program ended. `status` is negative if a signal ended it: minus its number."""

    status: int
    output: str
    timed_out: bool


async def run_process(
    program: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    time_limit_s: float,
    max_output_bytes: int,
    descriptors: Sequence[int] = (),
) -> EndedProcess:
    """Run a program to its end. `descriptors` are open files that it gets under the same numbers.

    Raises:
        OSError: it cannot be started.
    """
    reading, writing = os.pipe()
    output = OutputCutter(max_output_bytes)
    with _reading(reading, output) as ended:
        try:
            process = await asyncio.create_subprocess_exec(
                *program, cwd=folder, env=environment, stdin=DEVNULL, stdout=writing, stderr=writing,
                start_new_session=True, pass_fds=descriptors,
            )  # fmt: skip
        finally:
            os.close(writing)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(time_limit_s) as limit:
                    await process.wait()
        finally:
            with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says the second of zombies
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_S):
                    await ended.wait()
    assert process.returncode is not None
    return EndedProcess(process.returncode, output.text(), timed_out=limit.expired())


@contextmanager
def _reading(pipe: int, output: OutputCutter) -> Iterator[asyncio.Event]:
    """Read a pipe while other things happen; the event is set at its end. The pipe is closed at the end of the block.

    The event loop only watches the descriptor. A pipe that `connect_read_pipe` takes as a file is closed twice by
    uvloop, by libuv and by the file, and the second time it may be a file that another thread has just opened.
    """
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    os.set_blocking(pipe, False)

    def read() -> None:
        try:
            data = os.read(pipe, _PIECE_BYTES)
        except BlockingIOError:
            return
        output.feed(data)
        if not data:
            loop.remove_reader(pipe)
            ended.set()

    loop.add_reader(pipe, read)
    try:
        yield ended
    finally:
        loop.remove_reader(pipe)
        os.close(pipe)

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
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        try:
            process = await asyncio.create_subprocess_exec(
                *program, cwd=folder, env=environment, stdin=DEVNULL, stdout=writing, stderr=writing,
                start_new_session=True, pass_fds=descriptors,
            )  # fmt: skip
        finally:
            os.close(writing)
        timed_out, draining = False, asyncio.create_task(_drain(pipe, output))
        try:
            async with asyncio.timeout(time_limit_s):
                await process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            _kill_group(process.pid)
            await process.wait()
            await asyncio.wait((draining,), timeout=_DRAIN_S)
            draining.cancel()
            await asyncio.wait((draining,))
    assert process.returncode is not None
    return EndedProcess(process.returncode, output.text(), timed_out)


def _kill_group(number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # no member is left; macOS says the second one of zombies
        os.killpg(number, signal.SIGKILL)


async def _drain(pipe: object, output: OutputCutter) -> None:
    """Read to the end of the output."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        while data := await reader.read(_PIECE_BYTES):
            output.feed(data)
    finally:
        transport.close()

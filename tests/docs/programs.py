"""Starts the Python programs of a page without waiting for their imports.

A process that has imported the large packages (this module, run as a program) forks for each program. So each program
still is a process of its own, with its own folder, environment and output, and it starts at once. Not here: what is
run (`snippets`).
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

#: What snippets and the commands of segue import.
IMPORTED = (
    "aiohttp",
    "openai.resources.responses",
    "openai.types.responses",
    "pytest",
    "segue.cli.main",
    "segue.cli.run",
    "segue.cli.serve",
    "segue.gateway.app",
)
_MESSAGE_BYTES = 64 * 1024


class Programs:
    """The process that forks, while a block runs; it answers one request at a time."""

    def __init__(self, patience_s: float) -> None:
        self._ours, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.docs.programs", str(theirs.fileno())],
            cwd=Path(__file__).resolve().parents[2],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._ours.recv(_MESSAGE_BYTES)  # it has imported everything
        self.patience_s = patience_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._process.wait()

    def start(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], *outputs: int) -> int:
        """Start a program with these files as stdout and stderr; returns its process id.

        The first argument is a file of Python, or `segue` or `pytest` for their command lines.
        """
        asked = {"arguments": [*arguments], "folder": str(folder), "environment": dict(environment)}
        socket.send_fds(self._ours, [line_of(asked)], outputs)
        return int(self._ours.recv(_MESSAGE_BYTES))

    def wait(self, process_id: int) -> int:
        """Return the exit status of a program when it has ended; one that takes too long is killed."""
        self._ours.sendall(line_of({"wait": process_id}))
        ended, _, _ = select.select([self._ours], [], [], self.patience_s)
        if not ended:
            os.kill(process_id, signal.SIGKILL)
        return int(self._ours.recv(_MESSAGE_BYTES))

    def run(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str, str]:
        """Run a program to its end; returns its exit status and what it wrote to stdout and stderr."""
        with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as told:
            status = self.wait(self.start(arguments, folder, environment, printed.fileno(), told.fileno()))
            for file in (printed, told):
                file.seek(0)
            return status, printed.read(), told.read()


def line_of(asked: Mapping[str, Any]) -> bytes:
    """Write a request as a line."""
    return json.dumps(asked).encode() + b"\n"


def serve(asking: socket.socket) -> None:
    """Fork for each request, and wait for what was forked when it is asked to."""
    for name in IMPORTED:
        importlib.import_module(name)
    asking.send(b"ready")
    while True:
        data, files, _, _ = socket.recv_fds(asking, _MESSAGE_BYTES, 2)
        while data and not data.endswith(b"\n"):
            data += asking.recv(_MESSAGE_BYTES)
        if not data:
            return
        asked = json.loads(data)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            asking.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        process_id = os.fork()
        if not process_id:
            asking.close()
            become(asked, files)
        for file in files:
            os.close(file)
        asking.send(str(process_id).encode())


def become(asked: dict[str, Any], files: Sequence[int]) -> None:
    """Be the program that was asked for, and end with its exit status."""
    for number, file in enumerate(files, start=1):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    status = 1
    try:
        status = play(asked["arguments"])
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does at the end of a program
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def play(arguments: Sequence[str]) -> int:
    """Run a program in this process."""
    program, *rest = arguments
    sys.argv = [*arguments]
    if program == "segue":
        from segue.cli.main import main

        main(rest)
    elif program == "pytest":
        import pytest

        sys.path.insert(0, "")
        return int(pytest.main(rest))
    else:
        warnings.simplefilter("error")
        runpy.run_path(program, run_name="__main__")
    return 0


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))

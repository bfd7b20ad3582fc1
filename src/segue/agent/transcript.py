"""The file that tells what an agent did, line by line as JSON, so that a run can be read, and gone on with.

Each line is written before what it tells of goes on: `call_started` before a tool runs, `call_finished` when its output
is known. So after a crash nothing runs twice: an output that stands here is used again, and of a call that has only
begun the model is told that it may have happened. The items of the conversation are in the session's own file beside
it. Both hold contents, so only their owner can read them. Not here: what goes on (`loop`).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from segue.agent.toolbox import ToolOutput

VERSION = 1


class TranscriptError(ValueError):
    """A transcript cannot be used: it is another program's, or of a later version, or in use."""


class _TranscriptLine(Struct, frozen=True):
    type: str
    version: int = 0
    call_id: str = ""
    output: str = ""
    failed: bool = False
    status: str = ""


class Transcript:
    """One run, on one file. `begun` and `outputs` are of the calls of the last turn, `status` is that of its response.

    Args:
        path: the file; its folder is made.
        resumes: whether it is an earlier one that goes on; otherwise there must be none.

    Raises:
        TranscriptError: it is not there, or there already, or none, or another process has it open.
    """

    def __init__(self, path: Path, *, resumes: bool) -> None:
        self.path = path
        self.begun: set[str] = set()
        self.outputs: dict[str, ToolOutput] = {}
        self.status = "completed"
        #: Where the session that belongs to it is saved.
        self.session_path = path.with_suffix(".session.json")
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (0 if resumes else os.O_CREAT | os.O_EXCL)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.fdopen(os.open(path, flags, 0o600), "r+b")
        except OSError as error:
            raise TranscriptError(f"{path}: {(error.strerror or str(error)).lower()}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if resumes:
                self._read()
        except OSError:
            self.close()
            raise TranscriptError(f"{path}: another agent is running with it") from None
        except TranscriptError:
            self.close()
            raise

    def _read(self) -> None:
        whole = 0
        for number, line in enumerate(self._file):
            if not line.endswith(b"\n"):  # the process ended while it was written
                break
            whole += len(line)
            self._take(number, line)
        if not whole:
            raise TranscriptError(f"{self.path}: not the transcript of an agent")
        self._file.truncate(whole)

    def _take(self, number: int, data: bytes) -> None:
        try:
            line = msgspec.json.decode(data, type=_TranscriptLine)
        except msgspec.DecodeError:
            raise TranscriptError(f"{self.path}: line {number + 1} cannot be read") from None
        if number == 0 and (line.type, line.version) != ("started", VERSION):
            raise TranscriptError(f"{self.path}: not a transcript of version {VERSION}")
        match line.type:
            case "turn":
                self.begun.clear()
                self.outputs.clear()
                self.status = line.status
            case "call_started":
                self.begun.add(line.call_id)
            case "call_finished":
                self.outputs[line.call_id] = ToolOutput(line.output, line.failed)
            case _:
                pass

    def write(self, kind: str, **fields: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
        """Add a line."""
        version = {"version": VERSION} if kind == "started" else {}
        data = msgspec.json.encode({"type": kind, **version, **fields}) + b"\n"
        self._file.write(data)
        self._file.flush()
        if kind != "started":
            self._take(1, data)

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

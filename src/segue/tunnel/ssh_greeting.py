"""What the far side of an ssh connection says before the tunnel's bytes follow: lines of text, each with a mark.

The shell that ssh starts there tells what it finds (`FOUND`, `INSTALLING`, `MISSING`), and segue's relay tells that it
is connected to a gateway (`READY`) or why not (`FAILED`). Whatever else the account prints, such as a greeting of its
shell, is skipped. Pure. Not here: how the far side is started (`segue.sidecar.ssh_command`), and what it does
(`segue.cli.ssh_relay`).
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

import msgspec

#: The version of what follows READY: one connection to the gateway, byte for byte, until either side ends it.
RELAY_PROTOCOL = 1
MARK = "segue-ssh"

#: What is read before READY at most, and of one line: what the far side prints is not trusted.
MAX_GREETING_BYTES = 64 * 1024
_MAX_LINE_BYTES = 2048

_READY = re.compile(rf"{MARK} READY (?P<protocol>[0-9]{{1,4}}) (?P<version>[0-9A-Za-z.+-]{{1,64}})")

#: How far the far side came before it said READY or FAILED.
Progress: TypeAlias = Literal["nothing", "FOUND", "INSTALLING", "MISSING"]


class RelayReady(msgspec.Struct, frozen=True):
    """The relay is connected to a gateway. `version`: that of segue there."""

    protocol: int
    version: str


class RelayFailed(msgspec.Struct, frozen=True):
    """There is no gateway there. The words are the far side's: printable, and bounded."""

    reason: str


def encode_ready(version: str) -> bytes:
    """Return the last line before the tunnel's bytes. It begins on a line of its own, whatever came before it."""
    return f"\n{MARK} READY {RELAY_PROTOCOL} {version}\n".encode()


def encode_failed(reason: str) -> bytes:
    """Return the line that says why there is no gateway."""
    return f"\n{MARK} FAILED {printable(reason)}\n".encode()


def printable(text: str) -> str:
    """Return text of a peer as one line of ASCII that controls no terminal."""
    return re.sub(r"[^\x20-\x7e]+", " ", text).strip()[:_MAX_LINE_BYTES]


class GreetingReader:
    """Reads what comes from the far side until it is READY or has FAILED."""

    def __init__(self) -> None:
        self.progress: Progress = "nothing"
        self._unread = b""
        self._count = 0

    def receive(self, data: bytes) -> RelayReady | RelayFailed | None:
        """Return how it ended; None: more is to come. Nothing may follow READY before we have sent something."""
        self._count += len(data)
        if self._count > MAX_GREETING_BYTES:
            return RelayFailed("it printed too much before the tunnel; does the shell of that account print something?")
        *lines, rest = (self._unread + data).split(b"\n")
        self._unread = rest[:_MAX_LINE_BYTES]
        for number, line in enumerate(lines, start=1):
            ended = self._read(line[:_MAX_LINE_BYTES].decode("ascii", "replace").rstrip("\r"))
            if isinstance(ended, RelayReady) and (number < len(lines) or rest):
                return RelayFailed("it sent something before it was asked; does the shell of that account print it?")
            if ended is not None:
                return ended
        return None

    def _read(self, line: str) -> RelayReady | RelayFailed | None:
        mark, _, said = line.partition(" ")
        if mark != MARK:
            return None
        found = _READY.fullmatch(line)
        if found is not None:
            return RelayReady(int(found["protocol"]), found["version"])
        match said.partition(" "):
            case ("FAILED", _, reason):
                return RelayFailed(printable(reason))
            case ("FOUND" | "INSTALLING" | "MISSING" as progress, _, ""):
                self.progress = progress
                return None
            case _:
                return RelayFailed(f"it said what this version of segue does not know: {printable(said)[:80]}")

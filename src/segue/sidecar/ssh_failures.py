"""Why a link by ssh did not open, from how `ssh` ended, what it said, and how far the far side came: with the cure.

Pure. Not here: running `ssh` (`segue.sidecar.ssh_stream`).
"""

from __future__ import annotations

import re

import msgspec

from segue.sidecar.ssh_address import SshAddress
from segue.tunnel.ssh_greeting import RELAY_PROTOCOL, Progress, RelayReady, printable

#: What `ssh` itself ends with when the connection failed (ssh(1), EXIT STATUS).
_SSH_FAILED = 255
_MAX_WORDS = 300

_INSTALL = "pipx install or uv tool install, with a wheel of your checkout"

#: What `ssh` says when only a person can mend it, and what that person is told.
_CURES: tuple[tuple[str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key for .* has changed",
        "the host key of {host} has changed, and ssh refuses it: somebody may be in between, unless you know better",
    ),
    (
        r"host key verification failed|no .* host key is known",
        "ssh does not know the host key of {host}: connect once with ssh {host}, and check it",
    ),
    (
        r"permission denied|too many authentication failures|no more authentication methods",
        "ssh could not log in to {host} without a question: give it a key or an agent; try ssh -oBatchMode=yes {host}",
    ),
)


class SshFailure(msgspec.Struct, frozen=True):
    """Why there is no link. `persistent`: trying again will not help before a person has mended it."""

    reason: str
    persistent: bool


def explain_end(status: int | None, told: str, progress: Progress, address: SshAddress) -> SshFailure:
    """Return what it means that `ssh` ended with this status (None: it was stopped) before the tunnel was open.

    `told`: the end of what it wrote to stderr, which may be the far side's words.
    """
    host = address.host
    words = _last_words(told)
    said = f": {words}" if words else ""
    match progress:
        case "MISSING":
            return SshFailure(
                f"segue is not installed on {host}, or not where its shell looks for programs. Install it there "
                f"({_INSTALL}), or name what to fetch with --install, which needs uvx or pipx on {host}",
                persistent=True,
            )
        case "INSTALLING":
            return SshFailure(f"segue could not be fetched on {host}{said}", persistent=True)
        case "FOUND":
            reason = f"the segue on {host} is too old for ssh:// gateways, or does not run{said}. Update it there"
            return SshFailure(reason, persistent=True)
        case "nothing":
            return _explain_ssh(status, told, host, said)


def _explain_ssh(status: int | None, told: str, host: str, said: str) -> SshFailure:
    """Return why the far side did not begin at all."""
    for words, cure in _CURES:
        if re.search(words, told, re.IGNORECASE):
            return SshFailure(cure.format(host=host), persistent=True)
    if status is None:
        return SshFailure(f"ssh did not reach {host} in time{said}", persistent=False)
    if status < 0:
        return SshFailure("ssh was interrupted before it was connected", persistent=True)
    if status == _SSH_FAILED:
        return SshFailure(f"ssh failed{said or ' without a word'}", persistent=False)
    return SshFailure(f"{host} did not run segue's command, and ended it with status {status}{said}", persistent=True)


def wrong_protocol(ready: RelayReady, address: SshAddress) -> SshFailure | None:
    """Return what is wrong with the relay's version; None: nothing is."""
    if ready.protocol == RELAY_PROTOCOL:
        return None
    which = f"there, or of this one: {address.host} has {ready.version}"
    return SshFailure(f"the two versions of segue do not fit: update the one {which}", persistent=True)


def _last_words(told: str) -> str:
    """Return the last line that says something."""
    lines = [line for line in map(printable, told.splitlines()) if re.search("[A-Za-z]", line)]
    return lines[-1][:_MAX_WORDS].rstrip(".") if lines else ""

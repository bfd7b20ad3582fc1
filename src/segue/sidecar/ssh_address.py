"""The address of a gateway that is reached by ssh: `ssh://[USER@]HOST[:PORT]`.

Its parts become arguments of `ssh`, and the user's own configuration of ssh may put them into commands (`%h`, `%r`). So
what could be an option or part of a command is refused. Pure. Not here: the command (`segue.sidecar.ssh_command`).
"""

from __future__ import annotations

import re

import msgspec

_SCHEME = "ssh://"
#: A host name, a name of the user's ssh configuration, or an address. None of them begins with `-`.
_ADDRESS = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.+-]*)@)?"
    r"(?:(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*)|\[(?P<ipv6>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9_.-]+)?)\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)
_MAX_PORT = 65535
_MAX_LENGTH = 512


class SshAddress(msgspec.Struct, frozen=True):
    """A machine to reach by ssh. What is None is for the user's configuration of ssh to say."""

    host: str
    user: str | None = None
    port: int | None = None


def is_ssh(gateway: str) -> bool:
    """Tell whether a gateway is named by the address of a machine to ssh to."""
    return gateway[: len(_SCHEME)].lower() == _SCHEME


def parse_ssh_address(gateway: str) -> SshAddress:
    """Return the machine that an address names.

    Raises:
        ValueError: it is not `ssh://[USER@]HOST[:PORT]`.
    """
    found = _ADDRESS.fullmatch(gateway[len(_SCHEME) :]) if is_ssh(gateway) and len(gateway) <= _MAX_LENGTH else None
    port = None if found is None or found["port"] is None else int(found["port"])
    if found is None or port == 0 or (port or 0) > _MAX_PORT:
        raise ValueError(f"{gateway!r} is not the address of a machine to ssh to, such as ssh://user@host:22")
    return SshAddress(found["host"] or found["ipv6"], found["user"], port)

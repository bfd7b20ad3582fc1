"""Why a server could not start, in words that say what to do.

Not here: what is wrong with a setting by itself (`segue.config`), and why a connection to somebody else fails
(`segue.egress.errors`).
"""

from __future__ import annotations

import errno
import re
import socket

from segue.config import ConfigError
from segue.http.origins import authority_of

#: How asyncio names the address that it could not bind, in front of the system's own words; `socket`, behind them.
_BIND = re.compile(r"while attempting to bind on address \('(?P<host>[^']*)', (?P<port>\d+)")
_LAST_PRIVILEGED_PORT = 1023

_WRONG: dict[int, str] = {
    errno.EADDRINUSE: "another program listens there; stop it, or choose another port (0 picks a free one)",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EAFNOSUPPORT: "this machine has no addresses of this kind",
}


def start_error(error: Exception, what: str = "cannot start") -> ConfigError:
    """Return what a command ends with that could not start because of an error."""
    return ConfigError(f"{what}: {_reason(error)}")


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name of the address to listen on cannot be resolved ({error.strerror})"
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    bind = _BIND.search(str(error))
    if bind is None:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror or error)
    host, port = bind["host"], int(bind["port"])
    where = f"cannot listen on {authority_of(host, port)}"
    if error.errno in {errno.EACCES, errno.EPERM} and port <= _LAST_PRIVILEGED_PORT:
        return f"{where}: ports below 1024 are for root; choose another, and let a proxy listen there"
    return f"{where}: {_WRONG.get(error.errno) or _system_words(str(error))}"


def _system_words(text: str) -> str:
    """Return what the system said, which asyncio writes behind the address, and `socket` before it."""
    before, of_socket, _ = text.partition(" (while attempting")
    return before.rpartition("] ")[2] if of_socket else text.rpartition("): ")[2] or text

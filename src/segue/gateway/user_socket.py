"""A Unix socket that only its own user can reach (mode 0600), and who is at its ends.

Where the platform tells the user at the other end of a connection, that is checked too. Not here: the folder that it is
in (`segue.gateway.runtime_directory`), and which gateway listens there (`segue.cli.ssh_gateway`).
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from pathlib import Path
from typing import cast

#: What a process prints for the one that started it when it listens; anything else says why it does not.
LISTENING = "segue-ssh LISTENING"
#: How much of a path fits into the address of a Unix socket (`sun_path` has 108 bytes on Linux, 104 on macOS and BSD).
_MAX_PATH_BYTES = 100
_OTHERS = 0o077
# The peer of a Unix socket. Linux: SO_PEERCRED and `struct ucred` of unix(7), which has the process, user and group.
# macOS and BSD: `struct xucred` of <sys/ucred.h>, which begins with a version and the user.
_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_XUCRED_BYTES = 76


class UserSocketError(Exception):
    """The socket cannot be used, or not safely. The message says why, and is for its user."""


def bind_socket(path: Path) -> socket.socket:
    """Return a socket bound to the path, in place of one that nobody listens on any more. Hold the lock meanwhile.

    Raises:
        UserSocketError: the path is too long, or cannot be made.
    """
    _check_length(path)
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(_OTHERS)
        try:
            bound.bind(str(path))
        finally:
            os.umask(before)
        path.chmod(0o600)
    except OSError as error:
        bound.close()
        raise UserSocketError(f"the socket {path} cannot be made: {error.strerror}") from None
    return bound


def connect_socket(path: Path) -> socket.socket | None:
    """Return a connection to this user's own process that listens at the path; None: nobody does.

    Raises:
        UserSocketError: it cannot be reached for another reason, or another user listens.
    """
    _check_length(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise UserSocketError(f"the socket {path} cannot be reached: {error.strerror}") from None
    if not is_same_user(connection):
        connection.close()
        raise UserSocketError(f"another user listens on the socket {path}")
    return connection


def is_same_user(connection: socket.socket) -> bool:
    """Tell whether the peer is of this user; where the platform does not tell, the modes of the folder have to do."""
    uid = peer_uid(connection)
    return uid is None or uid == os.geteuid()


def peer_uid(connection: socket.socket, platform: str = sys.platform) -> int | None:
    """Return the user at the other end of a Unix socket; None: the platform does not tell."""
    if platform == "linux":
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    elif platform == "darwin" or "bsd" in platform:
        _, uid = struct.unpack_from("=II", connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES))
    else:
        return None
    return int(uid)


class SameUserProtocol(asyncio.Protocol):
    """Gives a connection of the same user to `inner`, and drops every other one before anything of it is read."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look who it is; from then on the connection is the inner protocol's, or over."""
        stream = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        if not is_same_user(transport.get_extra_info("socket")):
            stream.abort()
            return
        stream.set_protocol(self._inner)
        self._inner.connection_made(transport)


def _check_length(path: Path) -> None:
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise UserSocketError(f"the path {path} is too long for a socket: set [ssh] directory to a shorter one")

"""The folder for a user's sockets, which is the user's alone (mode 0700), and locks in it.

A lock makes one process at a time begin or end to listen on a socket. Not here: the sockets
(`segue.gateway.user_socket`).
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from segue import __version__
from segue.gateway.user_socket import UserSocketError

_PRIVATE = 0o700
_OTHERS = 0o077


class SocketFiles(NamedTuple):
    """The socket that this version's gateway listens on, and the lock for beginning and ending to do so."""

    socket: Path
    lock: Path


def socket_files(configured: str) -> SocketFiles:
    """Return the files in the user's folder for sockets; each version of segue has its own.

    Raises:
        UserSocketError: the folder is not this user's alone.
    """
    folder = private_directory(runtime_directory(configured))
    return SocketFiles(folder / f"gateway-{__version__}.sock", folder / f"gateway-{__version__}.lock")


def runtime_directory(configured: str = "") -> Path:
    """Return the folder for the user's sockets: the configured one, or else /tmp/segue-UID.

    XDG_RUNTIME_DIR would not do: it is removed when the user's last session ends, as it does when a connection is cut.
    """
    if configured:
        return Path(configured).expanduser()
    return Path("/tmp") / f"segue-{os.geteuid()}"  # noqa: S108 - `private_directory` checks whose it is


def private_directory(folder: Path) -> Path:
    """Make the folder if it is not there, and check that it is this user's alone.

    Raises:
        UserSocketError: it cannot be made, or others have a part in it.
    """
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        state = folder.lstat()
    except OSError as error:
        raise UserSocketError(f"the folder {folder} cannot be made: {error.strerror}") from None
    if not stat.S_ISDIR(state.st_mode):
        raise UserSocketError(f"{folder} is no folder of its own: remove it")
    if state.st_uid != os.geteuid():
        raise UserSocketError(f"the folder {folder} belongs to another user: set [ssh] directory to one of yours")
    if state.st_mode & _OTHERS:
        raise UserSocketError(f"others have a part in the folder {folder}: chmod 700 {folder}")
    return folder


@contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock of this user around a block; yields whether we have it. `wait=False`: only if it is free."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)

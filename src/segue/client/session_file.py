"""The file of a session: readable by its owner only, and at any moment with one whole session in it.

What is new is appended; the rest is written beside the file and put in its place. Either is on the disk (`fsync`) when
`write` returns. One process writes a file at a time; another one that has written it meanwhile loses what it wrote. Not
here: what the bytes say (`session_journal`).
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from segue.client.errors import SessionFileError
from segue.client.session_journal import MOST_BYTES, Journal, write_anew, write_change
from segue.client.session_state import SessionRecord

_NOTHING = "Nothing was sent."
_NO_FILE = "it is no plain file"
_TOO_LARGE = "it is too large"
#: What `fsync` says where a folder cannot be written to the disk by itself.
_NOT_FOR_FOLDERS = frozenset({errno.EINVAL, errno.EBADF})


class SessionFile:
    """The file of one session, as this process writes it."""

    def __init__(self, path: str, base_url: str) -> None:
        self.path = path
        self._base_url = base_url
        self._journal: Journal | None = None  # what is in the file; None: nobody knows
        self._written: FileState | None = None  # how the file was left

    def write(self, record: SessionRecord) -> None:
        """Bring the file up to date.

        Raises:
            SessionFileError: it cannot be written; what was there stays.
        """
        journal, self._journal = self._journal, None  # after an error nobody knows what is on the disk
        change = None if journal is None else write_change(journal, record)
        if change is None or not self._append(change.data):
            change = write_anew(record, self._base_url)
            self._written = replace_file(self.path, change.data)
        self._journal = change.then

    def _append(self, data: bytes) -> bool:
        """Append a line; do nothing if the file is another one than was left."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False  # to write it anew shows what is wrong, if something is
        try:
            left = self._written
            if left is None or _state_of(os.fstat(descriptor)) != left:
                return False
            _append_to(descriptor, data, at=left.size)
        finally:
            os.close(descriptor)
        self._written = left._replace(size=left.size + len(data))
        return True


class FileState(NamedTuple):
    """Which file it is, who may read it, and how long it is."""

    device: int
    inode: int
    mode: int
    size: int


def replace_file(path: str, data: bytes) -> FileState:
    """Put a file in the place of another, so that at any moment there is one whole file.

    Raises:
        SessionFileError: it cannot be written; what was there stays.
    """
    temporary = None
    try:
        target = _replaceable(path, len(data))
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # only its owner can read it
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            written = _state_of(os.fstat(file.fileno()))
        temporary.replace(target)
        _sync_folder(target.parent)  # or a power cut could bring the old file back, and lose what is appended to this
    except (OSError, ValueError) as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise _not_written(error) from None
    return written


def read_session(path: str) -> bytes:
    """Read a file.

    Raises:
        SessionFileError: it cannot be read, or is too large.
    """
    try:
        with open(path, "rb", opener=_open_plain) as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise SessionFileError(f"The file could not be read: {_reason(error)}.", _NOTHING) from None
    if len(data) > MOST_BYTES:
        raise SessionFileError("The file is too large to be a session.", _NOTHING)
    return data


def _state_of(found: os.stat_result) -> FileState:
    return FileState(found.st_dev, found.st_ino, found.st_mode, found.st_size)


def _append_to(descriptor: int, data: bytes, *, at: int) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError as error:
        with suppress(OSError):  # if that fails too, the line may be there, and does no harm
            os.ftruncate(descriptor, at)
        raise _not_written(error) from None


def _sync_folder(folder: Path) -> None:
    """Write the names of a folder to the disk, where that can be done."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # one may write into a folder without the right to read it
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise
    finally:
        os.close(descriptor)


def _replaceable(path: str, size: int) -> Path:
    """Return the file to replace by one of a size. A link stays, and what it leads to is replaced."""
    if size > MOST_BYTES:
        raise ValueError(_TOO_LARGE)
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ValueError(_NO_FILE)
    return target


def _open_plain(path: str, flags: int) -> int:
    """Open a plain file: a pipe would be waited for, and a device may never end."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(_NO_FILE)
    return descriptor


def _not_written(error: OSError | ValueError) -> SessionFileError:
    return SessionFileError(f"The session could not be written: {_reason(error)}.", "The session itself goes on.")


def _reason(error: OSError | ValueError) -> str:
    """Return what the system says, or why it was not asked: a path with a zero byte is none."""
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)

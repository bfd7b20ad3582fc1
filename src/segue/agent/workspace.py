"""The folder that the agent works in. Every path that a model names goes through here, and none leads out of it.

A path is resolved with its symbolic links, and what comes of it must lie in the folder. Then it is opened name by name
from the folder's own descriptor, without following a link: whoever swaps a folder for a link in between gains nothing.
Only regular files are opened. A file is replaced as a whole, so that a reader sees the old or the new one, and a hard
link to a file outside keeps its contents. Not here: what is done with the files (`file_tools`, `search`), and what
commands do, which the system does not confine.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

#: Larger files are neither read nor edited; a command can cut a piece out of them.
MAX_FILE_BYTES = 8 * 1024 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # opening a pipe must not wait for its writer
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    errno.ELOOP: "a symbolic link to itself, or one that changed while it was opened",
    errno.ENXIO: "not a regular file",
    errno.EISDIR: "is a folder",
}


class ToolError(Exception):
    """A tool could not do what it was asked. The message goes to the model, which can do better next time."""


class Entry(NamedTuple):
    """One name in a folder; `note` is what a listing adds to a name that is neither a folder's nor a file's."""

    name: str
    is_folder: bool = False
    note: str = ""


class Workspace:
    """One folder; it must exist. What a model asks of it in vain raises a `ToolError` that says why."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve(strict=True)
        if not self.root.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(root))

    def resolve(self, path: str) -> tuple[str, ...]:
        """Return the names that lead from the folder to what `path` means; none for the folder itself."""
        try:
            resolved = Path(os.path.realpath(self.root / path))
            os.fsencode(resolved)
        except (OSError, ValueError) as error:  # a zero byte, half a surrogate pair, a loop of links
            raise ToolError(f"{path!r} is not a path: {error}") from None
        if not resolved.is_relative_to(self.root):
            raise ToolError(f"{path!r} leads out of the workspace; use a path relative to its root")
        return resolved.relative_to(self.root).parts

    def read(self, path: str) -> str:
        """Return the text of a file."""
        with (
            self._folder_of(path, self.resolve(path)) as (folder, name),
            _told(path),
            open(name, "rb", opener=lambda name, _: os.open(name, _FILE, dir_fd=folder)) as file,
        ):
            size = _regular(os.fstat(file.fileno()), path).st_size
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ToolError(f"{path!r} has {size:,} bytes, too many to read; use search, or run a command that cuts it")
        return _decoded(data, path)

    def write(self, path: str, text: str) -> int:
        """Put this text into a file in place of what it held; make the folders that lead to it; return the bytes."""
        data, names = text.encode(), self.resolve(path)
        if ".git" in map(str.lower, names):  # its hooks and settings are commands, and those are approved
            raise ToolError(f"{path!r} belongs to git; run git to change it")
        with self._folder_of(path, names, make=True) as (folder, name), _told(path):
            mode = _mode_of(name, folder, path)
            temporary = f".{secrets.token_hex(8)}.segue"
            descriptor = os.open(temporary, _NEW_FILE, 0o666, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    if mode is not None:
                        os.fchmod(descriptor, mode)
                    file.write(data)
                os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(temporary, dir_fd=folder)
                raise
        return len(data)

    def entries(self, names: tuple[str, ...]) -> list[Entry]:
        """Return what a folder holds, by name. `names` are those of `resolve`, or others below it."""
        with self.open_folder(names) as folder, _told("/".join(names) or "."), os.scandir(folder) as found:
            return sorted(_entry(one, folder) for one in found)

    @contextmanager
    def open_folder(self, names: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        """Open a folder name by name, and yield its descriptor."""
        with _told("/".join(names) or "."):
            folder = os.open(self.root, _FOLDER)
        try:
            for name in names:
                with _told("/".join(names)):
                    if make:
                        with suppress(FileExistsError):  # opening it tells whether it is a folder
                            os.mkdir(name, dir_fd=folder)
                    inner = os.open(name, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    @contextmanager
    def _folder_of(self, path: str, names: tuple[str, ...], *, make: bool = False) -> Iterator[tuple[int, str]]:
        """Open the folder that the last of the names is in, and yield both."""
        if not names or path.endswith("/"):
            raise ToolError(f"{path!r} is a folder")
        with self.open_folder(names[:-1], make=make) as folder:
            yield folder, names[-1]


def _decoded(data: bytes, path: str) -> str:
    if b"\0" in data[:8192]:
        raise ToolError(f"{path!r} is a binary file of {len(data):,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ToolError(f"{path!r} is not UTF-8 text: byte {error.start:,} of {len(data):,} cannot be read") from None


def _mode_of(name: str, folder: int, path: str) -> int | None:
    """Return the mode of the file that is replaced; None if there is none yet."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return stat.S_IMODE(_regular(found, path).st_mode)


def _regular(found: os.stat_result, path: str) -> os.stat_result:
    if stat.S_ISDIR(found.st_mode):
        raise ToolError(f"{path!r} is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise ToolError(f"{path!r} is not a regular file")
    return found


def _entry(one: os.DirEntry[str], folder: int) -> Entry:
    try:
        if one.is_symlink():
            return Entry(one.name, note=f" -> {os.readlink(one.name, dir_fd=folder)}")
        is_folder, is_file = one.is_dir(follow_symlinks=False), one.is_file(follow_symlinks=False)
        return Entry(one.name, is_folder, "" if is_folder or is_file else " (special)")
    except OSError:
        return Entry(one.name, note=" (gone)")


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Turn what the system says into words for the model."""
    try:
        yield
    except OSError as error:
        reason = _KINDS.get(error.errno or 0, os.strerror(error.errno or 0).lower())
        raise ToolError(f"{path!r}: {reason}") from None

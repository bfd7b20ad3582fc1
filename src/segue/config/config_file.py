"""Which configuration file the commands read that agents run under: the one named, else the user's own.

They never read `segue.toml` of the working folder by themselves. Agents work in folders that others have written, such
as a cloned repository, and the file says where API keys are sent to. For the same reason the user's own file is not
read if others can change it. Not here: reading the file (`loading`), and `segue serve`, which is started in a folder of
its user's.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

#: The name of the file, in the working folder or in the user's folder for segue.
FILE_NAME = "segue.toml"

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_ROOT = 0


class ChosenFile(msgspec.Struct, frozen=True):
    """The file to read, and what to tell the user about files that are there and not read."""

    path: Path | None = None
    relative_to: Path | None = None
    """Paths in the file are relative to this folder; None: to the working folder."""
    notices: tuple[str, ...] = ()


def choose_file(named: Path | None, environ: Mapping[str, str] | None = None) -> ChosenFile:
    """Return the file that the command line names, else the user's own if it exists and only the user can change it."""
    if named is not None:
        return ChosenFile(named)
    own, notices = user_config_file(environ), list[str]()
    there = own is not None and _is_there(own)
    if there is None:
        notices.append(f"{own} is not read, since a folder above it cannot be entered")
    if not there:
        own = None
    if _is_another(Path(FILE_NAME), own):
        notices.append(f"{FILE_NAME} in this folder is not read; use --config {FILE_NAME} if you trust it")
    open_to_others = None if own is None else _open_to_others(own)
    if open_to_others is not None:
        notices.append(
            f"{own} is not read, since others can change {open_to_others}; "
            f"it must be yours, and only yours to write: chmod go-w {shlex.quote(str(open_to_others))}"
        )
        own = None
    return ChosenFile(own, None if own is None else own.parent, tuple(notices))


def user_config_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return where the user's own file is, if there is one; None: this user has no folder for it."""
    environ = os.environ if environ is None else environ
    if sys.platform == "win32":
        folder = Path(environ.get("APPDATA", ""))
    else:
        folder = Path(environ.get("XDG_CONFIG_HOME", ""))
        if not folder.is_absolute():  # a relative one is to be ignored (XDG Base Directory Specification)
            below = "Library/Application Support" if sys.platform == "darwin" else ".config"
            folder = Path(os.path.expanduser("~")) / below  # noqa: PTH111 - Path.home() raises where there is none
    return folder / "segue" / FILE_NAME if folder.is_absolute() else None


def anchored(value: str, folder: Path) -> str:
    """Return a path of a file in `folder`: relative to it, or in the user's home directory if it begins with `~`."""
    return os.path.join(folder, os.path.expanduser(value)) if value else value  # noqa: PTH111, PTH118 - as it was written


def _is_there(file: Path) -> bool | None:
    """Tell whether a file is there; None: a folder above it does not let us look."""
    try:
        file.stat()
    except PermissionError:
        return None
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _is_another(file: Path, own: Path | None) -> bool:
    return bool(_is_there(file)) and not (own is not None and file.samefile(own))


def _open_to_others(own: Path) -> Path | None:
    """Return what others can change: the file or a folder that it is in; None: nothing."""
    if sys.platform == "win32":  # its modes say nothing about other users
        return None
    target = own.resolve()
    for place in (own.parent.parent, own.parent, target.parent, target):
        state = place.stat()
        sticky = stat.S_ISDIR(state.st_mode) and state.st_mode & stat.S_ISVTX  # others can add files, not replace ours
        if state.st_uid not in {_ROOT, os.geteuid()} or (state.st_mode & _WRITABLE_BY_OTHERS and not sticky):
            return place
    return None

"""The tools that list, read, edit and write files. Each returns what the model is told.

What they return is bounded, and says how to get the rest. Not here: which paths are allowed (`workspace`), and the
schemas (`toolbox`).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from segue.agent.workspace import ToolError, Workspace

DEPTH = 8
MAX_ENTRIES = 400
MAX_LINES = 1000
MAX_READ_BYTES = 64 * 1024
#: How many places a model is told of that fit an edit.
_MAX_PLACES = 5
#: Folders that are named in a listing but neither opened nor searched.
CLOSED_FOLDERS = frozenset(
    {".git", ".venv", "node_modules", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
)

Path: TypeAlias = Annotated[str, Meta(description="Path relative to the root of the workspace.")]
Count: TypeAlias = Annotated[int, Meta(ge=1)]


class ListArguments(Struct, frozen=True, forbid_unknown_fields=True):
    """List the files below a folder, one path a line. A path that ends in / is a folder that was not opened."""

    path: Annotated[str, Meta(description="Folder relative to the root of the workspace; . is the root.")] = "."
    depth: Annotated[Count | None, Meta(description=f"How many levels to open, from 1; null: {DEPTH}.")] = None


class ReadArguments(Struct, frozen=True, forbid_unknown_fields=True):
    """Read a text file, or some of its lines."""

    path: Path
    first_line: Annotated[Count | None, Meta(description="First line to read, from 1; null: from the start.")] = None
    last_line: Annotated[Count | None, Meta(description="Last line to read; null: to the end.")] = None


class EditArguments(Struct, frozen=True, forbid_unknown_fields=True):
    """Replace a piece of a file. `old` must stand in the file exactly once, so give enough lines around the change."""

    path: Path
    old: Annotated[str, Meta(description="The text to replace, exactly as it stands in the file.")]
    new: Annotated[str, Meta(description="The text to put in its place.")]


class WriteArguments(Struct, frozen=True, forbid_unknown_fields=True):
    """Write a whole file; what it held is replaced, and folders are made as needed."""

    path: Path
    text: Annotated[str, Meta(description="All that the file is to hold.")]


def list_folder(workspace: Workspace, arguments: ListArguments) -> str:
    """Return the paths below a folder, one a line."""
    lines: list[str] = []
    if not _add_paths(workspace, workspace.resolve(arguments.path), lines, depth=arguments.depth or DEPTH):
        lines.append(f"… more than {MAX_ENTRIES} paths; list a folder below, or with a lower depth")
    return "\n".join(lines) or "(empty)"


def _add_paths(workspace: Workspace, names: tuple[str, ...], lines: list[str], *, depth: int) -> bool:
    """Add the paths below a folder; tell whether there was room for all of them."""
    for entry in workspace.entries(names):
        if len(lines) >= MAX_ENTRIES:
            return False
        inner = (*names, entry.name)
        path = "/".join(inner)
        if not entry.is_folder:
            lines.append(path + entry.note)
        elif depth == 1 or entry.name in CLOSED_FOLDERS:
            lines.append(f"{path}/")
        else:
            try:
                if not _add_paths(workspace, inner, lines, depth=depth - 1):
                    return False
            except ToolError as error:  # it may not be read, or is gone by now
                lines.append(f"{path}/ ({error})")
    return True


def read_file(workspace: Workspace, arguments: ReadArguments) -> str:
    """Return lines of a file as they stand; the first line tells which, unless it is the whole file."""
    lines = io.StringIO(workspace.read(arguments.path), newline="\n").readlines()  # only \n ends a line
    first, last = arguments.first_line or 1, min(arguments.last_line or len(lines), len(lines))
    if first > last and lines:
        raise ToolError(f"{arguments.path!r} has {len(lines):,} lines; there are none from {first:,} to {last:,}")
    chosen: list[str] = []
    room = MAX_READ_BYTES
    for line in lines[first - 1 : min(last, first - 1 + MAX_LINES)]:
        room -= len(line.encode())
        if room < 0:
            break
        chosen.append(line)
    if lines and not chosen:
        raise ToolError(f"line {first:,} of {arguments.path!r} is longer than {MAX_READ_BYTES:,} bytes")
    if len(chosen) == len(lines):
        return "".join(chosen) or "(empty file)"
    return f"[lines {first:,} to {first - 1 + len(chosen):,} of {len(lines):,}]\n{''.join(chosen)}"


def edit_file(workspace: Workspace, arguments: EditArguments) -> str:
    """Replace one piece of a file."""
    text = workspace.read(arguments.path)
    old, new = arguments.old, arguments.new
    if "\r\n" in text and "\r\n" not in old:  # models write lines with \n alone
        old, new = old.replace("\n", "\r\n"), new.replace("\r\n", "\n").replace("\n", "\r\n")
    if not old:
        raise ToolError("old is empty; to make a file, use write")
    if old == new:
        raise ToolError("old and new are the same; nothing would change")
    lines = _lines_of(text, old)
    if len(lines) != 1:
        raise ToolError(_mismatch(text, old, lines, arguments.path))
    workspace.write(arguments.path, text.replace(old, new))
    return f"replaced 1 place, at line {lines[0]}"


def _lines_of(text: str, old: str) -> list[str]:
    """Return the lines of the first places of a piece. They may overlap, as the ends of nested blocks do."""
    lines, at = list[str](), text.find(old)
    while at >= 0 and len(lines) < _MAX_PLACES:
        lines.append(f"{text.count(chr(10), 0, at) + 1:,}")
        at = text.find(old, at + 1)
    return lines


def _mismatch(text: str, old: str, lines: Sequence[str], path: str) -> str:
    if lines:
        found = max(text.count(old), len(lines))
        return f"old stands {found} times in {path!r} (lines {', '.join(lines)}); give more of the lines around it"
    if "".join(old.split()) in "".join(text.split()):
        return f"old does not stand in {path!r} like this, but it does with other white space; read the lines again"
    return f"old does not stand in {path!r}; read the file again, since it may have changed"


def write_file(workspace: Workspace, arguments: WriteArguments) -> str:
    """Write a file."""
    return f"wrote {workspace.write(arguments.path, arguments.text):,} bytes"

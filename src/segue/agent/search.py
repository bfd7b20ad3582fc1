"""The tool that searches files, by a process that ends when its time is up. Not here: the search (`search_process`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from segue.agent import search_process
from segue.agent.file_tools import CLOSED_FOLDERS
from segue.agent.processes import run_process
from segue.agent.workspace import ToolError, Workspace

MAX_OUTPUT_BYTES = 64 * 1024
TIME_LIMIT_S = 10.0
#: It starts quickly, and nothing in a workspace or the environment changes what it does.
_PYTHON = (sys.executable, "-I", "-S", "-W", "ignore")


class SearchArguments(Struct, frozen=True, forbid_unknown_fields=True):
    """Search the lines of text files. Each match is PATH:LINE:TEXT."""

    pattern: Annotated[str, Meta(description="What to look for.")]
    path: Annotated[str, Meta(description="Folder or file to search; . is the whole workspace.")] = "."
    regex: Annotated[bool, Meta(description="Whether the pattern is a Python regular expression.")] = False


async def search_files(
    workspace: Workspace,
    arguments: SearchArguments,
    *,
    environment: Mapping[str, str],
    time_limit_s: float = TIME_LIMIT_S,
) -> str:
    """Return the matches, and how many files were searched."""
    if not arguments.pattern:
        raise ToolError("the pattern is empty")
    names, file = workspace.resolve(arguments.path), ""
    if (workspace.root.joinpath(*names)).is_file():
        *folders, file = names
        names = tuple(folders)
    with workspace.open_folder(names) as folder:
        request = {
            "folder": folder,
            "file": file,
            "shown": "/".join(names),
            "pattern": arguments.pattern,
            "regex": arguments.regex,
            "closed": sorted(CLOSED_FOLDERS),
        }
        ended = await run_process(
            (*_PYTHON, search_process.__file__, msgspec.json.encode(request).decode()),
            folder=Path("/"),
            environment=environment,
            time_limit_s=time_limit_s,
            max_output_bytes=MAX_OUTPUT_BYTES,
            descriptors=(folder,),
        )
    if ended.timed_out:
        raise ToolError(f"the search was stopped after {time_limit_s:g} s; use a simpler pattern, or a folder below")
    if ended.status:
        raise ToolError(f"the pattern cannot be used: {ended.output.strip()}")
    return ended.output.rstrip("\n")

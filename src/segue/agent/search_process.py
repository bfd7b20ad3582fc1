"""A program of its own that searches a folder: `python -I -S search_process.py SEARCH`, with the search as JSON.

A hostile pattern can take Python's regular expressions for ever, and nothing can stop them but the end of their
process; so `search` starts this one and ends it. It imports nothing of segue, since it must start quickly. It follows
no symbolic link: it gets the folder as an open descriptor. It prints lines `PATH:NUMBER:TEXT`, then how many files it
searched. Not here: the limit of time.
"""

from __future__ import annotations

import json
import os
import re
import resource
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

MAX_MATCHES = 200
MAX_LINE_CHARACTERS = 300
_MAX_FILE_BYTES = 8 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def search(request: dict[str, Any]) -> Iterator[str]:
    """Yield what is to be printed."""
    find = re.compile(request["pattern"] if request["regex"] else re.escape(request["pattern"])).search
    room, files, skipped = MAX_MATCHES, 0, 0
    for path, file in _files(request):
        with open(file, "rb", closefd=False) as reader:
            data = reader.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES or b"\0" in data[:8192]:
            skipped += 1
            continue
        files += 1
        for number, line in enumerate(data.decode(errors="replace").replace("\r\n", "\n").split("\n"), 1):
            if not find(line):
                continue
            if not room:
                yield f"… more than {MAX_MATCHES} matches; search for something rarer, or in a folder below"
                return
            room -= 1
            cut = line if len(line) <= MAX_LINE_CHARACTERS else f"{line[:MAX_LINE_CHARACTERS]} …"
            yield f"{path}:{number}:{cut}"
    yield f"({files:,} files searched{f', {skipped:,} binary or large ones skipped' if skipped else ''})"


def _files(request: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Open the files below the folder, in order of their paths, or the one file that the search is about."""
    for top, folders, names, folder in os.fwalk(".", dir_fd=request["folder"]):
        folders[:] = [] if request["file"] else sorted(name for name in folders if name not in request["closed"])
        for name in sorted(names):
            if request["file"] not in {"", name}:
                continue
            try:
                file = os.open(name, _FILE, dir_fd=folder)
            except OSError:
                continue  # a link, or gone, or not ours to read
            try:
                if stat.S_ISREG(os.fstat(file).st_mode):
                    yield os.path.normpath(os.path.join(request["shown"], top, name)), file  # noqa: PTH118 - pathlib would double the time to start
            finally:
                os.close(file)


def main() -> None:
    """Search, and print what comes of it; end with 1 and a word on the pattern if it is no regular expression."""
    with suppress(ValueError, OSError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    try:
        for line in search(json.loads(sys.argv[1])):
            sys.stdout.buffer.write(line.encode(errors="replace") + b"\n")
    except (re.error, OverflowError, RecursionError, MemoryError) as error:
        sys.exit(str(error) or type(error).__name__)


if __name__ == "__main__":
    main()

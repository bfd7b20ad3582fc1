"""Tells whether a file has changed since it was read. Not here: when to look, and what to do then."""

from __future__ import annotations

from pathlib import Path


class FileWatch:
    """One file. Make it before the file is read, so that no change falls in between."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = self._seen = self._state()

    def has_changed(self) -> bool:
        """Look at the file; true once for each change, when it looks as it did the last time: it may be half written.

        While the file is away nothing has changed: an editor is replacing it.
        """
        before, self._seen = self._seen, self._state()
        if self._seen is None or self._seen != before or self._seen == self._known:
            return False
        self._known = self._seen
        return True

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

"""The disk tier of the KV cache: evicted state in files, in a private directory that is removed when the process ends.

Only the state of stored responses comes here. Only the owner can read the files. The next process to start removes what
a killed one left behind. Not here: what is worth keeping (`cache`).
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import BinaryIO
from zlib import crc32

_log = logging.getLogger("segue.engine.upstream")

_NAME = "segue-kv-"
_COUNT = struct.Struct("<Q")
_PIECE = struct.Struct("<QI")  # size and CRC-32
_ORPHAN = re.compile(rf"{_NAME}(?P<pid>[0-9]+)-.+")


class DiskTier:
    """Saved state by the keys of the sequences, one file each."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.iterdir():
            owner = _ORPHAN.fullmatch(path.name)
            if owner is not None and not _is_alive(int(owner["pid"])):
                shutil.rmtree(path, ignore_errors=True)
        self._directory = Path(mkdtemp(prefix=f"{_NAME}{os.getpid()}-", dir=directory))
        self._keys: set[int] = set()

    def write(self, key: int, pieces: Sequence[bytes]) -> bool:
        """Write saved state; return False if the disk does not take it."""
        path = self._path(key)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_COUNT.pack(len(pieces)))
                for piece in pieces:
                    file.write(_PIECE.pack(len(piece), crc32(piece)))
                    file.write(piece)
        except OSError as error:
            _log.warning("action=spill error=%r", error.strerror)
            path.unlink(missing_ok=True)
            return False
        self._keys.add(key)
        return True

    def read(self, key: int) -> list[bytes] | None:
        """Return the pieces of saved state, or None if they are lost."""
        try:
            with self._path(key).open("rb") as file:
                (count,) = _COUNT.unpack(file.read(_COUNT.size))
                return [_read_piece(file) for _ in range(count)]
        except (OSError, ValueError, struct.error) as error:
            _log.warning("action=unspill error=%r", str(error))
            return None

    def remove(self, key: int) -> None:
        """Remove the saved state of a sequence, if there is any."""
        if key in self._keys:
            self._keys.discard(key)
            self._path(key).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the directory and everything in it."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _path(self, key: int) -> Path:
        return self._directory / str(key)


def _read_piece(file: BinaryIO) -> bytes:
    size, checksum = _PIECE.unpack(file.read(_PIECE.size))
    piece = file.read(min(size, os.fstat(file.fileno()).st_size))  # a size that is wrong is not allocated
    if len(piece) != size or crc32(piece) != checksum:
        raise ValueError("what was kept is damaged")
    return piece


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

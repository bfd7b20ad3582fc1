"""Bases as files in a private, bounded cache directory that survives crashes and that several sidecars can share.

A file holds a body and a folded reply, never a header line. Files appear complete or not at all, and may vanish at any
time. A file that is torn, altered or of another version is removed when it is found. All calls block. Not here: which
bases are worth a file (`segue.sidecar.base_cache`).
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from segue.http.varints import encode_varint, read_varint
from segue.tunnel.documents import Base
from segue.tunnel.folds.fold import FOLD_VERSION

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_SUFFIX = ".base"
_TEMPORARY = ".tmp"
#: A base is of no use unless both ends fold replies the same way, so the version of the fold is part of it.
_MAGIC = b"segue base 1, fold %d\n" % FOLD_VERSION
_DIGEST_BYTES = hashlib.sha256().digest_size
_LEVEL = 1
#: After so many bases of our own, the directory is listed again.
_LIST_AFTER_WRITES = 32
#: A temporary file that is older than this was left behind by a crash.
_ABANDONED_S = 3600


class BaseFile(msgspec.Struct, frozen=True):
    """One file: the id of its base, its size, and when the base was last used."""

    base_id: bytes
    size: int
    used_at: float


class BaseDiskCache:
    """The files in one directory. Methods raise `OSError` if the directory cannot be used."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._sizes: dict[bytes, int] | None = None  # of the files that are known, by id
        self._writes = 0  # since the directory was listed

    def open(self) -> None:
        """Create the directory, make it private, and remove what crashes have left behind."""
        self._sizes = None
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self._directory.stat()
        if status.st_uid != os.geteuid():
            raise PermissionError(f"{self._directory} belongs to another user")
        if status.st_mode & 0o077:
            self._directory.chmod(0o700)
        abandoned_at = time.time() - _ABANDONED_S
        for entry, found in self._scan(_TEMPORARY):
            if found.st_mtime < abandoned_at:
                entry.unlink(missing_ok=True)

    def list(self) -> list[BaseFile]:
        """Return all files, least recently used first."""
        files = [
            BaseFile(bytes.fromhex(path.stem), found.st_size, found.st_mtime)
            for path, found in self._scan(_SUFFIX)
            if _is_id(path.stem)
        ]
        return sorted(files, key=lambda file: (file.used_at, file.base_id))

    def read(self, base_id: bytes, limit: int) -> Base | None:
        """Return a base of at most `limit` bytes; None if there is no good file. A file that is damaged is removed."""
        path = self._path(base_id)
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        except OSError:  # a link, a directory, or a file that we may not read
            data = b""
        base = _decode(data, limit)
        if base is None or base.id != base_id:
            self.remove(base_id)
            return None
        return base

    def write(self, base: Base) -> None:
        """Write a base; the file appears complete or not at all.

        There is no fsync: the digest detects a file that a power cut has torn, which only costs a full send.
        """
        encoded = _encode(base)
        descriptor, name = tempfile.mkstemp(
            dir=self._directory, prefix=".", suffix=_TEMPORARY
        )  # readable for its owner only
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(encoded)
            Path(name).replace(self._path(base.id))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._writes += 1
        if self._sizes is not None:
            self._sizes[base.id] = len(encoded)

    def touch(self, base_id: bytes) -> None:
        """Record that a base was used."""
        with suppress(FileNotFoundError):
            os.utime(self._path(base_id), follow_symlinks=False)

    def remove(self, base_id: bytes) -> None:
        """Remove a file, if it is still there."""
        with suppress(IsADirectoryError, PermissionError):  # a directory of that name is not one of our files
            self._path(base_id).unlink(missing_ok=True)
        if self._sizes is not None:
            self._sizes.pop(base_id, None)

    def shrink(self, *, max_bytes: int, max_files: int) -> None:
        """Remove files, least recently used first, until the directory is within its bounds.

        What other sidecars write is only seen once in a while, for the directory is not listed each time: that takes
        longer than all else that is done for a base.
        """
        known = self._sizes if self._writes < _LIST_AFTER_WRITES else None
        if known is not None and len(known) <= max_files and sum(known.values()) <= max_bytes:
            return
        files = self.list()
        self._sizes, self._writes = {file.base_id: file.size for file in files}, 0
        total = sum(file.size for file in files)
        count = len(files)
        for file in files:
            if total <= max_bytes and count <= max_files:
                return
            self.remove(file.base_id)
            total -= file.size
            count -= 1

    def _path(self, base_id: bytes) -> Path:
        return self._directory / f"{base_id.hex()}{_SUFFIX}"

    def _scan(self, suffix: str) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._directory.glob(f"*{suffix}"):
            try:
                yield path, path.lstat()
            except FileNotFoundError:  # removed by another sidecar
                continue


def _is_id(name: str) -> bool:
    try:
        return bytes.fromhex(name).hex() == name
    except ValueError:
        return False


def _encode(base: Base) -> bytes:
    plain = b"".join((encode_varint(len(base.body)), base.body, base.reply))
    compressed = zstd.compress(plain, _LEVEL)
    return b"".join((_MAGIC, hashlib.sha256(plain).digest(), compressed))


def _decode(data: bytes, limit: int) -> Base | None:
    start = len(_MAGIC) + _DIGEST_BYTES
    if not data.startswith(_MAGIC):
        return None
    decompressor = zstd.ZstdDecompressor()
    try:
        plain = decompressor.decompress(data[start:], limit + 1)
    except zstd.ZstdError:
        return None
    if not decompressor.eof or decompressor.unused_data or len(plain) > limit:
        return None
    if hashlib.sha256(plain).digest() != data[len(_MAGIC) : start]:
        return None
    size = read_varint(plain, 0)
    if size is None or size[1] + size[0] > len(plain):
        return None
    return Base(plain[size[1] : size[1] + size[0]], plain[size[1] + size[0] :])

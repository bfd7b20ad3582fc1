"""The bases that a sidecar can refer to: in memory within a budget of bytes, and a few on disk for warm starts.

A lineage is a row of bases that each share most of their bytes with one before, such as the turns of a session; only
its newest are kept on disk. Losing a base costs one full send. Calls may come from several threads, since large bodies
are compared off the loop. Not here: how they are compared, and how a file is written.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from segue.sidecar.base_disk_cache import BaseFiles
from segue.sidecar.base_matcher import Matcher
from segue.tunnel.documents import Base

_log = logging.getLogger("segue.sidecar")

_MIB = 1024 * 1024
#: Both bodies share at least this much of the larger one: the same lineage.
_LINEAGE_SHARE = 0.5


class ShelfLimits(NamedTuple):
    """How much a shelf keeps."""

    memory_bytes: int = 256 * _MIB
    memory_bases: int = 64
    disk_bytes: int = 64 * _MIB
    disk_files: int = 256
    per_lineage: int = 2


class _Held(NamedTuple):
    base: Base
    lineage: int
    epoch: bytes


class Shelf:
    """Bases, oldest first. Without a directory nothing is ever written."""

    def __init__(self, directory: Path | None, limits: ShelfLimits | None = None) -> None:
        self._limits = ShelfLimits() if limits is None else limits
        self._files = None if directory is None else BaseFiles(directory)
        self._is_open = False
        self._held: OrderedDict[bytes, _Held] = OrderedDict()  # least recently used first
        self._matcher: Matcher[bytes] = Matcher()
        self._size_bytes = 0
        self._last_lineage = 0
        self._on_disk: dict[bytes, int] = {}  # base id -> lineage, oldest first
        self._unsaved: dict[bytes, int] = {}  # likewise
        self._used: set[bytes] = set()
        self._discarded: set[bytes] = set()
        self._lock = threading.Lock()  # of everything above; never held over disk
        self._disk_lock = threading.Lock()

    # --------------------------------------------------------------------------------------------------------- memory

    @property
    def size_bytes(self) -> int:
        """What the bases in memory take."""
        return self._size_bytes

    def __len__(self) -> int:
        return len(self._held)

    def get(self, base_id: bytes) -> Base | None:
        """Return a base, which makes it a recently used one."""
        with self._lock:
            return self._use(base_id)

    def choose(self, body: bytes) -> Base | None:
        """Return the base to send a body against, which makes it a recently used one; None if none is worth it."""
        with self._lock:
            base_id = self._matcher.best(body)
            return None if base_id is None else self._use(base_id)

    def add(self, base: Base, epoch: bytes = b"") -> None:
        """Add the newest base; one with the same body is replaced. What is larger than the budget is not kept.

        `epoch` is of the node that holds it too; empty for one that may hold it.
        """
        with self._lock:
            if self._hold(base, epoch):
                self._discarded.discard(base.id)
                self._unsaved.pop(base.id, None)
                self._unsaved[base.id] = self._held[base.id].lineage

    def discard(self, base_id: bytes, epoch: bytes = b"") -> None:
        """Drop a base that the node of this epoch does not have, from memory and (at the next flush) from disk.

        A node that lacks one base of an earlier time has started anew and lacks all of them. They are not chosen
        again, or each would cost a full send of its own.
        """
        with self._lock:
            for other in [other for other, held in self._held.items() if epoch and held.epoch != epoch]:
                self._drop(other)
            self._drop(base_id)
            self._unsaved.pop(base_id, None)
            if self._on_disk.pop(base_id, None) is not None:
                self._discarded.add(base_id)

    def _hold(self, base: Base, epoch: bytes = b"") -> bool:
        if base.size > self._limits.memory_bytes:
            return False
        lineage = self._lineage_of(base)
        self._drop(base.id)
        self._held[base.id] = _Held(base, lineage, epoch)
        self._size_bytes += base.size
        self._matcher.add(base.id, base.body, base.reply)
        while self._size_bytes > self._limits.memory_bytes or len(self._held) > self._limits.memory_bases:
            self._drop(next(iter(self._held)))
        return base.id in self._held

    def _lineage_of(self, base: Base) -> int:
        match = self._matcher.match(base.body)
        if match is not None:
            near = self._held[match.key]
            if match.shared_bytes >= _LINEAGE_SHARE * max(len(base.body), len(near.base.body)):
                return near.lineage
        self._last_lineage += 1
        return self._last_lineage

    def _use(self, base_id: bytes) -> Base | None:
        held = self._held.get(base_id)
        if held is None:
            return None
        self._held.move_to_end(base_id)
        self._used.add(base_id)
        return held.base

    def _drop(self, base_id: bytes) -> None:
        held = self._held.pop(base_id, None)
        if held is not None:
            self._size_bytes -= held.base.size
            self._matcher.remove(base_id)
            self._used.discard(base_id)

    # ----------------------------------------------------------------------------------------------------------- disk

    @property
    def needs_flush(self) -> bool:
        """There is something to save or to remove."""
        return self._files is not None and bool(self._unsaved or self._discarded)

    def load(self) -> None:
        """Read the bases of earlier sessions, the most recently used ones within the budget. Blocks."""
        self._with_files(self._load)

    def flush(self) -> None:
        """Save the newest bases of each lineage, and keep the directory within its bounds. Blocks."""
        self._with_files(self._flush)

    def _with_files(self, work: Callable[[BaseFiles], None]) -> None:
        if self._files is None:
            return
        with self._disk_lock:
            try:
                if not self._is_open:
                    self._files.open()
                    self._is_open = True
                work(self._files)
            except OSError as error:  # a cache that cannot be used is only a cache less
                self._is_open = False
                _log.warning("action=base_cache_failed error=%s", error)

    def _load(self, files: BaseFiles) -> None:
        files.shrink(max_bytes=self._limits.disk_bytes, max_files=self._limits.disk_files)
        left = self._limits.memory_bytes
        bases: list[Base] = []
        for file in reversed(files.list()):
            base = files.read(file.base_id, self._limits.memory_bytes)
            if base is not None:
                left -= base.size
                if left < 0 or len(bases) == self._limits.memory_bases:
                    break
                bases.append(base)
        for base in reversed(bases):
            with self._lock:
                if base.id not in self._held and self._hold(base):
                    self._on_disk[base.id] = self._held[base.id].lineage

    def _flush(self, files: BaseFiles) -> None:
        with self._lock:
            unsaved = self._newest(self._unsaved)
            to_write = [self._held[base_id].base for base_id in unsaved if base_id in self._held]
            discarded, self._discarded = self._discarded, set()
            used, self._used = self._used, set()
            self._unsaved = {}
        for base_id in discarded:
            files.remove(base_id)
        for base_id in used:
            files.touch(base_id)
        for base in to_write:
            files.write(base)
        with self._lock:
            for base in to_write:
                self._on_disk.pop(base.id, None)
                self._on_disk[base.id] = unsaved[base.id]
            kept = self._newest(self._on_disk)
            superseded = self._on_disk.keys() - kept.keys()
            self._on_disk = kept
        for base_id in superseded:
            files.remove(base_id)
        files.shrink(max_bytes=self._limits.disk_bytes, max_files=self._limits.disk_files)

    def _newest(self, lineages: dict[bytes, int]) -> dict[bytes, int]:
        """Return the newest bases of each lineage, oldest first."""
        counts: dict[int, int] = {}
        kept: dict[bytes, int] = {}
        for base_id, lineage in reversed(lineages.items()):
            counts[lineage] = counts.get(lineage, 0) + 1
            if counts[lineage] <= self._limits.per_lineage:
                kept[base_id] = lineage
        return dict(reversed(kept.items()))

"""The bases of a sidecar: in memory within a byte budget, and a few of them on disk for warm starts.

A lineage is a series of bases in which each shares most of its bytes with an earlier one, such as the turns of a
session; only its newest bases are kept on disk. Losing a base costs one full send. Several threads may call the cache,
since large bodies are compared beside the event loop. Not here: how bodies are compared
(`segue.sidecar.base_matcher`), and how a file is written (`segue.sidecar.base_disk_cache`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from segue.byte_lru import ByteLru
from segue.sidecar.base_disk_cache import BaseDiskCache
from segue.sidecar.base_matcher import BaseMatch, BaseMatcher, SampledBody
from segue.tunnel.documents import Base

_log = logging.getLogger("segue.sidecar")

_MIB = 1024 * 1024
#: Two bodies that share at least this part of the larger one are of the same lineage.
_LINEAGE_SHARE = 0.5


class BaseCacheLimits(msgspec.Struct, frozen=True):
    """How much a cache keeps."""

    memory_bytes: int = 256 * _MIB
    memory_bases: int = 64
    disk_bytes: int = 64 * _MIB
    disk_files: int = 256
    per_lineage: int = 2


class _LineageBase(msgspec.Struct, frozen=True, gc=False):
    base: Base
    lineage: int
    epoch: bytes


class BaseChoice(msgspec.Struct, frozen=True):
    """The best base for a body, None if none is worth it; and what was learned of the body, for when it is a base."""

    base: Base | None
    sampled: SampledBody
    match: BaseMatch[bytes] | None


class BaseCache:
    """The bases of one sidecar. Without a directory, nothing is written to disk."""

    def __init__(self, directory: Path | None, limits: BaseCacheLimits | None = None) -> None:
        self._limits = BaseCacheLimits() if limits is None else limits
        self._files = None if directory is None else BaseDiskCache(directory)
        self._opened = False
        self._bases: ByteLru[bytes, _LineageBase] = ByteLru(
            self._limits.memory_bytes, max_entries=self._limits.memory_bases
        )
        self._matcher: BaseMatcher[bytes] = BaseMatcher()
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
        """The size of the bases in memory."""
        return self._bases.size_bytes

    def __len__(self) -> int:
        return len(self._bases)

    def get(self, base_id: bytes) -> Base | None:
        """Return a base, which makes it a recently used one."""
        with self._lock:
            return self._use(base_id)

    @property
    def unsearched_bytes(self) -> int:
        """How many bytes of bases the next choice may have to go through beside those of the body."""
        return self._matcher.unindexed_bytes

    def choose(self, body: bytes) -> BaseChoice:
        """Find the best base for a body, which makes it a recently used one."""
        sampled = SampledBody(body)
        with self._lock:
            match = self._matcher.match(sampled)
            return BaseChoice(None if match is None else self._use(match.key), sampled, match)

    def choose_continued(self, body: bytes) -> BaseChoice | None:
        """Do the same if that takes no time: the body continues a recent one, and no thread is at the bases."""
        sampled = SampledBody(body)
        if not self._lock.acquire(blocking=False):
            return None
        try:
            match = self._matcher.match_continued(sampled)
            return None if match is None else BaseChoice(self._use(match.key), sampled, match)
        finally:
            self._lock.release()

    def add(self, base: Base, epoch: bytes = b"", choice: BaseChoice | None = None) -> None:
        """Add the newest base; it replaces one with the same body. A base that is larger than the budget is not kept.

        `epoch`: the node that holds the base too; empty if that is not known. `choice`: what `choose` found for its
        body, so that nothing is looked for again.
        """
        with self._lock:
            lineage = self._hold(base, epoch, choice)
            if lineage is not None:
                self._discarded.discard(base.id)
                self._unsaved.pop(base.id, None)
                self._unsaved[base.id] = lineage

    def add_body(self, base: Base, epoch: bytes, choice: BaseChoice | None) -> None:
        """Add a base whose reply has not come yet, in memory only, unless there is one with the same body."""
        with self._lock:
            if self._bases.peek(base.id) is None:
                self._hold(base, epoch, choice)

    def discard(self, base_id: bytes, epoch: bytes = b"") -> None:
        """Drop a base that the node of this epoch does not have, from memory and (at the next flush) from disk.

        A node that lacks one base of an earlier epoch has restarted and lacks all of them. All are dropped, or each
        would cost a full send of its own.
        """
        with self._lock:
            for other in tuple(self._bases):
                held = self._bases.peek(other)
                if epoch and held is not None and held.epoch != epoch:
                    self._drop(other)
            self._drop(base_id)
            self._unsaved.pop(base_id, None)
            if self._on_disk.pop(base_id, None) is not None:
                self._discarded.add(base_id)

    def _hold(self, base: Base, epoch: bytes = b"", choice: BaseChoice | None = None) -> int | None:
        """Keep a base in memory and return its lineage; None if it is too large."""
        if base.size > self._limits.memory_bytes:
            return None
        sampled = SampledBody(base.body) if choice is None else choice.sampled
        match = self._matcher.match(sampled) if choice is None else choice.match
        lineage = self._lineage_of(base, match)
        self._drop(base.id)
        self._matcher.add(base.id, sampled, base.reply, match)
        for evicted in self._bases.put(base.id, _LineageBase(base, lineage, epoch), size_bytes=base.size):
            self._forget(evicted)
        return lineage if base.id in self._bases else None

    def _lineage_of(self, base: Base, match: BaseMatch[bytes] | None) -> int:
        near = None if match is None else self._bases.peek(match.key)  # it may have left since it was found
        shared_bytes = 0 if match is None else match.shared_bytes
        if near is not None and shared_bytes >= _LINEAGE_SHARE * max(len(base.body), len(near.base.body)):
            return near.lineage
        self._last_lineage += 1
        return self._last_lineage

    def _use(self, base_id: bytes) -> Base | None:
        held = self._bases.get(base_id)
        if held is None:
            return None
        self._used.add(base_id)
        return held.base

    def _drop(self, base_id: bytes) -> None:
        if self._bases.pop(base_id) is not None:
            self._forget(base_id)

    def _forget(self, base_id: bytes) -> None:
        self._matcher.remove(base_id)
        self._used.discard(base_id)

    # ----------------------------------------------------------------------------------------------------------- disk

    @property
    def needs_flush(self) -> bool:
        """There is something to save or to remove."""
        return self._files is not None and bool(self._unsaved or self._discarded)

    def load(self) -> None:
        """Read the most recently used bases of earlier sessions, within the budget. Blocks."""
        self._with_files(self._load)

    def flush(self) -> None:
        """Save the newest bases of each lineage, and keep the directory within its bounds. Blocks."""
        self._with_files(self._flush)

    def _with_files(self, work: Callable[[BaseDiskCache], None]) -> None:
        if self._files is None:
            return
        with self._disk_lock:
            try:
                if not self._opened:
                    self._files.open()
                    self._opened = True
                work(self._files)
            except OSError as error:  # without its cache the sidecar works, only slower
                self._opened = False
                _log.warning("action=base_cache_failed error=%s", error)

    def _load(self, files: BaseDiskCache) -> None:
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
                lineage = None if base.id in self._bases else self._hold(base)
                if lineage is not None:
                    self._on_disk[base.id] = lineage
        with self._lock:
            self._matcher.index()

    def _flush(self, files: BaseDiskCache) -> None:
        with self._lock:
            unsaved = self._newest(self._unsaved)
            to_write = [held.base for held in map(self._bases.peek, unsaved) if held is not None]
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

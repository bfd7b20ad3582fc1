"""Copies a store into another one, of whatever kind: turns, tombstones and conversations. Proves that all are there.

It goes in pages, so that memory is bounded, and leaves out what the target has already: so it can be broken off and
made again. At the end it reads the target and compares counts and digests. Nobody else should write to either
meanwhile. Not here: how a store is read and written (`sqlite_copying`, `postgres.postgres_copying`).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

import msgspec

from segue.history.conversations import ConversationHead
from segue.protocol.ids import ResponseId

#: How much of a store is in memory at once, unless one turn is larger.
PAGE_BYTES = 4 * 1024 * 1024
PAGE_TURNS = 500

_MODULUS = 1 << 256


class StoredTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn as stores have it: of a response, or without `head` and `echo` a tombstone, or a step of a conversation.

    `items` are the ids of the items that belong to it, sorted; the others are as in a record.
    """

    tenant: str
    id: ResponseId
    parent_id: ResponseId | None
    created_at: float
    expires_at: float
    head: bytes | None
    echo: bytes | None
    calls: bytes
    input: bytes
    output: bytes
    native: bytes | None
    items: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Roughly how many bytes it takes in memory."""
        parts = (self.head, self.echo, self.input, self.output, self.native)
        return 256 + sum(len(part) for part in parts if part is not None)


class CopyEnd(Protocol):
    """One end of a copy: a store that is read, or written."""

    def turns(self) -> AsyncGenerator[list[StoredTurn], None]:
        """Yield all turns, in pages; a turn comes after its parent."""

    def conversations(self) -> AsyncGenerator[list[ConversationHead], None]:
        """Yield all conversations, in pages."""

    async def add_turns(self, turns: Sequence[StoredTurn]) -> int:
        """Write those turns that are not there, durably; return how many that were. Their parents are there."""

    async def add_conversations(self, heads: Sequence[ConversationHead]) -> int:
        """Write those conversations that are not there, durably; return how many that were."""

    async def aclose(self) -> None:
        """Release the store."""


class CopyTally(msgspec.Struct):
    """What a store holds: counts, and a digest that does not depend on the order."""

    turns: int = 0
    conversations: int = 0
    digest: str = "0" * 64

    def count(self, found: Sequence[StoredTurn] | Sequence[ConversationHead]) -> None:
        """Add a page."""
        total = int(self.digest, 16)
        for one in found:
            total += int.from_bytes(hashlib.sha256(msgspec.msgpack.encode(one)).digest())
            if isinstance(one, StoredTurn):
                self.turns += 1
            else:
                self.conversations += 1
        self.digest = f"{total % _MODULUS:064x}"


class CopyReport(msgspec.Struct, frozen=True):
    """What came of a copy: what each end holds, and how much of it was written by this one."""

    source: CopyTally
    target: CopyTally
    written_turns: int
    written_conversations: int
    verified: bool
    """Whether the target holds the same, and nothing else."""


async def copy_store(source: CopyEnd, target: CopyEnd, progress: Callable[[str, CopyTally], object]) -> CopyReport:
    """Copy a store. `progress` is called after each page, with what is being done, and how far it is."""
    copied, turns, conversations = CopyTally(), 0, 0
    async for page in source.turns():
        turns += await target.add_turns(page)
        copied.count(page)
        progress("copied", copied)
    async for heads in source.conversations():
        conversations += await target.add_conversations(heads)
        copied.count(heads)
        progress("copied", copied)
    there = await tally(target, progress)
    return CopyReport(copied, there, turns, conversations, verified=copied == there)


async def tally(end: CopyEnd, progress: Callable[[str, CopyTally], object]) -> CopyTally:
    """Read a whole store."""
    found = CopyTally()
    async for page in end.turns():
        found.count(page)
        progress("verified", found)
    async for heads in end.conversations():
        found.count(heads)
    return found


def pages_of(sizes: Sequence[int]) -> list[range]:
    """Divide rows of these sizes into pages, by their numbers."""
    pages: list[range] = []
    first, size = 0, 0
    for number, one in enumerate(sizes):
        if number > first and (size + one > PAGE_BYTES or number - first == PAGE_TURNS):
            pages.append(range(first, number))
            first, size = number, 0
        size += one
    return [*pages, range(first, len(sizes))] if sizes else []

"""A store in memory, for tests, demonstrations and gateways that may forget everything when they stop.

It keeps to every rule of the interface except durability: what it holds dies with the process. It is not a cache:
nothing is dropped before it is deleted or has expired.
"""

from __future__ import annotations

import msgspec

from segue.history.records import ChainLink, Record
from segue.protocol.ids import ResponseId
from segue.stores.interface import ParentGone, StoreError, StoreSize


class MemoryStore:
    """Records in dictionaries. It is used from one event loop; no method ever waits."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, ResponseId], _Entry] = {}
        self._echoes = _Echoes()
        self._living = 0
        self._size_bytes = 0  # without the echoes
        self._closed = False

    async def append(self, record: Record) -> None:
        """Keep a record."""
        self._check_open()
        key = (record.tenant, record.id)
        if key in self._entries:
            raise StoreError(f"the response {record.id!r} is already stored: an id is used once")
        parent: _Entry | None = None
        if record.parent_id is not None:
            parent = self._entries.get((record.tenant, record.parent_id))
            if parent is None:
                raise ParentGone(f"the parent {record.parent_id!r} of {record.id!r} is not stored: was it deleted?")
            parent.children += 1
        entry = _Entry(msgspec.structs.replace(record, echo=self._echoes.hold(record.echo)), parent)
        self._entries[key] = entry
        self._living += 1
        self._size_bytes += entry.size_bytes

    async def chain(self, tenant: str, response_id: ResponseId, now: float) -> list[ChainLink] | None:
        """Return the turns from the root to a living response, or None."""
        entry = self._find(tenant, response_id, now)
        if entry is None:
            return None
        links: list[ChainLink] = []
        while entry is not None:
            links.append(entry.link(now))
            entry = entry.parent
        links.reverse()
        return links

    async def record(self, tenant: str, response_id: ResponseId, now: float) -> Record | None:
        """Return the record of a living response, or None."""
        entry = self._find(tenant, response_id, now)
        return None if entry is None else entry.record

    async def delete(self, tenant: str, response_id: ResponseId, now: float) -> bool:
        """Make a living response unresolvable; tell whether there was one."""
        entry = self._find(tenant, response_id, now)
        if entry is None:
            return False
        self._bury(entry)
        return True

    async def sweep(self, now: float) -> list[tuple[str, ResponseId]]:
        """Do for expired records what `delete` does, and return which they were."""
        self._check_open()
        expired = [entry for entry in self._entries.values() if not entry.dead and entry.record.expires_at <= now]
        for entry in expired:
            self._bury(entry)
        return [(entry.record.tenant, entry.record.id) for entry in expired]

    async def size(self) -> StoreSize:
        """Count the living records, and the bytes that all records hold."""
        self._check_open()
        return StoreSize(self._living, self._size_bytes + self._echoes.size_bytes)

    async def aclose(self) -> None:
        """Forget everything. Further calls raise `StoreError`."""
        self._closed = True
        self._entries.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")

    def _find(self, tenant: str, response_id: ResponseId, now: float) -> _Entry | None:
        self._check_open()
        entry = self._entries.get((tenant, response_id))
        return entry if entry is not None and entry.lives(now) else None

    def _bury(self, entry: _Entry) -> None:
        """Mark a response dead, then free it and its ancestors as far up as they are dead and without children."""
        self._living -= 1
        self._size_bytes -= entry.size_bytes
        self._echoes.release(entry.record.echo)
        entry.strip()
        self._size_bytes += entry.size_bytes
        free: _Entry | None = entry
        while free is not None and free.dead and not free.children:
            del self._entries[free.record.tenant, free.record.id]
            self._size_bytes -= free.size_bytes
            free = free.parent
            if free is not None:
                free.children -= 1


class _Entry:
    """A record, or what is left of a dead one while descendants need its items."""

    __slots__ = ("children", "dead", "parent", "record")

    def __init__(self, record: Record, parent: _Entry | None) -> None:
        self.record = record
        self.parent = parent
        self.children = 0
        self.dead = False

    @property
    def size_bytes(self) -> int:
        """Without the echo, which is shared."""
        return self.record.size_bytes - len(self.record.echo)

    def lives(self, now: float) -> bool:
        return not self.dead and self.record.expires_at > now

    def strip(self) -> None:
        """Drop what only the response's own id could ask for."""
        self.record = msgspec.structs.replace(self.record, head=b"", echo=b"")
        self.dead = True

    def link(self, now: float) -> ChainLink:
        record = self.record
        return ChainLink(
            id=record.id,
            expires_at=record.expires_at,
            alive=self.lives(now),
            input=record.input,
            output=record.output,
            calls=record.calls,
        )


class _Echoes:
    """The distinct echoes in use, each with the number of records that use it."""

    def __init__(self) -> None:
        self._uses: dict[bytes, tuple[bytes, int]] = {}
        self.size_bytes = 0

    def hold(self, echo: bytes) -> bytes:
        """Return the one copy of `echo`."""
        shared, uses = self._uses.get(echo, (echo, 0))
        self._uses[shared] = (shared, uses + 1)
        self.size_bytes += 0 if uses else len(shared)
        return shared

    def release(self, echo: bytes) -> None:
        shared, uses = self._uses.pop(echo)
        if uses > 1:
            self._uses[shared] = (shared, uses - 1)
        else:
            self.size_bytes -= len(shared)

"""What a store must do. Every method is atomic: it has happened in full, or not at all.

Rules that the conformance suite checks:

- `append` returns only when the record is durable; what it returned for survives a kill of the process.
- Every look-up is under a tenant; another tenant's id is answered exactly like one that never existed.
- A deleted or expired id resolves to nothing at once. Its items are freed when no living descendant needs them.
- `now` is given by the caller, in unix seconds: a store has no clock of its own.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from segue.history.records import ChainLink, Record
from segue.protocol.ids import ResponseId


class StoreError(Exception):
    """The store could not do what it was asked to: its disk is full, its server is away, its file is damaged."""


class ParentGone(StoreError):
    """The parent of an appended record is no longer there, not even as an ancestor. Nothing was written."""


class StoreSize(msgspec.Struct, frozen=True):
    """How much a store holds: living records, and the bytes it occupies where it keeps them."""

    records: int
    size_bytes: int


class Store(Protocol):
    """A place for records."""

    async def append(self, record: Record) -> None:
        """Keep a record, durably. Raises `ParentGone`, or `StoreError` if it could not be written."""

    async def chain(self, tenant: str, response_id: ResponseId, now: float) -> list[ChainLink] | None:
        """Return the turns from the root to a living response, or None. One query, however deep the chain."""

    async def record(self, tenant: str, response_id: ResponseId, now: float) -> Record | None:
        """Return the record of a living response, or None."""

    async def delete(self, tenant: str, response_id: ResponseId, now: float) -> bool:
        """Make a living response unresolvable; tell whether there was one."""

    async def sweep(self, now: float) -> list[tuple[str, ResponseId]]:
        """Do for expired records, all or some of them, what `delete` does; return tenant and id of each.

        None are returned only when none are left: whoever wants all gone asks until then.
        """

    async def size(self) -> StoreSize:
        """Measure the store. Raises `StoreError` if it does not work: this is its health check."""

    async def aclose(self) -> None:
        """Finish what was begun and release everything. Further calls raise `StoreError`."""

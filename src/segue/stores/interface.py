"""What a store must do. Every method is atomic: it happens in full, or not at all.

Rules that the conformance suite checks:

- `append` returns when the record is durable: from then on it survives a kill of the process.
- Every look-up names a tenant; another tenant's id is answered exactly like one that never existed.
- A deleted or expired id resolves to nothing at once. Its items are freed when no living descendant needs them.
- A conversation, and the turns of its history, stay until it is deleted: no expiry, and no deletion of a response
  takes an item from it.
- The caller passes `now`, in unix seconds: a store has no clock of its own.

Not here: the stores, and what the conformance suite does (`testing.store_conformance`).
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from segue.history.conversations import ConversationHead, ConversationMove, ConversationStep
from segue.history.records import ChainLink, Record
from segue.protocol.ids import ConversationId, ResponseId
from segue.protocol.response_query import ResponseQuery

#: What a conversation counts in the size of its tenant, beside its metadata and its items.
CONVERSATION_BYTES = 256


class StoreError(Exception):
    """The store cannot do what it was called for: its disk is full, its server is away, its file is damaged."""


class ParentGone(StoreError):
    """The parent of an appended record is not in the store, not even as a tombstone. Nothing was written."""


class IdTaken(StoreError):
    """The id of an appended record is that of one in the store, or of its tombstone. Nothing was written."""


class ConversationMoved(StoreError):
    """A conversation does not point where its caller expects, or is gone. Nothing was written."""


class QueryTooBroad(Exception):
    """A query has so many labels that are common, but not together, that looking on would take too long."""


class StoreSize(msgspec.Struct, frozen=True):
    """How much a store holds: the number of living records, and how many bytes it occupies."""

    records: int
    size_bytes: int


class Store(Protocol):
    """Keeps records."""

    async def append(self, record: Record) -> None:
        """Write a record, durably. Raises `ParentGone`, `IdTaken`, or `StoreError` if it cannot be written."""

    async def chain(self, tenant: str, response_id: ResponseId, now: float) -> list[ChainLink] | None:
        """Return the turns from the root to a living response, or None. One query, however deep the chain."""

    async def record(self, tenant: str, response_id: ResponseId, now: float) -> Record | None:
        """Return the record of a living response, or None."""

    async def find_item(self, tenant: str, item_id: str, now: float) -> ResponseId | None:
        """Return the living response to which the item with this id belongs; None if there is none, or no single one.

        It is the response that has the id among its `Record.output_ids()`. Else it is the one that has it among its
        `Record.input_ids()`, if no record before it had the id at all: a history that is sent again changes nothing.
        """

    async def list_responses(self, tenant: str, query: ResponseQuery, now: float) -> list[ResponseId] | None:
        """Return the living responses that match; None if `query.after` is not a living response.

        A response matches if it has all labels of the query among its `Record.labels()`. The order is that of
        `Record.created_at`; those of one time have an order too, which does not change. Whatever is before a page, a
        page takes as long as the first. Raises `QueryTooBroad` if that takes looking at too many that do not match,
        whichever of the labels the store begins with: over `SCAN_LIMIT` in all, shared evenly by the labels.
        """

    async def is_continued(self, tenant: str, response_id: ResponseId) -> bool:
        """Return whether a record continues this response; one that was deleted may count."""

    async def delete(self, tenant: str, response_id: ResponseId, now: float) -> bool:
        """Delete a living response, so that its id resolves to nothing; return whether there was one."""

    async def create_conversation(self, head: ConversationHead, step: ConversationStep | None = None) -> None:
        """Write a new conversation, durably. It points at the `step` if there is one, else at `head.turn_id`.

        Raises `IdTaken`, or `ParentGone` if the turn that it is to point at, or to continue, is not there.
        """

    async def conversation(self, tenant: str, conversation_id: ConversationId) -> ConversationHead | None:
        """Return a conversation, or None."""

    async def conversation_chain(
        self, tenant: str, conversation_id: ConversationId, now: float
    ) -> list[ChainLink] | None:
        """Return the turns of a conversation from the root on, none if it is empty; None if there is no conversation.

        One query, however deep the chain. A step is a link that is not alive, and expires at infinity.
        """

    async def append_to_conversation(self, conversation_id: ConversationId, record: Record) -> None:
        """Write a record as `append` does; the conversation points at it from then on.

        It must have pointed at the record's parent until then. Raises `ConversationMoved` if it did not.
        """

    async def move_conversation(self, tenant: str, conversation_id: ConversationId, move: ConversationMove) -> None:
        """Carry out a move, durably, and free what was only needed by where the conversation pointed before.

        Raises `ConversationMoved`, `IdTaken`, or `ParentGone` if the turn to point at, or to continue, is not there.
        """

    async def describe_conversation(
        self, tenant: str, conversation_id: ConversationId, metadata: bytes, now: float
    ) -> bool:
        """Replace the metadata of a conversation; return whether there is one."""

    async def delete_conversation(self, tenant: str, conversation_id: ConversationId) -> bool:
        """Delete a conversation; return whether there was one. Its items are freed when nothing else needs them."""

    async def erase_conversations(self, tenant: str, before: float | None) -> int:
        """Delete the conversations of a tenant that were last changed before a time, or all (None); return how many.

        As `erase`, it need not be atomic.
        """

    async def sweep(self, now: float) -> list[tuple[str, ResponseId]]:
        """Delete expired records, all or some of them; return the tenant and the id of each.

        The result is empty only when no expired record is left: call it until then to delete all.
        """

    async def erase(self, tenant: str, before: float | None) -> list[ResponseId]:
        """Delete the responses of a tenant that were made before a time, or all (None); return their ids.

        Those that have expired count too.

        It need not be atomic: if it fails, some may be gone, and it can be called again. A record that is appended
        meanwhile may stay. Freed bytes are overwritten, and given back as far as that delays no other call.
        """

    async def size(self) -> StoreSize:
        """Measure the store. Raises `StoreError` if it cannot be read."""

    async def tenant_size(self, tenant: str) -> StoreSize:
        """Measure what a tenant has: its living records, and the bytes of all, without the settings of requests.

        The bytes of its conversations count too.
        """

    async def check_writable(self) -> None:
        """Write something durably, and keep nothing of it. Raises `StoreError` if an `append` would fail too."""

    async def aclose(self) -> None:
        """Finish every call that has begun, and release everything. Later calls raise `StoreError`."""

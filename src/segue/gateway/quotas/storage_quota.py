"""How much a tenant may keep in the store: checked before a turn that is to be stored, so that nothing is done in vain.

The store is asked now and then, and what is stored meanwhile is added. So the bound is exact but for turns that run at
the same time. Not here: limits per minute (`quotas`).
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from segue.config import LimitsConfig
from segue.gateway.quotas.quotas import Quotas
from segue.history.conversations import ConversationHead, ConversationStep
from segue.protocol.problems import Problem, Refused
from segue.stores.interface import CONVERSATION_BYTES, Store, StoreError, StoreSize

_log = logging.getLogger("segue.gateway")

#: How long what the store said is believed; one that refuses is asked again sooner, since responses are deleted too.
FRESH_S: Final = 60.0
_FULL_S: Final = 2.0


class _Known(msgspec.Struct):
    """What a tenant has in the store, as far as is known."""

    records: int
    size_bytes: int
    asked_at: float


class StorageQuota:
    """The stored responses of tenants that have a limit for them."""

    def __init__(self, quotas: Quotas, store: Store) -> None:
        self._quotas = quotas
        self._store = store
        self._known: dict[str, _Known] = {}

    async def check(self, tenant: str, now: float) -> None:
        """Refuse a turn that is to be stored if its tenant has reached a limit.

        Raises:
            Refused: it has, or the store cannot be asked.
        """
        limits = self._quotas.tenant_limits(tenant)
        if limits.stored_responses is None and limits.stored_bytes is None:
            return
        known = self._known.get(tenant)
        if known is None or not 0 <= now - known.asked_at < (_FULL_S if _is_full(known, limits) else FRESH_S):
            size = await self._ask(tenant)
            known = self._known[tenant] = _Known(size.records, size.size_bytes, now)
        if _is_full(known, limits):
            message = (
                f"The store holds {known.records:,} responses with {known.size_bytes:,} bytes of this tenant, the most "
                "that it may keep. Delete some, or send store: false."
            )
            raise Refused(Problem("insufficient_quota", message))

    async def _ask(self, tenant: str) -> StoreSize:
        try:
            return await self._store.tenant_size(tenant)
        except StoreError as error:
            _log.error("action=tenant_size error=%r", str(error))
            raise Refused(Problem("store_error", "The store does not answer at the moment. Try again.")) from error

    def forget(self, tenant: str) -> None:
        """Ask the store again what a tenant has."""
        self._known.pop(tenant, None)

    def note_stored(self, tenant: str, size: int) -> None:
        """Count a response that was stored."""
        known = self._known.get(tenant)
        if known is not None:
            known.records += 1
            known.size_bytes += size

    def note_conversation(self, head: ConversationHead, step: ConversationStep | None) -> None:
        """Count a new conversation, with the items that it begins with."""
        added = CONVERSATION_BYTES + len(head.metadata) + (0 if step is None else step.size_bytes)
        self.note_added(head.tenant, added)

    def note_added(self, tenant: str, size: int) -> None:
        """Count what was stored without a response: in a conversation."""
        known = self._known.get(tenant)
        if known is not None:
            known.size_bytes += size


def _is_full(known: _Known, limits: LimitsConfig) -> bool:
    return (limits.stored_responses is not None and known.records >= limits.stored_responses) or (
        limits.stored_bytes is not None and known.size_bytes >= limits.stored_bytes
    )

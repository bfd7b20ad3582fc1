"""Slot pinning: which slot of a llama-server each conversation uses. A pure table with one row per slot.

A slot of llama-server holds the KV cache of one prompt. If a conversation always uses the same slot, the server
processes only its new tokens. A conversation keeps its slot until another one needs a slot and this is the least
recently used; the slot of a running turn is never taken away. A fork uses the slot of its parent if that is idle, and
otherwise another: two branches that run at once have a slot each, and each finds its own again. Not here: how many
turns run at once (`admission`), which must be no more than there are slots.
"""

from __future__ import annotations

from segue.protocol.ids import ResponseId
from segue.upstreams.conversation_key import ConversationKey

#: The fields of llama-server's API that choose the slot, and make it reuse the cached prefix of a prompt.
SLOT_FIELD, CACHE_FIELD = "id_slot", "cache_prompt"


class _Slot:
    """One slot: the conversation that used it last, and the turn, with its parent, that ran or runs in it."""

    __slots__ = ("conversation", "number", "parent", "response_id", "running", "used_at")

    def __init__(self, number: int) -> None:
        self.number = number
        self.conversation: ConversationKey | None = None
        self.parent: ResponseId | None = None
        self.response_id: ResponseId | None = None
        self.running = False
        self.used_at = 0


class SlotTable:
    """The `count` slots of one server. Every method is O(count)."""

    def __init__(self, count: int) -> None:
        self._slots = [_Slot(number) for number in range(count)]
        self._takes = 0

    @property
    def running(self) -> int:
        """How many slots run a turn."""
        return sum(slot.running for slot in self._slots)

    def take(self, conversation: ConversationKey, response_id: ResponseId, parent: ResponseId | None) -> int:
        """Return the slot for a turn, which holds it until `release`. There must be an idle slot."""
        idle = [slot for slot in self._slots if not slot.running]
        assert idle, "no more turns are admitted than there are slots"
        slot = max(idle, key=lambda one: _rank(one, conversation, parent))
        self._takes += 1
        slot.conversation = self._with_prefix(conversation)
        slot.parent, slot.response_id = parent, response_id
        slot.running, slot.used_at = True, self._takes
        return slot.number

    def release(self, number: int) -> None:
        """End the turn in a slot; the conversation keeps the slot until another needs it."""
        assert self._slots[number].running, "a slot is released once for each `take`"
        self._slots[number].running = False

    def _with_prefix(self, conversation: ConversationKey) -> ConversationKey:
        """Return the key with its prefix digest, if a slot that has run the chain knows it."""
        if conversation.prefix_digest:
            return conversation
        known = (slot.conversation for slot in self._slots if _is_same_chain(slot.conversation, conversation))
        return next((one for one in known if one is not None), conversation)


def _rank(slot: _Slot, conversation: ConversationKey, parent: ResponseId | None) -> tuple[int, int]:
    """Say how well an idle slot suits a turn: the largest suits best."""
    held = slot.conversation
    if held is None:
        return 1, -slot.number
    if _is_same_chain(held, conversation):
        if slot.response_id == parent:
            return 5, slot.used_at
        return 4 if slot.parent == parent else 3, slot.used_at  # the same turn, attempted again; another branch
    if conversation.replayed and (held.tenant, held.prefix_digest) == (conversation.tenant, conversation.prefix_digest):
        return 2, slot.used_at
    return 0, -slot.used_at


def _is_same_chain(one: ConversationKey | None, other: ConversationKey) -> bool:
    return one is not None and (one.tenant, one.chain) == (other.tenant, other.chain)

"""Which slot of a server each conversation has: a pure table, as large as the server has slots.

A slot of llama-server holds the KV cache of one prompt at a time, so a conversation that always comes to the same slot
has only its new tokens read. It keeps its slot until another conversation needs one and this one has rested longest;
the slot of a running turn is given to nobody. A fork goes on in the slot that has its parent if that one is idle, and
takes another if not: two branches that run at once have a slot each, and find it again. Not here: how many turns run
at once (`admission`), which must be no more than there are slots.
"""

from __future__ import annotations

from segue.protocol.ids import ResponseId
from segue.upstreams.conversation_key import ConversationKey

#: The fields by which llama-server is told which slot to use, and to keep of it what a prompt begins with.
SLOT_FIELD, CACHE_FIELD = "id_slot", "cache_prompt"


class _Slot:
    """One slot: the conversation it was last given to, and the turn, with its parent, that ran or runs there."""

    __slots__ = ("number", "origin", "parent", "response_id", "running", "used_at")

    def __init__(self, number: int) -> None:
        self.number = number
        self.origin: ConversationKey | None = None
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
        """How many slots have a turn that runs."""
        return sum(slot.running for slot in self._slots)

    def take(self, origin: ConversationKey, response_id: ResponseId, parent: ResponseId | None) -> int:
        """Give a turn a slot, until it is released; there must be one without a turn."""
        idle = [slot for slot in self._slots if not slot.running]
        assert idle, "no more turns are admitted than there are slots"
        slot = max(idle, key=lambda one: _merit(one, origin, parent))
        self._takes += 1
        slot.origin = self._named(origin)
        slot.parent, slot.response_id = parent, response_id
        slot.running, slot.used_at = True, self._takes
        return slot.number

    def release(self, number: int) -> None:
        """Note that the turn in a slot is over; the conversation keeps the slot for now."""
        assert self._slots[number].running, "only what was taken can be released"
        self._slots[number].running = False

    def _named(self, origin: ConversationKey) -> ConversationKey:
        """Return an origin with its start, where a slot knows how the chain began."""
        if origin.start:
            return origin
        known = (slot.origin for slot in self._slots if _same_chain(slot.origin, origin))
        return next((one for one in known if one is not None), origin)


def _merit(slot: _Slot, origin: ConversationKey, parent: ResponseId | None) -> tuple[int, int]:
    """Say how good an idle slot is for a turn; the best is the largest."""
    if slot.origin is None:
        return 1, -slot.number
    if _same_chain(slot.origin, origin):
        if slot.response_id == parent:
            return 5, slot.used_at
        return 4 if slot.parent == parent else 3, slot.used_at  # a turn that is tried again, or a branch
    if origin.replayed and (slot.origin.tenant, slot.origin.start) == (origin.tenant, origin.start):
        return 2, slot.used_at
    return 0, -slot.used_at


def _same_chain(one: ConversationKey | None, other: ConversationKey) -> bool:
    return one is not None and (one.tenant, one.chain) == (other.tenant, other.chain)

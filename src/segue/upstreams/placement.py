"""Which instances of a group a turn is sent to, in which order. Pure.

Each conversation has a *home*: one of the instances, by weighted rendezvous hashing of its key. Every gateway finds the
same home without asking another, and an instance that is added or taken away moves only its own share. If the home is
out, or has no place free for a new conversation, the next in the conversation's own order takes it, and keeps it
(`MovedConversations`) for as long as that one is in use: what it has cached of the prompt is worth more than the home.
Backups come after all others, and instances that are out at the very end, so that a turn is tried while there is any
hope. Not here: when an instance is out (`circuit_breaker`, `rests`), and the turns themselves (`group`).
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from segue.upstreams.conversation_key import ConversationKey

#: For how many conversations it is remembered that they have moved.
MAX_MOVED = 65_536
_HASH_BYTES = 8


class Instance(msgspec.Struct, frozen=True):
    """One instance as it is now. `out`: it gets no turns; `full`: a turn would wait there."""

    name: str
    weight: int = 1
    backup: bool = False
    out: bool = False
    full: bool = False


def rank(instances: Sequence[Instance], conversation: bytes, *, held_by: str | None, new: bool) -> list[Instance]:
    """Return the instances in the order in which a turn of a conversation tries them.

    `conversation` is its digest (`digest_of`); `held_by` names the instance that it has moved to; `new` is true for its
    first turn.
    """

    def key(one: Instance) -> tuple[bool, bool, bool, bool, float]:
        held = one.name == held_by
        return one.out, not held, one.backup, new and one.full, -_score(one, conversation)

    return sorted(instances, key=key)


def home(instances: Sequence[Instance], conversation: bytes) -> str:
    """Return the name of the instance that has the conversation while all are in use."""
    return min(instances, key=lambda one: (one.backup, -_score(one, conversation))).name


def digest_of(conversation: ConversationKey) -> bytes:
    """Return a digest that all turns of a conversation have in common."""
    name = b"start" + conversation.prefix_digest if conversation.replayed else b"chain" + conversation.chain.encode()
    tenant = conversation.tenant.encode("utf-8", "surrogatepass")
    return hashlib.sha256(tenant + b"\0" + name).digest()


def _score(one: Instance, conversation: bytes) -> float:
    """Return the score of weighted rendezvous hashing: each instance has the largest for its share of conversations."""
    drawn = hashlib.blake2b(one.name.encode("utf-8", "surrogatepass"), key=conversation, digest_size=_HASH_BYTES)
    fraction = (int.from_bytes(drawn.digest(), "big") + 1) / (2 ** (8 * _HASH_BYTES) + 2)
    return -one.weight / math.log(fraction)


class MovedConversations:
    """Which conversations are not at home, and where; the least recently used is forgotten first, and goes home."""

    def __init__(self, most: int = MAX_MOVED) -> None:
        self._instances: OrderedDict[tuple[str, bytes], str] = OrderedDict()
        self._most = most

    def find(self, group: str, conversation: bytes) -> str | None:
        """Return the name of the instance that a conversation has moved to."""
        found = self._instances.get((group, conversation))
        if found is not None:
            self._instances.move_to_end((group, conversation))
        return found

    def note(self, group: str, conversation: bytes, instance: str, *, at_home: bool) -> None:
        """Note which instance has a conversation now."""
        if at_home:
            self._instances.pop((group, conversation), None)
            return
        self._instances[group, conversation] = instance
        self._instances.move_to_end((group, conversation))
        if len(self._instances) > self._most:
            self._instances.popitem(last=False)

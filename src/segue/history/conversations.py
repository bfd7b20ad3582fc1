"""Conversations: names for histories that grow. A conversation points at the newest turn of a chain, its head.

A response that is made in a conversation is a turn like every other, and the conversation then points at it. Items that
a client adds without a response are a *step*: a turn of the chain that has no response, so that no request can name it.
Chains do not change, so an item is taken out by leaving the chain before it: a new step, whose parent is the turn
before the item's, has what else there was from there on. What responses saw stays as it was. Pure. Not here: where
conversations are kept (`stores`), and who may change one when (`gateway.turns.conversations`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from segue.history.chains import Turn
from segue.history.records import ChainLink
from segue.protocol.codec import with_field
from segue.protocol.ids import FIRST_INPUT_NUMBER, ConversationId, ResponseId, derived_item_id
from segue.protocol.items import Item, calls_of, given_ids


class ConversationHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a store keeps of a conversation beside its items. Times are unix seconds, `metadata` is a JSON object.

    `turn_id` is the turn that it points at, which may have no living response; None while it has no items.
    """

    tenant: str
    id: ConversationId
    created_at: float
    changed_at: float
    metadata: bytes = b"{}"
    turn_id: ResponseId | None = None


class ConversationStep(msgspec.Struct, frozen=True, kw_only=True):
    """A turn without a response: items that a client has added. `calls` as those of a record."""

    id: ResponseId
    parent_id: ResponseId | None
    input: tuple[Item, ...]
    calls: frozenset[str]

    @property
    def size_bytes(self) -> int:
        """Roughly how many bytes it takes in a queue or in a store."""
        return sum(map(len, self.input)) + 256

    def turn(self, parent: Turn | None) -> Turn:
        """Return it as a turn of a chain. It never expires: it goes with its conversation."""
        return Turn(
            id=self.id, parent=parent, input=self.input, output=(), calls=self.calls, stored=True, expires_at=None
        )


class ConversationMove(msgspec.Struct, frozen=True, kw_only=True):
    """Points a conversation at another turn: at a new `step`, or else at `to_id`, a turn before `from_id`.

    It happens only if the conversation points at `from_id` now.
    """

    from_id: ResponseId | None
    to_id: ResponseId | None = None
    step: ConversationStep | None = None
    at: float


class PlacedItem(msgspec.Struct, frozen=True):
    """An item of a chain, and the place of its turn in it."""

    item: Item
    link: int
    number: int
    """What its derived id is made of, if it has none of its own."""


def find_item(links: Sequence[ChainLink], item_id: str) -> PlacedItem | None:
    """Return the newest item with this id, its author's or the derived one; None if there is none."""
    for place in range(len(links) - 1, -1, -1):
        for item, ident, number in _identified(links[place]):
            if ident == item_id:
                return PlacedItem(item, place, number)
    return None


def take_out(links: Sequence[ChainLink], item_id: str, *, step_id: ResponseId, now: float) -> ConversationMove | None:
    """Return the move that takes an item out of the chain of a conversation; None if it is not there.

    Costs O(the items from there on). They keep the ids under which they were listed: where an author gave none, the
    derived one is written into the item, since it would be another one in another turn.
    """
    found = find_item(links, item_id)
    if found is None:
        return None
    kept: list[Item] = []
    for place in range(found.link, len(links)):
        kept += [
            with_own_id(item, ident)
            for item, ident, number in _identified(links[place])
            if (place, number) != (found.link, found.number)
        ]
    before = links[found.link - 1].id if found.link else None
    if not kept:
        return ConversationMove(from_id=links[-1].id, to_id=before, at=now)
    step = ConversationStep(id=step_id, parent_id=before, input=tuple(kept), calls=calls_of(kept))
    return ConversationMove(from_id=links[-1].id, step=step, at=now)


def with_own_id(item: Item, ident: str) -> Item:
    """Return an item with an id written into it, if it has none."""
    ((_, own, _),) = given_ids([item])
    return item if own else with_field(item, "id", ident)


def _identified(link: ChainLink) -> list[tuple[Item, str, int]]:
    """Return the items of a turn in their order, with the ids and numbers under which they are listed."""
    identified = []
    for items, first in ((link.input, FIRST_INPUT_NUMBER), (link.output, 0)):
        identified += [
            (items[place], ident or derived_item_id(kind, link.id, first + place), first + place)
            for place, ident, kind in given_ids(items)
        ]
    return identified

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
from segue.protocol.ids import FIRST_INPUT_NUMBER, ConversationId, ResponseId
from segue.protocol.items import Item, calls_of, given_ids
from segue.protocol.listing import ItemRun, ListedItem, newest_first


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


def items_of(links: Sequence[ChainLink]) -> list[ItemRun]:
    """Return all items of a chain, for a list of them."""
    runs: list[ItemRun] = []
    for link in links:
        runs += (ItemRun(link.input, link.id, FIRST_INPUT_NUMBER), ItemRun(link.output, link.id, 0))
    return runs


def find_item(links: Sequence[ChainLink], item_id: str) -> ListedItem | None:
    """Return the item that a list of the chain shows under this id; None if there is none."""
    return next((one for one in newest_first(items_of(links)) if one.ident == item_id), None)


def take_out(links: Sequence[ChainLink], item_id: str, *, step_id: ResponseId, now: float) -> ConversationMove | None:
    """Return the move that takes an item out of the chain of a conversation; None if it is not there.

    Costs O(the items from there on). They keep the ids under which they were listed: where an author gave none, the
    derived one is written into the item, since it would be another one in another turn.
    """
    found = find_item(links, item_id)
    if found is None:
        return None
    place = next(place for place, link in enumerate(links) if link.id == found.response_id)
    later = [one for one in newest_first(items_of(links[place:])) if one != found]
    kept = [with_own_id(one.item, one.ident) for one in reversed(later)]
    before = links[place - 1].id if place else None
    if not kept:
        return ConversationMove(from_id=links[-1].id, to_id=before, at=now)
    step = ConversationStep(id=step_id, parent_id=before, input=tuple(kept), calls=calls_of(kept))
    return ConversationMove(from_id=links[-1].id, step=step, at=now)


def with_own_id(item: Item, ident: str) -> Item:
    """Return an item with an id written into it, if it has none."""
    ((_, own, _),) = given_ids([item])
    return item if own else with_field(item, "id", ident)

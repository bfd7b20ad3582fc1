"""Resolves item references: an input that names items by their ids gets the items themselves.

An item is looked for in the history that the request continues (then it is a repeat), in the unstored turns of the
caller's own connection, and in the tenant's stored responses. The response is read out of the item's id, or the store
knows it, where somebody else gave the item its id. The last reference is resolved first: a client that refers to
everything said so far names last what the newest response has made, and that response has taken in all the rest. So
one look usually finds everything. Not here: where turns are (`parents`), and leaving out repeats
(`history.repeated_items`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from segue.gateway.turns.parents import Parents
from segue.history.cache import Slot
from segue.history.chains import Turn
from segue.history.item_references import ReferencedItems
from segue.protocol.ids import parse_item_id
from segue.protocol.items import MAX_ITEM_ID, Input, resolve_references
from segue.protocol.problems import Problem, Refused, item_not_found, references_too_large, references_too_many
from segue.stores.interface import Store, StoreError

_log = logging.getLogger("segue.gateway")

#: How many responses one request may have looked through.
MAX_RESPONSES = 256


class ReferenceResolver:
    """Finds the items that requests refer to.

    `max_bytes` bounds what one request may bring into a history: a reference is short, and its item is kept again with
    the response that refers to it. `clock` gives unix seconds.
    """

    def __init__(self, parents: Parents, store: Store, *, max_bytes: int, clock: Callable[[], float]) -> None:
        self._parents = parents
        self._store = store
        self._max_bytes = max_bytes
        self._clock = clock

    async def resolve(self, tenant: str, given: Input, *, parent: Turn | None, places: Sequence[Slot]) -> Input:
        """Return the input with the items that it refers to; `places` may hold unstored turns that have some of them.

        Raises:
            Refused: an item is not there for this tenant, or they are too many.
        """
        items = ReferencedItems(given)
        items.look_in_history(parent)
        for turn in self._parents.unstored(places):
            items.take(turn)
        looked_through = 0
        while (reference := items.last_missing) is not None:
            if looked_through == MAX_RESPONSES:
                raise Refused(references_too_many(MAX_RESPONSES))
            looked_through += 1
            found = await self._response_of(tenant, reference.id)
            if found is not None:
                items.take(found)
            if items.last_missing is reference:
                raise Refused(item_not_found(reference.id, reference.place))
            if items.new_bytes > self._max_bytes:
                raise Refused(references_too_large(self._max_bytes))
            await asyncio.sleep(0)  # to look through a large response takes milliseconds
        return resolve_references(given, items.found)

    async def _response_of(self, tenant: str, item_id: str) -> Turn | None:
        """Return the stored turn to which an item belongs."""
        owner = parse_item_id(item_id)
        turn = None if owner is None else await self._parents.look_up(tenant, owner)
        if turn is not None or len(item_id) > MAX_ITEM_ID:
            return turn
        try:
            owner = await self._store.find_item(tenant, item_id, self._clock())
        except StoreError as error:
            _log.error("action=find_item error=%r", str(error))
            message = "The store cannot be read at the moment. Try again, or send the items themselves."
            raise Refused(Problem("store_error", message)) from error
        return None if owner is None else await self._parents.look_up(tenant, owner)

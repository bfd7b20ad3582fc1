"""Item references: the items that a request names by their ids, picked out of turns that are at hand.

An item has the id that its author gave it, or else one that is derived from its response and its place: the one under
which the list of the response's items shows it. Not here: which turns are worth a look and where they are found, and
what an input becomes when its references are resolved (`protocol.items`).
"""

from __future__ import annotations

from collections.abc import Iterator

from segue.history.chains import Turn
from segue.protocol.ids import FIRST_INPUT_NUMBER, derived_item_id, parse_item_id
from segue.protocol.items import Input, Item, ItemReference, given_ids


class ReferencedItems:
    """The items that one input refers to. To take from a turn costs O(its items); those of a chain are read once."""

    def __init__(self, given: Input) -> None:
        sent = {key.id for key in given.keys}
        #: What belongs into the input, by the ids of the references.
        self.found: dict[str, Item] = {}
        #: How many bytes of that the history does not have yet.
        self.new_bytes = 0
        self._missing: dict[str, ItemReference] = {}
        for reference in given.references:
            if reference.id not in sent:
                self._missing.setdefault(reference.id, reference)

    @property
    def last_missing(self) -> ItemReference | None:
        """The last of the references whose item is neither found nor left out."""
        return next(reversed(self._missing.values()), None)

    def look_in_history(self, parent: Turn | None) -> None:
        """Find items in the chain that the input continues.

        They are repeats, and leaving those out is for `repeated_items`, which looks at all of the input. It could not
        tell that of an item without an id of its own, so that one is left out here.
        """
        owners = {parse_item_id(ident) for ident in self._missing}
        turn = parent
        while turn is not None and self._missing:
            if turn.id in owners or not self._missing.keys().isdisjoint(turn.item_ids):
                for ident, item in identified_items(turn):
                    if self._missing.pop(ident, None) is not None and ident in turn.item_ids:
                        self.found[ident] = item
            turn = turn.parent

    def take(self, turn: Turn) -> None:
        """Take all that is missing from the items of one turn."""
        for ident, item in identified_items(turn):
            if self._missing.pop(ident, None) is not None:
                self.found[ident] = item
                self.new_bytes += len(item)


def identified_items(turn: Turn) -> Iterator[tuple[str, Item]]:
    """Yield the items of a turn with their ids, those that it made first."""
    for items, first in ((turn.output, 0), (turn.input, FIRST_INPUT_NUMBER)):
        for place, ident, kind in given_ids(items):
            yield ident or derived_item_id(kind, turn.id, first + place), items[place]

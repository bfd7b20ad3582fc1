"""Compaction: what a model sees of a history after an item that stands for all before it.

The newest compaction item counts. Before it, the messages of users, developers and the system stay as they were, and
the items that change settings, the newest within a budget. Everything else before it is what its summary tells:
answers, tool calls and their outputs, reasoning, and earlier compactions. What comes after it stays. So it makes no
difference whether a client sends the whole history again, with the item in it, or continues by an id, and a client may
leave out what its item stands for. Items are kept as they came; only what a model sees is shorter. Pure. Not here: who
writes the summary, and how it is sealed (`sealed_summaries`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from segue.history.chains import CompactedTurn, Turn
from segue.protocol.codec import decode
from segue.protocol.items import COMPACTIONS, CONFIGURATION, Item, user_message
from segue.protocol.problems import Problem

#: No item of a type that stands for others is without it.
_NAME = b'"compaction'
#: Who says what no summary replaces.
_RETAINED_ROLES = frozenset({"user", "developer", "system"})
_USER = "user"
#: How the data of an image begin, and about as how many tokens models see one.
_IMAGE = b'"data:image/'
IMAGE_TOKENS = 1600
#: Text of English and JSON has about as many bytes in a token.
TOKEN_BYTES = 4


class _Author(msgspec.Struct):
    type: str | None = None
    role: str | None = None


class _SealedItem(msgspec.Struct):
    encrypted_content: str


_heads = msgspec.json.Decoder(_Author)
_sealed_items = msgspec.json.Decoder(_SealedItem)


class NewestCompaction(NamedTuple):
    """The newest compaction item of a list: its place, and what it holds sealed."""

    place: int
    sealed: str


class Compacted(NamedTuple):
    """What a model sees of items in which one stands for those before it."""

    retained: tuple[Item, ...]
    summary: Item
    since: tuple[Item, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """All of it."""
        return (*self.retained, self.summary, *self.since)


def may_be_compaction(item: Item) -> bool:
    """Say whether an item has to be looked at; most have not."""
    return _NAME in item


def find_newest(items: Sequence[Item]) -> NewestCompaction | None:
    """Return the newest compaction item, if there is one."""
    for place in range(len(items) - 1, -1, -1):
        if may_be_compaction(items[place]) and _heads.decode(items[place]).type in COMPACTIONS:
            return NewestCompaction(place, _sealed_in(items[place]))
    return None


def _sealed_in(item: Item) -> str:
    """Return what an item holds sealed; nothing, if a provider has made one that holds nothing of the kind."""
    sealed = decode(item, _sealed_items)
    return "" if isinstance(sealed, Problem) else sealed.encrypted_content


def summary_message(lead: str, summary: str) -> Item:
    """Return the message that tells a model what its history was; the `lead` says that it is a summary."""
    return user_message(f"{lead}\n\n{summary}")


def compact(parent: Turn | None, items: Sequence[Item], place: int, *, summary: Item, budget_bytes: int) -> Compacted:
    """Return what a model sees of a history whose newest part is `items`, after a compaction at this place of them."""
    retained = retained_messages(parent, items[:place], budget_bytes=budget_bytes)
    return Compacted(retained, summary, tuple(items[place + 1 :]))


def retained_messages(parent: Turn | None, items: Sequence[Item], *, budget_bytes: int) -> tuple[Item, ...]:
    """Return the messages of a chain and of the items behind it that stay as they are: the newest within the budget."""
    newest_first = chain(filter(_is_retained, reversed(items)), _newest_messages(parent))
    return tuple(reversed(list(_within(newest_first, budget_bytes))))


def stand_in_of(turn: Turn, place: int, *, summary: Item, budget_bytes: int) -> CompactedTurn:
    """Return what a model sees in place of a turn with a compaction item at this place of its input and output."""
    seen = compact(turn.parent, (*turn.input, *turn.output), place, summary=summary, budget_bytes=budget_bytes)
    of_input = max(0, len(turn.input) - place - 1)
    return CompactedTurn(
        turn, retained=seen.retained, summary=summary, input=seen.since[:of_input], output=seen.since[of_input:]
    )


def estimate_saving(items: Iterable[Item]) -> int:
    """Return about how many tokens a compaction of what a model sees would leave out, but for its new summary."""
    return estimate_tokens(item for item in items if not _is_retained(item))


def estimate_tokens(items: Iterable[Item]) -> int:
    """Return about how many tokens items have. It depends on nothing else, so that a replay is judged as a delta is."""
    return sum(map(_weight, items)) // TOKEN_BYTES


def _weight(item: Item) -> int:
    """Return how many bytes an item counts: an image in it as what a model makes of it, however large its data are."""
    weight, begin = len(item), item.find(_IMAGE)
    while begin >= 0:
        end = item.find(b'"', begin + len(_IMAGE))
        end = len(item) if end < 0 else end
        weight -= max(0, end - begin - IMAGE_TOKENS * TOKEN_BYTES)
        begin = item.find(_IMAGE, end)
    return weight


def _newest_messages(turn: Turn | None) -> Iterator[Item]:
    """Yield the messages of a chain that a compaction retains, newest first."""
    while turn is not None:
        if turn.compacted is not None:
            yield from filter(_is_retained, reversed(turn.compacted.since))
            yield from reversed(turn.compacted.retained)
            return
        yield from filter(_is_retained, reversed(turn.input))
        turn = turn.parent


def _within(items: Iterable[Item], budget_bytes: int) -> Iterator[Item]:
    """Yield items, newest first, while they are within the budget; the user's last message may be over it."""
    left, asked = budget_bytes, False
    for item in items:
        left -= _weight(item)
        by_user = not asked and _heads.decode(item).role == _USER
        if left >= 0 or by_user:
            yield item
        if left < 0:
            return
        asked = asked or by_user


def _is_retained(item: Item) -> bool:
    head = _heads.decode(item)
    if head.type is None or head.type == "message":
        return head.role in _RETAINED_ROLES
    return head.type in CONFIGURATION

"""The history of a session as its client holds it: immutable, and shared with forks.

Items are the JSON bytes that were sent or came. What is appended costs what it adds, whatever came before. Not here:
how a request is written from it (`create_request`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from segue.protocol.codec import UNREADABLE, encode, without_lone_surrogates
from segue.protocol.items import Item

#: What a caller may give as input: a text, an item, a list of items, or the JSON of one of these.
InputItems = str | bytes | dict[str, Any] | Sequence[dict[str, Any] | bytes]

_documents = msgspec.json.Decoder(msgspec.Raw)
_lists = msgspec.json.Decoder(list[msgspec.Raw])


class LocalHistory(msgspec.Struct, frozen=True, eq=False):
    """A history: the one that it goes on from, and the items of one more turn."""

    parent: LocalHistory | None = None
    added: tuple[Item, ...] = ()
    count: int = 0
    size_bytes: int = 0

    def append(self, items: Sequence[Item]) -> LocalHistory:
        """Return this history with more items."""
        size = self.size_bytes + sum(map(len, items))
        return LocalHistory(self, tuple(items), self.count + len(items), size)

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, the oldest first."""
        return self.since(EMPTY_HISTORY) or ()

    def since(self, earlier: LocalHistory) -> tuple[Item, ...] | None:
        """Return what has been added to an earlier history; None if this one does not go on from it."""
        turns: list[tuple[Item, ...]] = []
        node: LocalHistory | None = self
        while node is not earlier and node is not None and node.count >= earlier.count:
            turns.append(node.added)
            node = node.parent
        if node is not earlier and earlier.count:
            return None
        return tuple(item for added in reversed(turns) for item in added)


#: The history of a session that has just begun.
EMPTY_HISTORY: Final = LocalHistory()


def history_of(items: Sequence[Item]) -> LocalHistory:
    """Return a history that holds these items."""
    return EMPTY_HISTORY.append(items) if items else EMPTY_HISTORY


def read_items(given: InputItems) -> tuple[Item, ...]:
    """Return the items that an input stands for.

    Raises:
        ValueError: an item is no object, or bytes are no JSON object or list of objects.
    """
    if isinstance(given, str):
        return (_encode({"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}),)
    if isinstance(given, dict):
        return (_encode(given),)
    if isinstance(given, bytes):
        return _split(given)
    return tuple(map(_read_item, given))


def _read_item(item: dict[str, Any] | bytes) -> Item:
    if isinstance(item, bytes):
        return _check(item)
    if not isinstance(item, dict):  # the texts of a list have no role
        raise ValueError(f"an item of the input is a {type(item).__name__}, and not an object")  # noqa: TRY004 - as documented
    return _encode(item)


def _encode(item: dict[str, Any]) -> Item:
    """Encode an item. Text that is no Unicode, as a program may put out, has U+FFFD in its place."""
    try:
        return encode(item)
    except UnicodeEncodeError:
        repaired = without_lone_surrogates(json.dumps(item).encode())
        assert repaired is not None, "what cannot be encoded has a lone surrogate"
        return repaired


def _split(document: bytes) -> tuple[Item, ...]:
    if not document.lstrip().startswith(b"["):
        return (_check(document),)
    try:
        return tuple(_check(bytes(item)) for item in _lists.decode(document))
    except UNREADABLE:
        raise ValueError("the input is bytes that are no JSON list of items") from None


def _check(item: bytes) -> Item:
    try:
        document = bytes(_documents.decode(item)).strip()
    except UNREADABLE:
        document = b""
    if not document.startswith(b"{"):
        raise ValueError("an item of the input is bytes that are no JSON object")
    return document

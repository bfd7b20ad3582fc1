"""Rendering a history in O(new items): each turn becomes a fragment, once, and a body is fragments joined.

A dialect's scribe takes items in order and writes the provider's messages. A message that may still grow (several items
are one message there) stays open, as a value, across the boundary of turns; so the bytes are a function of the items in
their order and not of how they were cut into turns. That is what makes delta and replay the same. Not here: what an
item looks like in any dialect.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

import msgspec

from segue.dialects.render_cache import Shelf, Sized
from segue.history.chains import History, Turn, path
from segue.protocol.codec import decode
from segue.protocol.items import Item
from segue.protocol.problems import Problem

#: Distinct warnings that are kept of one history; a history can be made to hold any number of odd things.
MAX_WARNINGS = 16

_MORE = "More was left out of the history than is named here."

R = TypeVar("R", bound=Sized)


class Carry(msgspec.Struct, Generic[R], frozen=True):
    """Where a scribe is after some items: the message that is open, and what is known of all items before.

    `marked` tells whether a user's message was among them, `seed` is a digest of the items up to the first one.
    `preamble` is for texts that stand outside the messages.
    """

    open: R
    preamble: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problem: Problem | None = None
    seed: bytes = b""
    marked: bool = False


class Fragment(msgspec.Struct, Generic[R], frozen=True):
    """What the items of one turn were rendered to: messages, each with a comma after it, and what is carried on.

    `mark` is where in `closed` the last message of a user could be marked as the end of a cached prefix, or -1.
    """

    closed: bytes
    carry: Carry[R]
    mark: int = -1

    @property
    def size_bytes(self) -> int:
        """Roughly what it holds in memory."""
        return len(self.closed) + self.carry.open.size_bytes


class Scribe(Protocol[R]):
    """Renders items, from where a `Carry` left off."""

    def add(self, item: Item) -> None:
        """Take the next item."""

    def fragment(self) -> Fragment[R]:
        """Return what was closed since the start, and where this is."""


class Folder(Protocol[R]):
    """What a dialect gives to be folded: where a history starts, and its scribe."""

    def start(self) -> Carry[R]:
        """Return the state before the first item."""

    def scribe(self, carry: Carry[R]) -> Scribe[R]:
        """Return a scribe that goes on from `carry`."""


def fold(history: History, folder: Folder[R], shelf: Shelf[Fragment[R]]) -> list[Fragment[R]]:
    """Return the fragments of a whole history, oldest first; the last is that of the new input."""
    carry = folder.start()
    fragments: list[Fragment[R]] = []
    for turn in path(history.parent):
        fragment = shelf.find(turn)
        if fragment is None:
            fragment = _render(folder, carry, _items(turn))
            shelf.keep(turn, fragment)
        fragments.append(fragment)
        carry = fragment.carry
    fragments.append(_render(folder, carry, history.input))
    return fragments


def _items(turn: Turn) -> Iterable[Item]:
    yield from turn.input
    yield from turn.output


def _render(folder: Folder[R], carry: Carry[R], items: Iterable[Item]) -> Fragment[R]:
    scribe = folder.scribe(carry)
    for item in items:
        scribe.add(item)
    return scribe.fragment()


class _Head(msgspec.Struct):
    type: str | None = None
    role: str | None = None


_heads = msgspec.json.Decoder(_Head)


class Notes(Generic[R]):
    """What a scribe writes down beside the messages, starting from what was carried so far."""

    def __init__(self, carry: Carry[R]) -> None:
        self.preamble = carry.preamble
        self._warnings = carry.warnings
        self._problem = carry.problem
        self._seed = carry.seed
        self._marked = carry.marked

    def head(self, item: Item) -> tuple[str, str | None]:
        """Return the type and role of an item, after counting it into the seed."""
        head = decode(item, _heads, "input")
        if isinstance(head, Problem):
            self.refuse(head)
            return "", None
        kind = head.type or "message"  # an input message may leave out its type
        if not self._marked:
            self._seed = hashlib.sha256(self._seed + item).digest()
            self._marked = kind == "message" and head.role == "user"
        return kind, head.role

    def warn(self, warning: str) -> None:
        """Note that something was left out; each sentence once."""
        if warning not in self._warnings and len(self._warnings) < MAX_WARNINGS:
            more = len(self._warnings) == MAX_WARNINGS - 1
            self._warnings = (*self._warnings, _MORE if more else warning)

    def refuse(self, problem: Problem) -> None:
        """Note why this history cannot be rendered; the first reason stays."""
        self._problem = self._problem or problem

    def carry(self, state: R) -> Carry[R]:
        """Return what is carried on."""
        return Carry(state, self.preamble, self._warnings, self._problem, self._seed, self._marked)


def cache_key(tenant: str, instructions: str | None, carry: Carry[R]) -> str:
    """Return a `prompt_cache_key`: the same in every turn of a chain, another for another chain or tenant.

    It is made from what the chain starts with and not from an id, since a client that replays gets a new chain.
    """
    start = "\0".join((tenant, instructions or "")).encode("utf-8", "surrogatepass")
    return "segue-" + hashlib.sha256(start + b"\0" + carry.seed).hexdigest()[:32]

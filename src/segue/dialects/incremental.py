"""Rendering a history in O(new items): each turn is rendered once, and a request body joins what was rendered.

A dialect's renderer takes items in order and writes the provider's messages. Several items can become one message, so
the last message of a turn may still grow. It stays open, as a value in the `RenderState`, and the next turn goes on
from there. The bytes therefore depend on the items and their order, and not on how turns divide them: a client that
sends only new items and a client that replays everything cause the same request. Not here: what an item looks like in
any dialect.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from segue.dialects.call_ids import CallIdForm, CallIdMapper, UsedCallIds
from segue.dialects.render_cache import RenderCacheView, Sized
from segue.history.chains import History, Turn, newest_first, path
from segue.protocol.codec import decode
from segue.protocol.items import Item
from segue.protocol.problems import Problem

#: How many distinct warnings one history can cause. A client can put any number of odd things into it.
MAX_WARNINGS = 16

_MORE = "More was left out of the history than is named here."

M = TypeVar("M", bound=Sized)  # a dialect's open message


class RenderState(msgspec.Struct, Generic[M], frozen=True):
    """Where a renderer stands after some items: the message that is still open, and what it knows of all items so far.

    `preamble` holds texts that stand outside the messages. `user_seen` is true once a user's message was among the
    items; `seed` is a digest of the items up to the first one. `call_ids` are those that calls had so far.
    """

    open: M
    preamble: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problem: Problem | None = None
    seed: bytes = b""
    user_seen: bool = False
    call_ids: UsedCallIds = UsedCallIds()


class RenderedTurn(msgspec.Struct, Generic[M], frozen=True):
    """The items of one turn as a provider's messages.

    `closed` holds the messages that cannot grow any more, each with a comma after it; `state` is where the next turn
    goes on. `mark` is the position in `closed` where the last message of a user can be marked as the end of a cached
    prefix, or -1.
    """

    closed: bytes
    state: RenderState[M]
    mark: int = -1

    @property
    def size_bytes(self) -> int:
        """Roughly how much memory it takes."""
        return len(self.closed) + self.state.open.size_bytes + self.state.call_ids.size_bytes


class HistoryRenderer(Protocol[M]):
    """Renders the items of one turn, from where a `RenderState` stands."""

    def add(self, item: Item) -> None:
        """Take the next item."""

    def finish(self) -> RenderedTurn[M]:
        """Return the messages that were closed since the start, and the state after the last item."""


class RendererFactory(Protocol[M]):
    """What `render_history` needs of a dialect: the state that a history starts with, and a renderer for each turn."""

    def start(self) -> RenderState[M]:
        """Return the state before the first item."""

    def renderer(self, state: RenderState[M]) -> HistoryRenderer[M]:
        """Return a renderer that goes on from `state`."""


def render_history(
    history: History, factory: RendererFactory[M], cache: RenderCacheView[RenderedTurn[M]]
) -> list[RenderedTurn[M]]:
    """Render a whole history, oldest turn first; the last element is the new input. Turns in `cache` are reused."""
    state = factory.start()
    turns: list[RenderedTurn[M]] = []
    for turn in path(history.parent):
        rendered = cache.find(turn)
        if rendered is None:
            rendered = _render(factory, state, _items(turn))
            cache.keep(turn, rendered)
        turns.append(rendered)
        state = rendered.state
    turns.append(_render(factory, state, history.input))
    return turns


def render_turn(turn: Turn, factory: RendererFactory[M], cache: RenderCacheView[RenderedTurn[M]]) -> RenderedTurn[M]:
    """Return a turn of a history as rendered. Only what `cache` lacks is rendered: mostly that turn alone."""
    missing: list[Turn] = []
    rendered: RenderedTurn[M] | None = None
    for one in newest_first(turn):
        rendered = cache.find(one)
        if rendered is not None:
            break
        missing.append(one)
    for one in reversed(missing):
        rendered = _render(factory, factory.start() if rendered is None else rendered.state, _items(one))
        cache.keep(one, rendered)
    assert rendered is not None, "there is at least the turn itself"
    return rendered


def render_input(state: RenderState[M], items: Iterable[Item], factory: RendererFactory[M]) -> RenderedTurn[M]:
    """Return the new input of a history as rendered, which goes on from the state after the turns before it."""
    return _render(factory, state, items)


def _items(turn: Turn) -> Iterable[Item]:
    yield from turn.input
    yield from turn.output


def _render(factory: RendererFactory[M], state: RenderState[M], items: Iterable[Item]) -> RenderedTurn[M]:
    renderer = factory.renderer(state)
    for item in items:
        renderer.add(item)
    return renderer.finish()


class ItemOutline(msgspec.Struct, frozen=True):
    """What is read of every item: its type, who speaks, and three fields that calls have, whatever is in them."""

    type: str | None = None
    role: str | None = None
    call_id: Any = None
    name: Any = None
    arguments: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def kind(self) -> str:
        """The type; an input message may leave it out."""
        return self.type or "message"


_outlines = msgspec.json.Decoder(ItemOutline)


class RenderStateBuilder(Generic[M]):
    """What a renderer collects beside the messages, from where the last turn's state stands."""

    def __init__(self, state: RenderState[M], call_ids: CallIdForm) -> None:
        self.call_ids = CallIdMapper(state.call_ids, call_ids)
        self.preamble = state.preamble
        self._warnings = state.warnings
        self._problem = state.problem
        self._seed = state.seed
        self._user_seen = state.user_seen

    def read_head(self, item: Item) -> ItemOutline | None:
        """Read the head of an item and count the item into the seed; None for what is not an item (it is refused)."""
        head = decode(item, _outlines, "input")
        if isinstance(head, Problem):
            self.refuse(head)
            return None
        is_message = head.kind == "message"
        if is_message and head.role != "assistant":
            self.call_ids.end_run()
        if not self._user_seen:
            self._seed = hashlib.sha256(self._seed + item).digest()
            self._user_seen = is_message and head.role == "user"
        return head

    def warn(self, warning: str) -> None:
        """Note that something was left out; each sentence once."""
        if warning not in self._warnings and len(self._warnings) < MAX_WARNINGS:
            more = len(self._warnings) == MAX_WARNINGS - 1
            self._warnings = (*self._warnings, _MORE if more else warning)

    def refuse(self, problem: Problem) -> None:
        """Note why this history cannot be rendered; the first reason stays."""
        self._problem = self._problem or problem

    def build(self, open_message: M) -> RenderState[M]:
        """Return the state that the next turn goes on from."""
        return RenderState(
            open_message,
            self.preamble,
            self._warnings,
            self._problem,
            self._seed,
            self._user_seen,
            self.call_ids.build(),
        )


def close_list(pieces: list[bytes], end: bytes) -> tuple[bytes, ...]:
    """Close the list that the pieces are elements of, each with a comma after it; the last piece may be empty."""
    if not pieces[-1]:
        pieces.pop()
    return (*pieces[:-1], pieces[-1].removesuffix(b","), end)


def cache_key(tenant: str, instructions: msgspec.Raw | None, state: RenderState[M]) -> str:
    """Return a `prompt_cache_key`: the same in every turn of a chain, another for another chain or tenant.

    It is a digest of what the chain starts with. An id would not do: a client that replays its history gets a new chain
    each time.
    """
    digest = hashlib.sha256(tenant.encode("utf-8", "surrogatepass") + b"\0")
    digest.update(b"" if instructions is None else instructions)
    digest.update(b"\0" + state.seed)
    return f"segue-{digest.hexdigest()[:32]}"

"""Items that a client sends although the history that it continues holds them: each is in the history once.

Some clients name the response that they continue and send their whole history again, or send a tool's output again
beside the next one. Three rules say what is a repeat, in this order:

1. The beginning of the input is one if it is the end of the history, item by item. It must hold something that the
   model said: a user may say the same thing twice.
2. An item is one if the history, or the input before it, holds an item with its id and its content.
3. A tool call is one if the history holds that call, by its `call_id` and its content. So is the output of a call whose
   latest output, in the history or the input before it, is the same. Another output of an answered call is refused: a
   call has one, at OpenAI and at Anthropic too. A call that was made again under the same `call_id` is answered anew:
   by the last of its outputs in the input, if those before it are outputs that the history holds.

Where nothing can be a repeat, nothing is looked at. Otherwise the chain is walked once, newest turn first, up to the
turns that hold what is looked for. Not here: references to items (`item_reference`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from segue.history.chains import Turn, lineage
from segue.protocol.codec import decode_value
from segue.protocol.configuration_items import updates_in
from segue.protocol.item_types import (
    ITEM_TYPES,
    ContentPart,
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    ReasoningItem,
    ToolOutputItem,
    TypedItem,
    read_typed_item,
)
from segue.protocol.items import Input, Item, ItemKey, key_of
from segue.protocol.problems import Problem, already_answered


def leave_out_repeats(parent: Turn | None, given: Input) -> Input | Problem:
    """Return the input without the items that the history of `parent`, or the input itself, holds already."""
    if not (given.keys and _may_repeat(parent, given.keys)):
        return given
    repeated = set(range(_overlap(parent, given)))
    keys = [key for key in given.keys if key.place not in repeated]
    held = _HeldItems(parent, keys)
    for key in keys:
        found = held.judge(key, given.items[key.place])
        if isinstance(found, Problem):
            return found
        if found:
            repeated.add(key.place)
    return _without(given, repeated) if repeated else given


def _may_repeat(parent: Turn | None, keys: Sequence[ItemKey]) -> bool:
    """Say whether an item may be a repeat. Of an agent that sends what is new, and of one that sends all, none may."""
    ids = [key.id for key in keys if key.id is not None]
    outputs = [key.call_id for key in keys if key.is_output]
    if len(set(ids)) < len(ids) or len(set(outputs)) < len(outputs):
        return True
    if parent is None:
        return False
    if ids or len(outputs) < len(keys):
        return True
    return not parent.calls.issuperset(outputs) or not parent.answered.isdisjoint(outputs)


def _without(given: Input, left_out: set[int]) -> Input:
    """Return the input without the items at these places."""
    items = tuple(item for index, item in enumerate(given.items) if index not in left_out)
    places = {old: new for new, old in enumerate(index for index in range(len(given.items)) if index not in left_out)}
    keys = tuple(key._replace(place=places[key.place]) for key in given.keys if key.place in places)
    calls = frozenset(key.call_id for key in keys if key.call_id is not None and key.is_call)
    updates = updates_in(items) if given.updates else ()
    return msgspec.structs.replace(given, items=items, keys=keys, calls=calls, updates=updates)


# --- the beginning of the input, and the end of the history ----------------------------------------------------------


def _overlap(parent: Turn | None, given: Input) -> int:
    """Return how many items at the beginning of the input are the end of the history."""
    last = next((key.place for key in reversed(given.keys) if key.by_model), None)
    if parent is None or last is None:
        return 0
    held, behind = _newest_first(parent), False
    for item in reversed(given.items[: last + 1]):
        if not _is_next(held, item, before_call=behind):
            return 0
        behind = key_of(item).is_call
    return last + 1


def _newest_first(parent: Turn) -> Iterator[Item]:
    turn: Turn | None = parent
    while turn is not None:
        yield from _newest_of(turn)
        turn = turn.parent


def _newest_of(turn: Turn) -> Iterator[Item]:
    yield from reversed(turn.output)
    yield from reversed(turn.input)


def _is_next(held: Iterator[Item], item: Item, *, before_call: bool) -> bool:
    """Say whether an item is the next one that is held.

    Clients do not send all reasoning again. Nor do some (CrewAI, agno) send what the model said beside a call.
    """
    for one in held:
        if is_same(one, item):
            return True
        key = key_of(one)
        if key.kind != "reasoning" and not (before_call and key.kind == "message" and key.by_model):
            return False
    return False


# --- single items ----------------------------------------------------------------------------------------------------


class _HeldItems:
    """The items of a chain, and of the input so far, that have an id or a `call_id` of the input."""

    def __init__(self, parent: Turn | None, keys: Sequence[ItemKey]) -> None:
        self._ids = {key.id for key in keys if key.id is not None}
        self._calls = {key.call_id for key in keys if key.call_id is not None and key.is_call}
        self._outputs = {key.call_id for key in keys if key.call_id is not None and key.is_output}
        self._by_id: dict[str, Item] = {}
        self._call: dict[str, Item] = {}  # of the chain
        self._chains_output: dict[str, Item | None] = {}
        self._parent = parent
        self._to_come = Counter(key.call_id for key in keys if key.is_output)
        self._earlier: dict[str, Iterator[Item]] | None = None
        self._made_here: set[str] = set()  # the calls of the input that are none of the chain's
        self._output: dict[str, Item | None] = {}  # None for a call that waits for its output
        turn = parent
        while turn is not None and (self._ids or self._calls or self._outputs):
            self._look_into(turn)
            turn = turn.parent
        self._chains_output.update(self._output)

    def judge(self, key: ItemKey, item: Item) -> bool | Problem:
        """Say whether the next item of the input is a repeat; if not, it is held from now on."""
        held = None if key.id is None else self._by_id.get(key.id)
        if held is not None and is_same(held, item):
            return True
        if key.id is not None:
            self._by_id[key.id] = item
        if key.call_id is None:
            return False
        if key.is_call:
            return self._judge_call(key.call_id, item)
        return self._judge_output(key, key.call_id, item) if key.is_output else False

    def _judge_call(self, call_id: str, item: Item) -> bool:
        held = self._call.get(call_id)
        if held is not None and is_same(held, item):
            self._output[call_id] = self._chains_output.get(call_id)
            return True
        self._output[call_id] = None
        self._made_here.add(call_id)
        return False

    def _judge_output(self, key: ItemKey, call_id: str, item: Item) -> bool | Problem:
        held = self._output.get(call_id)
        self._to_come[call_id] -= 1
        if held is None and self._to_come[call_id] and self._was_kept(call_id, item):
            return True
        if held is None:
            self._output[call_id] = item
            return False
        if is_same(held, item):
            return True
        return already_answered(call_id, key.place) if key.kind in ITEM_TYPES else False

    def _was_kept(self, call_id: str, item: Item) -> bool:
        """Say whether the next output is one of the chain's, of a call that was made before under this `call_id`."""
        if call_id in self._made_here:
            return False
        if self._earlier is None:
            self._earlier = _outputs_under(self._parent, {one for one, count in self._to_come.items() if count})
        return any(is_same(one, item) for one in self._earlier.get(call_id, ()))

    def _look_into(self, turn: Turn) -> None:
        """Take what is looked for from a turn, unless a newer one had it. Items are read only if it has some of it."""
        if not self._outputs.isdisjoint(turn.calls) and self._outputs.isdisjoint(turn.answered):
            waiting = self._outputs & turn.calls
            self._output.update(dict.fromkeys(waiting))
            self._outputs -= waiting
        if (
            self._calls.isdisjoint(turn.calls)
            and self._outputs.isdisjoint(turn.answered)
            and (not self._ids or self._ids.isdisjoint(turn.item_ids))
        ):
            return
        for item in _newest_of(turn):
            if not (self._ids or self._calls or self._outputs):
                return
            self._take(key_of(item), item)

    def _take(self, key: ItemKey, item: Item) -> None:
        if key.id is not None and key.id in self._ids:
            self._ids.discard(key.id)
            self._by_id[key.id] = item
        if key.call_id is None:
            return
        if key.is_call and key.call_id in self._calls:
            self._calls.discard(key.call_id)
            self._call[key.call_id] = item
        if key.call_id in self._outputs:
            self._outputs.discard(key.call_id)
            self._output[key.call_id] = item if key.is_output else None


def _outputs_under(parent: Turn | None, call_ids: set[str | None]) -> dict[str, Iterator[Item]]:
    """Return the chain's outputs under each of these ids, oldest first. Each is given once, however often one asks."""
    found: dict[str, list[Item]] = {}
    for turn in lineage(parent):
        if call_ids.isdisjoint(turn.answered):
            continue
        for item in turn.input:
            key = key_of(item)
            if key.is_output and key.call_id is not None and key.call_id in call_ids:
                found.setdefault(key.call_id, []).append(item)
    return {call_id: iter(outputs) for call_id, outputs in found.items()}


# --- the same item ---------------------------------------------------------------------------------------------------


def is_same(one: Item, other: Item) -> bool:
    """Say whether two items say the same, however each is written."""
    if one == other:
        return True
    key, others = key_of(one), key_of(other)
    if key.kind != others.kind or key.call_id != others.call_id:
        return False
    first, second = read_typed_item(one, key.kind), read_typed_item(other, key.kind)
    if key.kind == "reasoning" or key.kind not in ITEM_TYPES:  # its content may be hidden from the client
        same_id = key.id is not None and key.id == others.id
        return same_id or _said(first, one) == _said(second, other) is not None
    return _said(first, one) == _said(second, other)


def _said(item: TypedItem | Problem | None, raw: Item) -> object:
    """Return what an item says, without how it is written; None if it does not show it."""
    match item:
        case MessageItem():
            return item.role, _content(item.parts())
        case ToolOutputItem():
            return _content(item.parts())
        case ReasoningItem():
            return item.text or None
        case FunctionCallItem() | CustomToolCallItem():
            return item
        case _:  # a type that only the Responses API has
            return decode_value(msgspec.Raw(raw), "input")


def _content(parts: list[ContentPart]) -> object:
    """Return what parts say: text is the same text in one piece or in many."""
    if all(part.type.endswith("text") for part in parts):
        return "".join(part.text or "" for part in parts)
    return [msgspec.structs.replace(part, annotations=None) for part in parts]

"""Writes the events of an item that a Responses server has not sent them of.

Some servers send an item only in their terminal event, or only its `done` event (`whole_item`); others send the deltas
of a text without saying to which item they belong (`UnannouncedItem`). Clients need all events: a stream without them
has no text for those that show it as it comes. The numbers of the events are left to `protocol.turns`. Not here: which
item is missing what (`output_items`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from segue.protocol.codec import encode
from segue.protocol.events import Event, ItemStatus

Json = dict[str, Any]
Group = Literal["content", "summary"]
_GROUPS: tuple[Group, ...] = ("summary", "content")

#: `protocol.turns` gives every event its number.
_UNNUMBERED = -1
_ADDED = "response.output_item.added"
_DONE = "response.output_item.done"


class TextKind(msgspec.Struct, frozen=True):
    """A text that grows by deltas: the item and the list of parts that it stands in, its part and its field there."""

    item: str
    group: Group
    part: str
    field: str


#: By the name of their events, without `.delta` and `.done`.
TEXTS: Mapping[str, TextKind] = MappingProxyType(
    {
        "response.reasoning": TextKind("reasoning", "content", "reasoning_text", "text"),
        "response.output_text": TextKind("message", "content", "output_text", "text"),
        "response.refusal": TextKind("message", "content", "refusal", "refusal"),
        "response.reasoning_summary_text": TextKind("reasoning", "summary", "summary_text", "text"),
        "response.reasoning_text": TextKind("reasoning", "content", "reasoning_text", "text"),
    }
)
#: The name of the events of each part; where there are two, the later one, which is OpenAI's.
NAMES: Mapping[tuple[str, str], str] = MappingProxyType({(kind.group, kind.part): name for name, kind in TEXTS.items()})
#: The field of a call that grows by deltas, and the name of its events, by the type of the item.
CALLS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "function_call": ("arguments", "response.function_call_arguments"),
        "custom_tool_call": ("input", "response.custom_tool_call_input"),
    }
)
#: What an item has before anything of it has come, and what an item that came whole must have.
_EMPTY: Mapping[str, Json] = MappingProxyType(
    {
        "message": {"status": "in_progress", "content": []},
        "reasoning": {"summary": []},
        "function_call": {"status": "in_progress", "arguments": ""},
        "custom_tool_call": {"status": "in_progress", "input": ""},
    }
)
#: The types of events after which an item may end.
_LAST: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "message": ("response.content_part.done",),
        "reasoning": ("response.content_part.done", "response.reasoning_summary_part.done"),
        **{kind: (f"{name}.done",) for kind, (_, name) in CALLS.items()},
    }
)
_TEXT_PART: Json = {"annotations": [], "logprobs": []}


def whole_item(item: Json, index: int) -> list[Event]:
    """Return all events of an item that is `normal`, the last of them its `done` event."""
    return [added(item, index), *(rest_of_item(item, index, "") if item["type"] in _EMPTY else ()), done(item, index)]


def lacks_nothing(kind: str, last: str) -> bool:
    """Tell whether an item of this type may end after an event of type `last`."""
    return kind not in _EMPTY or last in _LAST[kind]


def rest_of_item(item: Json, index: int, last: str) -> list[Event]:
    """Return the events that are missing between `last` and the end of an item; "" means that nothing of it has come.

    Only the last of its parts can be open; what it holds stands in the item itself.
    """
    ident = _text(item.get("id"))
    if item["type"] in CALLS:
        return _rest_of_call(item, index, last)
    if not last:
        parts = [(group, at, part) for group in _GROUPS for at, part in enumerate(_list(item.get(group)))]
        return [event for group, at, part in parts for event in _part(ident, index, group, at, part)]
    group: Group = "summary" if "summary" in last else "content"
    shown = _list(item.get(group))
    events = _part(ident, index, group, len(shown) - 1, shown[-1]) if shown else []
    name, _, step = last.rpartition(".")
    if name in TEXTS:
        return events[-1:] if step == "done" else [event for event in events[1:] if not event.type.endswith(".delta")]
    if last == "response.output_text.annotation.added":
        return events[-2:]
    return events[1:] if last in ("response.content_part.added", "response.reasoning_summary_part.added") else []


def _rest_of_call(item: Json, index: int, last: str) -> list[Event]:
    field, name = CALLS[item["type"]]
    if last not in ("", f"{name}.delta"):
        return []
    place = {"item_id": _text(item.get("id")), "output_index": index}
    text = text_of(item)
    named = {"name": item.get("name")} if item["type"] == "function_call" else {}
    events = [_event(f"{name}.delta", **place, delta=text)] if text and not last else []
    return [*events, _event(f"{name}.done", **place, **named, **{field: text})]


def added(item: Json, index: int) -> Event:
    """Return the event that begins an item: it has nothing in it yet."""
    empty = _EMPTY.get(item["type"], {})
    fields = {name: value for name, value in item.items() if name not in ("encrypted_content", "content", *empty)}
    return _event(_ADDED, output_index=index, item={**fields, **empty})


def done(item: Json, index: int) -> Event:
    """Return the event that ends an item."""
    raw = encode(item)
    return _event(_DONE, raw, output_index=index, item=msgspec.Raw(raw))


def normal(item: Json, ident: str, call_id: str, status: ItemStatus) -> Json | None:
    """Return an item with all that clients rely on, or None if it lacks what cannot be made up: the name of a call.

    `ident` and `call_id` are for an item that has none of its own; `status` is for one that is not said to be cut.
    """
    kind = item["type"]
    known = {**item, "id": _text(item.get("id")) or ident}
    if kind in ("message", *CALLS):
        known["status"] = item["status"] if item.get("status") == "incomplete" else status
    if kind == "message":
        content = item.get("content")
        parts = [{"type": "output_text", "text": content}] if isinstance(content, str) else _list(content)
        known |= {"role": _text(item.get("role")) or "assistant", "content": [_normal_part(part) for part in parts]}
    elif kind == "reasoning":
        known["summary"] = _list(item.get("summary"))
        if not isinstance(known.get("content", []), list):
            del known["content"]
    elif kind in CALLS:
        field, _ = CALLS[kind]
        known |= {"call_id": _text(item.get("call_id")) or call_id, field: text_of(item)}
        return known if _text(item.get("name")) else None
    return known


def _normal_part(part: object) -> object:
    return {**_TEXT_PART, **part} if isinstance(part, dict) and part.get("type") == "output_text" else part


def is_call(item: Json) -> bool:
    """Tell whether an item is a call whose arguments or input grow by deltas."""
    return item.get("type") in tuple(CALLS)


def text_of(item: Json) -> str:
    """Return all text that an item shows: of its parts, or what a call says."""
    kind = item.get("type")
    if kind == "function_call":
        arguments = item.get("arguments")
        return arguments if isinstance(arguments, str) and arguments else encode(arguments or {}).decode()
    if kind == "custom_tool_call":
        return _text(item.get("input"))
    parts = [part for group in _GROUPS for part in _parts(item.get(group))]
    return "".join(_text(part.get("text")) or _text(part.get("refusal")) for part in parts)


def _parts(value: object) -> Sequence[Json]:
    if isinstance(value, str):
        return [{"text": value}]
    return [part for part in _list(value) if isinstance(part, dict)]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


# --- an item whose beginning did not come ----------------------------------------------------------------------------


class UnannouncedItem:
    """A message or reasoning whose events we write, since its deltas came without it, or without its parts.

    `begun`: the upstream has announced it, but none of its parts.
    """

    def __init__(self, kind: str, ident: str, index: int, *, begun: bool = False) -> None:
        self.kind = kind
        self.id = ident
        self.index = index
        self.begun = begun
        self._parts: dict[str, list[Json]] = {"summary": [], "content": []}
        self._name = ""  # of the events of the part that grows
        self._number: object = None  # of that part, as the upstream counts
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        """All that was written."""
        written = {"type": self.kind, **self._parts}
        return text_of(written) + "".join(self._texts)

    def add(self, name: str, number: object, delta: str) -> list[Event]:
        """Write more of a text; `number` says of which part, as the upstream counts them."""
        if not delta:
            return []
        events = [] if self.begun else [self._added()]
        self.begun = True
        if (name, number) != (self._name, self._number):
            events += [*self._end_part(), *self._begin_part(name, number)]
        self._texts.append(delta)
        logprobs: Json = {"logprobs": []} if name == "response.output_text" else {}
        return [*events, _event(f"{name}.delta", **self._place(), delta=delta, **logprobs)]

    def complete(self, name: str, number: object, text: str) -> list[Event]:
        """Write what is missing of a text that the upstream says is whole."""
        grows = (name, number) == (self._name, self._number)
        written = "".join(self._texts) if grows else ""
        return self.add(name, number, text[len(written) :]) if text.startswith(written) else []

    def finish(self, last: Json, status: ItemStatus) -> tuple[list[Event], Json]:
        """End the item. `last` is what the upstream shows of it at the end; its text is what was written or longer."""
        events = [] if self.begun else [self._added()]
        name = self._name or ("response.output_text" if self.kind == "message" else "response.reasoning_summary_text")
        events += self.add(name, self._number if self._name else 0, text_of(last)[len(self.text) :])
        events += self._end_part(_last_part(last))
        others = {name: value for name, value in last.items() if name not in ("content", "summary")}
        shown = {**others, "type": self.kind, "id": self.id}
        if self.kind == "message":
            return events, {**shown, "role": "assistant", "status": status, "content": self._parts["content"]}
        content = {"content": self._parts["content"]} if self._parts["content"] else {}
        return events, {**shown, "summary": self._parts["summary"], **content}

    def _added(self) -> Event:
        role = {"role": "assistant"} if self.kind == "message" else {}
        return added({"id": self.id, "type": self.kind, **role}, self.index)

    def _begin_part(self, name: str, number: object) -> list[Event]:
        self._name, self._number, self._texts = name, number, []
        kind = TEXTS[name]
        return [_part_event("added", self._place(), kind.group, _empty_part(kind))]

    def _end_part(self, shown: Json | None = None) -> list[Event]:
        """End the part that grows; the upstream may have shown it with annotations."""
        if not self._name:
            return []
        kind, text, place = TEXTS[self._name], "".join(self._texts), self._place()
        part = {**_empty_part(kind), kind.field: text}
        if shown is not None and shown.get("type") == kind.part and shown.get(kind.field) == text:
            part |= shown
        events = _end_of_part(self._name, place, kind, part)
        self._parts[kind.group].append(part)
        self._name, self._texts = "", []
        return events

    def _place(self) -> Json:
        group = TEXTS[self._name].group
        return {"item_id": self.id, "output_index": self.index, f"{group}_index": len(self._parts[group])}


# --- parts -----------------------------------------------------------------------------------------------------------


def _part(ident: str, index: int, group: Group, number: int, part: object) -> list[Event]:
    """Return all events of a part; there are none for a part of a type that has no text."""
    kind_of_part = part.get("type") if isinstance(part, dict) else None
    name = NAMES.get((group, kind_of_part)) if isinstance(kind_of_part, str) else None
    if name is None or not isinstance(part, dict) or not isinstance(part.get(TEXTS[name].field), str):
        return []
    kind = TEXTS[name]
    place = {"item_id": ident, "output_index": index, f"{group}_index": number}
    logprobs: Json = {"logprobs": part.get("logprobs") or []} if kind.part == "output_text" else {}
    text = part[kind.field]
    return [
        _part_event("added", place, group, _empty_part(kind)),
        *([_event(f"{name}.delta", **place, delta=text, **logprobs)] if text else []),
        *_end_of_part(name, place, kind, part),
    ]


def _end_of_part(name: str, place: Json, kind: TextKind, part: Json) -> list[Event]:
    """Return the events that follow the last delta of a part."""
    annotations = _list(part.get("annotations"))
    logprobs: Json = {"logprobs": part.get("logprobs") or []} if kind.part == "output_text" else {}
    return [
        *(
            _event("response.output_text.annotation.added", **place, annotation_index=number, annotation=annotation)
            for number, annotation in enumerate(annotations)
        ),
        _event(f"{name}.done", **place, **{kind.field: part[kind.field]}, **logprobs),
        _part_event("done", place, kind.group, part),
    ]


def _part_event(what: str, place: Json, group: Group, part: object) -> Event:
    name = "content_part" if group == "content" else "reasoning_summary_part"
    return _event(f"response.{name}.{what}", **place, part=part)


def _empty_part(kind: TextKind) -> Json:
    return {"type": kind.part, kind.field: "", **(_TEXT_PART if kind.part == "output_text" else {})}


def _last_part(item: Json) -> Json | None:
    parts = _parts(item.get("content")) or _parts(item.get("summary"))
    return parts[-1] if parts else None


def _event(kind: str, item_bytes: bytes = b"", /, **fields: object) -> Event:
    return Event(kind, encode({"type": kind, **fields}), _UNNUMBERED, item_bytes)

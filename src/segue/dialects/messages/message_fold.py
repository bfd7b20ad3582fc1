"""The message that a stream of the Messages API adds up to, as an API without streams would return it.

Every field and block stays as the stream brought it, also one that is not known here: of a delta, texts are joined and
other values replace the earlier one. Not here: who wrote the stream, and what the turn made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from segue.protocol.codec import UNREADABLE, encode

Json = dict[str, Any]

#: Deltas that add to a list: its name in the delta, and in the block.
_LISTS: Mapping[str, tuple[str, str]] = MappingProxyType({"citations_delta": ("citation", "citations")})
_PARTIAL_JSON = "input_json_delta"

_objects = msgspec.json.Decoder(Json)


class _BlockInProgress:
    """One block of the message: what it started with, and the texts that were added, by the names of their fields."""

    def __init__(self, block: Json) -> None:
        self._block = block
        self._texts: dict[str, list[str]] = {}
        self._partial: list[str] = []

    def add(self, delta: Json) -> None:
        kind = str(delta.get("type"))
        if kind == _PARTIAL_JSON:
            self._partial.append(str(delta.get("partial_json") or ""))
            return
        if kind in _LISTS:
            name, field = _LISTS[kind]
            if not isinstance(self._block.get(field), list):
                self._block[field] = []
            self._block[field].append(delta.get(name))
            return
        for name, value in delta.items():
            if name == "type":
                continue
            if isinstance(value, str):
                self._texts.setdefault(name, [str(self._block.get(name) or "")]).append(value)
            else:
                self._block[name] = value

    def value(self) -> Json:
        whole = self._block | {name: "".join(texts) for name, texts in self._texts.items()}
        partial = "".join(self._partial)
        if partial.strip():
            try:
                _objects.decode(partial)
                whole["input"] = msgspec.Raw(partial.encode("utf-8", "replace"))
            except UNREADABLE:
                whole["input"] = {"arguments": partial}  # it was cut off
        return whole


class MessageFold:
    """Takes the data of each event, in their order; `stopped` is true once the message has its end."""

    def __init__(self) -> None:
        self._message: Json = {}
        self._blocks: dict[int, _BlockInProgress] = {}
        self.stopped = False

    def feed(self, data: bytes) -> None:
        """Take one event. What is no event of a message is left out."""
        try:
            event = _objects.decode(data)
        except UNREADABLE:
            return
        match event.get("type"):
            case "message_start":
                self._message = _dict(event.get("message"))
            case "content_block_start":
                self._blocks[self._index(event)] = _BlockInProgress(_dict(event.get("content_block")))
            case "content_block_delta":
                block = self._blocks.get(self._index(event))
                if block is not None:
                    block.add(_dict(event.get("delta")))
            case "message_delta":
                self._end(event)
            case "message_stop":
                self.stopped = True
            case _:
                pass

    @property
    def fields(self) -> Mapping[str, Any]:
        """The message so far, without its content; nothing before it has started."""
        return self._message

    def content(self) -> list[Json]:
        """Return the blocks so far."""
        return [block.value() for _, block in sorted(self._blocks.items())]

    def message(self) -> bytes:
        """Return the message so far."""
        return encode(self._message | {"content": self.content()})

    def _end(self, event: Json) -> None:
        usage = _dict(self._message.get("usage"))
        usage |= {name: value for name, value in _dict(event.get("usage")).items() if value is not None}
        more = {name: value for name, value in event.items() if name not in ("type", "delta", "usage")}
        self._message |= {**_dict(event.get("delta")), **more, "usage": usage}

    def _index(self, event: Json) -> int:
        index = event.get("index")
        return index if isinstance(index, int) else max(self._blocks, default=0)


def _dict(value: object) -> Json:
    return dict(value) if isinstance(value, dict) else {}

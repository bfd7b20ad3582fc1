"""The fold of Anthropic Messages streams: the assistant message as the next request holds it."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import msgspec

from segue.tunnel.folds.json import Compactor, FoldOutput, compact, escaped, event_decoder, is_strict, read_event


class _MessagesFoldDelta(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None


class MessagesFoldEvent(msgspec.Struct):
    """What the fold reads of an event."""

    type: str
    content_block: dict[str, object] | None = None
    delta: _MessagesFoldDelta | None = None


class _BlockLayout(msgspec.Struct, frozen=True):
    """How a block is written: before its pieces, after them, and the deltas that bring pieces."""

    opening: bytes
    closing: bytes
    deltas: tuple[str, ...]


_EVENTS: Final = event_decoder(MessagesFoldEvent)
_READ: Final = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_stop"}
)
#: The events of the API. Those that are not read append nothing.
TYPES: Final = _READ | {"message_delta", "ping", "error"}
_TOOL: Final = _BlockLayout(b"", b"}", ("input_json_delta",))
#: Any other block is written as it began, and takes no deltas.
BLOCKS: Final = MappingProxyType(
    {
        "text": _BlockLayout(b'{"type":"text","text":"', b'"}', ("text_delta",)),
        "thinking": _BlockLayout(b'{"type":"thinking","thinking":"', b'"}', ("thinking_delta", "signature_delta")),
        "tool_use": _TOOL,
        "server_tool_use": _TOOL,
    }
)
_OTHER: Final = _BlockLayout(b"", b"", ())


class MessagesFold:
    """Folds the events of one stream; its blocks come one after the other."""

    def __init__(self, output: FoldOutput) -> None:
        self._output = output
        self._block: _BlockLayout | None = None
        """The open block."""
        self._input_empty = True
        """No piece of a tool's input has arrived; at the end of the block, `_input` is written instead."""
        self._input: object = {}
        self._signed = False
        self._compactor = Compactor()

    def take(self, data: bytes) -> bool:
        """Take the data of an event; return False if it is none of this API."""
        event = read_event(_EVENTS, data)
        if event is None or event.type not in TYPES:
            return False
        if event.type not in _READ:
            return True
        if not is_strict(data):
            return False
        if event.type == "content_block_delta":
            self._take_delta(event.delta or _MessagesFoldDelta())
            return True
        self._end_block()
        if event.type == "message_start":
            self._output.write(b'},{"role":"assistant","content":[')
        elif event.type == "content_block_start" and event.content_block is not None:
            self._begin_block(event.content_block)
        elif event.type == "message_stop":
            self._output.write(b"]}")
        return True

    def _begin_block(self, block: dict[str, object]) -> None:
        kind = block.get("type")
        self._signed = False
        self._compactor = Compactor()
        self._block = BLOCKS.get(kind, _OTHER) if isinstance(kind, str) else _OTHER
        if self._block is _OTHER:
            self._output.write(compact(block))
        elif self._block is _TOOL:
            head = {key: block.get(key) for key in ("type", "id", "name")}
            self._input_empty, self._input = True, block.get("input")
            self._output.write(compact(head)[:-1], b',"input":')
        else:
            text = block.get(str(kind))
            self._output.write(self._block.opening, escaped(text) if isinstance(text, str) else b"")

    def _take_delta(self, delta: _MessagesFoldDelta) -> None:
        if self._block is None or delta.type not in self._block.deltas:
            return
        match delta.type:
            case "text_delta":
                self._output.write(escaped(delta.text or ""))
            case "thinking_delta":
                self._output.write(escaped(delta.thinking or ""))
            case "signature_delta":
                opening = b"" if self._signed else b'","signature":"'
                self._signed = True
                self._output.write(opening, escaped(delta.signature or ""))
            case _ if delta.partial_json:
                self._input_empty = False
                self._output.write(self._compactor.feed(delta.partial_json).encode())
            case _:
                pass

    def _end_block(self) -> None:
        if self._block is None:
            return
        if self._block is _TOOL and self._input_empty:
            self._output.write(compact({} if self._input is None else self._input))
        self._output.write(self._block.closing, b",")
        self._block = None

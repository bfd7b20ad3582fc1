"""The fold of Anthropic Messages streams: the assistant message as the next request holds it."""

from __future__ import annotations

import msgspec

from segue.tunnel.folds.json import Compactor, FoldOutput, compact, escaped


class _MessagesFoldDelta(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""


class _MessagesFoldEvent(msgspec.Struct):
    type: str
    content_block: dict[str, object] = {}
    delta: _MessagesFoldDelta | None = None


_TYPES = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
        "error",
    }
)
#: The text of these blocks comes in pieces; a request writes this before and after it.
_OPENINGS = {
    "text": (b'{"type":"text","text":"', b'"}'),
    "thinking": (b'{"type":"thinking","thinking":"', b'"}'),
}


class MessagesFold:
    """Folds the events of one stream; its blocks come one after the other."""

    def __init__(self, output: FoldOutput) -> None:
        self._output = output
        self._closing: bytes | None = None
        """The end of the open block; None if there is none."""
        self._input_empty = True
        """No piece of a tool's input has arrived; at the end of the block, `_input` is written instead."""
        self._input: object = {}
        self._signed = False
        self._compactor = Compactor()

    def take(self, data: bytes) -> bool:
        """Take the data of an event; return False if it is none of this API."""
        event = msgspec.json.decode(data, type=_MessagesFoldEvent)
        if event.type not in _TYPES:
            return False
        match event.type:
            case "message_start":
                self._end_block()
                self._output.write(b'},{"role":"assistant","content":[')
            case "content_block_start":
                self._end_block()
                self._begin_block(event.content_block)
            case "content_block_delta" if event.delta is not None:
                self._take_delta(event.delta)
            case "content_block_stop":
                self._end_block()
            case "message_stop":
                self._end_block()
                self._output.write(b"]}")
            case _:
                pass
        return True

    def _begin_block(self, block: dict[str, object]) -> None:
        kind = block.get("type")
        self._signed = False
        self._compactor = Compactor()
        if isinstance(kind, str) and kind in _OPENINGS:
            opening, self._closing = _OPENINGS[kind]
            text = block.get(kind)
            self._output.write(opening, escaped(text) if isinstance(text, str) else b"")
        elif kind in {"tool_use", "server_tool_use"}:
            head = {key: block.get(key) for key in ("type", "id", "name")}
            self._input_empty, self._input = True, block.get("input")
            self._closing = b"}"
            self._output.write(compact(head)[:-1], b',"input":')
        else:
            self._closing = b""
            self._output.write(compact(block))

    def _take_delta(self, delta: _MessagesFoldDelta) -> None:
        if self._closing is None:
            return
        match delta.type:
            case "text_delta":
                self._output.write(escaped(delta.text))
            case "thinking_delta":
                self._output.write(escaped(delta.thinking))
            case "signature_delta":
                opening = b"" if self._signed else b'","signature":"'
                self._signed = True
                self._output.write(opening, escaped(delta.signature))
            case "input_json_delta" if delta.partial_json:
                self._input_empty = False
                self._output.write(self._compactor.feed(delta.partial_json).encode())
            case _:
                pass

    def _end_block(self) -> None:
        if self._closing is not None:
            if self._closing == b"}" and self._input_empty:
                self._output.write(compact(self._input))
            self._output.write(self._closing, b",")
        self._closing = None

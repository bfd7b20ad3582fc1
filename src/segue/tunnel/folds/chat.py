"""The fold of Chat Completions streams: the assistant message as the next request holds it."""

from __future__ import annotations

from typing import Final

import msgspec

from segue.tunnel.folds.json import FoldOutput, escaped, event_decoder, is_strict, read_event


class _ChatFoldFunction(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ChatFoldCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _ChatFoldFunction | None = None


class _ChatFoldDelta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ChatFoldCall] | None = None


class _ChatFoldChoice(msgspec.Struct):
    index: int | None = None
    delta: _ChatFoldDelta | None = None
    finish_reason: str | None = None


class ChatFoldChunk(msgspec.Struct):
    """What the fold reads of a chunk."""

    choices: list[_ChatFoldChoice]


_CHUNKS: Final = event_decoder(ChatFoldChunk)
_DONE: Final = b"[DONE]"


class ChatFold:
    """Folds the chunks of one stream. A string stays open as long as pieces of it arrive."""

    def __init__(self, output: FoldOutput) -> None:
        self._output = output
        self._choice: int | None = None
        self._open: str | None = None
        """The field of the message that is being written; for a tool call, `call` and its index."""
        self._call_id = ""

    def take(self, data: bytes) -> bool:
        """Take the data of an event; return False if it is no chunk."""
        if data == _DONE:
            return True
        chunk = read_event(_CHUNKS, data)
        if chunk is None or not is_strict(data):
            return False
        for choice in chunk.choices:
            if choice.delta is not None:
                self._take_delta(choice.index or 0, choice.delta)
            if choice.finish_reason:
                self._end()
        return True

    def _take_delta(self, choice: int, delta: _ChatFoldDelta) -> None:
        for field, text in (
            ("reasoning_content", delta.reasoning_content),
            ("reasoning", delta.reasoning),
            ("content", delta.content),
            ("refusal", delta.refusal),
        ):
            if text:
                self._switch(choice, field, f'"{field}":"'.encode())
                self._output.write(escaped(text))
        for call in delta.tool_calls or ():
            self._take_call(choice, call)

    def _take_call(self, choice: int, call: _ChatFoldCall) -> None:
        function = call.function or _ChatFoldFunction()
        # some servers give every call the index 0 or none, others repeat the id in each piece
        is_new = bool(call.id) and call.id != self._call_id
        field = f"call {call.index or 0}"
        if is_new or self._open != field or self._choice != choice:
            if is_new and self._open == field:
                self._open = "call"
            self._switch(
                choice,
                field,
                b'{"id":"%b","type":"function","function":{"name":"%b","arguments":"'
                % (escaped(call.id or ""), escaped(function.name or "")),
            )
            self._call_id = call.id or ""
        self._output.write(escaped(function.arguments or ""))

    def _switch(self, choice: int, field: str, opening: bytes) -> None:
        """Open a field, and close the one before it."""
        if self._open == field and self._choice == choice:
            return
        is_call = field.startswith("call")
        if self._open is None or self._choice != choice:
            self._end()
            self._output.write(b',{"role":"assistant",')
            if is_call:
                self._output.write(b'"content":null,"tool_calls":[')
        elif not self._open.startswith("call"):
            self._output.write(b'","tool_calls":[' if is_call else b'",')
        else:
            self._output.write(b'"}},' if is_call else b'"}}],')
        self._choice, self._open = choice, field
        self._output.write(opening)

    def _end(self) -> None:
        if self._open is not None:
            self._output.write(b'"}}]}' if self._open.startswith("call") else b'"}')
        self._open, self._call_id = None, ""

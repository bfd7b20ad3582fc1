"""Separates the messages of a model that writes in channels, as gpt-oss does: pure.

Such a model writes one message or several, each with a header that ends with `<|message|>`. The header names a channel:
`analysis` for thoughts, `commentary` for words about what it does, `final` for the answer. A header with a recipient
(`to=functions.NAME`) begins a call. There are several spellings of that, so the parser writes it as the model's call
format has it. The prompt ends within the first header. Text without a header is the answer. Not here: calls
(`tool_call_parser`), and models that write thoughts between two markers (`reasoning_parser`).
"""

from __future__ import annotations

import re
from typing import Literal

from segue.engine.output.reasoning_parser import ReasonedPart, ReasoningPhase, ReasoningPiece
from segue.engine.prompt.chat_template import CallFormat

_START, _CHANNEL, _MESSAGE, _END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
_RECIPIENT = "to="
_CALL = re.compile(r"\bto=functions\.([^\s<]+)")
_NAME = re.compile(r"<\|channel\|>\s*(\w+)")
#: No header is longer, if the name of a function in it is not.
_LONGEST_HEADER = 256
_BETWEEN = "\n\n"
_State = Literal["header", "thinking", "commenting", "answering"]


class ChannelParser:
    """Reads one answer; calls come out in `call_format`."""

    def __init__(self, call_format: CallFormat) -> None:
        self._format = call_format
        self._held = ""
        self._state: _State = "header"
        self._thought = self._commented = False  # whether there was any such message
        self._lead = ""  # parts the message that begins from the last one of its channel

    @property
    def phase(self) -> ReasoningPhase:
        """What the model does; it is undecided within a header."""
        if self._state == "header":
            return "undecided"
        return "thinking" if self._state == "thinking" else "answering"

    @property
    def over(self) -> bool:
        """Whether all that follows is text of the answer, or a call."""
        return self._state == "answering"

    @property
    def held_text(self) -> str:
        """What is held back of words for the user."""
        return self._held if self._state == "commenting" else ""

    def feed(self, text: str) -> list[ReasonedPart]:
        """Add what the model wrote; return the parts that are clear now."""
        if self._state == "answering":
            return [text]
        self._held += text
        parts: list[ReasonedPart] = []
        state: _State | None = None
        while self._state not in {state, "answering"}:
            state = self._state
            parts += self._read_header() if state == "header" else self._read_body()
        return parts

    def close(self) -> list[ReasonedPart]:
        """Return what is still held back at the end of the answer."""
        left, self._held = self._held, ""
        if self._state == "header" and left.lstrip().startswith((_START, _CHANNEL)):
            return []  # a header that leads to nothing
        return self._part(left)

    def _read_header(self) -> list[ReasonedPart]:
        header, found, behind = self._held.partition(_MESSAGE)
        if not found:
            return [] if _may_be_header(header) else self._answer(header)
        self._held = ""
        call, name = _CALL.search(header), _NAME.search(header)
        if call is not None:
            self._state = "answering"
            return [self._format.prefix + call[1] + self._format.middle + behind]
        match name[1] if name is not None else "":
            case "analysis":
                self._begin("thinking", behind, lead=self._thought)
            case "commentary":
                self._begin("commenting", behind, lead=self._commented)
            case _:
                return self._answer(behind)
        return []

    def _begin(self, state: Literal["thinking", "commenting"], text: str, *, lead: bool) -> None:
        self._state, self._held, self._lead = state, text, _BETWEEN if lead else ""

    def _answer(self, text: str) -> list[ReasonedPart]:
        self._state, self._held = "answering", ""
        begun = (_BETWEEN if self._commented else "") + text
        return [begun] if begun else []

    def _read_body(self) -> list[ReasonedPart]:
        text, found, behind = self._held.partition(_END)
        length = len(text) if found else _clear(text)
        parts = self._part(text[:length])
        self._held = behind if found else text[length:]
        if found:
            self._state = "header"
        return parts

    def _part(self, text: str) -> list[ReasonedPart]:
        """Return a piece of the message that the model is at, if there is any."""
        if not text:
            return []
        text, self._lead = self._lead + text, ""
        if self._state == "thinking":
            self._thought = True
            return [ReasoningPiece(text)]
        self._commented = True
        return [text]


def _may_be_header(text: str) -> bool:
    """Return whether a text may be the beginning of a header."""
    begun = text.lstrip()
    known = any(begun.startswith(one) or one.startswith(begun) for one in (_START, _CHANNEL, _RECIPIENT))
    return known and len(text) <= _LONGEST_HEADER


def _clear(text: str) -> int:
    """Return how much of a text cannot be the beginning of the end of its message."""
    for length in range(min(len(_END) - 1, len(text)), 0, -1):
        if text.endswith(_END[:length]):
            return len(text) - length
    return len(text)

"""Separates what a model thinks from what it answers: pure.

Reasoning models write their thoughts between two markers at the beginning of an answer; which ones, the chat template
tells, since it writes or cuts off the thoughts of earlier answers. Some templates end a prompt with the first marker:
the answer then begins within the thoughts. Blank lines around the thoughts belong to neither. Text that may be the
beginning of a marker is held back until that is clear. Not here: calls, which may follow the thoughts
(`tool_call_parser`), models that write in channels (`channel_parser`), and where thoughts go in a later prompt
(`prompt.chat_template`).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from segue.engine.prompt.chat_template import ReasoningFormat


class ReasoningPiece(msgspec.Struct, frozen=True):
    """A piece of the reasoning."""

    text: str


#: A string is a piece of the answer.
ReasonedPart: TypeAlias = ReasoningPiece | str
#: Behind thoughts there may be blank lines, which belong to neither. It is undecided where a marker may still come.
ReasoningPhase = Literal["undecided", "thinking", "behind", "answering"]


class ReasoningParser:
    """Reads one answer in a format. `begun`: the prompt ends with the first marker."""

    def __init__(self, reasoning_format: ReasoningFormat, *, begun: bool) -> None:
        self._format = reasoning_format
        self._held = ""
        self._any_thought = False
        self._state: ReasoningPhase = "thinking" if begun else "undecided"

    @property
    def phase(self) -> ReasoningPhase:
        """What the model does."""
        return self._state

    @property
    def over(self) -> bool:
        """Whether all that follows is text of the answer."""
        return self._state == "answering"

    @property
    def held_text(self) -> str:
        """What is held back of the text of the answer: nothing, once it has begun."""
        return ""

    def feed(self, text: str) -> list[ReasonedPart]:
        """Add what the model wrote; return the parts that are clear now."""
        if self._state == "answering":
            return [text]
        self._held += text
        parts: list[ReasonedPart] = []
        if self._state == "undecided":
            self._find_opening()
        if self._state == "thinking":
            parts += self._read_thought()
        if self._state == "behind":
            self._held = self._held.lstrip()
            self._state = "answering" if self._held else "behind"
        if self._state == "answering" and self._held:
            parts.append(self._held)
            self._held = ""
        return parts

    def close(self) -> list[ReasonedPart]:
        """Return what is still held back at the end of the answer."""
        left, self._held = self._held, ""
        if self._state == "thinking":
            return self._thought(left.rstrip())
        return [left] if left and self._state != "behind" else []

    def _find_opening(self) -> None:
        opening, text = self._format.opening, self._held.lstrip()
        if text.startswith(opening):
            self._held = text[len(opening) :]
            self._state = "thinking"
        elif not opening.startswith(text):
            self._state = "answering"

    def _read_thought(self) -> list[ReasonedPart]:
        closing = self._format.closing
        text, found, behind = self._held.partition(closing)
        if found:
            self._held = behind
            self._state = "behind"
            return self._thought(text.rstrip())
        clear = len(text)
        for length in range(min(len(closing) - 1, len(text)), 0, -1):
            if text.endswith(closing[:length]):
                clear -= length
                break
        kept = text[:clear].rstrip()  # what is blank may be the end
        self._held = text[len(kept) :]
        return self._thought(kept)

    def _thought(self, text: str) -> list[ReasonedPart]:
        text = text if self._any_thought else text.lstrip()
        self._any_thought = self._any_thought or bool(text)
        return [ReasoningPiece(text)] if text else []

"""The fold of Gemini streams (`streamGenerateContent?alt=sse`): the model's content as the next request holds it."""

from __future__ import annotations

from typing import Final

import msgspec

from segue.tunnel.folds.json import FoldOutput, compact, escaped, event_decoder, is_strict, read_event


class _GeminiFoldContent(msgspec.Struct):
    parts: list[dict[str, object]] | None = None


class _GeminiFoldCandidate(msgspec.Struct):
    content: _GeminiFoldContent | None = None
    finishReason: str | None = None  # noqa: N815 - the wire's own word


class GeminiFoldChunk(msgspec.Struct):
    """What the fold reads of a chunk."""

    candidates: list[_GeminiFoldCandidate]


_CHUNKS: Final = event_decoder(GeminiFoldChunk)
_TEXT: Final = b'{"text":"'
_THOUGHT: Final = b'{"thought":true,"text":"'


class GeminiFold:
    """Folds the chunks of one stream; texts that follow each other are one part in the next request."""

    def __init__(self, output: FoldOutput) -> None:
        self._output = output
        self._begun = False
        self._open: bytes | None = None
        """The opening of the text part that is open."""

    def take(self, data: bytes) -> bool:
        """Take the data of an event; return False if it is no chunk."""
        chunk = read_event(_CHUNKS, data)
        if chunk is None or not is_strict(data):
            return False
        for candidate in chunk.candidates:
            for part in (candidate.content and candidate.content.parts) or ():
                self._take_part(part)
            if candidate.finishReason and self._begun:
                self._end_text()
                self._output.write(b"]}")
                self._begun = False
        return True

    def _take_part(self, part: dict[str, object]) -> None:
        text = part.get("text")
        others = {key: value for key, value in part.items() if key not in {"text", "thought"}}
        if text == "" and not others:
            return
        if not self._begun:
            self._begun = True
            self._output.write(b'},{"role":"model","parts":[')
        if not isinstance(text, str):
            self._end_text()
            self._output.write(compact(part), b",")
            return
        opening = _THOUGHT if part.get("thought") is True else _TEXT
        if self._open != opening:
            self._end_text()
            self._open = opening
            self._output.write(opening)
        self._output.write(escaped(text))
        if others:  # a signature ends the text it signs
            self._open = None
            self._output.write(b'",', compact(others)[1:], b",")

    def _end_text(self) -> None:
        if self._open is not None:
            self._output.write(b'"},')
        self._open = None

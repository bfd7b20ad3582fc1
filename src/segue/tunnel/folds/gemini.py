"""The fold of Gemini streams (`streamGenerateContent?alt=sse`): the model's content as the next request holds it."""

from __future__ import annotations

import msgspec

from segue.tunnel.folds.json import FoldOutput, compact, escaped


class _GeminiContent(msgspec.Struct):
    parts: list[dict[str, object]] = []


class _GeminiCandidate(msgspec.Struct):
    content: _GeminiContent | None = None
    finishReason: str | None = None  # noqa: N815 - the wire's own word


class _GeminiChunk(msgspec.Struct):
    candidates: list[_GeminiCandidate]


class GeminiFold:
    """Folds the chunks of one stream; texts that follow each other are one part in the next request."""

    def __init__(self, output: FoldOutput) -> None:
        self._output = output
        self._begun = False
        self._open: bytes | None = None
        """The opening of the text part that is open."""

    def take(self, data: bytes) -> bool:
        """Take the data of an event; return False if it is no chunk."""
        chunk = msgspec.json.decode(data, type=_GeminiChunk)
        for candidate in chunk.candidates:
            if candidate.content is not None:
                for part in candidate.content.parts:
                    self._take_part(part)
            if candidate.finishReason is not None and self._begun:
                self._end_text()
                self._output.write(b"]}")
                self._begun = False
        return True

    def _take_part(self, part: dict[str, object]) -> None:
        text = part.pop("text", None)
        if text == "" and not part:
            return
        if not self._begun:
            self._begun = True
            self._output.write(b'},{"role":"model","parts":[')
        if not isinstance(text, str):
            self._end_text()
            self._output.write(compact(part), b",")
            return
        opening = b'{"thought":true,"text":"' if part.pop("thought", None) is True else b'{"text":"'
        if self._open != opening:
            self._end_text()
            self._open = opening
            self._output.write(opening)
        self._output.write(escaped(text))
        if part:  # a signature ends the text it signs
            self._open = None
            self._output.write(b'",', compact(part)[1:], b",")

    def _end_text(self) -> None:
        if self._open is not None:
            self._output.write(b'"},')
        self._open = None

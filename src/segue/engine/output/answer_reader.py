"""From the tokens of an answer to what a client gets of it: pure.

Bytes become text (`vocabulary`), text becomes text for the user and calls (`calls`), the text ends where a stop stands
(`stops`), and goes out with the log probabilities of its tokens where they were asked for (`logprobs`). Each of these
may hold back what it cannot tell yet. Not here: which token comes next (`worker`).
"""

from __future__ import annotations

from collections.abc import Iterable

from segue.engine.output.detokenizer import TextDecoder
from segue.engine.output.logprobs import Alignment, Score, ScoredText
from segue.engine.output.stop_sequences import Stops
from segue.engine.output.tool_call_parser import Answering, Part
from segue.engine.sampling_params import Wishes


class AnswerReader:
    """Reads one answer."""

    def __init__(self, answering: Answering, wishes: Wishes) -> None:
        self._answering = answering
        self._decoder = TextDecoder()
        self._stops = Stops(wishes.stops) if wishes.stops else None
        self._top = wishes.top_logprobs
        self._alignment = None if self._top is None else Alignment()

    @property
    def stopped(self) -> bool:
        """Whether a stop has ended the answer; nothing is fed then any more."""
        return self._stops is not None and self._stops.found

    @property
    def top_logprobs(self) -> int | None:
        """How many likely tokens to score with the next one; None: no score is wanted, as of the tokens of calls."""
        return None if self._answering.calling else self._top

    def feed(self, piece: bytes, score: Score | None = None) -> list[Part | ScoredText]:
        """Add the bytes of one token, with its score where that is wanted; return what it comes to."""
        if self._alignment is not None and score is not None:
            self._alignment.wrote(piece, score)
        text = self._decoder.feed(piece)
        return self._pass(self._answering.feed(text)) if text else []

    def close(self) -> list[Part | ScoredText]:
        """Return what was still held back at the end of the answer."""
        left = [] if self.stopped else self._answering.close()
        return [*self._pass(left), *self._end_text()]

    def _pass(self, parts: Iterable[Part]) -> list[Part | ScoredText]:
        passed: list[Part | ScoredText] = []
        for part in parts:
            if not isinstance(part, str):
                passed += [*self._end_text(), part]
                continue
            passed += self._text(part if self._stops is None else self._stops.feed(part))
            if self.stopped:
                return [*passed, *self._end_text()]
        return passed

    def _text(self, text: str) -> list[str] | list[ScoredText]:
        if not text:
            return []
        return [text] if self._alignment is None else self._alignment.passed(text)

    def _end_text(self) -> list[Part | ScoredText]:
        """Give out what of the text was held back: it does not go on."""
        held = "" if self._stops is None else self._stops.close()
        return [*self._text(held), *(() if self._alignment is None else self._alignment.end())]

"""From the sampled tokens of an answer to what a client gets: pure.

The detokenizer turns bytes into text, the reasoning parser separates what the model thinks, the tool call parser splits
the rest into text for the user and calls, the text ends at the first stop sequence, and it goes out with the log
probabilities of its tokens if the request asks for them. Each step may hold back what is not clear yet. Not here: which
token comes next (`worker`).
"""

from __future__ import annotations

from collections.abc import Iterable

from segue.engine.output.channel_parser import ChannelParser
from segue.engine.output.detokenizer import Detokenizer
from segue.engine.output.logprobs import UNSCORED, LogprobAlignment, Score, ScoredText
from segue.engine.output.reasoning_parser import ReasonedPart, ReasoningParser, ReasoningPiece
from segue.engine.output.stop_sequences import StopSequences
from segue.engine.output.tool_call_parser import AnswerPart, ToolCallParser
from segue.engine.sampling_params import SamplingParams


class AnswerReader:
    """Reads one answer; `reasoning` is for that of a model that may think first."""

    def __init__(
        self,
        parser: ToolCallParser,
        sampling_params: SamplingParams,
        reasoning: ReasoningParser | ChannelParser | None = None,
    ) -> None:
        self._parser = parser
        self._reasoning = reasoning
        #: How many tokens of the answer were thoughts, with their markers.
        self.reasoning_tokens = 0
        self._undecided_tokens = 0  # they may be the first marker
        self._decoder = Detokenizer()
        self._stops = StopSequences(sampling_params.stops) if sampling_params.stops else None
        self._top = sampling_params.top_logprobs
        self._alignment = None if self._top is None else LogprobAlignment()

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence has ended the answer; do not feed more tokens then."""
        return self._stops is not None and self._stops.found

    @property
    def top_logprobs(self) -> int | None:
        """How many of the likeliest tokens to score with the next one; None: none at all, as within calls."""
        thinking = self._reasoning is not None and self._reasoning.phase == "thinking"
        return None if thinking or self._parser.calling else self._top

    def feed(self, piece: bytes, score: Score | None = None) -> list[AnswerPart | ScoredText | ReasoningPiece]:
        """Add the bytes of one token, with a score if `top_logprobs` asks for it; return the parts that are clear."""
        reasoning = self._reasoning
        if reasoning is not None and not reasoning.over:
            return self._feed_thoughts(reasoning, piece, score)
        if self._alignment is not None and score is not None:
            self._alignment.add_token(piece, score)
        text = self._decoder.feed(piece)
        return [*self._pass(self._parser.feed(text))] if text else []

    def close(self) -> list[AnswerPart | ScoredText | ReasoningPiece]:
        """Return what is still held back at the end of the answer."""
        held = [] if self._reasoning is None else self._answer(self._reasoning.close())
        left = [] if self.stopped else self._parser.close()
        return [*held, *self._pass(left), *self._end_text()]

    def _feed_thoughts(
        self, reasoning: ReasoningParser | ChannelParser, piece: bytes, score: Score | None
    ) -> list[AnswerPart | ScoredText | ReasoningPiece]:
        """Add a token where there may be thoughts; only tokens of the text are scored."""
        if self._alignment is not None:
            self._alignment.add_token(piece, score or UNSCORED)
        parts = reasoning.feed(self._decoder.feed(piece))
        if reasoning.phase == "undecided":
            self._undecided_tokens += 1
            return self._answer(parts)
        if reasoning.phase != "answering":
            self.reasoning_tokens += 1 + self._undecided_tokens
        self._undecided_tokens = 0
        if self._alignment is not None:  # a token may end a thought, or a blank line, and begin the text
            texts = [part for part in parts if isinstance(part, str)]
            self._alignment.keep_last(len("".join([*texts, reasoning.held_text]).encode()))
        return self._answer(parts)

    def _answer(self, parts: Iterable[ReasonedPart]) -> list[AnswerPart | ScoredText | ReasoningPiece]:
        read: list[AnswerPart | ScoredText | ReasoningPiece] = []
        for part in parts:
            read += [part] if isinstance(part, ReasoningPiece) else self._pass(self._parser.feed(part))
        return read

    def _pass(self, parts: Iterable[AnswerPart]) -> list[AnswerPart | ScoredText]:
        passed: list[AnswerPart | ScoredText] = []
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
        return [text] if self._alignment is None else self._alignment.release(text)

    def _end_text(self) -> list[AnswerPart | ScoredText]:
        """Give out the text that is held back, since no more text follows."""
        held = "" if self._stops is None else self._stops.close()
        return [*self._text(held), *(() if self._alignment is None else self._alignment.end())]

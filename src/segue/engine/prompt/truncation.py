"""From a conversation to the tokens of a prompt that fits into the model's context: pure.

`truncation="disabled"` refuses what is too long. `"auto"` leaves out the oldest turns of the chain, whole, as few as
will do to leave room for an answer; the instructions and the new input always stay. A client that sends its history as
input has nothing that may be left out. Text is turned into tokens newest first and no further than needed, so that a
history many times too long costs no more than one that fits.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

import msgspec

from segue.engine.prompt.chat_template import Segment
from segue.engine.prompt.messages import Conversation, Message
from segue.protocol.problems import Problem, Refused

#: How many times the context's length is counted exactly for an error message; beyond that it says "more than".
COUNTED_CONTEXTS = 4
#: Longer texts are turned into tokens in pieces, so that work on hostile ones can be given up in between.
PIECE_CHARACTERS = 16_384

#: Turn a stretch of text into tokens; `control` says whether control tokens are recognised in it. May raise to give up.
Tokenizer = Callable[[str, bool], Sequence[int]]
#: Write messages as the segments of a prompt that ends where the answer begins.
Writer = Callable[[Sequence[Message]], Sequence[Segment]]


class Limits(msgspec.Struct, frozen=True):
    """`context` is what input and output share, in tokens; `room` what truncation tries to leave for the output."""

    context: int
    room: int


class Fitted(msgspec.Struct, frozen=True):
    """The prompt's tokens, and how many turns were left out to make them fit."""

    tokens: list[int]
    dropped_turns: int = 0


class Fitting:
    """Fits one conversation; the tokens of a text are computed once, however often it is tried with fewer turns."""

    def __init__(self, writer: Writer, tokenizer: Tokenizer, limits: Limits) -> None:
        self._writer = writer
        self._tokenizer = tokenizer
        self._limits = limits
        self._known: dict[Segment, list[int]] = {}

    def fit(self, conversation: Conversation, truncation: str) -> Fitted:
        """Return the tokens, or raise `Refused`."""
        dropped = 0
        if truncation == "auto":
            most = len(conversation.turns)
            target = self._limits.context - self._limits.room
            # fewer turns never make more tokens, so the least number to drop is found by bisection
            dropped = bisect_left(
                range(most), x=True, key=lambda count: self._count(conversation.without(count), target) <= target
            )
        messages = conversation.without(dropped)
        tokens = self._tokens(messages, COUNTED_CONTEXTS * self._limits.context)
        if len(tokens) >= self._limits.context:  # at least one token of output must fit
            raise Refused(too_long(len(tokens), self._limits.context))
        return Fitted(tokens, dropped)

    def _count(self, messages: Sequence[Message], enough: int) -> int:
        return len(self._tokens(messages, enough))

    def _tokens(self, messages: Sequence[Message], enough: int) -> list[int]:
        """Return the tokens; once there are more than `enough`, only the newest of them."""
        newest_first: list[list[int]] = []
        count = 0
        for segment in reversed(self._writer(messages)):
            tokens = self._segment(segment, enough)
            newest_first.append(tokens)
            count += len(tokens)
            if count > enough:
                break
        return [token for tokens in reversed(newest_first) for token in tokens]

    def _segment(self, segment: Segment, enough: int) -> list[int]:
        known = self._known.get(segment)
        if known is None:
            known = to_tokens(segment, self._tokenizer, enough)
            if len(known) <= enough:
                self._known[segment] = known
        return known


def to_tokens(segment: Segment, tokenizer: Tokenizer, enough: int) -> list[int]:
    """Return the tokens of a segment; once there are more than `enough`, only the first of them."""
    tokens: list[int] = []
    for piece in pieces(segment.text):
        tokens += tokenizer(piece, segment.control)
        if len(tokens) > enough:
            break
    return tokens


def too_long(count: int, context: int) -> Problem:
    """The input does not fit; `count` is exact up to `COUNTED_CONTEXTS` times the context."""
    counted = f"{count}" if count <= COUNTED_CONTEXTS * context else f"more than {COUNTED_CONTEXTS * context}"
    message = (
        f"The input has {counted} tokens, but the context of this model holds {context}, the answer included. "
        "Shorten the input, or continue a response with truncation set to 'auto'."
    )
    return Problem("context_length_exceeded", message, "input")


def pieces(text: str, size: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Cut a text before a space, where words begin for a tokenizer, into pieces of at most `size` characters."""
    start = 0
    while len(text) - start > size:
        cut = text.rfind(" ", start + 1, start + size)
        cut = start + size if cut < 0 else cut
        yield text[start:cut]
        start = cut
    yield text[start:]

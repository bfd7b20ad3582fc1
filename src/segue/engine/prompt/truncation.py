"""Truncation: from a conversation to the tokens of a prompt that fits into the model's context. Pure.

`truncation="disabled"` refuses a conversation that is too long. `"auto"` drops whole turns of the chain, oldest first,
as few as leave room for an answer; the instructions and the new input always stay. If a client sends its history as
input, there is nothing to drop. Text is tokenized newest first and no further than needed, so a history many times too
long costs no more than one that fits. Not here: how messages become segments (`chat_template`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

import msgspec

from segue.engine.prompt.chat_template import Segment
from segue.engine.prompt.messages import Conversation, PromptMessage
from segue.protocol.problems import Problem, Refused

#: An error message counts the tokens exactly up to this many contexts; beyond that it says "more than".
COUNTED_CONTEXTS = 4
#: Longer texts are tokenized in pieces, so that work on a hostile one can be stopped in between.
PIECE_CHARACTERS = 16_384

#: Turn a text into tokens; the flag says if control tokens are recognised in it. May raise to stop the work.
Tokenizer = Callable[[str, bool], Sequence[int]]
#: Write messages as the segments of a prompt that ends where the answer begins.
Writer = Callable[[Sequence[PromptMessage]], Sequence[Segment]]


class ContextLimits(msgspec.Struct, frozen=True):
    """In tokens: input and output share `context`, and truncation tries to leave `room` for the output."""

    context: int
    room: int


class TruncatedPrompt(msgspec.Struct, frozen=True):
    """The tokens of a prompt, how many turns were dropped to make it fit, and the messages that are left."""

    tokens: list[int]
    dropped_turns: int = 0
    messages: Sequence[PromptMessage] = ()


class Truncation:
    """Makes the prompt of one conversation; each text is tokenized once, however many numbers of turns are tried."""

    def __init__(self, writer: Writer, tokenizer: Tokenizer, limits: ContextLimits) -> None:
        self._writer = writer
        self._tokenizer = tokenizer
        self._limits = limits
        self._known: dict[Segment, list[int]] = {}

    def apply(self, conversation: Conversation, truncation: str) -> TruncatedPrompt:
        """Return the tokens, or raise `Refused`."""
        dropped = 0
        if truncation == "auto":
            most = len(conversation.turns)
            target = self._limits.context - self._limits.room
            # fewer turns never make more tokens, so bisection finds the least number to drop
            dropped = bisect_left(
                range(most), x=True, key=lambda count: self._count(conversation.without(count), target) <= target
            )
        messages = conversation.without(dropped)
        tokens = self._tokens(messages, COUNTED_CONTEXTS * self._limits.context)
        if len(tokens) >= self._limits.context:  # at least one token of output must fit
            raise Refused(too_long(len(tokens), self._limits.context))
        return TruncatedPrompt(tokens, dropped, messages)

    def count(self, conversation: Conversation) -> int:
        """Return how many tokens a whole conversation has; the number is exact up to `COUNTED_CONTEXTS` contexts."""
        return self._count(conversation.without(0), COUNTED_CONTEXTS * self._limits.context)

    def _count(self, messages: Sequence[PromptMessage], limit: int) -> int:
        return len(self._tokens(messages, limit))

    def _tokens(self, messages: Sequence[PromptMessage], limit: int) -> list[int]:
        """Return the tokens; if there are more than `limit`, only the newest."""
        newest_first: list[list[int]] = []
        count = 0
        for segment in reversed(self._writer(messages)):
            tokens = self._segment(segment, limit)
            newest_first.append(tokens)
            count += len(tokens)
            if count > limit:
                break
        return [token for tokens in reversed(newest_first) for token in tokens]

    def _segment(self, segment: Segment, limit: int) -> list[int]:
        known = self._known.get(segment)
        if known is None:
            known = to_tokens(segment, self._tokenizer, limit)
            if len(known) <= limit:
                self._known[segment] = known
        return known


def to_tokens(segment: Segment, tokenizer: Tokenizer, limit: int) -> list[int]:
    """Return the tokens of a segment; if there are more than `limit`, only the first."""
    tokens: list[int] = []
    for piece in pieces(segment.text):
        tokens += tokenizer(piece, segment.control)
        if len(tokens) > limit:
            break
    return tokens


def too_long(count: int, context: int) -> Problem:
    """Return the problem of an input that does not fit; `count` is exact up to `COUNTED_CONTEXTS` contexts."""
    counted = f"{count}" if count <= COUNTED_CONTEXTS * context else f"more than {COUNTED_CONTEXTS * context}"
    message = (
        f"The input has {counted} tokens, but the context of this model holds {context}, the answer included. "
        "Shorten the input, or continue a response with truncation set to 'auto'."
    )
    return Problem("context_length_exceeded", message, "input")


def pieces(text: str, size: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Cut a text into pieces of at most `size` characters, before spaces, where tokenizers begin a word."""
    start = 0
    while len(text) - start > size:
        cut = text.rfind(" ", start + 1, start + size)
        cut = start + size if cut < 0 else cut
        yield text[start:cut]
        start = cut
    yield text[start:]

"""A turn on its way through the engine: the request, and an outbox of updates.

The engine's thread puts updates into the outbox, and wakes the owner; more updates do not wake it again until it takes
them. The context of the model bounds how much an outbox can hold. Nothing here knows
asyncio: the owner passes a function that wakes it. Not here: what the engine does with a job (`worker`).
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeAlias

import msgspec

from segue.engine.grammar.json_schema import GrammarError
from segue.engine.output.answer_reader import AnswerReader
from segue.engine.output.channel_parser import ChannelParser
from segue.engine.output.logprobs import ScoredText
from segue.engine.output.reasoning_parser import ReasoningParser, ReasoningPiece
from segue.engine.output.tool_call_parser import AnswerPart, ToolCallParser
from segue.engine.prompt.rendering import Prompt
from segue.engine.sampling_params import DEFAULT_SAMPLING_PARAMS, SamplingParams
from segue.protocol.problems import Problem
from segue.upstreams.interface import UpstreamRequest


class TurnBegan(msgspec.Struct, frozen=True):
    """The turn began. Of the `input_tokens` of its prompt, `cached_tokens` were computed already."""

    input_tokens: int
    cached_tokens: int = 0


class TurnFinished(msgspec.Struct, frozen=True):
    """The answer is over. `complete`: the model or a stop sequence ended it; otherwise it reached a limit of tokens.

    `output_tokens` counts the tokens of the answer without the one that ends it; `reasoning_tokens` of them are
    thoughts.
    """

    output_tokens: int
    complete: bool
    reasoning_tokens: int = 0


#: In order: TurnBegan, parts of the answer, TurnFinished. A Problem comes instead of what it prevents, and is the last.
Update: TypeAlias = TurnBegan | AnswerPart | ScoredText | ReasoningPiece | TurnFinished | Problem


class Job:
    """One turn to run. `prefill_only`: compute the prompt for a later turn, and answer nothing."""

    def __init__(
        self,
        request: UpstreamRequest,
        prompt: Prompt,
        parser: ToolCallParser,
        *,
        wake: Callable[[], None],
        prefill_only: bool = False,
        sampling_params: SamplingParams = DEFAULT_SAMPLING_PARAMS,
        reasoning: ReasoningParser | ChannelParser | None = None,
    ) -> None:
        self.request = request
        self.prompt = prompt
        self.parser = parser  # belongs to the engine's thread once the job is submitted
        self.reader = AnswerReader(parser, sampling_params, reasoning)  # as the parser
        self.sampling_params = sampling_params
        self.prefill_only = prefill_only
        self.cancelled = False  # set under the engine's lock, and never taken back
        self._wake = wake
        self._lock = Lock()
        self._outbox: list[Update] = []
        self._announced = False  # the owner was woken, and has not taken anything since

    def put(self, update: Update) -> None:
        """Add an update, and announce it."""
        self.add(update)
        self.announce()

    def add(self, update: Update) -> None:
        """Add an update; the owner gets it with the next one that is announced."""
        with self._lock:
            self._outbox.append(update)

    def announce(self) -> None:
        """Wake the owner if there are updates of which it does not know."""
        with self._lock:
            due = bool(self._outbox) and not self._announced
            self._announced = self._announced or due
        if due:
            self._wake()

    def take(self) -> list[Update]:
        """Take all updates out of the outbox."""
        with self._lock:
            updates, self._outbox = self._outbox, []
            self._announced = False
        return updates


def stopped() -> Problem:
    """Return the problem of a turn whose engine ends, or never ran."""
    return Problem("server_overloaded", "The local model was stopped. Try again later, or use another model.")


def cannot_follow(error: GrammarError, param: str | None = None) -> Problem:
    """Return the problem of an answer that cannot match a schema, found before the turn begins or while it answers."""
    return Problem("invalid_value", f"The local model cannot follow a schema: {error}.", param)

"""A turn on its way through the engine: what is asked for, and an outbox for what comes of it.

What happens to a job is put into its outbox from the engine's thread, and its owner is woken once however much is in
there: text that comes faster than it is fetched is bounded by the model's context. Nothing here knows asyncio; the
owner says how it wants to be woken.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeAlias

import msgspec

from segue.engine.output.answer_reader import AnswerReader
from segue.engine.output.logprobs import ScoredText
from segue.engine.output.tool_call_parser import Answering, Part
from segue.engine.prompt.rendering import Prompt
from segue.engine.sampling_params import NO_WISHES, Wishes
from segue.protocol.problems import Problem
from segue.upstreams.interface import UpstreamRequest


class Began(msgspec.Struct, frozen=True):
    """The turn began: its prompt has this many tokens; the state of `cached` of them was there already."""

    input_tokens: int
    cached_tokens: int = 0


class Finished(msgspec.Struct, frozen=True):
    """The answer is over: the model or a stop ended it (`whole`), or no more tokens were allowed or fit.

    `output_tokens` counts the tokens of the answer without the one that ends it.
    """

    output_tokens: int
    whole: bool


#: What happens to a job: Began, parts of the answer, Finished; a Problem takes the place of what it prevents.
Update: TypeAlias = Began | Part | ScoredText | Finished | Problem


class Job:
    """One turn to run. `answers` is False where the prompt is only to be read, for a turn that is yet to come."""

    def __init__(
        self,
        request: UpstreamRequest,
        prompt: Prompt,
        answering: Answering,
        *,
        wake: Callable[[], None],
        answers: bool = True,
        wishes: Wishes = NO_WISHES,
    ) -> None:
        self.request = request
        self.prompt = prompt
        self.answering = answering  # the engine's, once it was submitted
        self.reader = AnswerReader(answering, wishes)  # the engine's too
        self.wishes = wishes
        self.answers = answers
        self.cancelled = False  # set under the engine's lock, and never taken back
        self._wake = wake
        self._lock = Lock()
        self._outbox: list[Update] = []

    def put(self, update: Update) -> None:
        """Add what happened; wakes the owner if it has fetched everything before."""
        with self._lock:
            first = not self._outbox
            self._outbox.append(update)
        if first:
            self._wake()

    def take(self) -> list[Update]:
        """Fetch what happened since the last time."""
        with self._lock:
            updates, self._outbox = self._outbox, []
        return updates


def stopped() -> Problem:
    """The engine ends, or never ran."""
    return Problem("server_overloaded", "The local model was stopped. Try again later, or use another model.")

"""The scripted model: deterministic, for tests, benchmarks and trying things out. Public and documented.

Without a script it needs no set-up: the model `scripted` answers every turn with `deltas` pieces of text of
`delta_bytes` bytes each, one every `pace_s` seconds (0: all at once). If the first user message carries the marker of
one of the agent's tasks, it solves the task instead (`segue.upstreams.scripted_tasks`). Asked for a code word that the
conversation has told, it answers with the word (`segue.upstreams.scripted_recall`). With a script it plays the
given turns in order and is strict: a request that the script does not expect, or that fails the script's own check, is
refused, and `assert_done` then raises; it also raises if turns are left over. It gets each request as a real upstream
would, and makes the check that every provider makes: each tool output has its call before it. It has no use for
settings; those that no API has are named in `warnings`. Not here: a simulation of any provider's timing or errors.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

import msgspec

from segue.dialects.rules import KNOWN_EXTRA, OTHERS, RequestBuilder, dropped_others, write_settings
from segue.history.chains import History
from segue.protocol.events import Ended, Event, OutputWriter
from segue.protocol.items import calls_of
from segue.protocol.problems import Problem, Refused
from segue.protocol.responses import Failure, Usage, usage
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.scripted_recall import recalled_word
from segue.upstreams.scripted_tasks import CALL_PREFIX, MARKER, next_answer, read_items

#: The name of the scripted model unless it is given others.
MODEL = "scripted"

#: The conversation of a task is read anew in each turn, so it is bounded; none of the tasks needs a tenth of this.
MAX_TASK_BYTES = 1024 * 1024
#: A turn of a task has fewer new items.
MAX_TASK_ITEMS = 1000

_MARKER = MARKER.encode()
_CALL = CALL_PREFIX.encode()


class Say(msgspec.Struct, frozen=True):
    """Say this, in pieces: one delta each."""

    pieces: tuple[str, ...]


class CallTool(msgspec.Struct, frozen=True):
    """Call this function. `arguments` is JSON text, as a model would write it."""

    call_id: str
    name: str
    arguments: str = "{}"


class Fail(msgspec.Struct, frozen=True):
    """End the turn in `response.failed`."""

    code: str = "server_error"
    message: str = "The script says that this turn fails."


class Refuse(msgspec.Struct, frozen=True):
    """Refuse the turn before it begins, as a provider does with an HTTP error. It can only be the first step."""

    problem: Problem


class Wait(msgspec.Struct, frozen=True):
    """Wait here until `event` is set, so that a test can act in the middle of a turn."""

    event: asyncio.Event


class Truncate(msgspec.Struct, frozen=True):
    """End the turn here as incomplete."""

    reason: str = "max_output_tokens"


class EndItem(msgspec.Struct, frozen=True):
    """End the message here: what is said next is another item."""


Step = Say | CallTool | EndItem | Fail | Refuse | Wait | Truncate


class ScriptedTurn(msgspec.Struct, frozen=True):
    """One turn: what the model does, and a check of the request, which raises an AssertionError if it fails."""

    steps: tuple[Step, ...]
    check: Callable[[UpstreamRequest], None] | None = None


class ScriptError(AssertionError):
    """The requests were not those that the script expects."""


def say(*pieces: str) -> ScriptedTurn:
    """Script a turn that answers with text."""
    return ScriptedTurn((Say(pieces),))


def call(call_id: str, name: str, arguments: str = "{}") -> ScriptedTurn:
    """Script a turn that calls one function."""
    return ScriptedTurn((CallTool(call_id, name, arguments),))


class ScriptedUpstream:
    """A model that plays a script.

    Args:
        script: the turns to play, in order; without one, every turn gets the same text.
        models: the names of the model.
        deltas: pieces of text in each answer.
        delta_bytes: length of a piece.
        pace_s: seconds between pieces; with 0, all events of the turn are one batch.
    """

    def __init__(
        self,
        script: Iterable[ScriptedTurn] | None = None,
        *,
        models: Sequence[str] = (MODEL,),
        deltas: int = 8,
        delta_bytes: int = 24,
        pace_s: float = 0.0,
    ) -> None:
        self._script = None if script is None else deque(script)
        self._models = tuple(models)
        piece = ("scripted words and more of them " * (delta_bytes // 32 + 1))[:delta_bytes]
        self._pattern = ScriptedTurn((Say((piece,) * deltas),))
        self._delta_bytes = delta_bytes
        self._pace_s = pace_s
        #: Every request that began, newest last; only kept with a script.
        self.requests: list[UpstreamRequest] = []
        #: Every request for a prefill (`generate: false`), newest last; only kept with a script.
        self.prefilled: list[UpstreamRequest] = []
        #: Turns that began, and turns that were stopped before their end.
        self.started = 0
        self.cancelled = 0
        self._misses: list[str] = []

    @property
    def stops_between_items(self) -> bool:
        """It stops wherever its stream is closed."""
        return True

    @property
    def models(self) -> Sequence[str]:
        """The names of the model."""
        return self._models

    async def start(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to release."""

    def assert_done(self) -> None:
        """Raise `ScriptError` if a request was not expected, or if turns of the script were never asked for."""
        if self._misses:
            raise ScriptError("; ".join(self._misses))
        if self._script:
            raise ScriptError(f"{len(self._script)} scripted turns were never asked for")

    async def prefill(self, request: UpstreamRequest) -> Usage:
        """Record a turn without output; it uses up none of the script's turns."""
        if self._script is not None:
            self.prefilled.append(request)
        return usage(self._tokens_in(request), 0)

    async def count_input(self, request: UpstreamRequest) -> int:
        """Count as `usage` does; the turn is not played."""
        return self._tokens_in(request)

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Play the next turn."""
        turn = self._expect(request)
        self.started += 1
        writer = OutputWriter(request.response_id)
        tokens_in = self._tokens_in(request)
        written = 0
        waiting: list[Event | Ended] = []
        ended = False
        try:
            for step in turn.steps:
                match step:
                    case Say():
                        for piece in step.pieces:
                            if self._pace_s:
                                yield waiting
                                waiting = []
                                await asyncio.sleep(self._pace_s)
                            waiting += writer.text(piece)
                            written += len(piece)
                    case CallTool():
                        waiting += writer.call(step.call_id, step.name, step.arguments)
                        written += len(step.arguments)
                    case EndItem():
                        waiting += writer.end_item()
                    case Wait():
                        yield waiting
                        waiting = []
                        await step.event.wait()
                    case _:
                        end = _stop(step, usage(tokens_in, written // 4))
                        break
            else:
                end = Ended("completed", usage(tokens_in, written // 4))
            waiting += writer.end_item("completed" if end.status == "completed" else "incomplete")
            waiting.append(msgspec.structs.replace(end, warnings=_unknown_fields(request)))
            ended = True  # the caller asks for nothing after an `Ended`
            yield waiting
        finally:
            self.cancelled += not ended

    def _tokens_in(self, request: UpstreamRequest) -> int:
        items = request.history.input if self._script is None else request.history.items()
        return sum(map(len, items)) // 4

    def _expect(self, request: UpstreamRequest) -> ScriptedTurn:
        """Return the turn to play; refuse a request that the script does not expect."""
        if self._script is None:
            return self._recall_turn(request.history) or self._task_turn(request.history) or self._pattern
        try:
            turn = self._next(request)
        except AssertionError as error:
            self._misses.append(str(error))
            problem = Problem("upstream_error", f"The scripted model did not expect this request: {error}")
            raise Refused(problem) from error
        if turn.steps and isinstance(turn.steps[0], Refuse):
            raise Refused(turn.steps[0].problem)
        self.requests.append(request)
        return turn

    def _recall_turn(self, history: History) -> ScriptedTurn | None:
        """Answer the question for a code word; None if that was not asked, or the conversation has told none."""
        word = recalled_word(history.input, history.items)
        return None if word is None else ScriptedTurn((Say((word,)),))

    def _task_turn(self, history: History) -> ScriptedTurn | None:
        """Return the next turn of a task; None if the conversation is about none."""
        if not _may_be_about_a_task(history):
            return None
        items = list(history.items())
        if sum(map(len, items)) > MAX_TASK_BYTES:
            return ScriptedTurn((Say(("The conversation is longer than that of a task can be.",)),))
        answer = next_answer(list(read_items(items)))
        if answer is None:
            return None
        size = max(1, self._delta_bytes)
        pieces = tuple(answer.text[at : at + size] for at in range(0, len(answer.text), size))
        calls = (CallTool(call.call_id, call.name, call.arguments) for call in answer.calls)
        return ScriptedTurn((Say(pieces), *calls))

    def _next(self, request: UpstreamRequest) -> ScriptedTurn:
        check_calls(request)
        if not self._script:
            raise ScriptError("the script is over")
        turn = self._script.popleft()
        if turn.check is not None:
            turn.check(request)
        return turn


def _may_be_about_a_task(history: History) -> bool:
    """Tell whether the newest items have a task's marker or its calls. What no turn of a task has is not looked at."""
    answered = () if history.parent is None else history.parent.output
    newest = (*history.input, *answered)
    if len(newest) > MAX_TASK_ITEMS:
        return False
    return any(len(item) <= MAX_TASK_BYTES and (_MARKER in item or _CALL in item) for item in newest)


def check_calls(request: UpstreamRequest) -> None:
    """Raise `ScriptError` if a tool output has no call before it; every provider checks this."""
    calls: set[str] = set()
    for index, item in enumerate(request.history.items()):
        calls |= calls_of([item])
        answered = _answered_call(item)
        if answered is not None and answered not in calls:
            raise ScriptError(f"item {index} answers the call {answered!r}, which no item before it makes")


def _unknown_fields(request: UpstreamRequest) -> tuple[str, ...]:
    """Return a warning for each field of the request that no API is known to have: it may be misspelt."""
    if not request.settings.extra:
        return ()
    builder = RequestBuilder(request.model, request.settings)
    write_settings(builder, {OTHERS: dropped_others(KNOWN_EXTRA)})
    return tuple(builder.warnings)


class _CallReference(msgspec.Struct):
    type: str | None = None
    call_id: str | None = None


_references = msgspec.json.Decoder(_CallReference)


def _answered_call(item: bytes) -> str | None:
    reference = _references.decode(item)
    return reference.call_id if (reference.type or "").endswith("_call_output") else None


def _stop(step: Step, counted: Usage) -> Ended:
    match step:
        case Fail():
            return Ended("failed", error=Failure(step.code, step.message))
        case Truncate():
            return Ended("incomplete", counted, incomplete_reason=step.reason)
        case _:
            raise ScriptError(f"{step!r} can only be the first step of a turn")

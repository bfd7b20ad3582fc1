"""The model of a workload: what it says depends on the conversation alone, and it writes at a given speed.

It solves the agent's tasks as the scripted model does, and plays generated conversations. A token is 4 bytes of text or
arguments, and one event. At a speed, each token has its time from the beginning of the answer; what is due at the same
moment is one batch. Without one, the whole answer is. There is no time for reading the prompt: times show what a path
adds to a model. Not here: the server around it (`model_server`).
"""

from __future__ import annotations

import asyncio
from asyncio import sleep
from collections.abc import AsyncGenerator, Iterator, Sequence
from functools import cached_property
from itertools import chain

import msgspec

from segue.bench.workloads.conversations import TOKEN_BYTES, ConversationTurn, make_conversation, place_of
from segue.bench.workloads.workload import ConversationWorkload, TaskWorkload, Workload
from segue.history.chains import History
from segue.protocol.events import Ended, Event, OutputWriter
from segue.protocol.responses import Failure, usage
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.scripted import MODEL
from segue.upstreams.scripted_tasks import PlannedCall, next_answer, read_items


class ModelAnswer(msgspec.Struct, frozen=True):
    """What the model says in one turn, and what it calls."""

    text: str
    calls: tuple[PlannedCall, ...]


class WorkloadModel:
    """An upstream that plays one workload, and the one before it that warms caches up."""

    def __init__(self, workload: Workload, tokens_s: float | None) -> None:
        self._workload = workload
        self._tokens_s = tokens_s

    @property
    def models(self) -> Sequence[str]:
        """The name it answers to."""
        return (MODEL,)

    async def start(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to release."""

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Answer."""
        answer = self._answer(request.history)
        yield ()
        if answer is None:
            yield [Ended("failed", error=Failure("server_error", "This is no conversation of the workload."))]
            return
        writer = OutputWriter(request.response_id)
        tokens = 0
        async for written in self._paced(_tokens(answer, writer)):
            tokens += written.count
            yield written.events
        used = usage(sum(map(len, request.history.items())) // TOKEN_BYTES, tokens)
        yield [*writer.end_item(), Ended("completed", used)]

    async def _paced(self, tokens: Iterator[list[Event]]) -> AsyncGenerator[WrittenTokens, None]:
        """Yield tokens when they are due, all that are due together."""
        if self._tokens_s is None:
            pieces = list(tokens)
            yield WrittenTokens(len(pieces), list(chain.from_iterable(pieces)))
            return
        loop = asyncio.get_running_loop()
        begun_at = loop.time()
        due: list[list[Event]] = []
        for number, token in enumerate(tokens, 1):
            ahead_s = begun_at + number / self._tokens_s - loop.time()
            if ahead_s > 0:
                if due:
                    yield WrittenTokens(len(due), list(chain.from_iterable(due)))
                    due = []
                await sleep(ahead_s)
            due.append(token)
        yield WrittenTokens(len(due), list(chain.from_iterable(due)))

    def _answer(self, history: History) -> ModelAnswer | None:
        match self._workload:
            case TaskWorkload():
                told = next_answer(list(read_items(history.items())))
                return None if told is None else ModelAnswer(told.text, told.calls)
            case ConversationWorkload():
                place = place_of(history.input)
                return None if place is None else self._played(*place)

    def _played(self, task: int, number: int) -> ModelAnswer | None:
        turns = self._turns.get(task, ())
        if number >= len(turns):
            return None
        turn = turns[number]
        return ModelAnswer(
            turn.text, tuple(PlannedCall(call.call_id, call.name, call.arguments) for call in turn.calls)
        )

    @cached_property
    def _turns(self) -> dict[int, tuple[ConversationTurn, ...]]:
        asked = (self._workload, self._workload.earlier)
        conversations = (
            make_conversation(one.name, task=one.task) for one in asked if isinstance(one, ConversationWorkload)
        )
        return {conversation.task: conversation.turns for conversation in conversations}


class WrittenTokens(msgspec.Struct, frozen=True):
    """Tokens that leave together."""

    count: int
    events: list[Event]


def _tokens(answer: ModelAnswer, writer: OutputWriter) -> Iterator[list[Event]]:
    """Write the answer token by token; what opens an item goes with its first one."""
    for piece in _pieces(answer.text):
        yield writer.text(piece)
    for call in answer.calls:
        opening = writer.start_call(call.call_id, call.name)
        for piece in _pieces(call.arguments):
            yield [*opening, *writer.arguments(piece)]
            opening = []


def _pieces(text: str) -> Iterator[str]:
    return (text[at : at + TOKEN_BYTES] for at in range(0, len(text), TOKEN_BYTES))

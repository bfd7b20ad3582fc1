"""The loop: send what is new, carry out the calls that come back, until the model has nothing more to call.

Calls that only read run side by side; the others run alone and in order. What a tool cannot do is told to the model.
What the client library cannot do ends the run, in its words. Not here: continuation and recovery (`segue.client`), and
the tools.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http import HTTPStatus
from itertools import groupby
from typing import Any

import msgspec

from segue.agent.progress import AgentTurn, Ending, RunLimits, RunObserver, RunResult
from segue.agent.toolbox import Toolbox, ToolOutput
from segue.agent.transcript import Transcript
from segue.client.errors import ClientError, CreateRefusedError, ResponseFailedError, SessionFileError
from segue.client.function_calls import FunctionCall, unanswered_calls
from segue.client.meters import SessionMeters
from segue.client.session import AsyncSession
from segue.client.stream_events import ClientResponse, OutputTextDelta, ResponseCreated, UnknownEvent
from segue.client.turn import AsyncTurn

INSTRUCTIONS = """\
You are a software engineer who works in one folder, the workspace, with the tools given. Paths are relative to it.
Look before you change: list, search and read what the task is about. Call several tools at once where none needs the
other's answer. Make the smallest change that does the task, in the style of the code around it; use edit for a change
and write for a new file. Then run the tests or the program, and mend what fails. A tool that fails says why: act on it.
Do not ask questions; decide. When the task is done, say in a few sentences what you changed, and call no tool."""

#: A turn with more calls than this gets an error for each of the others.
MAX_CALLS = 64
_SIDE_BY_SIDE = 8
_INTERRUPTED = ToolOutput(
    "error: the agent was interrupted while this ran; it may or may not have been done, so look before you do it again",
    failed=True,
)
_TOO_MANY = ToolOutput(f"error: not carried out: a turn may have {MAX_CALLS} calls", failed=True)
_SAME_ID = ToolOutput("error: not carried out: an earlier call of this turn has the same call_id", failed=True)


class AgentLoop:
    """Runs one task in one workspace, once."""

    def __init__(
        self,
        session: AsyncSession,
        toolbox: Toolbox,
        *,
        transcript: Transcript,
        limits: RunLimits,
        observer: RunObserver,
    ) -> None:
        self._session = session
        self._toolbox = toolbox
        self._transcript = transcript
        self._limits = limits
        self._observer = observer
        self._turns: list[AgentTurn] = []
        self._text = ""
        self._room = asyncio.Semaphore(_SIDE_BY_SIDE)
        self._work: asyncio.Task[tuple[Ending, str]] | None = None

    async def run(self, task: str) -> RunResult:
        """Work on the task until it ends in one of the ways of `Ending`; a session with a history goes on."""
        begun = time.perf_counter()
        self._work = asyncio.create_task(self._take_turns(task))
        try:
            done, _ = await asyncio.wait((self._work,), timeout=self._limits.time_s)
        finally:
            self._work.cancel()
            await asyncio.wait((self._work,))
        ending, reason = _end_of(self._work, in_time=bool(done))
        time_s = time.perf_counter() - begun
        self._transcript.write("ended", ending=ending, reason=reason)
        return RunResult(ending=ending, turns=tuple(self._turns), time_s=time_s, text=self._text, reason=reason)

    def stop(self) -> None:
        """End the run: a command that runs is killed, a turn is cancelled, and `run` returns."""
        if self._work is not None:
            self._work.cancel()

    async def _take_turns(self, task: str) -> tuple[Ending, str]:
        self._session.save(self._transcript.session_path)  # from here on it saves itself before it sends anything
        response = await self._take_up()
        while True:
            if response is None:
                items = await self._next_items(task)
            else:
                if (end := self._end_after(response)) is not None:
                    return end
                items = await self._answers(response.function_calls)
            if not items:  # an earlier process came to the end, but perhaps not to a good one
                return _end_with(self._transcript.status)
            response = await self._take(self._session.send(items))

    async def _take_up(self) -> ClientResponse | None:
        """Finish the turn that was in flight when an earlier process ended; None if none was, or if it never ran."""
        turn = self._session.pending_turn
        if turn is None:
            return None
        try:
            return await self._take(turn)
        except ClientError as error:
            if not error.safe_to_repeat or isinstance(error, SessionFileError):  # which may come after the turn
                raise
            return None

    async def _next_items(self, task: str) -> str | list[dict[str, Any]]:
        """Return what is sent first: the task, or what an earlier process had still to answer, perhaps nothing."""
        history = self._session.history
        return await self._answers(unanswered_calls(history)) if history else task

    def _end_after(self, response: ClientResponse) -> tuple[Ending, str] | None:
        """Return how the run ends with this response; None if its calls are to be answered."""
        if response.status == "completed" and response.unreadable_calls:
            return "incomplete", "the model's answer has a call that cannot be read"
        if response.status != "completed" or not response.function_calls:
            return _end_with(response.status, response.incomplete_reason)
        if len(self._turns) >= self._limits.turns:
            return "turn_limit", f"the limit of {self._limits.turns:,} turns is reached"
        used = sum(one.input_tokens + one.output_tokens for one in self._turns)
        if self._limits.tokens is not None and used >= self._limits.tokens:
            return "token_limit", f"{used:,} tokens are used, of {self._limits.tokens:,}"
        return None

    async def _take(self, turn: AsyncTurn) -> ClientResponse:
        """Take a turn to its end, and count what it took."""
        number = len(self._turns) + 1
        self._observer.turn_started(number)
        before, begun, first = self._session.meters, time.perf_counter(), None
        try:
            async for event in turn:
                if first is None and not isinstance(event, ResponseCreated | UnknownEvent):
                    first = time.perf_counter() - begun
                if isinstance(event, OutputTextDelta):
                    self._observer.text_written(event.delta)
            response = await turn.response()
        except BaseException as error:
            with suppress(SessionFileError):  # what ended the turn is what counts, and the old file has the turn too
                if isinstance(error, asyncio.CancelledError):
                    await turn.cancel()
                self._session.save(self._transcript.session_path)
            raise
        self._session.save(self._transcript.session_path)
        figures = _figures(before, self._session.meters, response, ttft_s=first, time_s=time.perf_counter() - begun)
        self._turns.append(figures)
        self._text = response.output_text
        calls = [msgspec.structs.asdict(call) for call in response.function_calls]
        self._transcript.write(
            "turn", number=number, response_id=response.id, status=response.status, text=self._text, calls=calls
        )
        self._observer.turn_finished(figures)
        return response

    async def _answers(self, calls: Sequence[FunctionCall]) -> list[dict[str, Any]]:
        """Carry out calls; return an item for each of them, in order."""
        firsts: dict[str, FunctionCall] = {}
        for call in calls:
            firsts.setdefault(call.call_id, call)
        outputs: dict[str, ToolOutput] = {}
        for batch in self._batches(list(firsts.values())[:MAX_CALLS]):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._answer(call)) for call in batch]
            outputs |= {call.call_id: task.result() for call, task in zip(batch, tasks, strict=True)}
        return [
            call.answer((outputs.get(call.call_id, _TOO_MANY) if call is firsts[call.call_id] else _SAME_ID).text)
            for call in calls
        ]

    def _batches(self, calls: Sequence[FunctionCall]) -> Iterator[list[FunctionCall]]:
        """Group neighbours that only read; every other call is alone."""
        for only_reads, group in groupby(calls, lambda call: self._toolbox.only_reads(call.name)):
            neighbours = list(group)
            yield from [neighbours] if only_reads else ([call] for call in neighbours)

    async def _answer(self, call: FunctionCall) -> ToolOutput:
        if earlier := self._transcript.outputs.get(call.call_id):
            return earlier
        if call.call_id in self._transcript.begun and not self._toolbox.only_reads(call.name):
            output = _INTERRUPTED
        else:
            async with self._room:
                self._observer.call_started(call)
                self._transcript.write("call_started", call_id=call.call_id, name=call.name, arguments=call.arguments)
                output = await self._toolbox.call(call.name, call.arguments)
        self._transcript.write("call_finished", call_id=call.call_id, output=output.text, failed=output.failed)
        self._observer.call_finished(call, output)
        return output


def _figures(
    before: SessionMeters, now: SessionMeters, response: ClientResponse, *, ttft_s: float | None, time_s: float
) -> AgentTurn:
    return AgentTurn(
        bytes_up_payload=now.bytes_up_payload - before.bytes_up_payload,
        bytes_up_wire=now.bytes_up_wire - before.bytes_up_wire,
        bytes_down_wire=now.bytes_down_wire - before.bytes_down_wire,
        ttft_s=ttft_s,
        time_s=time_s,
        **response.tokens._asdict(),
        tool_calls=len(response.function_calls),
    )


def _end_with(status: str, reason: str | None = None) -> tuple[Ending, str]:
    """Return how a run ends when the last response has this status and no calls to answer."""
    if status == "completed":
        return "completed", ""
    return "incomplete", f"the model's answer was cut short: {reason or status}"


def _end_of(work: asyncio.Task[tuple[Ending, str]], *, in_time: bool) -> tuple[Ending, str]:
    """Return how the work ended; an error that is not the client library's is raised."""
    if not in_time:
        return "time_limit", "the time for the run is over"
    if work.cancelled():
        return "interrupted", "the run was interrupted"
    error = work.exception()
    if isinstance(error, ResponseFailedError) and error.message and error.message not in str(error):
        return "failed", f"{error} The server says: {error.message}"
    if isinstance(error, CreateRefusedError) and error.status == HTTPStatus.UNAUTHORIZED:
        return "failed", f"{error} The agent's key is the one in SEGUE_AGENT_KEY, [agent] key or --key."
    if isinstance(error, ClientError):
        return "failed", str(error)
    return work.result()

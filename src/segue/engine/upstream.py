"""The local model as an upstream: the asyncio side of the engine.

A thread of the loop's pool renders the prompt of a turn and the engine's own thread computes it; the event loop only
passes pieces of the answer on. A turn begins when there is a place and room for it. Not here: which models the gateway
offers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from itertools import groupby
from typing import Literal, TypeVar

import msgspec

from segue.engine.counters import EngineCounters
from segue.engine.engine import Engine
from segue.engine.grammar.json_schema import GrammarError
from segue.engine.job import Job, TurnBegan, TurnFinished, Update, cannot_follow, stopped
from segue.engine.kv.retention import ResponseKey
from segue.engine.model import LoadedModel, ModelFile, Unavailable
from segue.engine.output.channel_parser import ChannelParser
from segue.engine.output.logprobs import ScoredText
from segue.engine.output.reasoning_parser import ReasoningParser, ReasoningPiece
from segue.engine.output.tool_call_parser import CallArguments, CallBegan, CallEnded, ToolCallParser, text_schema
from segue.engine.prompt.chat_template import ANSWER_CHANNEL
from segue.engine.prompt.messages import Tools, check_settings, read_tools
from segue.engine.prompt.rendering import Prompt, PromptRenderer
from segue.engine.sampling_params import read_sampling_params, settings_used
from segue.engine.settings import loss_warnings
from segue.engine.worker import Worker
from segue.protocol.events import Ended, Event, OutputWriter
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import Settings
from segue.protocol.responses import Failure, Usage, usage
from segue.upstreams.admission import AdmissionQueue
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.time_slices import TimeAccounts, TimeSlices

T = TypeVar("T")

#: Prompts that are made at once, of all and of one tenant, and beside them those of large requests: to make one, or to
#: see that its schema is too large, takes as long as many turns, and no small request waits for that.
_RENDERS = (3, 2)
_LARGE_RENDERS = (2, 1)
_LARGE_BYTES = 64 * 1024


class LocalUpstream:
    """One model file, run in this process. `clock` is any clock, in seconds.

    `accounts`: of what the tenants of the process compute in threads.
    """

    def __init__(
        self, file: ModelFile, clock: Callable[[], float] = time.monotonic, *, accounts: TimeAccounts | None = None
    ) -> None:
        self._file = file
        self._accounts = accounts or TimeAccounts()
        self._engine = Engine(file, clock)
        self._renderer: PromptRenderer | None = None
        # prompts are made in turn too: many large ones of a tenant take the threads from nobody else
        self._renders = self._queue(*_RENDERS)
        self._large_renders = self._queue(*_LARGE_RENDERS)
        self._active: dict[ResponseKey, bool] = {}  # the responses of turns, and if `forget` has named them

    def _queue(self, limit: int, most_of_one: int) -> AdmissionQueue:
        waiting = self._file.waiting
        return AdmissionQueue(
            self._file.name, limit=limit, max_waiting=waiting, timeout_s=None, most_of_one=most_of_one
        )

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._file.name

    @property
    def stops_between_items(self) -> bool:
        """It stops wherever its stream is closed."""
        return True

    @property
    def models(self) -> Sequence[str]:
        """The only model name it answers to."""
        return (self._file.name,)

    @property
    def model(self) -> LoadedModel:
        """The model that runs. Raises `Refused` if none does."""
        return self._engine.model

    @property
    def counters(self) -> EngineCounters:
        """What its engine has counted."""
        return self._engine.counters

    @property
    def running(self) -> int:
        """How many turns run."""
        return self._engine.running

    @property
    def waiting(self) -> int:
        """How many turns wait, including those that are being rendered."""
        renders = sum(queue.running + queue.waiting for queue in (self._renders, self._large_renders))
        return self._engine.waiting + renders

    def settings_used(self, settings: Settings) -> Settings:
        """Return the settings of a request as it obeys them: what a request leaves open is decided here."""
        return settings_used(settings, self._file.answer_tokens)

    async def start(self) -> None:
        """Load the model. Raises `Unavailable` if that fails; `aclose` is then not needed, but does no harm."""
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[Unavailable | None] = loop.create_future()
        pause = TimeSlices(loop).pause  # each turn waits for the steps of the model
        self._engine.start(lambda reason: _call(loop, lambda: _settle(loaded, reason)), pause=pause)
        try:
            reason = await loaded
        except asyncio.CancelledError:
            self._engine.stop()
            raise
        if reason is not None:
            await self.aclose()
            raise reason
        model = self.model
        self._renderer = PromptRenderer(model.template, model.context)

    async def aclose(self) -> None:
        """Stop all turns and release the model."""
        self._engine.stop()
        await asyncio.to_thread(self._engine.join)

    def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Run one turn; the first batch comes when its prompt fits, and there is room for it."""
        return self._stream(request, prefill_only=False)

    async def prefill(self, request: UpstreamRequest) -> Usage:
        """Prefill the prompt of a turn and answer nothing; a turn that continues or repeats it then reuses that."""
        counted = usage(0, 0)
        batches = self._stream(request, prefill_only=True)
        try:
            async for batch in batches:
                for event in batch:
                    if isinstance(event, Ended):
                        counted = event.usage or counted
        except Refused:
            if request.history.parent is not None or request.history.input:
                raise  # else there is nothing to prefill yet, and some templates refuse an empty conversation
        finally:
            await batches.aclose()
        return counted

    async def count_input(self, request: UpstreamRequest) -> int:
        """Return how many tokens the prompt of a turn would have."""
        slices = self._slices(request)
        tokenizer = _Tokenizer(self._check(request), slices.pause)
        renderer, history, settings = self._prompts(), request.history, request.settings
        return await self._in_thread(
            request,
            lambda: renderer.count(history, settings, tenant=request.tenant, tokenizer=tokenizer),
            slices,
            tokenizer=tokenizer,
        )

    def forget(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        """Drop the prompts, tokens and KV state that only these responses need, before the next step."""
        if self._renderer is None:
            return
        responses = [(tenant, response_id) for response_id in response_ids]
        self._active.update((response, True) for response in responses if response in self._active)
        self._renderer.forget(tenant, response_ids)
        self._engine.call_between_steps(lambda worker: worker.forget(responses))

    def forget_tenant(self, tenant: str) -> None:
        """Drop all that is kept of a tenant, before the next step."""
        if self._renderer is None:
            return
        self._active.update((response, True) for response in self._active if response[0] == tenant)
        self._renderer.forget_tenant(tenant)
        self._engine.call_between_steps(lambda worker: worker.forget_tenant(tenant))

    async def evict(self, to: Literal["host", "disk"]) -> None:
        """Move all idle sequences out of the context, to host memory or to disk."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def evict_idle(worker: Worker) -> None:
            try:
                worker.evict_idle(to)
            finally:
                _call(loop, lambda: done.set_result(None))

        self._engine.call_between_steps(evict_idle)
        await done

    async def _stream(self, request: UpstreamRequest, *, prefill_only: bool) -> AsyncGenerator[Batch, None]:
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        request = msgspec.structs.replace(request, settings=self.settings_used(request.settings))
        tools = read_tools(request.settings)
        model = self._check(request)
        sampling_params = read_sampling_params(request.settings)
        parser, prompt = await self._prepare(model, request, tools)
        job = Job(
            request,
            prompt,
            parser,
            wake=lambda: _call(loop, woken.set),
            prefill_only=prefill_only,
            sampling_params=sampling_params,
            reasoning=_new_reasoning_parser(model, parser),
        )
        warnings = (*loss_warnings(request.settings), *prompt.warnings)
        writer = _EventWriter(request, warnings, prefill_only=prefill_only)
        try:
            self._engine.submit(job)
            while not writer.ended:
                await woken.wait()
                woken.clear()
                yield writer.batch(job.take())
        finally:
            self._engine.cancel(job)
            self._leave(request, finished=writer.finished)

    def _leave(self, request: UpstreamRequest, *, finished: bool) -> None:
        """Clean up after a turn. No client can continue one whose end was never streamed (not `finished`)."""
        assert self._renderer is not None, "no turn is active without a model"
        response = (request.tenant, request.response_id)
        if self._active.pop(response):
            self.forget(request.tenant, [request.response_id])
        elif not finished:
            self._renderer.forget(request.tenant, [request.response_id])
            self._engine.call_between_steps(lambda worker: worker.release(response))

    def _check(self, request: UpstreamRequest) -> LoadedModel:
        problem = check_settings(request.settings)
        if problem is not None:
            raise Refused(problem)
        self._engine.check_place(request.tenant)
        return self.model

    async def _prepare(
        self, model: LoadedModel, request: UpstreamRequest, tools: Tools
    ) -> tuple[ToolCallParser, Prompt]:
        """Make grammars and render in another thread: a large schema takes a tenth of a second, a long text a second.

        Rendering stops soon after this is cancelled.
        """
        slices = self._slices(request)
        renderer, tokenizer = self._prompts(), _Tokenizer(model, slices.pause)

        def prepare() -> tuple[ToolCallParser, Prompt]:
            parser = _new_parser(model, request, tools, pause=slices.pause)
            ident, tenant = request.response_id, request.tenant
            history, settings = request.history, request.settings
            prompt = renderer.render(ident, history, settings, tenant=tenant, tokenizer=tokenizer, keep=request.held)
            if tokenizer.cancelled:  # `forget` may have come before the prompt was cached
                renderer.forget(tenant, [ident])
            return parser, prompt

        self._active[request.tenant, request.response_id] = False
        try:
            return await self._in_thread(request, prepare, slices, tokenizer=tokenizer)
        except BaseException:
            self._leave(request, finished=False)
            raise

    def _slices(self, request: UpstreamRequest) -> TimeSlices:
        return TimeSlices(asyncio.get_running_loop(), self._accounts, request.tenant)

    async def _in_thread(
        self, request: UpstreamRequest, work: Callable[[], T], slices: TimeSlices, *, tokenizer: _Tokenizer
    ) -> T:
        """Run what renders a prompt in another thread, when it is the tenant's turn.

        It stops soon after this is cancelled.
        """
        queue = self._large_renders if request.size_bytes >= _LARGE_BYTES else self._renders

        def work_in_slices() -> T:
            with slices:
                return work()

        try:
            async with queue.permit(request.tenant):
                return await asyncio.to_thread(work_in_slices)
        except InterruptedError:
            raise Refused(stopped()) from None
        finally:
            tokenizer.cancelled = True

    def _prompts(self) -> PromptRenderer:
        assert self._renderer is not None, "the engine has a model"
        return self._renderer


class _Tokenizer:
    """The tokenizer of a model, until it is cancelled. It is called in another thread."""

    def __init__(self, model: LoadedModel, pause: Callable[[], None]) -> None:
        self._model = model
        self._pause = pause
        self.cancelled = False

    def __call__(self, text: str, control: bool) -> Sequence[int]:  # noqa: FBT001 - the shape of truncation.Tokenizer
        if self.cancelled:
            raise InterruptedError
        self._pause()
        return self._model.tokenize(text, control)


def _new_parser(
    model: LoadedModel, request: UpstreamRequest, tools: Tools, *, pause: Callable[[], None]
) -> ToolCallParser:
    text_format = request.settings.text.get("format") or {}
    try:
        return ToolCallParser(
            model.template.call_format,
            tools,
            text_schema(text_format),
            compile_grammar=model.compile_grammar,
            opening=ANSWER_CHANNEL if model.template.in_channels else "",
            pause=pause,
        )
    except GrammarError as error:
        param = "tools" if tools.allowed else "text.format.schema"
        raise Refused(cannot_follow(error, param)) from error


def _new_reasoning_parser(model: LoadedModel, parser: ToolCallParser) -> ReasoningParser | ChannelParser | None:
    """Return what reads the thoughts of a model that may have some; under a grammar it answers at once."""
    template = model.template
    if template.in_channels:
        return ChannelParser(template.call_format)
    if template.reasoning is None or parser.grammar is not None:
        return None
    return ReasoningParser(template.reasoning, begun=template.thinks_at_once)


class _EventWriter:
    """Turns the updates of a job into batches of events."""

    def __init__(self, request: UpstreamRequest, warnings: tuple[str, ...], *, prefill_only: bool) -> None:
        self._response_id = request.response_id
        self._writer = OutputWriter(request.response_id)
        self._warnings = warnings
        self._began: TurnBegan | None = None
        self._needs_message = not prefill_only  # an answer that has nothing else is an empty message
        self._thought = False
        self._calls = 0
        self.ended = self.finished = False

    def batch(self, updates: Iterable[Update]) -> Batch:
        """Return the events for `updates`, with adjacent pieces as one delta; raise `Refused` if no turn began."""
        events: list[Event | Ended] = []
        for kind, group in groupby(updates, type):
            if kind is str:
                events += self._text("".join(map(str, group)))
            elif kind is ScoredText:
                events += self._scored([one for one in group if isinstance(one, ScoredText)])
            elif kind is ReasoningPiece:
                self._thought = True
                events += self._writer.reasoning("".join(one.text for one in group if isinstance(one, ReasoningPiece)))
            elif kind is CallArguments:
                pieces = [one.text for one in group if isinstance(one, CallArguments)]
                events += self._writer.arguments("".join(pieces))
            else:
                for update in group:
                    events += self._event(update)
        return events

    def _event(self, update: Update) -> Sequence[Event | Ended]:
        match update:
            case TurnBegan():
                self._began = update
                return ()
            case CallBegan():
                return self._begin_call(update.name)
            case CallEnded():
                return self._writer.end_item()
            case TurnFinished():
                return self._finish(update)
            case Problem():
                return self._fail(update)
            case str() | ScoredText() | ReasoningPiece() | CallArguments():
                raise AssertionError("batch() joins pieces")

    def _text(self, text: str) -> list[Event]:
        self._needs_message = False
        return self._writer.text(text)

    def _scored(self, pieces: Sequence[ScoredText]) -> list[Event]:
        self._needs_message = False
        logprobs = [one for piece in pieces for one in piece.logprobs]
        return self._writer.text("".join(piece.text for piece in pieces), logprobs)

    def _begin_call(self, name: str) -> list[Event]:
        self._needs_message = False
        call_id = f"call_{self._response_id.removeprefix('resp_')[8:32]}{self._calls:04x}"
        self._calls += 1
        return self._writer.start_call(call_id, name)

    def _finish(self, finished: TurnFinished) -> list[Event | Ended]:
        assert self._began is not None, "a turn begins before it finishes"
        self.ended = self.finished = True
        counted = usage(
            self._began.input_tokens,
            finished.output_tokens,
            cached=self._began.cached_tokens,
            reasoning=finished.reasoning_tokens,
        )
        cut_short = self._thought and not finished.complete  # then there is no message
        events = [*(self._writer.text("") if self._needs_message and not cut_short else ())]
        if finished.complete:
            return [*events, *self._writer.end_item(), Ended("completed", counted, warnings=self._warnings)]
        reason = "max_output_tokens"
        ended = Ended("incomplete", counted, incomplete_reason=reason, warnings=self._warnings)
        return [*events, *self._writer.end_item("incomplete"), ended]

    def _fail(self, problem: Problem) -> list[Event | Ended]:
        self.ended = True
        if self._began is None:
            raise Refused(problem)
        failure = Failure(problem.code, problem.message)
        return [*self._writer.end_item("incomplete"), Ended("failed", error=failure, warnings=self._warnings)]


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call back in the loop, from the engine's thread. If the loop is closed, nothing waits for the callback."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


def _settle(loaded: asyncio.Future[Unavailable | None], reason: Unavailable | None) -> None:
    if not loaded.done():
        loaded.set_result(reason)

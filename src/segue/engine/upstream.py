"""The local model as an upstream: the asyncio side of the engine.

A turn is rendered in a thread of the loop's pool and computed in the engine's own; the event loop only hands pieces on.
It begins when there is a place and room for it. Not here: which models the gateway offers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from itertools import groupby
from typing import Literal

from segue.engine.engine import Engine, overloaded
from segue.engine.grammar.gbnf import GrammarError
from segue.engine.job import Began, Finished, Job, Update, stopped
from segue.engine.kv.retention import Name
from segue.engine.model import LoadedModel, ModelFile, Unavailable
from segue.engine.output.logprobs import ScoredText
from segue.engine.output.tool_call_parser import Answering, Arguments, CallBegan, CallEnded, schema_of
from segue.engine.prompt.messages import Tools, check_settings, read_tools
from segue.engine.prompt.rendering import Prompt, Renderer
from segue.engine.sampling_params import read_wishes
from segue.engine.settings import left_out
from segue.engine.worker import Counts, Worker
from segue.protocol.events import Ended, Event, OutputWriter
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem, Refused
from segue.protocol.responses import Failure, Usage, usage
from segue.upstreams.interface import Batch, UpstreamRequest


class LocalUpstream:
    """One model file, run in this process. `clock` is any clock, in seconds."""

    def __init__(self, file: ModelFile, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._engine = Engine(file, clock)
        self._renderer: Renderer | None = None
        self._rendering = 0
        self._under_way: dict[Name, bool] = {}  # the responses of turns, and whether they are gone already

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._file.name

    @property
    def models(self) -> Sequence[str]:
        """The name it answers to."""
        return (self._file.name,)

    @property
    def model(self) -> LoadedModel:
        """The model that runs. Raises `Refused` if none does."""
        return self._engine.model

    @property
    def counts(self) -> Counts:
        """What its engine has counted."""
        return self._engine.counts

    @property
    def running(self) -> int:
        """How many turns run."""
        return self._engine.running

    @property
    def waiting(self) -> int:
        """How many turns wait, those that are being rendered included."""
        return self._engine.waiting + self._rendering

    async def start(self) -> None:
        """Load the model. Raises `Unavailable` if that fails; `aclose` is then not needed, but does no harm."""
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[Unavailable | None] = loop.create_future()
        self._engine.start(lambda reason: _call(loop, lambda: _settle(loaded, reason)))
        try:
            reason = await loaded
        except asyncio.CancelledError:
            self._engine.stop()
            raise
        if reason is not None:
            await self.aclose()
            raise reason
        model = self.model
        self._renderer = Renderer(model.template, model.context)

    async def aclose(self) -> None:
        """Stop all turns and release the model."""
        self._engine.stop()
        await asyncio.to_thread(self._engine.join)

    def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Run one turn; the first batch comes when its prompt is known to fit, and there is room for it."""
        return self._stream(request, answers=True)

    async def prefill(self, request: UpstreamRequest) -> Usage:
        """Read a turn's prompt as `stream` would, and answer nothing: what continues or repeats it finds it read."""
        counted = usage(0, 0)
        batches = self._stream(request, answers=False)
        try:
            async for batch in batches:
                for event in batch:
                    if isinstance(event, Ended):
                        counted = event.usage or counted
        except Refused:
            if request.history.parent is not None or request.history.input:
                raise  # else there is nothing to read yet, and a template may not know what to do with that
        finally:
            await batches.aclose()
        return counted

    def forget(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        """Let go of the prompts, tokens and KV cache that only these responses need, between two steps."""
        if self._renderer is None:
            return
        names = [(tenant, response_id) for response_id in response_ids]
        self._under_way.update((name, True) for name in names if name in self._under_way)
        self._renderer.forget(tenant, response_ids)
        self._engine.act(lambda worker: worker.forget(names))

    async def evict(self, to: Literal["host", "disk"]) -> None:
        """Move all state that no turn works on out of the context, to host memory or to disk."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def act(worker: Worker) -> None:
            try:
                worker.evict_idle(to)
            finally:
                _call(loop, lambda: done.set_result(None))

        self._engine.act(act)
        await done

    async def _stream(self, request: UpstreamRequest, *, answers: bool) -> AsyncGenerator[Batch, None]:
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        tools = read_tools(request.settings)
        model = self._check(request)
        wishes = read_wishes(request.settings)
        answering, prompt = await self._prepare(model, request, tools)
        job = Job(request, prompt, answering, wake=lambda: _call(loop, woken.set), answers=answers, wishes=wishes)
        writing = _Writing(request, answers=answers)
        try:
            self._engine.submit(job)
            while not writing.ended:
                await woken.wait()
                woken.clear()
                yield writing.batch(job.take())
        finally:
            self._engine.cancel(job)
            self._leave(request, finished=writing.finished)

    def _leave(self, request: UpstreamRequest, *, finished: bool) -> None:
        """See to what a turn leaves that is over; one whose end nobody was told can be continued by nobody."""
        assert self._renderer is not None, "no turn is under way without a model"
        name = (request.tenant, request.response_id)
        if self._under_way.pop(name):
            self.forget(request.tenant, [request.response_id])
        elif not finished:
            self._renderer.forget(request.tenant, [request.response_id])
            self._engine.act(lambda worker: worker.release(name))

    def _check(self, request: UpstreamRequest) -> LoadedModel:
        problem = check_settings(request.settings)
        if problem is not None:
            raise Refused(problem)
        if self.waiting >= self._file.waiting:
            raise Refused(overloaded(self.waiting))
        return self.model

    async def _prepare(self, model: LoadedModel, request: UpstreamRequest, tools: Tools) -> tuple[Answering, Prompt]:
        """Make grammars and render in another thread: a large schema takes a tenth of a second, a long text a second.

        Rendering gives up as soon as nobody waits for it.
        """
        assert self._renderer is not None, "the engine has a model"
        renderer, given_up = self._renderer, False

        def tokenize(text: str, control: bool) -> list[int]:  # noqa: FBT001 - the shape of fitting.Tokenizer
            if given_up:
                raise InterruptedError
            return model.tokenize(text, control)

        def prepare() -> tuple[Answering, Prompt]:
            answering = _answering(model, request, tools)
            ident, tenant = request.response_id, request.tenant
            history, settings = request.history, request.settings
            prompt = renderer.render(ident, history, settings, tenant=tenant, tokenizer=tokenize, keep=request.held)
            if given_up:  # and maybe forgotten before it was kept
                renderer.forget(tenant, [ident])
            return answering, prompt

        self._rendering += 1
        self._under_way[request.tenant, request.response_id] = False
        try:
            return await asyncio.to_thread(prepare)
        except BaseException as error:
            given_up = True
            self._leave(request, finished=False)
            if isinstance(error, InterruptedError):
                raise Refused(stopped()) from None
            raise
        finally:
            self._rendering -= 1


def _answering(model: LoadedModel, request: UpstreamRequest, tools: Tools) -> Answering:
    form = request.settings.text.get("format") or {}
    try:
        answering = Answering(model.template.form, tools, schema_of(form))
        for name in tools.allowed:  # a call may come any time; its grammar must not fail then
            answering.check(name)
    except GrammarError as error:
        param = "tools" if tools.allowed else "text.format.schema"
        raise Refused(Problem("invalid_value", f"The local model cannot follow a schema: {error}.", param)) from error
    return answering


class _Writing:
    """Turns what happens to a job into batches of events."""

    def __init__(self, request: UpstreamRequest, *, answers: bool) -> None:
        self._response_id = request.response_id
        self._writer = OutputWriter(request.response_id)
        self._warnings = left_out(request.settings)
        self._began: Began | None = None
        self._empty = answers  # an answer without anything is an empty message; where none was asked for, nothing
        self._calls = 0
        self.ended = self.finished = False

    def batch(self, updates: Iterable[Update]) -> Batch:
        """Return the events for `updates`, neighbouring pieces as one delta; raise `Refused` if no turn began."""
        events: list[Event | Ended] = []
        for kind, group in groupby(updates, type):
            if kind is str:
                events += self._text("".join(map(str, group)))
            elif kind is ScoredText:
                events += self._scored([one for one in group if isinstance(one, ScoredText)])
            elif kind is Arguments:
                events += self._writer.arguments("".join(one.text for one in group if isinstance(one, Arguments)))
            else:
                for update in group:
                    events += self._event(update)
        return events

    def _event(self, update: Update) -> Sequence[Event | Ended]:
        match update:
            case Began():
                self._began = update
                return ()
            case CallBegan():
                return self._begin_call(update.name)
            case CallEnded():
                return self._writer.end_item()
            case Finished():
                return self._finish(update)
            case Problem():
                return self._fail(update)
            case str() | ScoredText() | Arguments():
                raise AssertionError("pieces were joined before")

    def _text(self, text: str) -> list[Event]:
        self._empty = False
        return self._writer.text(text)

    def _scored(self, pieces: Sequence[ScoredText]) -> list[Event]:
        self._empty = False
        logprobs = [one for piece in pieces for one in piece.logprobs]
        return self._writer.text("".join(piece.text for piece in pieces), logprobs)

    def _begin_call(self, name: str) -> list[Event]:
        self._empty = False
        call_id = f"call_{self._response_id.removeprefix('resp_')[8:32]}{self._calls:04x}"
        self._calls += 1
        return self._writer.start_call(call_id, name)

    def _finish(self, finished: Finished) -> list[Event | Ended]:
        assert self._began is not None, "a turn begins before it finishes"
        self.ended = self.finished = True
        counted = usage(self._began.input_tokens, finished.output_tokens, cached=self._began.cached_tokens)
        events = [*(self._writer.text("") if self._empty else ())]
        if finished.whole:
            return [*events, *self._writer.end_item(), Ended("completed", counted, warnings=self._warnings)]
        reason = "max_output_tokens"
        ended = Ended("incomplete", counted, incomplete_reason=reason, warnings=self._warnings)
        return [*events, *self._writer.end_item("incomplete"), ended]

    def _fail(self, problem: Problem) -> list[Event | Ended]:
        self.ended = True
        if self._began is None:
            raise Refused(problem)
        failure = Failure(problem.code, problem.message)
        return [*self._writer.end_item("incomplete"), Ended("failed", error=failure)]


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call back in the loop, from the engine's thread. A loop that is closed has nobody left who waits."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


def _settle(loaded: asyncio.Future[Unavailable | None], reason: Unavailable | None) -> None:
    if not loaded.done():
        loaded.set_result(reason)

"""The local model as an upstream: llama.cpp in this process, answering from a GGUF file.

    upstream = LocalUpstream(ModelFile(find_model()))
    await upstream.start()

`why_unavailable` says beforehand whether this can work here. Importing this package imports no engine. Turns run one at
a time in the order they came, in a thread of their own (`engine`); one that waits has not begun. Answers are text:
tools may be offered but are never called. The same request gives the same answer, unless temperature or top_p ask for
a random one. Not here: which models the gateway offers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

from segue.protocol.events import Ended, Event, OutputWriter
from segue.protocol.problems import Problem, Refused
from segue.protocol.responses import Failure, usage
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.local.engine import Began, Engine, Finished, Job, Update
from segue.upstreams.local.model import MODEL_NAME, ModelFile, Unavailable, find_model, why_unavailable
from segue.upstreams.local.prompt import check_settings

__all__ = ["MODEL_NAME", "LocalUpstream", "ModelFile", "Unavailable", "find_model", "why_unavailable"]


class LocalUpstream:
    """One model file, run in this process."""

    def __init__(self, file: ModelFile) -> None:
        self._file = file
        self._engine = Engine(file)

    @property
    def models(self) -> Sequence[str]:
        """The name it answers to."""
        return (self._file.name,)

    async def start(self) -> None:
        """Load the model. Raises `Unavailable` if that fails; `close` is then not needed, but does no harm."""
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[Unavailable | None] = loop.create_future()
        self._engine.start(lambda reason: _call(loop, lambda: _settle(loaded, reason)))
        try:
            reason = await loaded
        except asyncio.CancelledError:
            self._engine.stop()
            raise
        if reason is not None:
            await self.close()
            raise reason

    async def close(self) -> None:
        """Stop all turns and release the model."""
        self._engine.stop()
        await asyncio.to_thread(self._engine.join)

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Run one turn; the first batch comes when its prompt is known to fit."""
        problem = check_settings(request.settings)
        if problem is not None:
            raise Refused(problem)
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        job = Job(request, wake=lambda: _call(loop, woken.set))
        writing = _Writing(OutputWriter(request.response_id))
        self._engine.submit(job)
        try:
            while not writing.ended:
                await woken.wait()
                woken.clear()
                yield writing.batch(job.take())
        finally:
            self._engine.cancel(job)


class _Writing:
    """Turns what happens to a job into batches of events."""

    def __init__(self, writer: OutputWriter) -> None:
        self._writer = writer
        self._input_tokens: int | None = None  # None: the turn has not begun
        self._has_text = False
        self.ended = False

    def batch(self, updates: Iterable[Update]) -> Batch:
        """Return the events for `updates`, with all their text as one delta; raise `Refused` if no turn began."""
        texts: list[str] = []
        closing: list[Event | Ended] = []
        for update in updates:
            match update:
                case str():
                    texts.append(update)
                case Began():
                    self._input_tokens = update.input_tokens
                case Finished():
                    closing = self._text(texts, even_if_empty=not self._has_text) + self._finish(update)
                    texts = []
                case Problem():
                    closing = self._text(texts) + self._fail(update)
                    texts = []
        return closing or self._text(texts)

    def _text(self, texts: Sequence[str], *, even_if_empty: bool = False) -> list[Event | Ended]:
        if not texts and not even_if_empty:
            return []
        self._has_text = True
        return list(self._writer.text("".join(texts)))

    def _finish(self, finished: Finished) -> list[Event | Ended]:
        assert self._input_tokens is not None, "a turn begins before it finishes"
        self.ended = True
        counted = usage(self._input_tokens, finished.output_tokens)
        if finished.whole:
            return [*self._writer.end_item(), Ended("completed", counted)]
        reason = "max_output_tokens"
        return [*self._writer.end_item("incomplete"), Ended("incomplete", counted, incomplete_reason=reason)]

    def _fail(self, problem: Problem) -> list[Event | Ended]:
        self.ended = True
        if self._input_tokens is None:
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

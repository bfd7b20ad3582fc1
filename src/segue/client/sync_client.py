"""The client without `await`: the same sessions, on an event loop in a thread of their own.

Nothing is written twice: each call runs its namesake of `client` and `session` in that thread. Not here: what they do.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from os import PathLike
from types import TracebackType
from typing import Any, Self, TypeVar

from segue.client.client import DEFAULT_BASE_URL, AsyncClient, LinkOpener, open_links
from segue.client.local_history import InputItems
from segue.client.meters import SessionMeters
from segue.client.session import AsyncSession
from segue.client.settings import SessionSettings, TransportMode
from segue.client.stream_events import ClientEvent, ClientResponse
from segue.client.turn import AsyncTurn, RecoveryObserver
from segue.client.turn_errors import client_closed

T = TypeVar("T")


#: How long a turn may take to end by itself when the connections are closed, before it is cancelled.
_GRACE_S = 0.5


class LoopClosedError(RuntimeError):
    """The thread that would do this has ended: the client is closed."""


class LoopThread:
    """An event loop in a thread. It ends with its owner's `close`, or with the process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="segue-client", daemon=True)
        self._lock = threading.Lock()  # nothing is given to the loop after what ends it
        self._closed = False
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for it. If the waiting thread is interrupted, the coroutine is cancelled.

        Raises:
            LoopClosedError: the thread has ended.
            RuntimeError: the thread is the one that would wait.
            TurnCancelledError: another thread ended it meanwhile.
        """
        try:
            self._refuse_own_thread()
            with self._lock:
                if self._closed:
                    raise LoopClosedError("the client is closed")
                future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise
        try:
            return future.result()
        except CancelledError:
            raise client_closed() from None
        except BaseException:
            future.cancel()
            raise

    @property
    def closed(self) -> bool:
        """Whether the thread has ended, or is about to."""
        return self._closed

    def close(self, first: Callable[[], Awaitable[None]] | None = None) -> None:
        """Do what is to be done first, end what still runs, and end the thread; the second time, do nothing."""
        self._refuse_own_thread()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            ended = asyncio.run_coroutine_threadsafe(_end(first), self._loop)
        try:
            ended.result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _refuse_own_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("the thread of the client cannot wait for itself: on_recovery may not call the client")


class SyncTurn:
    """One turn: iterate it, or ask for its response. As `AsyncTurn`."""

    def __init__(self, thread: LoopThread, turn: AsyncTurn) -> None:
        self._thread = thread
        self._turn = turn

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._thread.closed:
            self._thread.run(self._turn.aclose())

    def __iter__(self) -> Iterator[ClientEvent]:
        return self

    def __next__(self) -> ClientEvent:
        event = self._run(_next(self._turn))
        if event is None:
            raise StopIteration
        return event

    def response(self) -> ClientResponse:
        """Read the rest of the turn and return its response."""
        return self._run(self._turn.response())

    def cancel(self) -> None:
        """Stop the turn for good, if it has not ended. The history is as it was before."""
        self._thread.run(self._turn.cancel())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._thread.run(work)
        except LoopClosedError:
            raise client_closed() from None


class SyncSession:
    """A conversation. As `AsyncSession`."""

    def __init__(self, thread: LoopThread, session: AsyncSession) -> None:
        self._thread = thread
        self._session = session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def settings(self) -> SessionSettings:
        """How turns are run, unless a send says otherwise."""
        return self._session.settings

    @settings.setter
    def settings(self, settings: SessionSettings) -> None:
        self._session.settings = settings

    @property
    def history(self) -> tuple[bytes, ...]:
        """The items of the conversation so far, each as JSON bytes."""
        return self._session.history

    @property
    def meters(self) -> SessionMeters:
        """What was sent and received, and how often the session had to recover."""
        return self._session.meters

    @property
    def busy(self) -> bool:
        """Whether a turn runs."""
        return self._session.busy

    @property
    def pending_turn(self) -> SyncTurn | None:
        """The turn that had not ended when the session was saved, if there was one."""
        turn = self._session.pending_turn
        return None if turn is None else SyncTurn(self._thread, turn)

    def send(self, new: InputItems, **changes: Any) -> SyncTurn:  # noqa: ANN401 - any member of a create
        """Return the next turn; nothing is sent before it is iterated or its response asked for."""

        async def send() -> AsyncTurn:
            return self._session.send(new, **changes)

        return SyncTurn(self._thread, self._thread.run(send()))

    def warm_up(self) -> None:
        """Let the server prepare for the next turn, where it offers that."""
        self._thread.run(self._session.warm_up())

    def fork(self) -> SyncSession:
        """Return another session that begins with this history."""
        return SyncSession(self._thread, self._session.fork())

    def replace_history(self, items: InputItems) -> None:
        """Put other items in place of the history."""
        self._session.replace_history(items)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the session to a file, and a turn that has not ended with it."""
        self._session.save(path)

    def close(self) -> None:
        """Cancel the turn that runs, and free the session's place on its connection."""
        if not self._thread.closed:
            self._thread.run(self._session.aclose())


class Client:
    """A client of one server. As `AsyncClient`, whose arguments it takes.

    `on_recovery` is called in the thread of the event loop. It may not call the client, which waits for this thread.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_BASE_URL,
        api_key: str | None = None,
        *,
        transport: TransportMode = "auto",
        headers: Mapping[str, str] | None = None,
        on_recovery: RecoveryObserver | None = None,
        links: LinkOpener = open_links,
        **options: Any,  # noqa: ANN401 - settings of connections, which check their types
    ) -> None:
        async def make() -> AsyncClient:
            return AsyncClient(
                base_url, api_key, transport=transport, headers=headers, on_recovery=on_recovery, links=links, **options
            )

        self._thread = LoopThread()
        try:
            self._client = self._thread.run(make())
        except BaseException:
            self._thread.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def session(
        self,
        model: str,
        *,
        instructions: str | None = None,
        tools: Sequence[Any] = (),
        items: InputItems = (),
        **settings: Any,  # noqa: ANN401 - settings of sessions, and any member of a create
    ) -> SyncSession:
        """Return a new session; `items` is a history to begin with."""
        made = self._client.session(model, instructions=instructions, tools=tools, items=items, **settings)
        return SyncSession(self._thread, made)

    def load(self, path: str | PathLike[str]) -> SyncSession:
        """Return the session that a file holds."""

        async def load() -> AsyncSession:
            return self._client.load(path)

        return SyncSession(self._thread, self._thread.run(load()))

    def close(self) -> None:
        """Close all connections. Turns that run in other threads end with an error. Closing twice does nothing."""
        self._thread.close(self._client.aclose)


async def _end(first: Callable[[], Awaitable[None]] | None) -> None:
    """Close connections, and end what still runs: a thread waits for each of these tasks."""
    try:
        if first is not None:
            await first()
    finally:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        if running:
            _, running = await asyncio.wait(running, timeout=_GRACE_S)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


async def _next(turn: AsyncTurn) -> ClientEvent | None:
    """Return the next event; None at the end, since no `StopAsyncIteration` crosses a thread."""
    return await anext(turn, None)

"""One turn as a caller sees it: an iterator of events, and a response at its end.

It carries out what its machine asks for, one step at a time, as its caller pulls: a slow caller slows its own server,
and nothing runs in the background. Not here: what is done about a fault (`turn_machine`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import msgspec

from segue.client.errors import SessionBusyError, SessionFileError
from segue.client.meters import COUNTED
from segue.client.recovery import TurnFault
from segue.client.session_state import SessionState
from segue.client.settings import TransportKind
from segue.client.stream_events import ClientEvent, ClientResponse, ResponseCreated
from segue.client.transports.interface import EventStream, ResponsesTransport, TransportFault
from segue.client.turn_effects import (
    Connect,
    Emit,
    Finish,
    GiveUp,
    Moment,
    RecoveryStep,
    Retrieve,
    SendCreate,
    SendResume,
    SleepFor,
    SwitchToHttp,
    TurnEffect,
    TurnEffects,
    TurnInput,
)
from segue.client.turn_errors import client_closed, turn_cancelled, unsaved_repeat
from segue.client.turn_machine import TurnMachine
from segue.network_changes.monitor import sleep_or_move

#: How long a cancelled turn may wait for its server to take note.
_FORGET_S = 5.0

#: Told of each fault that a turn met and of what is done about it.
RecoveryObserver = Callable[[RecoveryStep], None]


class ServerLinks:
    """The ways of one client to its server. Once HTTP has taken over, it stays."""

    def __init__(self, http: ResponsesTransport, websocket: ResponsesTransport) -> None:
        self.http = http
        self.websocket = websocket
        self.only_http = False
        self.closed = False

    def transport(self, kind: TransportKind) -> ResponsesTransport:
        """Return the transport of a kind."""
        return self.http if kind == "http" else self.websocket

    async def aclose(self) -> None:
        """Close all connections; turns that run end instead of connecting again."""
        self.closed = True
        try:
            await self.http.aclose()
        finally:
            await self.websocket.aclose()


class TurnHooks(msgspec.Struct, frozen=True):
    """What a turn tells while it runs: recoveries, and that the session should be saved before a step."""

    recovered: RecoveryObserver
    save: Callable[[], None]


class AsyncTurn:
    """One turn. Nothing is sent before it is iterated or its response awaited.

    It is iterated once. With `async with`, a turn that has not ended when the block is left is stopped.
    """

    def __init__(self, state: SessionState, links: ServerLinks, request: TurnInput, hooks: TurnHooks) -> None:
        self._state = state
        self._links = links
        self._hooks = hooks
        self._request = request
        kind: TransportKind = "websocket"
        if request.settings.transport == "http" or (links.only_http and request.settings.transport == "auto"):
            kind = "http"
        self._machine = TurnMachine(request, kind=kind, websocket_failures=state.websocket_failures)
        self._ready: deque[ClientEvent] = deque()
        self._waiting: TurnEffect | None = None  # what is to be done next; None: read the stream
        self._stream: EventStream | None = None
        self._read_bytes = 0  # of the stream; it is counted at its end, since events are many
        self._began = False
        self._sent = request.delivered is not None  # a create has left, perhaps in an earlier process
        self._response: ClientResponse | None = None
        self._error: Exception | None = None
        self._scope: asyncio.Timeout | None = None  # of the step that runs
        self._idle = asyncio.Event()  # nobody waits for an event
        self._idle.set()
        self._cancelled = False
        self._forgotten = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[ClientEvent]:
        return self

    async def __anext__(self) -> ClientEvent:
        if not self._idle.is_set():
            raise SessionBusyError("Nothing was done: another task reads this turn.", "Read a turn in one task.")
        self._idle.clear()
        try:
            while not self._ready:
                if self._error is not None:
                    raise self._error
                if self._response is not None:
                    raise StopAsyncIteration
                await (self._abandon(turn_cancelled()) if self._cancelled else self._step())
            return self._ready.popleft()
        finally:
            self._idle.set()

    async def response(self) -> ClientResponse:
        """Read the rest of the turn and return its response.

        Raises:
            ClientError: the turn did not end well.
        """
        async for _ in self:
            pass
        assert self._response is not None, "an iteration without an error has a response"
        return self._response

    async def cancel(self) -> None:
        """Stop the turn for good, if it has not ended. The history is as it was before."""
        await self._stop(forget=True)

    async def aclose(self) -> None:
        """Stop the turn, if it has not ended; if the session is saved, a later process may go on with it."""
        await self._stop(forget=self._state.path is None)

    async def _stop(self, *, forget: bool) -> None:
        """Stop the turn, if it has not ended; `forget` tells a server that keeps it that nobody will go on with it."""
        self._cancelled = True
        if self._scope is not None and not self._scope.expired():  # another task waits for an event
            self._scope.reschedule(asyncio.get_running_loop().time())
        await self._idle.wait()
        await self._abandon(turn_cancelled())
        kept = self._machine.kept_id
        if forget and kept is not None and not self._forgotten:
            self._forgotten = True
            try:
                await self._save()
            finally:  # whether or not a later process can know of it, nobody reads this turn any more
                await self._forget(kept)

    # --- one step ----------------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        """Do what is to be done next. Whatever goes wrong here ends the turn, so that its session can go on."""
        try:
            await self._apply(await self._act_in_time())
        except BaseException as error:
            await self._abandon(error if isinstance(error, Exception) else turn_cancelled())
            raise

    async def _act_in_time(self) -> TurnEffects:
        left_s = self._machine.remaining_s(asyncio.get_running_loop().time()) if self._began else float("inf")
        try:
            async with asyncio.timeout(None if left_s == float("inf") else left_s) as self._scope:
                return await self._act()
        except TimeoutError:
            if self._scope is None or not self._scope.expired():
                raise
            if self._cancelled:
                return (GiveUp(turn_cancelled()),)
            return self._machine.failed(TurnFault(kind="timeout", transport=self._machine.kind), self._now())
        finally:
            self._scope = None

    async def _act(self) -> TurnEffects:
        if self._links.closed:
            return (GiveUp(client_closed(began=self._began)),)
        if not self._began:
            self._state.begin(self._request, self._machine)
            self._began = True
            return self._machine.start(self._now())
        try:
            return await self._perform(self._waiting)
        except TransportFault as error:
            return self._machine.failed(error.fault, self._now())

    async def _perform(self, effect: TurnEffect | None) -> TurnEffects:
        machine, links, lane = self._machine, self._links, self._state.lane
        match effect:
            case None:
                return await self._read()
            case Connect(kind=kind, near=near, fresh=fresh):
                server = await links.transport(kind).connect(lane=lane, near=near, fresh=fresh)
                self._state.note_connection(server.connection)
                return machine.connected(server, self._now())
            case SendCreate(kind=kind, body=body, connection=connection):
                await self._save_create()
                self._count(creates=1, bytes_up_payload=len(body))
                self._sent = True
                self._follow(await links.transport(kind).create(body, lane=lane, connection=connection))
                return ()
            case SendResume(kind=kind, response_id=known, starting_after=number, connection=connection, lean=lean):
                transport = links.transport(kind)
                self._follow(await transport.resume(known, number, lane=lane, connection=connection, lean=lean))
                return ()
            case Retrieve(response_id=known):
                document = await links.http.retrieve(known)
                self._count(bytes_down_payload=len(document))
                return machine.retrieved(document, self._now())
            case SleepFor(seconds=seconds, for_network=for_network):
                await (sleep_or_move(seconds) if for_network else asyncio.sleep(seconds))
                return machine.woken(self._now())
            case _:
                raise AssertionError(f"{type(effect).__name__} is nothing to wait for")

    async def _read(self) -> TurnEffects:
        assert self._stream is not None, "a turn that waits for nothing reads a stream"
        try:
            data = await anext(self._stream)
        except StopAsyncIteration:
            return self._machine.failed(TurnFault(kind="stream_ended", transport=self._machine.kind), self._now())
        self._read_bytes += len(data)
        return self._machine.received(data, self._now())

    def _follow(self, stream: EventStream) -> None:
        self._stream, self._waiting = stream, None

    # --- effects -----------------------------------------------------------------------------------------------------

    async def _apply(self, effects: TurnEffects) -> None:
        for effect in effects:
            if isinstance(effect, Emit):
                self._ready.append(effect.event)
                if isinstance(effect.event, ResponseCreated):
                    with suppress(SessionFileError):  # the file has what is needed already; the id makes it easier
                        await self._save()
                continue
            await self._close_stream()
            self._apply_one(effect)

    def _apply_one(self, effect: TurnEffect) -> None:
        match effect:
            case RecoveryStep(decision=decision):
                if decision.action in COUNTED:
                    self._count(**{COUNTED[decision.action]: 1})
                self._hooks.recovered(effect)
            case SwitchToHttp():
                self._links.only_http = True
            case Finish(response=response):
                self._response = response
                self._state.finish(effect)
            case GiveUp(error=error):
                self._fail(error)
            case _:
                self._waiting = effect

    async def _abandon(self, error: Exception) -> None:
        """End the turn without a response, unless it has ended."""
        if self._response is None and self._error is None:
            self._fail(error)
        await self._close_stream()

    def _fail(self, error: Exception) -> None:
        self._error = error
        if self._began:
            self._state.leave()
        else:
            self._state.discard(self._request)

    async def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            sent, received = stream.wire_sent_bytes, stream.wire_received_bytes
            self._count(bytes_down_payload=self._read_bytes, bytes_up_wire=sent, bytes_down_wire=received)
            self._read_bytes = 0
            await stream.aclose()

    async def _forget(self, response_id: str) -> None:
        """Tell the server; if that fails, it stops the turn a little later by itself."""
        with suppress(TransportFault, TimeoutError):
            async with asyncio.timeout(_FORGET_S):
                await self._links.http.forget(response_id)

    async def _save_create(self) -> None:
        """Write the session before a create leaves. If it cannot be, and one has left before, that one may have run."""
        try:
            await self._save()
        except SessionFileError as error:
            if self._sent:
                raise unsaved_repeat(error.done, self._machine.response_id) from error
            raise

    async def _save(self) -> None:
        """Write the session before something happens that a later process must know of."""
        if self._state.path is not None:
            await asyncio.to_thread(self._hooks.save)

    # --- figures -----------------------------------------------------------------------------------------------------

    def _count(self, **counts: int) -> None:
        self._state.meters = self._state.meters.plus(**counts)

    @staticmethod
    def _now() -> Moment:
        fraction = random.random()  # noqa: S311 - spreads waits, keeps no secret
        return Moment(asyncio.get_running_loop().time(), fraction, time.time())

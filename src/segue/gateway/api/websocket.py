"""WebSocket mode: the shell that carries out what the session machine decides, for one connection.

One task reads messages, and each running turn is a task of its own. While the session's queue is full the reader stops,
so that TCP stalls the client. The events of a batch leave in one write, and a slow reader slows its own upstream: the
next batch is not asked for before the socket has taken the last. When the peer is gone, its turns are cancelled and
what only this connection held is forgotten. Turns of several lanes run at the same time and share the socket, whole
writes at a time. Not here: which message means what (`segue.protocol.session`), and where parents are
(`turns.parents`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from itertools import count
from typing import assert_never

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from segue.gateway.api.draining import takes_no_more
from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.api.steers import ConnectionSteers, SteerTarget
from segue.gateway.api.websocket_frames import DeflatedFrames, event_frames, frames
from segue.gateway.connections import large_texts
from segue.gateway.drain import takes_no_connection
from segue.gateway.error_mapping import socket_reply
from segue.gateway.principal import Principal
from segue.gateway.redacted_traceback import redacted_traceback
from segue.gateway.request_memory import HeldRequest
from segue.gateway.services import Services
from segue.gateway.transport import peer_gone
from segue.gateway.turns.caller import Caller
from segue.gateway.turns.executor import TurnRun
from segue.gateway.turns.lean_batches import lean_batches
from segue.http.blocks import BLOCK_BYTES, Pieces
from segue.http.client_frames import LargeTexts
from segue.protocol.capabilities import HEADER
from segue.protocol.events import Ended, Event, in_lane
from segue.protocol.lanes import DEFAULT_LANE, tag
from segue.protocol.problems import Problem, Refused, events_gone, turn_stopped
from segue.protocol.requests import Create, Resume, Steer
from segue.protocol.session import (
    Cancel,
    Close,
    ConnectionLimits,
    Effect,
    Evict,
    Hold,
    LaneInput,
    Release,
    SendError,
    Session,
    Start,
    StopTurn,
    SubmitSteer,
)

_log = logging.getLogger("segue.gateway")

#: The events after which a response can be continued.
_CONTINUABLE = frozenset({"response.completed", "response.incomplete"})

#: The requests that may wait: their messages count in memory as long as they are there.
_KEPT = (Create, Steer)
#: So many messages are answered before the event loop goes round: others have something to do too.
_AT_ONCE = 32

#: OpenAI's servers say so how large a message may be, and Codex sends what is larger over HTTP.
_MESSAGE_LIMIT = "x-codex-websocket-max-message-bytes"

#: Python 3.11 takes ten times as long to find a member by its class.
_TEXT = WSMsgType.TEXT

#: How often a peer is asked for life while nothing is read from it.
_PROBE_S = 30.0


async def serve_websocket(services: Services, request: web.Request) -> web.StreamResponse:
    """Serve one connection in WebSocket mode until it is closed."""
    server, drain = services.server, services.drain
    if takes_no_more(drain, request):
        raise Refused(takes_no_connection())
    if drain.connections >= server.max_connections:
        raise Refused(Problem("server_overloaded", "No more WebSocket connections at the moment. Try again."))
    socket = web.WebSocketResponse(
        compress=server.compression,
        decode_text=False,  # a text would be in memory twice, and once more to be read
        max_msg_size=server.max_message_bytes + 1,  # aiohttp refuses a message of exactly the limit it is given
    )
    if not socket.can_prepare(request).ok:
        raise Refused(Problem("upgrade_required", "This endpoint speaks WebSocket: upgrade, or POST to it."))
    socket.headers[_MESSAGE_LIMIT] = str(server.max_message_bytes)
    socket.headers[HEADER] = services.profiles.of(request).header
    texts = large_texts(request, server.max_message_bytes)
    async with services.rules.limiter.connected(request[PRINCIPAL]):
        await socket.prepare(request)
        if request.transport is not None:  # it has not left while it was answered
            connection = WebSocketConnection(services, request, socket, request[PRINCIPAL], texts=texts)
            with drain.connection_open(connection):
                if services.drain.draining:  # since it was let in: who asks connections to end did not know of this one
                    await connection.drain()
                await connection.serve()
    return socket


#: What the turn of a lane does: it waits and has sent nothing, waits for what comes next, or writes.
_SILENT, _WAITING, _WRITING = "silent", "waiting", "writing"


class WebSocketConnection:
    """One client in WebSocket mode."""

    def __init__(
        self,
        services: Services,
        request: web.Request,
        socket: web.WebSocketResponse,
        principal: Principal,
        *,
        texts: LargeTexts,
    ) -> None:
        server = services.server
        bounds = services.profiles.of(request).bounds
        limits = ConnectionLimits(
            server.max_age_s, server.idle_timeout_s, server.max_queued, server.max_message_bytes, bounds
        )
        self._services = services
        assert request.transport is not None, "the upgrade was answered just now"
        self._socket = socket
        self._texts = texts
        self._transport = request.transport
        self._drain = request.writer.drain
        self._deflate = _deflate_of(socket)
        self._principal = principal
        self._credential = services.access.credential(request.headers)
        self._meter = services.metrics.by_transport["websocket"]
        self._loop = asyncio.get_running_loop()
        self._session = Session(limits, self._loop.time())
        self._turns: set[asyncio.Task[None]] = set()
        self._runs: dict[str, TurnRun | str] = {}  # what runs, by lane; of a kept turn its id
        self._tasks: dict[str, asyncio.Task[None]] = {}  # that run turns, by lane
        self._doing: dict[str, str] = {}  # what the turn of a lane does
        self._stopped: set[str] = set()  # the lanes whose turns were stopped by their client
        self._slots = services.parents.connection(principal.tenant)
        self._steers: ConnectionSteers | None = None  # once there was one
        self._order = asyncio.Lock()
        self._applying = 0  # how many have, or wait for, the order
        self._writing = asyncio.Lock()
        self._room = asyncio.Event()  # set whenever the queue may have room again
        self._timer: asyncio.TimerHandle | None = None
        self._timeout: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[bool] | None = None

    async def serve(self) -> None:
        """Read messages until the connection is over, then clean up."""
        self._arm()
        try:
            await self._read()
        except ConnectionError:
            pass  # the peer is gone; that is not an error
        finally:
            await self._clean_up()

    async def drain(self) -> None:
        """Let what runs end, then close."""
        await self._apply(self._session.drain())

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        session = self._session
        for number in count():
            while session.saturated and not session.closed:
                await self._wait_for_room()
            if session.closed or not await self._take(await self._socket.receive()):
                return
            if number % _AT_ONCE == _AT_ONCE - 1:  # thousands of small messages may be there already
                await asyncio.sleep(0)

    async def _take(self, message: WSMessage) -> bool:
        """Take a message, which is not kept any longer than that; return False at the end of the connection."""
        if message.type is _TEXT:
            text = message.data
            return await (self._take_text(text) if text != self._texts.mark else self._take_pieces())
        if message.type is WSMsgType.BINARY:
            await self._apply(self._session.receive_binary())
        else:
            return False
        return True

    async def _take_pieces(self) -> bool:
        """Take a large message, which is joined once there is memory for it."""
        services, tenant = self._services, self._principal.tenant
        pieces = self._texts.arrived.popleft()
        held = services.memory.hold(tenant, pieces.size_bytes)
        try:
            while not held.counted:
                await self._wait(held.admitted())
            text = await services.requests.whole(pieces, tenant)
        except BaseException:
            held.release()
            raise
        return await self._take_text(text, held)

    async def _take_text(self, text: bytes, held: HeldRequest | None = None) -> bool:
        """Take a message once there is memory for it. What it asks for counts as long as it is there.

        Return False for one that is no UTF-8, which ends the connection (RFC 6455, 8.1).
        """
        services, principal, size = self._services, self._principal, len(text)
        self._meter.received(size)
        services.rules.quotas.note_upload(principal, size, services.clock())
        if held is None:
            held = services.memory.hold(principal.tenant, size)
        kept = False
        try:
            while not held.counted:
                await self._wait(held.admitted())
            parsed = await services.requests.message(text, principal.tenant)
            if parsed is None:
                await self._close(WSCloseCode.INVALID_TEXT, "not UTF-8")
            else:
                kept = isinstance(parsed.request, _KEPT)
                if kept:
                    held.release_with(parsed.request)
                await self._apply(self._session.receive(text, self._loop.time(), parsed))
        except BaseException:
            held.release()
            raise
        if not kept:
            held.release()
        return parsed is not None

    async def _wait_for_room(self) -> None:
        """Wait until the queue may have room. While nothing is read, only a write shows that the peer is gone."""
        self._room.clear()
        await self._wait(self._room.wait())

    async def _wait(self, event: Awaitable[object]) -> None:
        """Wait for something, but not for ever without asking the peer for life."""
        try:
            async with asyncio.timeout(_PROBE_S):
                await event
        except TimeoutError:
            await self._socket.ping()

    async def _clean_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for effect in self._session.disconnected():
            assert isinstance(effect, Cancel), "a connection that is gone can only cancel"
            self._cancel_turns()
        # Leaving before the peer has answered a close would reset the connection and cut off what it has not read.
        others = [task for task in (self._timeout, self._closing) if task is not None]
        try:
            await asyncio.gather(*self._turns, *others, return_exceptions=True)
        finally:
            grace_s = self._services.server.grace_s
            self._slots.close(self._services.clock() + grace_s if grace_s else None)

    # --- effects -----------------------------------------------------------------------------------------------------

    async def _apply(self, effects: Sequence[Effect]) -> None:
        """Carry out effects in their order, and after earlier ones that wait for a full socket."""
        if not effects:
            return
        if len(effects) == 1 and isinstance(effects[0], Start) and not self._applying:
            self._start(effects[0])  # nearly always: nothing waits, so there is no order to keep
            return
        for effect in effects:
            if isinstance(effect, Hold):  # now: a turn of another lane may end at the next await
                self._slots.hold_for_fork(effect.lane, effect.number, effect.response_id)
        self._applying += 1
        try:
            async with self._order:
                for effect in effects:
                    await self._carry_out(effect)
        finally:
            self._applying -= 1

    def _start(self, start: Start) -> None:
        task = self._tasks[start.lane] = self._loop.create_task(self._run_turn(start))
        self._turns.add(task)
        task.add_done_callback(self._turns.discard)

    async def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Hold():
                pass  # done above, before anything was awaited
            case Start():
                self._start(effect)
            case SendError():
                await self._refuse(effect.problem, effect.lane)
            case SubmitSteer():
                await self._submit(effect.steer)
            case Release():
                self._slots.release_fork(effect.number)
            case StopTurn():
                self._stop_turn(effect.lane)
            case Evict():
                self._slots.evict(effect.lane, effect.response_id)
            case Cancel():
                self._cancel_turns()
            case Close():
                await self._close(effect.code, effect.reason)
            case _:
                assert_never(effect)

    async def _close(self, code: int, reason: str) -> None:
        """Close the socket; returns when the peer has answered, or takes too long."""
        self._room.set()
        self._closing = self._loop.create_task(self._socket.close(code=code, message=reason.encode()))
        await asyncio.shield(self._closing)

    def _cancel_turns(self) -> None:
        for task in self._turns:
            task.cancel()

    def _stop_turn(self, lane: str) -> None:
        """Stop the turn of a lane, unless it outlives connections or is stored just now.

        What is being written is written to its end first: a part of a message would break the connection.
        """
        run = self._runs.get(lane)
        if lane not in self._tasks or lane in self._stopped:
            return  # it has ended meanwhile
        if isinstance(run, str) or (run is not None and run.committing):
            return
        self._stopped.add(lane)
        if self._doing.get(lane, _WRITING) != _WRITING:
            self._tasks[lane].cancel()

    async def _run_turn(self, start: Start) -> None:
        """Run a turn to its end, and carry out what the session makes of its outcome."""
        try:
            try:
                outcome = await self._stream(start)
                if self._steers is not None:
                    outcome = await self._continue_steered(self._steers, start, outcome)
            finally:
                del self._tasks[start.lane]
                if self._stopped:
                    self._stopped.discard(start.lane)
            effects = self._session.ended(start.lane, outcome, self._loop.time())
            self._room.set()
            self._arm()
            if self._deflate is not None and not self._runs:
                self._deflate.rest()
            if effects:
                await self._apply(effects)
        except ConnectionError:
            pass  # the reader notices it too, and cleans up
        except Exception as error:  # noqa: BLE001 - a bug of ours must not leave the client waiting in a dead lane
            _log.error("action=turn error=%s", redacted_traceback(error))
            await self._close(WSCloseCode.INTERNAL_ERROR, "internal error")

    async def _stream(self, start: Start) -> LaneInput:
        """Send a turn's events; returns what the turn means for its lane.

        While it waits for what comes next, and at no other time, its client may have stopped it with a cancellation.
        """
        name, lane, doing = start.lane, tag(start.lane), self._doing
        last: Event | None = None
        events = size = 0
        doing[name] = _SILENT
        try:
            batches = await self._open(start)
            form = start.request.form
            if form != "whole":
                batches = lean_batches(batches, form=form)
            try:
                async for batch in batches:
                    doing[name] = _WRITING
                    last = batch[-1]
                    size += await self._send_events(batch, lane)
                    events += len(batch)
                    if name in self._stopped:
                        break
                    doing[name] = _WAITING
            finally:
                doing[name] = _WRITING
                await batches.aclose()
            if last is None or name in self._stopped:
                await self._end_early(start, begun=last is not None)
        except Refused as refused:
            doing[name] = _WRITING
            await self._refuse_turn(refused.problem, name)
            last = None
        except asyncio.CancelledError:
            if not self._is_stopped_alone(name):
                raise
            await self._end_early(start, begun=last is not None)
        finally:
            self._meter.sent(events, size)
            self._note_run(start)
            self._slots.release_fork(start.number)
        if last is not None and last.type in _CONTINUABLE:
            return LaneInput.SUCCEEDED
        return LaneInput.CANCELLED if name in self._stopped else LaneInput.FAILED

    async def _refuse_turn(self, problem: Problem, lane: str) -> None:
        if self._steers is None or not self._steers.is_automatic(lane):
            await self._refuse(problem, lane)

    def _is_stopped_alone(self, lane: str) -> bool:
        """Tell whether the turn was cancelled by its client and by nothing else; then its task goes on."""
        self._doing[lane] = _WRITING
        task = asyncio.current_task()
        assert task is not None, "a turn is a task"
        return lane in self._stopped and task.cancelling() == 1 and task.uncancel() == 0

    async def _end_early(self, start: Start, *, begun: bool) -> None:
        """Send what ends a turn that has not ended by itself: one that was stopped, or a resumed one without events."""
        lane, run = start.lane, self._runs.get(start.lane)
        if isinstance(run, TurnRun) and run.finished is not None:
            return  # it had ended
        if lane not in self._stopped:
            if isinstance(start.request, Resume):  # otherwise its client would wait forever
                await self._refuse(events_gone(start.request.response_id), lane)
            return
        finished = run.end_early(Ended("cancelled")) if isinstance(run, TurnRun) and begun else None
        if finished is None:
            await self._refuse(turn_stopped(), lane)
        else:
            await self._send([finished.terminal.pieces(tag(lane))])

    async def _continue_steered(self, steers: ConnectionSteers, start: Start, outcome: LaneInput) -> LaneInput:
        """Run the automatic successors of a response that was steered. Its lane is busy as with one turn."""
        while (create := await steers.ended(start.lane, accepting=self._accepts(start.lane))) is not None:
            outcome = await self._stream(Start(start.lane, create, start.number))
            if outcome is LaneInput.FAILED and create.previous_response_id is not None:
                self._slots.evict(start.lane, create.previous_response_id)
        return outcome

    def _accepts(self, lane: str) -> bool:
        return self._session.accepting and lane not in self._stopped

    def _note_run(self, start: Start) -> None:
        """Let an unstored response end with the connection, whatever became of its turn; kept turns outlive it."""
        run = self._runs.pop(start.lane, None)
        if isinstance(run, TurnRun) and run.response_id is not None:
            assert isinstance(start.request, Create), "only a create is run here"
            if not start.request.store:
                self._slots.note_unstored(run.response_id)

    async def _open(self, start: Start) -> AsyncGenerator[Sequence[Event], None]:
        """Begin a turn, or go on with one, and return its events. Raises `Refused`."""
        lane, request, background = start.lane, start.request, self._services.background
        if lane in self._stopped:
            raise Refused(turn_stopped())
        principal = self._services.rules.renewed(self._principal)
        tenant = principal.tenant
        if isinstance(request, Resume):
            after = -1 if request.starting_after is None else request.starting_after
            rest = background.resume(tenant, request.response_id, after)
            return self._follow(lane, request.response_id, rest)
        self._services.check_epoch(request)
        if self._steers is not None:
            request = await self._steers.carry(lane, request)
        refers = bool(request.input.references)
        places = self._slots.places(lane, start.number, request.previous_response_id, refers=refers)
        caller = Caller(principal, self._meter, self._slots.lane(lane), places, self._credential)
        if request.kept:
            response_id = await background.create(request, caller)
            events = self._follow(lane, response_id, background.follow(tenant, response_id, -1))
            return events if self._steers is None else self._steers.committing(lane, events)
        run = self._runs[lane] = self._services.executor.run(request, caller)
        return run.events() if self._steers is None else self._steers.committing(lane, run.events())

    async def _follow(
        self, lane: str, response_id: str, batches: AsyncGenerator[Sequence[Event], None]
    ) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the events of a kept turn. If it ends well it becomes the lane's latest before the client knows."""
        self._runs[lane] = response_id
        async with aclosing(batches):
            async for batch in batches:
                if batch[-1].type in _CONTINUABLE:
                    self._slots.adopt(lane, response_id)
                yield batch

    # --- timers ------------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Set the timer for the next deadline. A timer that is set for earlier stays: a call too early does no harm."""
        deadline = self._session.next_deadline()
        if deadline is None or (self._timer is not None and self._timer.when() <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        effects = self._session.timeout(self._loop.time())
        if effects:
            self._timeout = self._loop.create_task(self._apply(effects))
        self._arm()

    # --- writing -----------------------------------------------------------------------------------------------------

    async def _refuse(self, problem: Problem, lane: str) -> None:
        payload = socket_reply(problem, lane)
        await self._send([(payload,)])
        self._meter.sent(1, len(payload))

    async def _submit(self, steer: Steer) -> None:
        """Queue a steer, or answer why not, in the lane of the response that it is for."""
        if self._steers is None:
            executor, limits = self._services.executor, self._services.requests.limits
            self._steers = ConnectionSteers(self._send_in_lane, entropy=executor.entropy, limits=limits)
        await self._steers.submit(steer, self._target_of(steer.previous_response_id))

    def _target_of(self, response_id: str) -> SteerTarget:
        for lane, run in self._runs.items():
            if response_id == (run if isinstance(run, str) else run.response_id):
                return SteerTarget(lane, None if isinstance(run, str) else run, kept=isinstance(run, str))
        return SteerTarget(DEFAULT_LANE, ended=self._slots.holds(response_id))

    async def _send_in_lane(self, event: bytes, lane: str) -> None:
        payload = in_lane(event, tag(lane))
        await self._send([(payload,)])
        self._meter.sent(1, len(payload))

    async def _send_events(self, batch: Sequence[Event], lane: bytes) -> int:
        """Write events; return how many bytes they have, when the socket has room for more."""
        if self._deflate is None and not self._writing.locked():
            pieces, size = event_frames(batch, lane)
            if size <= BLOCK_BYTES:  # nearly always
                await self._write(b"".join(pieces))
                return size
        messages = [event.pieces(lane) for event in batch]
        await self._send(messages)
        return sum([len(piece) for message in messages for piece in message])

    async def _send(self, messages: Sequence[Pieces]) -> None:
        """Write messages, small ones in one piece; return when the socket has room for more."""
        async with self._writing:  # between two fragments of a message, no other one may be written (RFC 6455, 5.4)
            for data in frames(messages, self._deflate):
                await self._write(data)
                if len(data) > BLOCK_BYTES:  # a socket may have room at once, and others are to go on
                    await asyncio.sleep(0)

    async def _write(self, data: bytes) -> None:
        if self._socket.closed or self._transport.is_closing():
            raise ConnectionResetError("the socket is closed")
        self._transport.write(data)
        try:
            await self._drain()
        except ConnectionError as error:
            raise peer_gone(error) from None


def _deflate_of(socket: web.WebSocketResponse) -> DeflatedFrames | None:
    """Return the compression that the handshake has agreed on, if any."""
    if not socket.compress:
        return None
    agreed = socket.headers["Sec-WebSocket-Extensions"]
    return DeflatedFrames(int(socket.compress), takeover="server_no_context_takeover" not in agreed)

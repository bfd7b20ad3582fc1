"""A turn moves as its caller pulls, ends once, and can be stopped at every step."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from segue.client.errors import ClientError, SessionFileError, TurnCancelledError
from segue.client.local_history import read_items
from segue.client.recovery import TurnFault
from segue.client.session_state import SessionState
from segue.client.settings import SessionSettings
from segue.client.stream_events import ResponseCreated, ResponseFinished
from segue.client.transports.interface import Connected
from segue.client.turn import AsyncTurn, RecoveryObserver, ServerLinks, TurnHooks
from segue.client.turn_effects import RecoveryStep
from segue.protocol.requests import LeanForm
from tests.client.memory_transport import MemoryLinks, MemoryStream, MemoryTransport
from tests.client.played_server import FULL, answer_of


class Stop:
    """A place where a turn waits for ever; when it is cancelled, it waits for `leaves` too."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.leaving = asyncio.Event()
        self.leaves = asyncio.Event()
        self.leaves.set()

    async def wait(self) -> None:
        self.reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.leaving.set()
            await self.leaves.wait()


class StoppingTransport(MemoryTransport):
    """Waits at the call of a name, when it comes for the given time."""

    def stop_at(self, name: str, *, call: int = 1) -> Stop:
        self._name, self._left, self._stop = name, call, Stop()
        return self._stop

    async def _pass(self, name: str) -> None:
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                await self._stop.wait()

    async def connect(self, *, lane: int, near: int | None = None, fresh: bool = False) -> Connected:
        await self._pass("connect")
        return await super().connect(lane=lane, near=near, fresh=fresh)

    async def create(self, body: bytes, *, lane: int, connection: int) -> MemoryStream:
        await self._pass("create")
        return await super().create(body, lane=lane, connection=connection)

    async def resume(
        self, response_id: str, starting_after: int, *, lane: int, connection: int, lean: LeanForm = False
    ) -> MemoryStream:
        await self._pass("resume")
        return await super().resume(response_id, starting_after, lane=lane, connection=connection, lean=lean)

    async def retrieve(self, response_id: str) -> bytes:
        await self._pass("retrieve")
        return await super().retrieve(response_id)


class Turns:
    """The turns of one session to a server in memory, without the session."""

    def __init__(self, *, store: bool = False, **rules: object) -> None:
        self.memory = MemoryLinks(**rules)
        self.http = StoppingTransport(self.memory.server, "http")
        self.websocket = StoppingTransport(self.memory.server, "websocket")
        self.memory.http, self.memory.websocket = self.http, self.websocket
        for transport in (self.http, self.websocket):
            transport.stop_at("nothing")
        self.links: ServerLinks = self.memory.open()
        self.state = SessionState(SessionSettings(model="m", store=store), lane=1)
        self.steps: list[RecoveryStep] = []
        self.saved = 0

    def turn(
        self, text: str, *, recovered: RecoveryObserver | None = None, save: Callable[[], None] | None = None
    ) -> AsyncTurn:
        request = self.state.new_turn(read_items(text), key=f"key-{text}")
        hooks = TurnHooks(recovered or self.steps.append, save or self._save)
        return AsyncTurn(self.state, self.links, request, hooks)

    def _save(self) -> None:
        self.saved += 1

    async def goes_on(self) -> None:
        """Show that nothing is left of the turns before, and that the next one runs."""
        assert not self.state.busy
        assert self.state.history.items == ()
        assert all(stream.closed for stream in (*self.websocket.streams, *self.http.streams))
        response = await self.turn("next").response()
        assert response.output_text == answer_of(("next",))
        assert len(self.state.history.items) == 2


# --- pulling ---------------------------------------------------------------------------------------------------------


async def test_a_turn_moves_only_as_its_caller_pulls() -> None:
    turns = Turns()
    turn = turns.turn("one")
    await asyncio.sleep(0)
    assert turns.memory.server.creates == []
    first = await anext(turn)
    assert isinstance(first, ResponseCreated)
    (stream,) = turns.websocket.streams
    assert stream.wire_received_bytes == len(turns.memory.server.runs[0].events[0])
    for _ in range(10):
        await asyncio.sleep(0)
    assert stream.wire_received_bytes == len(turns.memory.server.runs[0].events[0])
    assert turns.state.busy


async def test_who_breaks_off_can_go_on_with_the_same_turn() -> None:
    turns = Turns()
    turn = turns.turn("one")
    seen = []
    async for event in turn:
        seen.append(event)
        break
    seen += [event async for event in turn]
    assert [event.sequence_number for event in seen] == list(range(len(turns.memory.server.runs[0].events)))
    assert isinstance(seen[-1], ResponseFinished)


async def test_a_turn_that_has_ended_has_no_more_events_and_keeps_its_response() -> None:
    turns = Turns()
    turn = turns.turn("one")
    response = await turn.response()
    assert [event async for event in turn] == []
    assert await turn.response() is response
    assert len(turns.memory.server.creates) == 1


async def test_what_was_read_is_counted_when_a_stream_ends() -> None:
    turns = Turns()
    turn = turns.turn("one")
    await anext(turn)
    assert turns.state.meters.bytes_down_payload == 0
    await turn.cancel()
    read = len(turns.memory.server.runs[0].events[0])
    meters = turns.state.meters
    assert (meters.bytes_down_payload, meters.bytes_down_wire, meters.bytes_up_wire) == (read, read, 10)


# --- stopping --------------------------------------------------------------------------------------------------------


def _stopping_at(turns: Turns, place: str) -> Stop:
    """Let the turn wait in one of its steps; some come only after something has broken."""
    match place:
        case "connect" | "create":
            return turns.websocket.stop_at(place)
        case "ask":
            turns.websocket.troubles.append(2)
            return turns.websocket.stop_at("connect", call=2)
        case "resume":
            turns.websocket.troubles.append(2)
            return turns.websocket.stop_at("resume")
        case "repeat":
            turns.websocket.troubles.append(0)
            return turns.websocket.stop_at("create", call=2)
        case _:
            turns.websocket.troubles.append(2)
            return turns.http.stop_at("retrieve")


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("place", ["connect", "create", "ask", "resume", "repeat", "retrieve"])
async def test_a_turn_can_be_stopped_at_every_step(place: str, *, interrupted: bool) -> None:
    """By another task that cancels the turn, or by one that cancels the task which reads it."""
    turns = Turns(store=True, extensions=() if place == "retrieve" else FULL)
    stop = _stopping_at(turns, place)
    turn = turns.turn("one")
    reading = asyncio.create_task(turn.response())
    await stop.reached.wait()
    assert turns.state.busy
    if interrupted:
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    else:
        await turn.cancel()
        with pytest.raises(TurnCancelledError, match="was cancelled"):
            await reading
    with pytest.raises(TurnCancelledError):
        await turn.response()
    await turns.goes_on()


async def test_a_turn_can_be_stopped_while_it_waits_to_come_back() -> None:
    turns, told = Turns(extensions=FULL), asyncio.Event()
    turns.websocket.troubles.append(2)
    turn = turns.turn("one", recovered=lambda _: told.set())
    reading = asyncio.create_task(turn.response())
    await told.wait()
    await turn.cancel()
    with pytest.raises(TurnCancelledError):
        await reading
    assert turns.http.forgotten == ["resp_0"]
    await turns.goes_on()


async def test_a_turn_can_be_stopped_while_its_session_is_saved() -> None:
    turns, written = Turns(), threading.Event()
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    turns.state.path = "a file"

    def save() -> None:
        loop.call_soon_threadsafe(begun.set)
        written.wait()

    turn = turns.turn("one", save=save)
    reading = asyncio.create_task(turn.response())
    await begun.wait()
    await turn.aclose()
    written.set()
    with pytest.raises(TurnCancelledError):
        await reading
    assert turns.memory.server.creates == []
    await turns.goes_on()


async def test_a_server_is_told_of_a_cancelled_turn_though_the_session_cannot_be_saved() -> None:
    turns, full = Turns(extensions=FULL), list[bool]()
    turns.state.path = "a file"

    def save() -> None:
        if full:
            raise SessionFileError("The session could not be written: no space.", "The session itself goes on.")

    turn = turns.turn("one", save=save)
    await anext(turn)
    full.append(True)
    with pytest.raises(SessionFileError):
        await turn.cancel()
    assert turns.http.forgotten == ["resp_0"]
    await turns.goes_on()


async def test_several_tasks_can_stop_a_turn_that_leaves_slowly() -> None:
    turns = Turns()
    stop = turns.websocket.stop_at("create")
    stop.leaves.clear()
    turn = turns.turn("one")
    reading = asyncio.create_task(turn.response())
    await stop.reached.wait()
    first = asyncio.create_task(turn.cancel())
    await stop.leaving.wait()
    others = [asyncio.create_task(turn.cancel()), asyncio.create_task(turn.aclose())]
    await asyncio.sleep(0)
    assert not any(task.done() for task in (first, *others, reading))
    stop.leaves.set()
    await asyncio.gather(first, *others)
    with pytest.raises(TurnCancelledError):
        await reading
    await turns.goes_on()


async def test_a_client_that_was_closed_begins_no_turn() -> None:
    turns = Turns()
    turn = turns.turn("one")
    await turns.links.aclose()
    with pytest.raises(TurnCancelledError, match="Nothing was sent: the client is closed"):
        await turn.response()
    assert turns.memory.server.creates == []
    assert turns.http.closed
    assert turns.websocket.closed


# --- what the hooks do -----------------------------------------------------------------------------------------------


async def test_an_error_of_who_is_told_of_a_recovery_ends_the_turn() -> None:
    turns = Turns(extensions=FULL)
    turns.websocket.troubles.append(3)

    def recovered(step: RecoveryStep) -> None:
        raise LookupError(step.fault.kind)

    turn = turns.turn("one", recovered=recovered)
    for _ in range(3):
        await anext(turn)
    for _ in range(2):
        with pytest.raises(LookupError, match="connection_lost"):
            await anext(turn)
    await turns.goes_on()


async def test_a_session_that_cannot_be_saved_sends_nothing() -> None:
    turns = Turns()
    turns.state.path = "a file"

    def save() -> None:
        raise SessionFileError("The session could not be written: no space.", "The session itself goes on.")

    with pytest.raises(SessionFileError):
        await turns.turn("one", save=save).response()
    assert turns.memory.server.creates == []
    await turns.goes_on()


async def test_a_session_is_saved_before_its_create_leaves_and_when_its_id_is_known() -> None:
    """Without the second time a later process would find the turn too, by its key."""
    turns, ids = Turns(extensions=FULL), list[str | None]()
    turns.state.path = "a file"

    def save() -> None:
        saved = turns.state.record(now=0.0, unix_now=0.0).turn
        assert saved is not None
        ids.append(saved.delivered.response_id if saved.delivered is not None else None)
        if len(ids) == 2:
            raise SessionFileError("The session could not be written: no space.", "The session itself goes on.")

    assert (await turns.turn("one", save=save).response()).status == "completed"
    assert ids == [None, "resp_0"]


async def test_a_turn_that_goes_to_http_takes_all_later_ones_there() -> None:
    turns = Turns()
    turns.websocket.refusals.append(TurnFault(kind="upgrade_refused", transport="websocket", status=426))
    await turns.turn("one").response()
    assert [step.decision.action for step in turns.steps] == ["use_http"]
    assert turns.links.only_http
    await turns.turn("two").response()
    assert (len(turns.http.streams), len(turns.websocket.streams)) == (2, 0)


async def test_both_transports_are_closed_if_one_fails_to() -> None:
    class Failing(StoppingTransport):
        async def aclose(self) -> None:
            raise OSError("closed already")

    turns = Turns()
    links = ServerLinks(Failing(turns.memory.server, "http"), turns.websocket)
    with pytest.raises(OSError, match="closed already"):
        await links.aclose()
    assert turns.websocket.closed
    assert links.closed


async def test_a_turn_that_was_left_out_is_refused_and_the_latest_runs() -> None:
    turns = Turns()
    first, second = turns.turn("one"), turns.turn("two")
    with pytest.raises(ClientError, match="another turn"):
        await first.response()
    await first.cancel()
    assert (await second.response()).output_text == answer_of(("two",))

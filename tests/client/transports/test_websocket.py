"""One WebSocket that carries the turns of several lanes, against a scripted server on a loopback socket."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve

from segue.client.recovery import FaultKind, TurnFault
from segue.client.settings import ConnectionSettings
from segue.client.transports.http_exchange import ServerExchanges
from segue.client.transports.interface import TransportFault
from segue.client.transports.upgrade import open_socket
from segue.client.transports.websocket import LaneConnection, LaneStream, SocketLimits
from segue.http.heads import Line
from segue.http_client.wire_meter import WireMeter
from segue.testing.link import LinkProfile, linked
from segue.testing.provider import ACCEPTED, Answer, MessageScript, ScriptedProvider, SocketAnswer, provided
from tests.client.transports.streams import CREATE, drained, event, refusal, response, settings_for, until
from tests.loop_clock import LoopClock

START = b'{"type":"response.create",'
LANES = Answer(
    status=101,
    reason=b"Switching Protocols",
    lines=(Line(b"Segue-Capabilities", b"lanes=32, in_flight=16, message_bytes=1000000, extensions=(lanes)"),),
)
EVENTS = response()
STARTED = EVENTS[:2]


@asynccontextmanager
async def connected(
    messages: MessageScript | SocketAnswer,
    *,
    lanes: int = 1,
    accepted: Answer = LANES,
    limits: SocketLimits | None = None,
    **changes: Any,  # noqa: ANN401 - fields of the settings
) -> AsyncIterator[tuple[ScriptedProvider, LaneConnection]]:
    script = messages if callable(messages) else lambda _: messages
    async with provided(lambda _: accepted, script) as provider:
        server = ServerExchanges(settings_for(provider, **changes))
        connection = LaneConnection(1, await open_socket(server), server.words, limits or SocketLimits())
        for lane in range(lanes):
            connection.seats.sit(lane, connection.busy)
        try:
            yield provider, connection
        finally:
            await connection.aclose()
            await server.aclose()


async def create(connection: LaneConnection, lane: int = 0) -> LaneStream:
    return await connection.request(lane, START, CREATE)


async def refused(connection: LaneConnection, lane: int = 0, body: bytes = CREATE) -> TurnFault:
    with pytest.raises(TransportFault) as raised:
        await connection.request(lane, START, body)
    return raised.value.fault


def in_turn(*answers: SocketAnswer) -> MessageScript:
    """Answer one message after the other, whatever it is."""
    return lambda message: answers[message.number]


# --- turns -----------------------------------------------------------------------------------------------------------


async def test_a_create_is_one_message_and_its_answer_the_events() -> None:
    async with connected(SocketAnswer(messages=EVENTS)) as (provider, connection):
        for _ in range(2):
            assert await drained(await create(connection)) == (list(EVENTS), None)
        assert [message.data for message in provider.messages] == [
            b'{"type":"response.create","model":"m","input":"hi"}'
        ] * 2
        assert all(message.text for message in provider.messages)
        assert connection.busy == []


async def test_the_lanes_of_a_connection_run_side_by_side() -> None:
    """The events of three lanes come in any order; each lane gets its own, in their order."""
    first, second, third = (response(f"resp_{lane}", lane) for lane in ("", "1", "2"))
    mixed = (third[0], first[0], second[0], second[1], first[1], second[2], third[1], third[2], first[2])
    nothing = SocketAnswer()
    async with connected(in_turn(nothing, nothing, SocketAnswer(messages=mixed)), lanes=3) as (provider, connection):
        streams = [await create(connection, lane) for lane in range(3)]
        answers = await asyncio.gather(*map(drained, streams))
        names = [msgspec.json.decode(message.data).get("stream_id") for message in provider.messages]
    assert answers == [(list(events), None) for events in (first, second, third)]
    assert names == [None, "1", "2"]


async def test_what_a_turn_costs_is_counted_to_the_byte() -> None:
    async with connected(SocketAnswer(messages=EVENTS)) as (provider, connection):
        streams = []
        for _ in range(2):
            streams.append(await create(connection))
            await drained(streams[-1])
        first, second = streams
        message = len(provider.messages[0].data)
        assert second.wire_sent_bytes == message + 2 + 4
        assert second.wire_received_bytes == sum(len(one) + (2 if len(one) < 126 else 4) for one in EVENTS)
        assert first.wire_sent_bytes == message + 2 + 4 + len(provider.requests[0].raw_head)
        assert first.wire_received_bytes > second.wire_received_bytes, "the answer to the upgrade is in it"


async def test_a_lane_without_a_seat_sends_nothing() -> None:
    async with connected(SocketAnswer(messages=EVENTS)) as (provider, connection):
        fault = await refused(connection, lane=7)
        assert (fault.kind, fault.delivered) == ("connection_gone", "no")
        assert provider.messages == []


async def test_a_message_that_is_too_large_for_the_server_is_not_sent() -> None:
    async with connected(SocketAnswer(messages=EVENTS)) as (provider, connection):
        fault = await refused(connection, body=b'{"input":"%b"}' % (b"x" * 1_000_000))
        assert (fault.kind, fault.status, fault.code) == ("refused", 413, "message_too_large")
        assert fault.delivered == "no"
        assert provider.messages == []
        assert await drained(await create(connection)) == (list(EVENTS), None)


# --- the end of a connection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "close_code"),
    [
        (SocketAnswer(messages=STARTED, close_code=1000, close_reason="bye"), "stream_ended", 1000),
        (SocketAnswer(messages=STARTED, close_code=1001, close_reason="bye"), "stream_ended", 1001),
        (SocketAnswer(messages=STARTED, close_code=1011, close_reason="bye"), "connection_lost", 1011),
        (SocketAnswer(messages=STARTED, close_code=1009, close_reason="bye"), "connection_lost", 1009),
        (SocketAnswer(messages=STARTED, close_code=4402, close_reason="bye"), "connection_lost", 4402),
        (SocketAnswer(messages=EVENTS, cut_after=2), "connection_lost", None),
    ],
)
async def test_a_turn_whose_connection_ends_is_told_so(
    answer: SocketAnswer, kind: FaultKind, close_code: int | None
) -> None:
    """Clients of others end in silence on 1000 and 1001, and take half an answer for a whole one."""
    async with connected(answer) as (_, connection):
        events, fault = await drained(await create(connection))
        assert events == list(STARTED)
        assert fault is not None
        assert (fault.kind, fault.delivered, fault.close_code) == (kind, "maybe", close_code)
        assert fault.message == (None if close_code is None else "bye")
        assert fault.silent_s is not None
        assert connection.closed
        assert (await refused(connection)).kind == "connection_gone"


@pytest.mark.parametrize(("size", "kind"), [(100_000, "refused"), (1000, "connection_lost")])
async def test_a_create_that_is_too_big_for_the_server_is_refused_and_others_are_lost(
    size: int, kind: FaultKind
) -> None:
    """A small one was not too big: something else was, and the create may run."""
    answers = in_turn(SocketAnswer(messages=STARTED), SocketAnswer(messages=(), close_code=1009))
    async with connected(answers, lanes=2) as (_, connection):
        running = await create(connection)
        assert [await anext(running), await anext(running)] == list(STARTED)
        too_big = await connection.request(1, START, b'{"input":"%b"}' % (b"x" * size))
        _, fault = await drained(too_big)
        assert fault is not None
        assert fault.kind == kind
        if kind == "refused":
            assert (fault.status, fault.code) == (413, "message_too_large")
        _, lost = await drained(running)
        assert lost is not None
        assert lost.kind == "connection_lost"


async def test_a_close_without_any_code_ends_in_order_and_is_still_a_fault() -> None:
    async with connected(SocketAnswer(messages=STARTED, close_code=1000)) as (_, connection):
        _, fault = await drained(await create(connection))
    assert fault is not None
    assert (fault.kind, fault.message) == ("stream_ended", None)


async def test_all_lanes_of_a_connection_that_ends_are_told_so() -> None:
    cut = SocketAnswer(messages=(event("response.created", 0, "1"), b""), cut_after=1)
    async with connected(in_turn(SocketAnswer(), cut), lanes=2) as (_, connection):
        streams = [await create(connection, lane) for lane in range(2)]
        answers = await asyncio.gather(*map(drained, streams))
    assert [len(events) for events, _ in answers] == [0, 1]
    assert [fault.kind for _, fault in answers if fault is not None] == ["connection_lost"] * 2


async def test_what_is_no_event_breaks_the_connection() -> None:
    async with connected(SocketAnswer(messages=(*STARTED, b"<html>"))) as (_, connection):
        events, fault = await drained(await create(connection))
    assert events == list(STARTED)
    assert fault is not None
    assert (fault.kind, fault.delivered) == ("unreadable", "maybe")


async def test_a_message_that_is_too_large_to_read_breaks_the_connection() -> None:
    large = event("response.output_text.delta", 1, delta="x" * 5000)
    async with connected(SocketAnswer(messages=(EVENTS[0], large)), max_message_bytes=4000) as (_, connection):
        events, fault = await drained(await create(connection))
    assert events == [EVENTS[0]]
    assert fault is not None
    assert fault.kind == "unreadable"


async def test_a_connection_that_is_being_closed_ends_its_turns() -> None:
    async with connected(SocketAnswer(messages=EVENTS, gates={2: asyncio.Event()})) as (provider, connection):
        stream = await create(connection)
        await anext(stream)
        await connection.aclose()
        await provider.abandoned(0)
        events, fault = await drained(stream)
        assert events == [EVENTS[1]]
        assert fault is not None
        assert fault.kind == "connection_lost"


async def test_a_connection_that_nobody_uses_is_closed_in_order() -> None:
    async with connected(SocketAnswer(messages=EVENTS)) as (provider, connection):
        await drained(await create(connection))
        await connection.aclose()
        await until(lambda: 0 in provider.answered)
        assert provider.hung_up == set(), "the server has got a close"
        await connection.aclose()


async def test_a_send_on_a_connection_that_has_just_gone_has_delivered_nothing() -> None:
    async with connected(SocketAnswer(messages=EVENTS)) as (provider, connection):
        transport = connection._opened.connection.transport  # noqa: SLF001 - the reader does not notice it at once
        assert transport is not None
        transport.abort()
        fault = await refused(connection)
        assert (fault.kind, fault.delivered) == ("connection_lost", "no")
        assert provider.messages == []
        assert connection.busy == []


async def test_a_mistake_of_ours_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(SocketAnswer(messages=EVENTS)) as (_, connection):

        def receive(*_: object) -> None:
            raise RuntimeError("a mistake")

        monkeypatch.setattr(connection._demultiplexer, "receive", receive)  # noqa: SLF001 - no message does this
        events, fault = await drained(await create(connection))
        assert (events, fault and fault.kind) == ([], "connection_lost")
        assert connection.closed


# --- compression, by another implementation of it --------------------------------------------------------------------


@asynccontextmanager
async def compressed(*messages: bytes, **changes: Any) -> AsyncIterator[LaneConnection]:  # noqa: ANN401 - fields of the settings
    async def answer(socket: ServerConnection) -> None:
        async for _ in socket:
            for message in messages:
                await socket.send(message, text=True)

    async with serve(answer, "127.0.0.1", 0, compression="deflate") as listener:
        port = next(iter(listener.sockets)).getsockname()[1]
        settings = ConnectionSettings(base_url=f"http://127.0.0.1:{port}/v1", deflate=True, **changes)
        server = ServerExchanges(settings)
        connection = LaneConnection(1, await open_socket(server), server.words, SocketLimits())
        connection.seats.sit(0, ())
        try:
            yield connection
        finally:
            await connection.aclose()
            await server.aclose()


async def test_messages_are_compressed_with_what_went_before() -> None:
    async with compressed(*EVENTS) as connection:
        body = b'{"input":"%b"}' % random.Random(7).randbytes(500).hex().encode()
        costs = []
        for _ in range(3):
            stream = await connection.request(0, START, body)
            assert await drained(stream) == (list(EVENTS), None)
            costs.append((stream.wire_sent_bytes, stream.wire_received_bytes))
    assert costs[0][0] > 500
    assert costs[2][0] < 100
    assert costs[2][1] < sum(map(len, EVENTS)) / 2


async def test_a_message_that_grows_without_bound_is_not_unpacked() -> None:
    bomb = event("response.output_text.delta", 1, delta=" " * 30_000_000)
    async with compressed(EVENTS[0], bomb, max_message_bytes=1_000_000) as connection:
        events, fault = await drained(await create(connection))
    assert events == [EVENTS[0]]
    assert fault is not None
    assert fault.kind == "unreadable"


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "kind", "code"),
    [
        ((refusal("previous_response_not_found"),), "refused", "previous_response_not_found"),
        ((b'{"type":"error","code":"flat","message":"m"}',), "refused", "flat"),
        ((*STARTED, refusal("server_error", 500)), "failed", "server_error"),
        ((*STARTED, b'{"type":"response.error","error":{"code":"other"},"status_code":500}'), "failed", "other"),
    ],
)
async def test_an_error_ends_its_turn_and_the_connection_stays(
    messages: tuple[bytes, ...], kind: FaultKind, code: str
) -> None:
    script = in_turn(SocketAnswer(messages=messages), SocketAnswer(messages=EVENTS))
    async with connected(script) as (_, connection):
        events, fault = await drained(await create(connection))
        assert events == list(messages[:-1])
        assert fault is not None
        assert (fault.kind, fault.code) == (kind, code)
        assert await drained(await create(connection)) == (list(EVENTS), None)


async def test_after_an_error_nothing_more_is_sent_to_a_server_that_may_close() -> None:
    """Some servers close after every error. A create that meets the close may have been run."""
    async with connected(SocketAnswer(messages=(refusal("x"),)), accepted=ACCEPTED) as (provider, connection):
        await drained(await create(connection))
        assert connection.retired
        assert (await refused(connection)).kind == "connection_gone"
        assert len(provider.messages) == 1


async def test_a_connection_at_its_limit_takes_no_more_and_ends_what_runs() -> None:
    gate = asyncio.Event()
    limit = refusal("websocket_connection_limit_reached", lane="1")
    mixed = (*STARTED, limit, EVENTS[2])
    script = in_turn(SocketAnswer(), SocketAnswer(messages=mixed, gates={3: gate}))
    async with connected(script, lanes=2) as (_, connection):
        running, late = await create(connection, 0), await create(connection, 1)
        _, fault = await drained(late)
        assert fault is not None
        assert (fault.kind, fault.code) == ("refused", "websocket_connection_limit_reached")
        assert (await refused(connection, 1)).kind == "connection_gone"
        gate.set()
        assert await drained(running) == (list(EVENTS), None)


async def test_a_connection_that_takes_no_new_names_gives_the_lane_no_seat() -> None:
    script = in_turn(SocketAnswer(messages=(refusal("websocket_stream_limit_reached", lane="1"),)))
    async with connected(script, lanes=2) as (_, connection):
        await drained(await create(connection, 1))
        assert list(connection.seats.lanes) == [0]
        assert not connection.retired


# --- turns that nobody reads any more --------------------------------------------------------------------------------


async def test_a_lane_that_is_alone_cancels_by_breaking_the_connection() -> None:
    async with connected(SocketAnswer(messages=EVENTS, gates={2: asyncio.Event()})) as (provider, connection):
        stream = await create(connection)
        await anext(stream)
        await stream.aclose()
        await provider.abandoned(0)
        assert connection.closed
        assert await drained(stream) == ([], None)
        await stream.aclose()


async def test_a_turn_that_has_ended_is_not_cancelled() -> None:
    async with connected(SocketAnswer(messages=EVENTS)) as (_, connection):
        stream = await create(connection)
        await anext(stream)
        await until(lambda: not connection.busy)
        await stream.aclose()
        assert not connection.closed
        assert await drained(await create(connection)) == (list(EVENTS), None)


async def test_beside_other_lanes_an_abandoned_turn_runs_on_unseen() -> None:
    """The lane goes on under another name, and its name is free again when the server has ended the turn."""
    abandoned, other = response("resp_a"), response("resp_b", "2")
    script = in_turn(
        SocketAnswer(messages=abandoned[:2]),
        SocketAnswer(messages=(abandoned[2], *other)),
        SocketAnswer(messages=response("resp_c")),
    )
    async with connected(script, lanes=2) as (provider, connection):
        stream = await create(connection)
        assert await anext(stream) == abandoned[0]
        await stream.aclose()
        assert not connection.closed
        assert connection.busy == [""]
        assert await drained(stream) == ([], None)
        assert await drained(await create(connection)) == (list(other), None)
        assert connection.busy == []
        connection.seats.sit(9, connection.busy)
        assert await drained(await create(connection, 9)) == (list(response("resp_c")), None)
        names = [msgspec.json.decode(message.data).get("stream_id") for message in provider.messages]
    assert names == [None, "2", None]


async def test_a_server_that_can_is_asked_to_stop_an_abandoned_turn() -> None:
    """Of the default lane, and of one with a name; alone, a lane breaks its connection all the same."""
    line = Line(b"Segue-Capabilities", b"lanes=32, in_flight=16, extensions=(lanes cancel)")
    accepted = msgspec.structs.replace(LANES, lines=(line,))
    async with connected(SocketAnswer(), lanes=2, accepted=accepted) as (provider, connection):
        streams = [await create(connection, lane) for lane in range(2)]
        for stream in streams:
            await stream.aclose()
        await until(lambda: len(provider.messages) == 4)
        assert sorted(message.data for message in provider.messages[2:]) == [
            b'{"type":"segue.cancel","stream_id":"1"}',
            b'{"type":"segue.cancel"}',
        ]
        assert not connection.closed


async def test_a_create_that_is_cancelled_while_it_is_sent_is_not_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(SocketAnswer()) as (provider, connection):
        sending = asyncio.Event()

        async def send_frame(*_: object) -> None:
            sending.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(connection._socket, "send_frame", send_frame)  # noqa: SLF001 - a socket that takes no more
        task = asyncio.create_task(create(connection))
        await sending.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert connection.closed, "it was alone"
        await provider.abandoned(0)


# --- slow readers and silent servers ---------------------------------------------------------------------------------

MANY = tuple(event("response.output_text.delta", number, delta="x" * 1000) for number in range(1, 3000))


async def test_a_slow_reader_stops_its_server_and_loses_nothing() -> None:
    events = (EVENTS[0], *MANY, event("response.completed", 3000))
    limits = SocketLimits(queue_bytes=10_000, slow_lane_s=0.01)
    async with connected(SocketAnswer(messages=events), limits=limits) as (_, connection):
        stream = await create(connection)
        assert await anext(stream) == events[0]
        await asyncio.sleep(0.1)  # alone it may be as slow as it likes: longer than slow_lane_s
        assert connection._meter.received_bytes < 2_000_000, "the server waits"  # noqa: SLF001 - nothing else shows it
        assert await drained(stream) == (list(events[1:]), None)


async def test_a_lane_that_is_not_read_does_not_stop_the_others_for_ever() -> None:
    other = response("resp_b", "1")
    script = in_turn(SocketAnswer(), SocketAnswer(messages=(EVENTS[0], *MANY, *other, EVENTS[2])))
    limits = SocketLimits(queue_bytes=10_000, slow_lane_s=0.05)
    async with connected(script, lanes=2, limits=limits) as (_, connection):
        slow, quick = await create(connection, 0), await create(connection, 1)
        assert await drained(quick) == (list(other), None)
        events, fault = await drained(slow)
        assert events == list((EVENTS[0], *MANY)[: len(events)])
        assert fault is not None
        assert (fault.kind, fault.delivered) == ("connection_lost", "maybe")
        assert fault.message is not None
        assert "not read" in fault.message


async def test_a_lane_that_is_abandoned_while_its_queue_is_full_lets_the_reader_go_on() -> None:
    other = response("resp_b", "1")
    script = in_turn(SocketAnswer(), SocketAnswer(messages=(EVENTS[0], *MANY, *other, EVENTS[2])))
    limits = SocketLimits(queue_bytes=10_000)
    async with connected(script, lanes=2, limits=limits) as (_, connection):
        slow, quick = await create(connection, 0), await create(connection, 1)
        await until(lambda: slow.queue.full)
        await slow.aclose()
        assert await drained(quick) == (list(other), None)


def receives_more(meter: WireMeter) -> Callable[[], bool]:
    before = meter.received_bytes
    return lambda: meter.received_bytes > before


async def test_a_server_that_answers_pings_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = LoopClock(monkeypatch)
    async with connected(SocketAnswer(messages=EVENTS), limits=SocketLimits(heartbeat_s=60.0)) as (_, connection):
        meter = connection._meter  # noqa: SLF001 - nothing else shows a pong
        for _ in range(3):
            await asyncio.sleep(0)  # it looks
            answered = receives_more(meter)
            clock.forward(60.0)
            await until(answered)
        assert await drained(await create(connection)) == (list(EVENTS), None)


async def test_a_long_history_on_a_slow_line_does_not_look_dead() -> None:
    """Until it has left, no pong can come: that takes six times as long as a silent server is waited for."""
    async with (
        provided(lambda _: LANES, lambda _: SocketAnswer(messages=EVENTS)) as provider,
        linked(provider.host, provider.port, LinkProfile(up_bytes_s=100_000)) as link,
    ):
        server = ServerExchanges(ConnectionSettings(base_url=f"{link.url}/v1"))
        connection = LaneConnection(1, await open_socket(server), server.words, SocketLimits(heartbeat_s=0.05))
        connection.seats.sit(0, ())
        stream = await connection.request(0, START, b'{"input":"%b"}' % (b"x" * 60_000))
        assert await drained(stream) == (list(EVENTS), None)
        await connection.aclose()
        await server.aclose()


async def test_a_server_that_shows_no_life_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it waits at the gate, the scripted server answers no pings either."""
    answer, clock = SocketAnswer(messages=EVENTS, gates={1: asyncio.Event()}), LoopClock(monkeypatch)
    async with connected(answer, limits=SocketLimits(heartbeat_s=60.0)) as (provider, connection):
        stream = await create(connection)
        assert await anext(stream) == EVENTS[0]
        events, fault = await clock.hurry(drained(stream))
        await provider.abandoned(0)
    assert events == []
    assert fault is not None
    assert (fault.kind, fault.delivered, fault.close_code) == ("connection_lost", "maybe", None)
    assert fault.silent_s is not None
    assert fault.silent_s >= 90.0

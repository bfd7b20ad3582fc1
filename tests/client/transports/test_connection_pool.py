"""Which connection each lane goes to, against a scripted server on a loopback socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from segue.client.capabilities import PLAIN_SERVER
from segue.client.recovery import TurnFault
from segue.client.transports.connection_pool import WebSocketTransport
from segue.client.transports.interface import EventStream, TransportFault
from segue.client.transports.websocket import SocketLimits
from segue.http.heads import Line
from segue.protocol.requests import LeanForm
from segue.testing.provider import (
    ACCEPTED,
    Answer,
    MessageScript,
    ScriptedProvider,
    SocketAnswer,
    SocketMessage,
    provided,
)
from tests.client.transports.streams import CREATE, JSON, drained, refusal, response, settings_for, until

EVENTS = response()


def accepting(told: str) -> Answer:
    return Answer(status=101, reason=b"Switching Protocols", lines=(Line(b"Segue-Capabilities", told.encode()),))


SHARED = accepting("lanes=2, in_flight=2, extensions=(lanes)")


def answering(message: SocketMessage) -> SocketAnswer:
    """Answer each create in its lane."""
    lane = msgspec.json.decode(message.data).get("stream_id", "")
    return SocketAnswer(messages=response(f"resp_{message.number}", lane))


def first(answer: SocketAnswer) -> MessageScript:
    """Answer the first message with this."""
    return lambda message: answer if message.number == 0 else answering(message)


@asynccontextmanager
async def serving(
    accepted: Answer | Callable[[int], Answer] = ACCEPTED,
    messages: MessageScript = answering,
    **changes: Any,  # noqa: ANN401 - fields of the settings
) -> AsyncIterator[tuple[ScriptedProvider, WebSocketTransport]]:
    script = accepted if callable(accepted) else lambda _: accepted
    async with provided(lambda request: script(request.number), messages) as provider:
        transport = WebSocketTransport(settings_for(provider, **changes))
        try:
            yield provider, transport
        finally:
            await transport.aclose()


async def where(transport: WebSocketTransport, lane: int, near: int | None = None) -> int:
    return (await transport.connect(lane=lane, near=near)).connection


async def create(transport: WebSocketTransport, lane: int, connection: int | None = None) -> EventStream:
    number = await where(transport, lane) if connection is None else connection
    return await transport.create(CREATE, lane=lane, connection=number)


async def fault_of(transport: WebSocketTransport, lane: int, connection: int) -> TurnFault:
    with pytest.raises(TransportFault) as raised:
        await create(transport, lane, connection)
    return raised.value.fault


# --- where lanes go --------------------------------------------------------------------------------------------------


async def test_a_lane_stays_on_its_connection() -> None:
    async with serving() as (provider, transport):
        for _ in range(3):
            assert await drained(await create(transport, 1)) != ([], None)
        assert provider.connections == 1
        assert (await transport.connect(lane=1)).capabilities is PLAIN_SERVER
        assert transport.kind == "websocket"


async def test_without_lanes_each_lane_has_a_connection_of_its_own() -> None:
    async with serving() as (provider, transport):
        numbers = await asyncio.gather(*(where(transport, lane) for lane in range(3)))
        assert sorted(numbers) == [1, 2, 3]
        assert [await where(transport, lane) for lane in range(3)] == numbers
        assert provider.connections == 3
        assert await where(transport, 9, near=1) == 4, "a response that is not stored cannot be forked here"


async def test_lanes_share_a_connection_as_many_as_may_run() -> None:
    """The first one to ask opens it; the others wait for that instead of opening more."""
    async with serving(SHARED) as (provider, transport):
        numbers = await asyncio.gather(*(where(transport, lane) for lane in range(5)))
        assert sorted(numbers) == [1, 1, 2, 2, 3]
        assert provider.connections == 3


async def test_a_fork_goes_to_its_parents_connection_if_there_is_a_name_left() -> None:
    async with serving(SHARED) as (_, transport):
        assert [await where(transport, lane) for lane in range(3)] == [1, 1, 2]
        assert await where(transport, 3, near=1) == 1
        assert await where(transport, 4, near=1) == 2, "the connection has two names and the default lane"
        assert await where(transport, 5, near=77) == 3
        assert await where(transport, 0, near=2) == 1, "it stays where its own responses are"


async def test_names_and_seats_are_used_again() -> None:
    async with serving(SHARED) as (provider, transport):
        for lane in range(10):
            await drained(await create(transport, lane))
            if lane:
                transport.release(lane)
        names = [msgspec.json.decode(message.data).get("stream_id") for message in provider.messages]
        assert names == [None] + ["1"] * 9
        assert provider.connections == 1


async def test_one_connection_without_a_lane_is_kept_and_others_are_closed() -> None:
    async with serving() as (provider, transport):
        for lane in range(3):
            await where(transport, lane)
        for lane in range(3):
            transport.release(lane)
        await until(lambda: len(transport._closing) == 0)  # noqa: SLF001 - nothing else shows that they are closed
        assert await where(transport, 9) == 1
        assert await where(transport, 10) == 4
        assert provider.connections == 4


async def test_a_lane_that_is_released_twice_or_was_never_there_changes_nothing() -> None:
    async with serving() as (_, transport):
        await where(transport, 1)
        transport.release(7)
        assert await where(transport, 1) == 1


def pass_time(transport: WebSocketTransport, passed_s: float) -> None:
    for connection in transport._connections.values():  # noqa: SLF001 - the clock is the event loop's
        connection.opened_at -= passed_s
        connection.used_at -= passed_s


# --- connections that end --------------------------------------------------------------------------------------------


async def test_nothing_is_sent_to_a_connection_that_is_not_there() -> None:
    async with serving() as (provider, transport):
        number = await where(transport, 1)
        for lane, connection in ((1, 77), (2, number)):
            fault = await fault_of(transport, lane, connection)
            assert (fault.kind, fault.delivered) == ("connection_gone", "no")
        assert provider.messages == []


async def test_after_a_lost_connection_the_lane_gets_another() -> None:
    cut = SocketAnswer(messages=EVENTS, cut_after=1)
    async with serving(messages=first(cut)) as (_, transport):
        _, fault = await drained(await create(transport, 1))
        assert fault is not None
        assert fault.kind == "connection_lost"
        assert (await fault_of(transport, 1, 1)).kind == "connection_gone"
        assert await where(transport, 1) == 2
        assert len((await drained(await create(transport, 1)))[0]) == 3


@pytest.mark.parametrize("code", ["websocket_connection_limit_reached", "websocket_stream_limit_reached"])
async def test_after_a_limit_the_lane_gets_another_connection(code: str) -> None:
    refused = SocketAnswer(messages=(refusal(code),))
    told = accepting("lanes=32, in_flight=16, extensions=(lanes)")
    async with serving(told, first(refused)) as (_, transport):
        _, fault = await drained(await create(transport, 1))
        assert fault is not None
        assert (fault.kind, fault.code) == ("refused", code)
        assert await where(transport, 1) == 2
        assert len((await drained(await create(transport, 1)))[0]) == 3


async def test_after_any_error_of_a_plain_server_the_lane_gets_another_connection() -> None:
    async with serving(messages=lambda _: SocketAnswer(messages=(refusal("previous_response_not_found"),))) as (
        _,
        transport,
    ):
        await drained(await create(transport, 1))
        assert await where(transport, 1) == 2


async def test_an_abandoned_turn_of_a_lane_that_is_alone_costs_the_connection() -> None:
    async with serving(SHARED, lambda _: SocketAnswer(messages=EVENTS, gates={1: asyncio.Event()})) as (
        provider,
        transport,
    ):
        stream = await create(transport, 1)
        await anext(aiter(stream))
        await stream.aclose()
        await provider.abandoned(0)
        assert await where(transport, 1) == 2


async def test_an_abandoned_turn_beside_another_lane_costs_nothing() -> None:
    async with serving(SHARED, first(SocketAnswer(messages=EVENTS[:1]))) as (provider, transport):
        assert [await where(transport, lane) for lane in (1, 2)] == [1, 1]
        stream = await create(transport, 1)
        await anext(aiter(stream))
        await stream.aclose()
        assert await where(transport, 1) == 1
        assert len((await drained(await create(transport, 1)))[0]) == 3
        assert provider.connections == 1


@pytest.mark.parametrize(
    ("told", "passed_s", "renewed"),
    [
        ("connection_age_s=1200", 1000.0, False),
        ("connection_age_s=1200", 1101.0, True),
        ("", 3200.0, False),
        ("", 3301.0, True),
        ("connection_age_s=99999, connection_idle_s=600", 500.0, False),
        ("connection_age_s=99999, connection_idle_s=600", 551.0, True),
    ],
)
async def test_a_connection_is_renewed_before_its_server_ends_it(told: str, passed_s: float, renewed: bool) -> None:
    async with serving(accepting(told)) as (provider, transport):
        await drained(await create(transport, 1))
        pass_time(transport, passed_s)
        assert await where(transport, 1) == (2 if renewed else 1)
        assert provider.connections == (2 if renewed else 1)


async def test_a_connection_that_runs_a_turn_is_not_idle() -> None:
    told = accepting("connection_idle_s=60, lanes=4, in_flight=4, extensions=(lanes)")
    async with serving(told, lambda _: SocketAnswer(messages=EVENTS, gates={2: asyncio.Event()})) as (_, transport):
        await create(transport, 1)
        pass_time(transport, 100.0)
        assert await where(transport, 2) == 1


# --- what is left ----------------------------------------------------------------------------------------------------


async def test_a_refused_upgrade_is_told_to_every_lane_and_the_next_one_tries_again() -> None:
    async with serving(lambda number: Answer(status=503) if number < 2 else SHARED) as (_, transport):
        answers = await asyncio.gather(*(transport.connect(lane=lane) for lane in (1, 2)), return_exceptions=True)
        faults = [answer.fault for answer in answers if isinstance(answer, TransportFault)]
        assert [(fault.kind, fault.status, fault.delivered) for fault in faults] == [("upgrade_refused", 503, "no")] * 2
        assert await where(transport, 1) == 1


@pytest.mark.parametrize(
    ("lean", "message"),
    [
        (False, b'{"type":"segue.resume","response_id":"resp_1","starting_after":7}'),
        (True, b'{"type":"segue.resume","response_id":"resp_1","starting_after":7,"lean":true}'),
        ("compact", b'{"type":"segue.resume","response_id":"resp_1","starting_after":7,"lean":"compact"}'),
    ],
)
async def test_a_stream_is_resumed_in_its_lane(lean: LeanForm, message: bytes) -> None:
    async with serving(SHARED) as (provider, transport):
        number = await where(transport, 1)
        stream = await transport.resume("resp_1", 7, lane=1, connection=number, lean=lean)
        assert len((await drained(stream))[0]) == 3
        assert provider.messages[0].data == message


async def test_a_stored_response_is_retrieved_and_forgotten_by_http() -> None:
    document = b'{"id":"resp_1","object":"response"}'
    async with serving(Answer(lines=JSON, pieces=(document,))) as (provider, transport):
        assert await transport.retrieve("resp_1") == document
        await transport.forget("resp_1")
        assert [request.method for request in provider.requests] == [b"GET", b"DELETE"]
        assert {request.target for request in provider.requests} == {b"/v1/responses/resp_1"}


async def test_closing_ends_what_runs() -> None:
    async with serving(messages=lambda _: SocketAnswer(messages=EVENTS, gates={2: asyncio.Event()})) as (
        provider,
        transport,
    ):
        stream = await create(transport, 1)
        await transport.aclose()
        await provider.abandoned(0)
        events, fault = await drained(stream)
        assert fault is not None
        assert (len(events) <= 2, fault.kind) == (True, "connection_lost")


async def test_the_limits_can_be_set() -> None:
    async with provided(
        lambda _: ACCEPTED, lambda _: SocketAnswer(messages=EVENTS, gates={1: asyncio.Event()})
    ) as provider:
        transport = WebSocketTransport(settings_for(provider), limits=SocketLimits(heartbeat_s=0.05))
        _, fault = await drained(await create(transport, 1))
        assert fault is not None
        assert fault.kind == "connection_lost"
        assert transport.meter.connections == 1
        await transport.aclose()

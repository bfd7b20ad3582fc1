"""One socket of a provider: its turns one after the other, what may come between them, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from segue.http_client.message_queue import MessageQueue
from segue.testing.provider import MessageScript, ScriptedProvider, SocketAnswer, SocketMessage
from segue.upstreams.lane_offer import OfferedLanes
from segue.upstreams.provider_socket import ProviderSocket, SocketEnd, SocketEvents
from tests.upstreams.opened_sockets import (
    COMPLETED,
    CREATED,
    DELTA,
    OWNER,
    SocketOpener,
    accepting,
    event,
    events_of,
    listening,
)

TURN = SocketAnswer(messages=(CREATED, DELTA, COMPLETED))


NAMED = (
    event("response.created", response={"id": "up_1"}, stream_id="0"),
    event("response.output_text.delta", delta="x", stream_id="0"),
    event("response.completed", stream_id="0"),
)
TWO = OfferedLanes(2)


@asynccontextmanager
async def opened(
    answer: SocketAnswer | MessageScript, *, max_message_bytes: int = 1 << 20
) -> AsyncIterator[tuple[ScriptedProvider, ProviderSocket, asyncio.Event]]:
    """A socket, and what is set when it is over."""
    over = asyncio.Event()
    async with accepting(answer, max_message_bytes=max_message_bytes) as (opener, provider):
        socket = ProviderSocket(1, await opener.open(), OWNER, events=events_of(over))
        try:
            yield provider, socket, over
        finally:
            await socket.aclose()


async def read(queue: MessageQueue[SocketEnd], count: int) -> list[bytes]:
    """The messages that come, so many at least, unless the socket ends."""
    messages: list[bytes] = []
    while len(messages) < count:
        read = await queue.get_some(1 << 20)
        if not isinstance(read, list):
            break
        messages += read
    return messages


async def test_turns_follow_each_other_on_one_socket() -> None:
    async with opened(TURN) as (_, socket, over):
        for _ in range(2):
            queue = socket.begin(0)
            await socket.send(b'{"type":"response.create"}')
            assert await read(queue, 3) == [CREATED, DELTA, COMPLETED]
            socket.end_turn(0, queue)
        assert not over.is_set()
        assert socket.sent_bytes > 0
    assert over.is_set()


@pytest.mark.parametrize(("code", "said"), [(1000, 1000), (1001, 1001), (1011, 1011), (1009, 1009)])
async def test_a_close_ends_the_turn_with_its_code(code: int, said: int) -> None:
    async with opened(SocketAnswer(messages=(CREATED,), close_code=code)) as (_, socket, over):
        queue = socket.begin(0)
        await socket.send(b"{}")
        assert await read(queue, 9) == [CREATED]
        await over.wait()
        assert socket.end == SocketEnd(said)


async def test_a_cut_has_no_code_of_its_own() -> None:
    async with opened(SocketAnswer(messages=(CREATED, b""), cut_after=1)) as (_, socket, over):
        queue = socket.begin(0)
        await socket.send(b"{}")
        assert await read(queue, 9) == [CREATED]
        await over.wait()
        assert socket.end == SocketEnd(1006)


async def test_a_message_over_the_limit_ends_the_socket() -> None:
    answer = SocketAnswer(messages=(CREATED, event("response.completed", text="x" * 5000)))
    async with opened(answer, max_message_bytes=1000) as (_, socket, over):
        queue = socket.begin(0)
        await socket.send(b"{}")
        assert await read(queue, 9) == [CREATED]
        await over.wait()
        assert socket.end == SocketEnd(1006, too_large=True)


@pytest.mark.parametrize(
    ("stray", "ends"),
    [
        (event("codex.rate_limits", left=1), False),
        (event("response.output_text.delta", delta="x"), True),
        (COMPLETED, True),
        (event("error", error={"code": "websocket_connection_limit_reached"}), True),
        (event("note", text="x" * 70_000), True),
        (b"{}", True),
        (b"hello", True),
    ],
    ids=["limits", "delta", "end", "error", "too much", "no type", "no event"],
)
async def test_between_two_turns_nothing_of_a_response_may_come(stray: bytes, *, ends: bool) -> None:
    gate = asyncio.Event()
    async with opened(SocketAnswer(messages=(CREATED, stray), gates={1: gate})) as (_, socket, over):
        queue = socket.begin(0)
        await socket.send(b"{}")
        assert await read(queue, 1) == [CREATED]
        socket.end_turn(0, queue)
        gate.set()
        if ends:
            await over.wait()
        else:
            queue = socket.begin(0)
            await socket.send(b"{}")
            messages = await read(queue, 1)
            assert messages[-1] in {CREATED, stray}
            assert not over.is_set()


async def test_a_turn_on_a_socket_that_is_over_ends_at_once() -> None:
    async with opened(SocketAnswer(close_code=1001)) as (_, socket, over):
        queue = socket.begin(0)
        await socket.send(b"{}")
        assert await queue.get_some(1 << 20) == SocketEnd(1001)
        await over.wait()
        socket.end_turn(0, queue)
        assert await socket.begin(0).get_some(1) == SocketEnd(1001)
        with pytest.raises((OSError, aiohttp.ClientError)):
            await socket.send(b"{}")


async def test_a_turn_that_is_given_up_breaks_its_socket() -> None:
    answer = SocketAnswer(messages=(CREATED, DELTA), gates={1: asyncio.Event()})
    async with opened(answer) as (provider, socket, over):
        queue = socket.begin(0)
        await socket.send(b"{}")
        assert await read(queue, 1) == [CREATED]
        socket.end_turn(0, queue)
        socket.drop()
        assert over.is_set()
        await provider.abandoned(0)


async def test_pings_are_answered_and_a_flood_of_them_ends_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have their turn meanwhile."""
    monkeypatch.setattr("segue.upstreams.provider_socket._MOST_CONTROLS", 300)
    pongs, turns, over = asyncio.Event(), 0, asyncio.Event()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(autoping=False)
        await websocket.prepare(request)
        await websocket.ping(b"one")
        assert (await websocket.receive()).data == b"one"
        pongs.set()
        await over.wait()
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                await websocket.ping()
        return websocket

    async with listening(serve) as url:
        opener = SocketOpener(url, max_message_bytes=1000)
        ended = asyncio.Event()
        socket = ProviderSocket(1, await opener.open(), OWNER, events=events_of(ended))
        await pongs.wait()
        over.set()
        while not ended.is_set():
            turns += 1
            await asyncio.sleep(0)
        assert socket.end == SocketEnd()
        assert turns >= 300 // 64
        await opener.connector.close()


async def test_a_slow_reader_slows_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.upstreams.provider_socket._QUEUE_BYTES", 1000)
    many = tuple(event("response.output_text.delta", delta="x" * 500) for _ in range(20))
    async with opened(SocketAnswer(messages=(CREATED, *many, COMPLETED))) as (_, socket, _):
        queue = socket.begin(0)
        await socket.send(b"{}")
        largest, messages = 0, []
        while COMPLETED not in messages:
            batch = await queue.get_some(1 << 20)
            assert isinstance(batch, list)
            largest = max(largest, sum(map(len, batch)))
            messages += batch
        assert len(messages) == 22
        assert largest < 3000


# --- lanes -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def laned(
    *messages: bytes, offered: OfferedLanes = TWO, max_message_bytes: int = 1 << 20
) -> AsyncIterator[tuple[ProviderSocket, list[object], list[bytes]]]:
    """A socket with lanes whose provider says all this to the first message; what it told, and what it was sent."""
    told: list[object] = []
    got: list[bytes] = []

    def answer(message: SocketMessage) -> SocketAnswer:
        got.append(message.data)
        return SocketAnswer(messages=messages if len(got) == 1 else ())

    events = SocketEvents(
        lambda _: told.append("over"),
        lambda at, failed: told.append(("rest", at.lane, failed)),
        lambda at: told.append(("given up", at.lane)),
        lambda _: told.append("retired"),
    )
    async with accepting(answer, max_message_bytes=max_message_bytes) as (opener, _):
        clearing = None if offered is TWO else lambda name: b"clear " + name.encode()
        socket = ProviderSocket(1, await opener.open(), OWNER, events=events, offered=offered, clearing=clearing)
        try:
            yield socket, told, got
        finally:
            await socket.aclose()


async def test_each_lane_gets_its_own_events_without_its_name() -> None:
    other = tuple(one.replace(b'"0"', b'"1"') for one in NAMED)
    mixed = [one for pair in zip(NAMED, other, strict=True) for one in pair]
    async with laned(*mixed) as (socket, told, _):
        queues = [socket.begin(lane) for lane in range(2)]
        await socket.send(b"{}")
        for queue in queues:
            assert await read(queue, 3) == [CREATED, DELTA, b'{"type":"response.completed"}']
        assert [lane.at_rest for lane in socket.lanes] == [True, True]
        assert told == []


@pytest.mark.parametrize(
    "message",
    [NAMED[1].replace(b'"0"', b'"1"'), NAMED[1].replace(b'"0"', b'"7"'), b"hello", event("note", text="x" * 70_000)],
    ids=["nothing runs there", "no such lane", "no event", "too much"],
)
async def test_a_server_that_breaks_the_rules_loses_all_turns(message: bytes) -> None:
    async with laned(NAMED[0], message) as (socket, told, _):
        queue = socket.begin(0)
        await socket.send(b"{}")
        assert await read(queue, 9) == [CREATED]
        assert told == ["over"]
        assert socket.end == SocketEnd()


async def test_a_message_over_the_limit_ends_the_turns_of_all_lanes() -> None:
    async with laned(NAMED[0], event("response.completed", text="x" * 5000), max_message_bytes=1000) as (socket, _, _):
        queues = [socket.begin(lane) for lane in range(2)]
        await socket.send(b"{}")
        assert await read(queues[0], 9) == [CREATED]
        assert await queues[1].get() == SocketEnd(1006, too_large=True)


async def test_an_error_of_all_leaves_who_has_no_answer_with_an_unknown_outcome() -> None:
    error = event("error", error={"code": "websocket_connection_limit_reached"})
    async with laned(NAMED[0], error, *NAMED[1:], offered=OfferedLanes(3)) as (socket, told, _):
        begun, *silent = [socket.begin(lane) for lane in range(3)]
        await socket.send(b"{}")
        assert [await queue.get() for queue in silent] == [SocketEnd()] * 2
        assert len(await read(begun, 3)) == 3
        assert told == ["retired", ("given up", 1), ("given up", 2)]


async def test_a_turn_that_is_given_up_is_stopped_if_its_server_can_do_that() -> None:
    async with laned(*NAMED, offered=OfferedLanes(2, cancels=True)) as (socket, told, got):
        queue = socket.begin(0)
        assert socket.end_turn(0, queue)
        assert not socket.end_turn(0, queue)
        socket.stop(0)
        assert socket.clear(1)
        async with asyncio.timeout(20):
            while not told or len(got) < 2:  # noqa: ASYNC110 - what nobody reads tells nobody
                await asyncio.sleep(0)
        assert got == [b'{"type":"segue.cancel","stream_id":"0"}', b"clear 1"]
        assert told == [("rest", 0, False)]
    async with laned(offered=TWO) as (socket, _, got):
        socket.stop(0)
        assert not socket.clear(1)
        assert got == []


async def test_a_lane_is_free_once_what_stops_its_turn_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it could come behind the next create, and stop that turn."""
    async with laned(*NAMED, offered=OfferedLanes(2, cancels=True)) as (socket, told, _):
        queue = socket.begin(0)
        await socket.send(b"{}")
        gate = asyncio.Event()

        async def waits(_message: bytes) -> None:
            await gate.wait()

        monkeypatch.setattr(socket, "send", waits)
        socket.end_turn(0, queue)
        socket.stop(0)
        async with asyncio.timeout(20):
            while not socket.is_at_rest(0):  # noqa: ASYNC110 - what nobody reads tells nobody
                await asyncio.sleep(0)
        assert told == []
        gate.set()
        async with asyncio.timeout(20):
            while not told:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        assert told == [("rest", 0, False)]


async def test_all_readers_that_are_slow_slow_their_provider_until_another_turn_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("segue.upstreams.provider_socket._QUEUE_BYTES", 500)
    monkeypatch.setattr("segue.upstreams.provider_socket._MOST_QUEUED_BYTES", 2000)
    many = tuple(event("response.output_text.delta", delta="x" * 400, stream_id="0") for _ in range(20))
    async with laned(*many) as (socket, told, _):
        queue = socket.begin(0)
        await socket.send(b"{}")
        async with asyncio.timeout(20):
            while not queue.full:  # noqa: ASYNC110 - a queue that is full tells nobody
                await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert queue.size_bytes < 1500
        socket.begin(1)
        async with asyncio.timeout(20):
            while not told:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        assert await queue.get() == SocketEnd(outrun=True)
        assert told == [("given up", 0)]

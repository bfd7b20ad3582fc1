"""A turn on a socket as a stream of events: when it has begun, and what is not of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from segue.http.sse import SseEvent
from segue.protocol.events import Ended
from segue.testing.provider import SocketAnswer
from segue.upstreams.provider_socket import ProviderSocket, SocketEnd, SocketLane
from segue.upstreams.socket_source import SocketSource, TurnBegun, TurnRefused
from tests.upstreams.opened_sockets import COMPLETED, CREATED, DELTA, OWNER, accepting, event, events_of

ERROR = event("error", status=400, error={"code": "invalid_value", "message": "m"})
FAILED = event("response.failed", response={"id": "up_2"})
LIMITS = event("codex.rate_limits")


async def at_once(_size: int) -> None:
    """Go on without a wait."""


@asynccontextmanager
async def asking(
    *messages: bytes,
    close_code: int | None = None,
    max_message_bytes: int = 1 << 20,
    turn: Callable[[int], Awaitable[None]] = at_once,
) -> AsyncIterator[tuple[SocketSource, SocketLane, list[Ended | None]]]:
    """A turn whose provider answers with these messages, the socket, and how the turn was released."""
    answer = SocketAnswer(messages=messages, close_code=close_code)
    released: list[Ended | None] = []
    async with accepting(answer, max_message_bytes=max_message_bytes) as (opener, _):
        socket = ProviderSocket(1, await opener.open(), OWNER, events=events_of(asyncio.Event()))
        try:
            (lane,) = socket.lanes
            yield SocketSource(lane, turn=turn, on_release=released.append), lane, released
        finally:
            await socket.aclose()


async def read(source: SocketSource, count: int) -> list[bytes]:
    events: list[SseEvent] = []
    while len(events) < count:
        more = await source.next_events()
        assert more is not None
        events += more
    return [one.data for one in events]


@pytest.mark.parametrize(
    ("messages", "first", "passed"),
    [
        ((CREATED, DELTA, COMPLETED), TurnBegun("up_1"), [CREATED, DELTA, COMPLETED]),
        ((event("response.queued", response={"id": "up_1"}), COMPLETED), TurnBegun("up_1"), None),
        ((FAILED,), TurnBegun("up_2"), [FAILED]),
        ((event("response.created"), COMPLETED), TurnBegun(""), None),
        ((event("response.created", response={"id": "x" * 600}), COMPLETED), TurnBegun(""), None),
        ((COMPLETED, DELTA, CREATED, COMPLETED), TurnBegun("up_1"), [CREATED, COMPLETED]),
        ((LIMITS, CREATED, COMPLETED), TurnBegun("up_1"), [LIMITS, CREATED, COMPLETED]),
        ((b"hello",), TurnBegun(""), [b"hello"]),
        ((ERROR,), TurnRefused(ERROR), []),
        ((event("response.error", code="x"),), TurnRefused(event("response.error", code="x")), []),
        ((b'{"error":{"message":"m"}}',), TurnRefused(b'{"error":{"message":"m"}}'), []),
    ],
    ids=[
        "created", "queued", "failed", "no id", "too long an id", "the rest of another turn", "limits", "no event",
        "error", "another error", "an error without a type",
    ],
)  # fmt: skip
async def test_a_turn_begins_when_its_provider_says_so(
    messages: tuple[bytes, ...], first: TurnBegun | TurnRefused, passed: list[bytes] | None
) -> None:
    """What comes before that of a response is the rest of another turn."""
    async with asking(*messages) as (source, _, _):
        assert await source.ask(b"{}") == first
        expected = list(messages) if passed is None else passed
        assert await read(source, len(expected)) == expected


@pytest.mark.parametrize(("code", "orderly"), [(1000, True), (1001, True), (1011, False)])
async def test_a_close_in_a_turn_is_the_end_of_its_stream_or_a_cut(code: int, *, orderly: bool) -> None:
    async with asking(CREATED, close_code=code) as (source, _, _):
        assert await source.ask(b"{}") == TurnBegun("up_1")
        assert await read(source, 1) == [CREATED]
        if orderly:
            assert await source.next_events() is None
        else:
            with pytest.raises(ConnectionResetError):
                await source.next_events()


async def test_a_close_before_the_turn_has_begun_is_told() -> None:
    async with asking(close_code=1009) as (source, _, _):
        assert await source.ask(b"{}") == SocketEnd(1009)


async def test_a_message_over_the_limit_overflows() -> None:
    async with asking(CREATED, event("response.completed", text="x" * 5000), max_message_bytes=1000) as (source, _, _):
        await source.ask(b"{}")
        assert await read(source, 1) == [CREATED]
        assert await source.next_events() == ()
        assert source.overflowed
        assert source.error_instead() is None


async def test_many_events_at_once_leave_time_for_others() -> None:
    """They come in pieces, and after each its turn is waited for."""
    taken: list[int] = []

    async def turn(size: int) -> None:
        taken.append(size)

    many = [event("response.output_text.delta", delta="x" * 100) for _ in range(200)]
    async with asking(CREATED, *many, COMPLETED, turn=turn) as (source, _, _):
        await source.ask(b"{}")
        passed, largest = 0, 0
        while passed < 202:
            events = await source.next_events()
            assert events is not None
            passed, largest = passed + len(events), max(largest, sum(len(one.data) for one in events))
    assert largest < 4096 + 200
    assert all(4096 <= size < 4096 + 200 for size in taken)


async def test_a_turn_is_released_once() -> None:
    async with asking(CREATED, COMPLETED) as (source, lane, released):
        await source.ask(b"{}")
        await read(source, 2)
        source.forget_request()
        assert source.headers["upgrade"].lower() == "websocket"
        source.release(ended=Ended("completed"))
        source.release(ended=None)
        assert released == [Ended("completed")]
        lane.begin()  # it is free

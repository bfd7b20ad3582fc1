"""Event logs in memory: what followers get, when writers wait, and when logs are dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from segue.protocol.events import Ended, Event
from segue.protocol.ids import ENTROPY_BYTES, ResponseId, new_response_id
from segue.protocol.requests import Settings, json_text
from segue.protocol.responses import encode_echo, usage
from segue.protocol.turns import TurnStream
from segue.stores.event_logs import EventLogs, EventsGone, MemoryEventLogs

ONE, TWO = ResponseId("resp_1"), ResponseId("resp_2")
KIB = 1024


def events(first: int, count: int, size: int = 10) -> list[Event]:
    return [Event("response.output_text.delta", b"x" * size, number) for number in range(first, first + count)]


async def collect(logs: EventLogs, after: int, tenant: str = "a", ident: ResponseId = ONE) -> list[int]:
    return [event.sequence_number async for batch in logs.follow(tenant, ident, after) for event in batch]


@pytest.fixture
async def logs() -> MemoryEventLogs:
    made = MemoryEventLogs(64 * KIB, 16 * KIB)
    await made.open("a", ONE, shared=True)
    return made


@pytest.mark.parametrize("after", [-1, 0, 3, 6])
async def test_a_follower_gets_what_it_lacks_and_then_what_comes(logs: MemoryEventLogs, after: int) -> None:
    await logs.append("a", ONE, events(0, 7))
    following = asyncio.create_task(collect(logs, after))
    await asyncio.sleep(0)
    await logs.append("a", ONE, events(7, 3))
    await logs.append("a", ONE, events(10, 1))
    await logs.end("a", ONE, 100)
    assert await following == list(range(after + 1, 11))
    assert await collect(logs, after) == list(range(after + 1, 11))


async def test_followers_do_not_disturb_each_other(logs: MemoryEventLogs) -> None:
    followers = [asyncio.create_task(collect(logs, -1)) for _ in range(3)]
    await asyncio.sleep(0)
    followers[0].cancel()
    await logs.append("a", ONE, events(0, 2))
    await logs.end("a", ONE, 100)
    assert [await follower for follower in followers[1:]] == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("tenant", "ident", "after"), [("b", ONE, -1), ("a", TWO, -1), ("a", ONE, 2), ("a", ONE, 99), ("b", TWO, 0)]
)
async def test_what_is_not_there_is_gone(logs: MemoryEventLogs, tenant: str, ident: ResponseId, after: int) -> None:
    """Another tenant's log is answered like one that does not exist, and so is a number that no event has."""
    await logs.append("a", ONE, events(0, 2))
    with pytest.raises(EventsGone):
        await collect(logs, after, tenant, ident)
    assert await logs.latest("b", ONE) is None


async def test_without_followers_a_full_log_drops_its_oldest_events(logs: MemoryEventLogs) -> None:
    for number in range(0, 40, 2):
        await logs.wait_for_room("a", ONE)
        await logs.append("a", ONE, events(number, 2, KIB))
    await logs.end("a", ONE, 100)
    assert logs.size_bytes <= 16 * KIB + 2 * (KIB + 256)
    with pytest.raises(EventsGone):
        await collect(logs, -1)
    assert (await collect(logs, 30)) == list(range(31, 40))


async def test_a_writer_waits_for_the_slowest_follower(logs: MemoryEventLogs) -> None:
    await logs.append("a", ONE, events(0, 20, KIB))
    following = logs.follow("a", ONE, -1)
    first = await anext(following)
    waiting = asyncio.create_task(logs.wait_for_room("a", ONE))
    await asyncio.sleep(0)
    assert not waiting.done()
    asking: asyncio.Task[Sequence[Event]] = asyncio.create_task(anext(following))
    await waiting
    await logs.append("a", ONE, events(20, 1))
    assert [event.sequence_number for event in (*first, *await asking)] == list(range(21))
    await following.aclose()


async def test_a_follower_that_leaves_lets_the_writer_go_on(logs: MemoryEventLogs) -> None:
    await logs.append("a", ONE, events(0, 20, KIB))
    following = logs.follow("a", ONE, -1)
    await anext(following)
    waiting = asyncio.create_task(logs.wait_for_room("a", ONE))
    await asyncio.sleep(0)
    await following.aclose()
    await waiting


async def test_a_log_that_is_dropped_tells_its_followers(logs: MemoryEventLogs) -> None:
    following = asyncio.create_task(collect(logs, -1))
    await asyncio.sleep(0)
    await logs.append("a", ONE, events(0, 1))
    await logs.drop("a", ONE)
    with pytest.raises(EventsGone):
        await following
    await logs.append("a", ONE, events(1, 1))
    await logs.wait_for_room("a", ONE)
    await logs.end("a", ONE, 100)
    assert logs.size_bytes == 0


async def test_ended_logs_go_before_the_budget_is_passed() -> None:
    logs = MemoryEventLogs(8 * KIB, 8 * KIB)
    for ident in (ONE, TWO):
        await logs.open("a", ident, shared=True)
        await logs.append("a", ident, events(0, 5, KIB))
        await logs.end("a", ident, 100)
    assert await collect(logs, 3, ident=TWO) == [4]
    with pytest.raises(EventsGone):
        await collect(logs, 3, ident=ONE)


async def test_a_log_that_is_being_read_is_not_dropped_for_another() -> None:
    logs = MemoryEventLogs(8 * KIB, 8 * KIB)
    await logs.open("a", ONE, shared=True)
    await logs.append("a", ONE, events(0, 5, KIB))
    await logs.end("a", ONE, 100)
    reading = logs.follow("a", ONE, -1)
    first = await anext(reading)
    await logs.open("a", TWO, shared=True)
    await logs.append("a", TWO, events(0, 5, KIB))
    assert len(first) + len([event async for batch in reading for event in batch]) == 5


async def test_running_logs_share_the_budget(logs: MemoryEventLogs) -> None:
    names = [ResponseId(f"resp_x{number}") for number in range(15)]
    for name in names:
        await logs.open("a", name, shared=True)
    for name in names:
        for number in range(10):
            await logs.wait_for_room("a", name)
            await logs.append("a", name, events(number, 1, KIB))
    assert logs.size_bytes <= 64 * KIB + 16 * (KIB + 256)


async def test_a_log_is_forgotten_when_its_time_has_come(logs: MemoryEventLogs) -> None:
    await logs.open("a", TWO, shared=True)
    await logs.append("a", ONE, events(0, 1))
    await logs.end("a", ONE, 100)
    await logs.purge(99.9)
    assert await collect(logs, -1) == [0]
    await logs.purge(100)
    with pytest.raises(EventsGone):
        await collect(logs, -1)
    await logs.append("a", TWO, events(0, 1))  # it has not ended, so it is not old
    await logs.end("a", TWO, 200)
    assert await collect(logs, -1, ident=TWO) == [0]


# ------------------------------------------------------------------------------------------------------------- the echo

ECHO = encode_echo(Settings(model="m", instructions=json_text("be brief " * 1000)), store=False)


def whole_turn(response_id: ResponseId) -> list[Event]:
    """A turn with a large echo, which three of its events end in: an object of its own."""
    stream = TurnStream(response_id, None, bytes(bytearray(ECHO)), 1.0)
    return [*stream.open(), stream.close(Ended("completed", usage(1, 1)), 2.0).terminal]


async def test_the_turns_of_a_session_keep_what_they_repeat_once() -> None:
    """Each log gives it back all the same, and the last one to go takes it along. Tenants share nothing."""
    logs = MemoryEventLogs(1000 * KIB, 1000 * KIB)
    ids = [new_response_id(bytes([number]) * ENTROPY_BYTES) for number in range(3)]
    sizes: list[int] = []
    for tenant, ident in (("a", ids[0]), ("a", ids[1]), ("b", ids[2])):
        await logs.open(tenant, ident, shared=True)
        await logs.append(tenant, ident, whole_turn(ident))
        await logs.end(tenant, ident, 10.0)
        sizes.append(logs.size_bytes)
    assert len(ECHO) < sizes[0] < len(ECHO) + 3 * KIB
    assert sizes[1] - sizes[0] < 3 * KIB
    assert sizes[2] - sizes[1] == sizes[0]
    echoes: list[set[int]] = []
    for tenant, ident in (("a", ids[0]), ("a", ids[1]), ("b", ids[2])):
        events = [event async for page in logs.follow(tenant, ident, -1) for event in page]
        assert events == whole_turn(ident)
        echoes.append({id(event.echo) for event in events})
    assert echoes[0] == echoes[1] != echoes[2]
    assert list(map(len, echoes)) == [1, 1, 1]
    await logs.drop("b", ids[2])
    await logs.drop("a", ids[0])
    assert logs.size_bytes == sizes[0]
    assert await logs.latest("a", ids[1]) == whole_turn(ids[1])[-1]
    await logs.purge(10.0)
    assert logs.size_bytes == 0


async def test_the_logs_of_a_tenant_are_dropped_together(logs: MemoryEventLogs) -> None:
    """Their followers are told; others follow on."""
    await logs.open("a", TWO, shared=True)
    await logs.open("b", ONE, shared=True)
    for tenant in ("a", "b"):
        await logs.append(tenant, ONE, events(0, 1))
    assert (await logs.drop_tenant("a"), await logs.drop_tenant("a")) == (2, 0)
    with pytest.raises(EventsGone):
        await collect(logs, -1)
    await logs.end("b", ONE, 1.0)
    assert await collect(logs, -1, "b") == [0]
    await logs.drop("b", ONE)
    assert logs.size_bytes == 0

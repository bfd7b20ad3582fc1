"""The client library meets servers and proxies that mix up, repeat, cut or never end what they send.

Each time the caller gets one consistent stream or one honest error, and the session goes on with the right history.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import warnings
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

import pytest
from msgspec.structs import replace

from segue.client.client import AsyncClient
from segue.client.errors import ConnectionFailedError, OutcomeUnknownError, ResponseFailedError
from segue.client.session import AsyncSession
from segue.client.stream_events import ClientEvent, OutputTextDelta, ResponseFinished
from segue.testing.response_events import Json, said, thought
from segue.testing.responses_faults import Cut, ErrorAt, Fault, Rewritten, Unreadable
from segue.testing.responses_rules import OPEN_RESPONSES, OPENAI, CreateRefusal, ServerRules, playing, turns_before
from segue.testing.responses_server import ScriptedResponsesServer, responding
from tests.faults.response_proxy import ProxyFault, ResponseProxy
from tests.faults.response_servers import INPUTS, LOOK, gateway_server, items_of, noticed
from tests.loop_clock import LoopClock

pytestmark = pytest.mark.usefixtures("plain_loop", "no_time")

Way = Literal["http", "websocket"]

both_ways = pytest.mark.parametrize("way", ["http", "websocket"])


def connected(server: ScriptedResponsesServer, way: Way, max_message_bytes: int) -> AsyncClient:
    return AsyncClient(server.base_url, transport=way, max_message_bytes=max_message_bytes)


@asynccontextmanager
async def talking(
    way: Way, rules: ServerRules = OPENAI, *, max_message_bytes: int = 2**20
) -> AsyncIterator[tuple[ScriptedResponsesServer, AsyncSession]]:
    """Run a double and a session whose first turn went well."""
    async with responding(rules) as server, connected(server, way, max_message_bytes) as client:
        session = client.session(model="m")
        await session.send("Hello").response()
        yield server, session


async def taken(session: AsyncSession, text: str = "And?") -> list[ClientEvent]:
    """Read a turn to its end."""
    return [event async for event in session.send(text)]


def texts(session: AsyncSession) -> list[str]:
    return [item["content"][0]["text"] for item in items_of(session.history)]


EXPECTED = [
    "Hello",
    "This is answer 1, to a history of 1 items.",
    "And?",
    "This is answer 2, to a history of 3 items.",
    "Bye",
    "This is answer 3, to a history of 5 items.",
]


async def finish(server: ScriptedResponsesServer, session: AsyncSession, runs: int) -> None:
    """Go on to the end, and check the whole conversation."""
    while len(session.history) < len(EXPECTED):
        await session.send(EXPECTED[len(session.history)]).response()
    assert texts(session) == EXPECTED
    assert len(server.executions) == runs


def twice(events: Sequence[Json]) -> Iterable[Json]:
    return [event for event in events for _ in range(2)]


def end_first(events: Sequence[Json]) -> Iterable[Json]:
    """The end of the turn before comes once more, now that the next create is under way."""
    before = {**events[-1]["response"], "id": "resp_0001"}
    return [{"type": "response.completed", "sequence_number": 13, "response": before}, *events]


def begun_twice(events: Sequence[Json]) -> Iterable[Json]:
    return [events[0], *events]


def with_vendor_events(events: Sequence[Json]) -> Iterable[Json]:
    return [{"type": "acme.limits"}, *events[:4], {"type": "acme.progress", "percent": 50}, *events[4:]]


@both_ways
@pytest.mark.parametrize("rewrite", [twice, begun_twice])
async def test_what_comes_twice_is_shown_once(way: Way, rewrite: object) -> None:
    async with talking(way) as (server, session):
        server.plan(Rewritten(rewrite))  # type: ignore[arg-type]  # one of the three above
        events = await taken(session)
        numbers = [event.sequence_number for event in events]
        assert numbers == list(range(14))
        assert "".join(event.delta for event in events if isinstance(event, OutputTextDelta)) == EXPECTED[3]
        await finish(server, session, 3)


async def test_a_second_end_of_the_turn_before_is_not_the_end_of_this_one() -> None:
    async with talking("websocket") as (server, session):
        server.plan(Rewritten(end_first))
        assert [event.sequence_number for event in await taken(session)] == list(range(14))
        await finish(server, session, 3)


@both_ways
async def test_events_of_a_vendor_pass(way: Way) -> None:
    async with talking(way) as (server, session):
        server.plan(Rewritten(with_vendor_events))
        kinds = [json.loads(event.raw)["type"] for event in await taken(session)]
        assert {"acme.limits", "acme.progress"} <= set(kinds)
        await finish(server, session, 3)


def other_end(events: Sequence[Json]) -> Iterable[Json]:
    return [*events[:-1], {**events[-1], "response": {**events[-1]["response"], "id": "resp_other"}}]


def other_middle(events: Sequence[Json]) -> Iterable[Json]:
    return [*events[:5], {**events[0], "response": {**events[0]["response"], "id": "resp_other"}}, *events[5:]]


def huge(events: Sequence[Json]) -> Iterable[Json]:
    return [*events[:5], {**events[5], "delta": "x" * 100_000}, *events[6:]]


def without_end(events: Sequence[Json]) -> Iterable[Json]:
    return events[:-1]


FAILED = CreateRefusal(status=500, code="server_error", message="Oops.")
UNCLEAR: list[Fault] = [
    Rewritten(other_end),
    Rewritten(other_middle),
    Rewritten(huge),
    Cut(at="events", events=5, close_code=1000),
    Cut(at="events", events=5, close_code=1011),
    Cut(at="events", events=0, close_code=1001),
    Unreadable(),
]


@both_ways
@pytest.mark.parametrize("fault", UNCLEAR, ids=[str(number) for number in range(len(UNCLEAR))])
async def test_an_answer_that_cannot_be_trusted_is_none(way: Way, fault: Fault) -> None:
    """What is incomplete never passes for an answer; nothing is sent again without being asked for."""
    async with talking(way, OPEN_RESPONSES, max_message_bytes=50_000) as (server, session):
        server.plan(fault)
        with pytest.raises(OutcomeUnknownError) as unknown:
            await taken(session)
        assert not unknown.value.safe_to_repeat
        assert texts(session) == EXPECTED[:2]
        await finish(server, session, 4 if not isinstance(fault, Unreadable) else 3)


@both_ways
@pytest.mark.parametrize("flat", [True, False])
async def test_an_error_in_the_middle_is_a_turn_that_failed(way: Way, flat: bool) -> None:
    async with talking(way) as (server, session):
        server.plan(ErrorAt(refusal=FAILED, events=5, flat=flat))
        with pytest.raises(ResponseFailedError) as failed:
            await taken(session)
        assert (failed.value.code, failed.value.response_id) == ("server_error", "resp_0002")
        assert texts(session) == EXPECTED[:2]
        await finish(server, session, 4)


def endless(events: Sequence[Json]) -> Iterable[Json]:
    yield from events[:5]
    for number in itertools.count(5):
        yield {**events[5], "sequence_number": number}


@both_ways
async def test_a_turn_without_end_can_be_left(way: Way) -> None:
    """The server hears of it, and the session goes on."""
    async with talking(way) as (server, session):
        server.plan(Rewritten(endless))
        async with session.send("And?") as turn:
            async for event in turn:
                if event.sequence_number == 500:
                    break
        await server.abandoned()
        assert texts(session) == EXPECTED[:2]
        await finish(server, session, 4)


@both_ways
async def test_a_turn_without_end_has_no_more_time_than_it_was_given(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = LoopClock(monkeypatch)
    async with talking(way) as (server, session):
        server.plan(Rewritten(endless))
        with pytest.raises(OutcomeUnknownError):
            await clock.outlast(session.send("And?", turn_timeout_s=9.0).response(), 9.0, after=server.seen(2))
        await server.abandoned()
        await finish(server, session, 4)


@both_ways
async def test_a_terminal_event_that_never_comes_is_missed(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP the body ends in order; a WebSocket stays open and silent, until the turn's time is over."""
    clock = LoopClock(monkeypatch)
    async with talking(way) as (server, session):
        server.plan(Rewritten(without_end))
        with pytest.raises(OutcomeUnknownError):
            await clock.outlast(session.send("And?", turn_timeout_s=9.0).response(), 9.0, after=server.seen(2))
        await finish(server, session, 4)


# --- what a server does not have -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 302, 404, 405, 426, 501])
async def test_a_server_without_websockets_is_asked_once(status: int) -> None:
    """All sessions of the client use HTTP from then on."""
    async with responding(OPENAI) as server, AsyncClient(server.base_url) as client:
        server.plan_upgrades(*[Unreadable(status=status)] * 5)
        for _ in range(2):
            await client.session(model="m").send("Hello").response()
        assert len(server.upgrades) == 1
        assert [create.transport for create in server.creates] == ["http", "http"]


@pytest.mark.parametrize(
    "fault",
    [
        Unreadable(status=500),
        Unreadable(status=503),
        Unreadable(status=429, content_type="application/json", body=b'{"error":{"message":"Slow down."}}'),
    ],
)
async def test_an_upgrade_that_fails_for_now_is_tried_again(fault: Unreadable) -> None:
    async with responding(OPENAI) as server, AsyncClient(server.base_url) as client:
        server.plan_upgrades(fault, fault, None)
        await client.session(model="m").send("Hello").response()
        assert [create.transport for create in server.creates] == ["websocket"]
        assert len(server.upgrades) == 3


async def test_upgrades_that_fail_again_and_again_lead_to_http() -> None:
    async with responding(OPENAI) as server, AsyncClient(server.base_url) as client:
        server.plan_upgrades(*[Unreadable(status=500)] * 20)
        await client.session(model="m").send("Hello").response()
        assert [create.transport for create in server.creates] == ["http"]
        assert len(server.upgrades) == 3


async def test_a_session_that_was_told_to_use_websockets_never_falls_back() -> None:
    async with responding(OPENAI) as server, AsyncClient(server.base_url, transport="websocket") as client:
        server.plan_upgrades(*[Unreadable(status=500)] * 20)
        with pytest.raises(ConnectionFailedError):
            await client.session(model="m").send("Hello").response()
        assert server.creates == []


async def test_websockets_that_break_three_times_lead_to_http() -> None:
    """Each of these turns may have run, so that each is sent again by its caller only."""
    async with responding(OPENAI) as server, AsyncClient(server.base_url) as client:
        session = client.session(model="m")
        server.plan(*[Cut(at="events", events=2)] * 3)
        for _ in range(3):
            with pytest.raises(OutcomeUnknownError):
                await session.send("Hello").response()
        await session.send("Hello").response()
        assert [create.transport for create in server.creates] == ["websocket"] * 3 + ["http"]


@both_ways
async def test_a_field_that_the_client_added_is_left_out_where_it_is_refused(way: Way) -> None:
    """And no turn is lost for it; from then on it is left out at once."""
    rules = replace(OPEN_RESPONSES, refused_fields=frozenset({"include"}))
    async with talking(way, rules) as (server, session):
        await finish(server, session, 3)
        assert all(not create.create.get("include") for create in server.creates[-2:])


@both_ways
async def test_reasoning_is_sealed_for_a_replay(way: Way) -> None:
    """A server that keeps nothing can only take it back sealed."""
    model = playing([thought("Hm."), said("Hello.")], [said("Yes.")])
    async with responding(OPENAI, model=model) as server, AsyncClient(server.base_url, transport=way) as client:
        session = client.session(model="m")
        await session.send("Hello").response()
        server.cut()
        await noticed()
        await session.send("Are you there?").response()
        (reasoning,) = [item for item in server.executions[1].history if item["type"] == "reasoning"]
        assert reasoning["encrypted_content"] == "sealed:rs_0001_0"
        assert "previous_response_id" not in server.creates[1].create


@both_ways
async def test_a_turn_that_failed_unseen_is_not_run_again(way: Way) -> None:
    """The connection broke before its first event: the repeat gets the failure, not a second run to pay for."""
    async with gateway_server() as server, AsyncClient(server.proxy.base_url, transport=way) as client:
        session = client.session(model="m", tools=[LOOK])
        server.fail()
        server.proxy.plan(ProxyFault(at="event"))
        with pytest.raises(ResponseFailedError):
            await session.send(INPUTS[0]).response()
        assert server.runs == 1
        await session.send(INPUTS[0]).response()
        assert server.runs == 2


# --- many sessions ---------------------------------------------------------------------------------------------------


class Trouble:
    """Cuts a proxy's connections again and again, after as many events as are drawn, so many times."""

    def __init__(self, proxy: ResponseProxy, faults: int) -> None:
        self._proxy = proxy
        self._left = faults
        self._chosen = random.Random(faults)
        self.plan()

    def plan(self) -> None:
        """Plan the next fault."""
        if self._left:
            self._left -= 1
            at: Literal["create", "event", "terminal"] = self._chosen.choice(("create", "event", "event", "terminal"))
            self._proxy.plan(ProxyFault(at=at, events=self._chosen.randrange(12), then=self.plan))


async def converse(session: AsyncSession) -> int:
    """Take all turns, whatever happens; return how often nobody could tell what became of one."""
    unknown = 0
    while (at := turns_before(items_of(session.history))) < len(INPUTS):
        try:
            events = [event async for event in session.send(INPUTS[at])]
        except OutcomeUnknownError:
            unknown += 1
            continue
        numbers = [event.sequence_number or 0 for event in events]
        assert numbers == sorted(set(numbers))
        assert isinstance(events[-1], ResponseFinished)
    assert len(session.history) == 7
    return unknown


@pytest.mark.parametrize(
    ("sessions", "faults"), [(6, 12), pytest.param(32, 100, marks=pytest.mark.deep)], ids=["few", "many"]
)
@pytest.mark.parametrize("way", ["http", "websocket", "auto"])
async def test_sessions_that_share_connections_lose_nothing_and_pay_once(
    way: Literal["http", "websocket", "auto"], sessions: int, faults: int
) -> None:
    """Every cut hits all of them: each resumes or repeats what it had under way."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(gateway_server())
        client = await stack.enter_async_context(AsyncClient(server.proxy.base_url, transport=way))
        Trouble(server.proxy, faults)
        made = [client.session(model="m", tools=[LOOK], store=number % 2 == 0) for number in range(sessions)]
        unknown = sum(await asyncio.gather(*map(converse, made)))
        turns = sessions * len(INPUTS)
        assert turns <= server.runs <= turns + unknown
        assert sum(session.meters.resumes + session.meters.repeats for session in made) > 0


# --- closing ---------------------------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("steps", range(1, 5))
async def test_a_client_whose_closing_is_cancelled_leaves_nothing_open(way: Way, steps: int) -> None:
    """As when a program is interrupted twice."""
    async with responding(OPENAI) as server:
        client = AsyncClient(server.base_url, transport=way)
        await asyncio.gather(*(client.session(model="m").send("Hello").response() for _ in range(3)))
        closing = asyncio.ensure_future(client.aclose())
        for _ in range(steps):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await server.left()

        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            del client
            gc.collect()
        assert warned == []

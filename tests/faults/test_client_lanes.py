"""The client library with OpenAI's service as it is documented: lanes, and a memory of each connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import pytest

from segue.client.capabilities import OPENAI_SERVICE
from segue.client.client import AsyncClient
from segue.client.errors import ClientError, CreateRefusedError, OutcomeUnknownError
from segue.client.session import AsyncSession
from segue.client.stream_events import ClientResponse
from segue.testing.response_events import Json
from segue.testing.responses_faults import AgeLimit, Cut, ErrorAt, HoldAt, Rewritten
from segue.testing.responses_rules import OPENAI, CreateRefusal
from segue.testing.responses_server import ScriptedResponsesServer, responding
from tests.faults.response_servers import items_of, noticed
from tests.loop_clock import LoopClock

pytestmark = pytest.mark.usefixtures("plain_loop", "no_time")


@pytest.fixture(autouse=True)
def service_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client take this machine for OpenAI's."""
    for module in ("capabilities_reader", "upgrade"):
        monkeypatch.setattr(f"segue.client.transports.{module}.documented_capabilities", lambda _: OPENAI_SERVICE)


@asynccontextmanager
async def talking(sessions: int) -> AsyncIterator[tuple[ScriptedResponsesServer, list[AsyncSession]]]:
    """Run the service, and sessions that have taken their first turns."""
    async with responding(OPENAI) as server, AsyncClient(server.base_url) as client:
        made = [client.session(model="m") for _ in range(sessions)]
        await each(made, "Hello")
        yield server, made


async def each(sessions: Iterable[AsyncSession], text: str) -> list[ClientResponse | BaseException]:
    """Take a turn in each session at once."""
    return await asyncio.gather(*(session.send(text).response() for session in sessions), return_exceptions=True)


def check(sessions: Iterable[AsyncSession], turns: int) -> None:
    """Check that each history has these turns, each item once."""
    for session in sessions:
        assert len(session.history) == 2 * turns
        said = [item["content"][0]["text"] for item in items_of(session.history)[1::2]]
        assert said == [f"This is answer {at + 1}, to a history of {2 * at + 1} items." for at in range(turns)]


async def test_sessions_share_connections_as_many_as_may_run_at_once() -> None:
    async with talking(40) as (server, sessions):
        await each(sessions, "And?")
        check(sessions, 2)
        assert len(server.upgrades) == 3  # of 16 turns each
        assert sum(create.create.get("previous_response_id") is not None for create in server.creates) == 40
        assert len(server.executions) == 80


async def test_sessions_that_are_over_leave_their_names_to_others() -> None:
    """A connection takes 32 names in its life."""
    async with responding(OPENAI) as server, AsyncClient(server.base_url) as client:
        for _ in range(80):
            async with client.session(model="m") as session:
                await session.send("Hello").response()
        assert len(server.upgrades) == 1


async def test_forks_continue_the_same_response_side_by_side() -> None:
    async with talking(1) as (server, (session,)):
        forks = [session.fork() for _ in range(10)]
        await each(forks, "And?")
        check(forks, 2)
        assert {create.create["previous_response_id"] for create in server.creates[1:]} == {"resp_0001"}
        assert len({create.create.get("stream_id") for create in server.creates[1:]}) == 10
        assert len(server.upgrades) == 1


async def test_a_cut_is_met_by_all_turns_of_the_connection_and_by_no_other() -> None:
    async with talking(5) as (server, sessions):
        gate = asyncio.Event()
        server.plan(*[HoldAt(gate=gate, events=3)] * 4, Cut(at="events", events=3))
        outcomes = await each(sessions, "And?")
        assert all(isinstance(outcome, OutcomeUnknownError) for outcome in outcomes)
        check(sessions, 1)
        await each(sessions, "And?")
        check(sessions, 2)


async def test_the_age_limit_ends_nothing_that_runs() -> None:
    """What has not begun goes to another connection."""
    async with talking(3) as (server, sessions):
        gate = asyncio.Event()
        server.plan(HoldAt(gate=gate, events=3))
        running = sessions[0].send("And?")
        await anext(running)
        server.plan(AgeLimit())
        late = asyncio.ensure_future(sessions[1].send("And?").response())
        await server.seen(5)
        gate.set()
        with pytest.raises(OutcomeUnknownError):  # the double closes at once, which the service need not do
            await running.response()
        await late
        check(sessions[1:2], 2)
        await each([sessions[0], sessions[2]], "And?")
        check(sessions, 2)


async def test_an_idle_connection_that_is_told_of_its_age_is_renewed() -> None:
    async with talking(3) as (server, sessions):
        await server.age_out()
        await noticed()
        await each(sessions, "And?")
        check(sessions, 2)
        assert len(server.upgrades) == 2


@pytest.mark.parametrize(
    ("code", "flat", "expected"),
    [
        ("invalid_prompt", False, CreateRefusedError),
        ("invalid_prompt", True, CreateRefusedError),
        ("something_new", False, CreateRefusedError),
        ("something_new", True, OutcomeUnknownError),
    ],
)
async def test_a_refusal_is_the_matter_of_its_lane(code: str, flat: bool, expected: type[ClientError]) -> None:
    """A flat error has no status: with a code that is not documented, nobody can tell whether anything ran."""
    refusal = CreateRefusal(status=400, code=code, message="No.")
    async with talking(3) as (server, sessions):
        server.plan(None, ErrorAt(refusal=refusal, flat=flat), None)
        outcomes = await each(sessions, "And?")
        assert [type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)] == [expected]
        assert len(server.executions) == 5


async def test_a_turn_that_is_left_disturbs_no_other_and_its_answer_is_dropped() -> None:
    async with talking(2) as (server, (one, other)):
        gate = asyncio.Event()
        server.plan(HoldAt(gate=gate, events=4), HoldAt(gate=gate, events=4))
        left, going_on = one.send("Never mind"), other.send("And?")
        await anext(left)
        await anext(going_on)
        await left.cancel()
        gate.set()
        await going_on.response()
        await one.send("And?").response()
        check([one, other], 2)


def in_other_lane(events: Sequence[Json]) -> Iterable[Json]:
    return [{**event, "stream_id": "nobody"} for event in events]


async def test_an_answer_in_a_lane_that_nobody_asked_for_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose lane it was waits until its time is over, and says that nobody knows."""
    clock = LoopClock(monkeypatch)
    async with talking(2) as (server, sessions):
        server.plan(Rewritten(in_other_lane))
        with pytest.raises(OutcomeUnknownError):
            await clock.outlast(sessions[0].send("And?", turn_timeout_s=9.0).response(), 9.0, after=server.seen(3))
        check(sessions, 1)
        await each(sessions, "And?")
        check(sessions, 2)

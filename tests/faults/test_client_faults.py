"""The client library meets every fault: over both transports, stored or not, with three kinds of servers.

The second of three turns meets the fault. What must become of it is in `tools.client_fault_table`, which is also what
the documentation shows. Whatever happened, the session goes on, and its history is in the end that of a session without
faults.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from _pytest.mark import ParameterSet
from msgspec.structs import replace

from segue.client.client import AsyncClient
from segue.client.errors import ClientError
from segue.client.stream_events import OutputItemDone, OutputTextDelta, ResponseCreated, ResponseFinished
from segue.client.turn import AsyncTurn
from segue.client.turn_effects import RecoveryStep
from segue.testing.link import LinkProfile, linked
from segue.testing.response_events import Json
from segue.testing.responses_rules import OPEN_RESPONSES, OPENAI, turns_before
from tests.faults.response_proxy import ProxyFault
from tests.faults.response_servers import (
    INPUTS,
    LOOK,
    TURNS,
    ResponsesTarget,
    double_server,
    gateway_server,
    items_of,
    noticed,
    without_ids,
)
from tools.client_fault_table import Fault, FaultCase, Server, expectations

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXPECTED = expectations()
SLOW = LinkProfile(rtt_s=0.002, down_bytes_s=1_500_000, up_bytes_s=1_500_000)

Servers = dict[Server, ResponsesTarget]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers() -> AsyncIterator[Servers]:
    asyncio.get_running_loop().set_debug(False)
    async with AsyncExitStack() as stack:
        yield {
            "gateway": await stack.enter_async_context(gateway_server()),
            "OpenAI": await stack.enter_async_context(double_server(OPENAI)),
            "plain": await stack.enter_async_context(double_server(OPEN_RESPONSES)),
            "runs on": await stack.enter_async_context(double_server(replace(OPENAI, runs_on=True))),
        }


async def _nothing() -> None:
    """Do nothing: the whole session is so."""


def inject(case: FaultCase, server: ResponsesTarget, response_id: str) -> Awaitable[None]:
    """Prepare the fault that the next create meets."""
    cut = server.proxy.plan
    prepare: dict[Fault, Callable[[], Awaitable[None] | None]] = {
        "cut before the create arrived": lambda: cut(ProxyFault(at="create")),
        "cut before the first event": lambda: cut(ProxyFault(at="event")),
        "cut in the middle of the stream": server.break_stream,
        "cut in the terminal event": lambda: cut(ProxyFault(at="terminal")),
        "cut between turns": server.proxy.cut,
        "connection at its age limit": server.age,
        "restart between turns": server.restart,
        "restart in the middle of the stream": server.restart_in_stream,
        "id evicted": lambda: server.evict(response_id),
        "429 with Retry-After": lambda: server.refuse(429, 1),
        "503 with Retry-After": lambda: server.refuse(503, 1),
        "500 before the start": lambda: server.refuse(500, None),
        "response.failed": server.fail,
    }
    return prepare.get(case.fault, _nothing)() or _nothing()


class Taken:
    """What the caller of a turn got: the events, and how it ended."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.outcome = "completed"
        self.error: ClientError | None = None

    def check(self) -> None:
        """Check that it was one stream: numbers rise, one response, one end, and texts that are those of the items."""
        numbers = [event.sequence_number for event in self.events]
        assert numbers == sorted(set(numbers)), "the numbers of the events do not rise"
        ends = [event for event in self.events if isinstance(event, ResponseFinished)]
        assert len([event for event in self.events if isinstance(event, ResponseCreated)]) <= 1
        if self.error is not None:
            assert not ends
            assert self.error.done
            assert self.error.safe
            return
        assert ends == self.events[-1:]
        deltas = "".join(event.delta for event in self.events if isinstance(event, OutputTextDelta))
        assert deltas == ends[0].response.output_text
        assert (
            tuple(event.item for event in self.events if isinstance(event, OutputItemDone)) == ends[0].response.output
        )


async def take(turn: AsyncTurn) -> Taken:
    """Read a turn to its end."""
    taken = Taken()
    try:
        async for event in turn:
            taken.events.append(event)
    except ClientError as error:
        taken.outcome, taken.error = type(error).__name__, error
    return taken


@asynccontextmanager
async def connecting(case: FaultCase, server: ResponsesTarget, steps: list[RecoveryStep]) -> AsyncIterator[AsyncClient]:
    """Run a client; over a slow link, if that is the fault."""
    server.proxy.serves_page = case.fault == "a web page instead of the upgrade"
    async with AsyncExitStack() as stack:
        stack.callback(server.proxy.calm)
        base_url = server.proxy.base_url
        if case.fault == "slow link":
            link = await stack.enter_async_context(linked("127.0.0.1", server.proxy.port, SLOW))
            base_url = f"{link.url}/v1"
        client = AsyncClient(base_url, transport=case.transport, on_recovery=steps.append)
        yield await stack.enter_async_context(client)


def cases() -> Iterator[ParameterSet]:
    """Name each case; slow links are dear, and all servers are alike there."""
    for case in EXPECTED:
        deep = [pytest.mark.deep] if case.fault == "slow link" and case.server != "gateway" else []
        yield pytest.param(case, id=f"{case.fault}-{case.transport}-{case.store}-{case.server}", marks=deep)


@pytest.mark.usefixtures("no_time")
@pytest.mark.parametrize("case", [*cases()])
async def test_a_turn_that_meets_a_fault_ends_as_promised_and_the_session_goes_on(
    case: FaultCase, servers: Servers
) -> None:
    row, server = EXPECTED[case], servers[case.server]
    steps: list[RecoveryStep] = []
    async with connecting(case, server, steps) as client:
        session = client.session(model="m", tools=[LOOK], store=case.store)
        if row.outcome != "CreateRefusedError":
            first = await session.send(INPUTS[0]).response()
            await inject(case, server, first.id)
            await noticed()
        history, before, new = session.history, server.runs, INPUTS[1 if session.history else 0]

        taken = await take(session.send(new))
        actions = tuple(step.decision.action for step in steps)

        taken.check()
        assert not server.waits, "the fault was not met"
        assert (taken.outcome, server.runs - before) == (row.outcome, row.runs), row.why
        assert tuple(action for action in actions if action != "give_up") == row.actions
        if row.outcome != "completed":
            assert session.history == history
            server.proxy.calm()
            assert (await take(session.send(new))).outcome == "completed"
            assert server.runs - before == row.runs + 1
        while turns_before(items_of(session.history)) < len(TURNS):
            await session.send(INPUTS[turns_before(items_of(session.history))]).response()
        assert without_ids(session.history) == await history_without_faults(case.server, server)


_HISTORIES: dict[Server, list[Json]] = {}


async def history_without_faults(name: Server, server: ResponsesTarget) -> list[Json]:
    """Return what the same conversation leaves in the history when nothing goes wrong."""
    if name not in _HISTORIES:
        async with AsyncClient(server.proxy.base_url, transport="http") as client:
            session = client.session(model="m", tools=[LOOK])
            for new in INPUTS:
                await session.send(new).response()
            _HISTORIES[name] = without_ids(session.history)
    return _HISTORIES[name]

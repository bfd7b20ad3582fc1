"""A process that ends in the middle of a turn is no second payment: the next one finds out what became of the turn.

The session was saved, so that it is written again before each create leaves. The process dies at the worst moments, and
another one loads the file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest

from segue.client.client import AsyncClient
from segue.client.errors import OutcomeUnknownError
from segue.client.session import AsyncSession
from segue.client.stream_events import OutputTextDelta, ResponseCreated, ResponseFinished
from segue.testing.responses_rules import OPEN_RESPONSES
from tests.faults.response_proxy import ProxyFault
from tests.faults.response_servers import (
    INPUTS,
    LOOK,
    TURNS,
    ResponsesTarget,
    double_server,
    gateway_server,
    without_ids,
)

pytestmark = pytest.mark.usefixtures("plain_loop", "no_time")

both_ways = pytest.mark.parametrize("way", ["http", "websocket"])
stored_or_not = pytest.mark.parametrize("store", [True, False])


@asynccontextmanager
async def killed(
    server: ResponsesTarget, way: Literal["http", "websocket"], path: Path, *, store: bool, fault: ProxyFault
) -> AsyncIterator[AsyncSession]:
    """Let a process die at the fault of its second turn, and another load its session."""
    async with AsyncClient(server.proxy.base_url, transport=way) as client:
        session = client.session(model="m", tools=[LOOK], store=store)
        await session.send(INPUTS[0]).response()
        session.save(path)
        turn = asyncio.ensure_future(session.send(INPUTS[1]).response())

        def die() -> None:
            turn.cancel()
            if fault.then is not None:
                fault.then()

        server.proxy.plan(ProxyFault(at=fault.at, events=fault.events, then=die))
        await asyncio.wait([turn])
        assert turn.cancelled()
    async with AsyncClient(server.proxy.base_url, transport=way) as client:
        yield client.load(path)


@both_ways
@stored_or_not
@pytest.mark.parametrize(
    "fault",
    [
        ProxyFault(at="create"),
        ProxyFault(at="event"),
        ProxyFault(at="event", events=1),
        ProxyFault(at="event", events=2),
        ProxyFault(at="terminal"),
    ],
)
async def test_the_next_process_gets_the_turn_of_the_killed_one(
    way: Literal["http", "websocket"], store: bool, fault: ProxyFault, tmp_path: Path
) -> None:
    async with (
        gateway_server() as server,
        killed(server, way, tmp_path / "session.json", store=store, fault=fault) as session,
    ):
        turn = session.pending_turn
        assert turn is not None
        events = [event async for event in turn]
        assert server.runs == 2
        assert isinstance(events[0], ResponseCreated)
        assert isinstance(events[-1], ResponseFinished)
        said = "".join(event.delta for event in events if isinstance(event, OutputTextDelta))
        assert said.strip() == TURNS[1][0]["content"][0]["text"]
        await session.send(INPUTS[2]).response()
        assert server.runs == 3
        assert [item["type"] for item in without_ids(session.history)] == [
            *("message", "message", "function_call", "function_call_output", "message", "message", "message"),
        ]


@both_ways
@stored_or_not
async def test_after_a_restart_of_the_gateway_too_nobody_knows(
    way: Literal["http", "websocket"], store: bool, tmp_path: Path
) -> None:
    """The key was in its memory: with another epoch, the create is not sent again."""
    async with gateway_server() as server:
        fault = ProxyFault(at="event", then=server.restart)
        async with killed(server, way, tmp_path / "session.json", store=store, fault=fault) as session:
            assert session.pending_turn is not None
            with pytest.raises(OutcomeUnknownError):
                await session.pending_turn.response()
            assert server.runs == 2
            await session.send(INPUTS[1]).response()
            assert server.runs == 3


@both_ways
async def test_of_a_plain_server_nobody_knows(way: Literal["http", "websocket"], tmp_path: Path) -> None:
    async with (
        double_server(OPEN_RESPONSES) as server,
        killed(server, way, tmp_path / "session.json", store=True, fault=ProxyFault(at="create")) as session,
    ):
        assert session.pending_turn is not None
        with pytest.raises(OutcomeUnknownError):
            await session.pending_turn.response()
        assert server.runs == 1


@both_ways
async def test_a_turn_that_was_never_sent_is_sent(way: Literal["http", "websocket"], tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    async with double_server(OPEN_RESPONSES) as server:
        async with AsyncClient(server.proxy.base_url, transport=way) as client:
            session = client.session(model="m", tools=[LOOK], store=True)
            await session.send(INPUTS[0]).response()
            session.send(INPUTS[1])
            session.save(path)
        async with AsyncClient(server.proxy.base_url, transport=way) as client:
            pending = client.load(path).pending_turn
            assert pending is not None
            assert (await pending.response()).output_text == TURNS[1][0]["content"][0]["text"]
            assert server.runs == 2

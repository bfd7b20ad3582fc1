"""A gateway behind a gateway: chains share a few sockets between them, and are stopped and cut one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest

from segue.config import UpstreamConfig
from segue.testing.link import linked
from segue.testing.protocol_checker import Json
from segue.upstreams.scripted import MODEL, Say, ScriptedTurn, ScriptedUpstream, Wait, say
from tests.integration.clients import Socket
from tests.integration.gateway import listening
from tests.integration.providers import gateway

#: What a gateway runs at once on one connection.
LANES = 16


@asynccontextmanager
async def outer(inner_url: str, **settings: object) -> AsyncIterator[str]:
    """The URL of a gateway in front of another one."""
    fields = {"name": "inner", "models": [MODEL], "dialect": "responses", "transport": "websocket"}
    there = msgspec.convert({**fields, "base_url": f"{inner_url}/v1", **settings}, UpstreamConfig)
    async with gateway(there) as url:
        yield url


async def figures(url: str, name: str) -> dict[str, float]:
    """The figures of a metric that begin with this name, by their labels."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as reply:
        page = await reply.text()
    lines = [line for line in page.splitlines() if line.startswith(name)]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def sockets(url: str) -> int:
    """How many sockets the outer one has."""
    return int(sum((await figures(url, "segue_upstream_websockets{")).values()))


async def ask(socket: Socket, **fields: object) -> Json:
    answer = await socket.ask(store=False, **fields)
    assert answer.response is not None, answer.error
    return answer.response


@pytest.mark.parametrize("chains", [20, pytest.param(200, marks=pytest.mark.deep, id="200")])
async def test_chains_run_side_by_side_over_a_few_sockets(chains: int) -> None:
    """As many as they need at once, and each turn goes to the lane of its chain."""
    gate = asyncio.Event()
    first = [ScriptedTurn((Say(("One.",)), Wait(gate)))] * chains
    model = ScriptedUpstream([*first, *[say("Two.")] * chains])
    async with (
        listening(model, server={"max_connections": 1000}) as (_, inner),
        outer(inner, max_concurrent=chains) as url,
    ):
        clients = [Socket(url) for _ in range(chains)]
        for one in clients:
            await one.__aenter__()
        running = [asyncio.create_task(ask(one, input="hi")) for one in clients]
        async with asyncio.timeout(30):
            while model.started < chains:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        needed = -(-chains // LANES)
        assert await sockets(url) == needed
        gate.set()
        made = await asyncio.gather(*running)
        pairs = zip(clients, made, strict=True)
        await asyncio.gather(*(ask(one, input="and?", previous_response_id=was["id"]) for one, was in pairs))
        assert await sockets(url) == needed
        assert await figures(url, "segue_upstream_continuations_total") == {
            'segue_upstream_continuations_total{outcome="hit",upstream="inner"}': chains
        }
        for one in clients:
            await one.__aexit__(None, None, None)
    assert [len(list(request.history.items())) for request in model.requests] == [1] * chains + [3] * chains


async def test_a_turn_is_stopped_alone_and_its_chain_goes_on() -> None:
    """Also one that has said nothing yet: the inner gateway takes a message that stops the turn of a lane."""
    gate = asyncio.Event()
    script = [say("One."), ScriptedTurn((Wait(gate), Say(("Two.",)))), ScriptedTurn((Wait(asyncio.Event()),))]
    model = ScriptedUpstream([*script, ScriptedTurn((Say(("Well,",)), Wait(asyncio.Event()))), say("Four.")])
    async with listening(model) as (_, inner), outer(inner) as url, Socket(url) as stays, Socket(url) as leaves:
        made = await ask(leaves, input="hi")
        running = asyncio.create_task(ask(stays, input="hi"))
        for count in (1, 2):
            async with Socket(url) as leaver:
                async with asyncio.timeout(20):
                    while model.started < 1 + count:  # noqa: ASYNC110 - it tells nobody
                        await asyncio.sleep(0.01)
                await leaver.create(input="stop me", store=False)
                async with asyncio.timeout(20):
                    while model.started < 2 + count:  # noqa: ASYNC110 - as above
                        await asyncio.sleep(0.01)
                leaver.vanish()
            async with asyncio.timeout(20):
                while model.cancelled < count:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.01)
        gate.set()
        assert (await running)["status"] == "completed"
        await ask(leaves, input="and?", previous_response_id=made["id"])
        assert await sockets(url) == 1
    assert [len(list(request.history.items())) for request in model.requests] == [1, 1, 1, 1, 3]


async def test_a_long_chain_sends_what_is_new_and_a_cut_costs_one_replay() -> None:
    turns = 30
    model = ScriptedUpstream([say("Yes.")] * turns)
    async with (
        listening(model) as (_, inner),
        linked("127.0.0.1", int(inner.rpartition(":")[2])) as link,
        outer(link.url) as url,
        Socket(url) as socket,
    ):
        made: Json = {"id": None}
        for turn in range(turns):
            if turn == turns // 2:
                link.cut()
            made = await ask(socket, input="and?", previous_response_id=made["id"])
        hits = await figures(url, "segue_upstream_continuations_total")
        assert hits['segue_upstream_continuations_total{outcome="hit",upstream="inner"}'] == turns - 2
    assert [len(list(request.history.items())) for request in model.requests] == [2 * turn + 1 for turn in range(turns)]

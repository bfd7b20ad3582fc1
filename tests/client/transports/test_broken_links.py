"""Many lanes at once over links that break at any time: every stream ends, whole or with a fault, and nothing is left.

What happens is drawn from a seed. How the tasks interleave is not, so that a seed is a family of cases.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from urllib.parse import urlsplit

import msgspec
import pytest

from segue.client.settings import ConnectionSettings
from segue.client.transports.connection_pool import WebSocketTransport
from segue.client.transports.http import HttpTransport
from segue.client.transports.interface import EventStream, ResponsesTransport, TransportFault
from segue.client.transports.websocket import SocketLimits
from segue.testing.link import EmulatedLink, linked
from segue.upstreams.scripted import MODEL, ScriptedUpstream
from tests.client.transports.streams import PATIENCE_S
from tests.integration.gateway import listening

LANES, TURNS = 8, 5
SEEDS = [*range(3), *(pytest.param(seed, marks=pytest.mark.deep) for seed in range(3, 20))]


async def read(stream: EventStream, stop_after: int | None) -> str:
    """Read a stream, perhaps not to its end; return what became of it."""
    types: list[str] = []
    numbers: list[int] = []
    try:
        async for data in stream:
            event = msgspec.json.decode(data)
            types.append(event["type"])
            numbers.append(event["sequence_number"])
            if stop_after is not None and len(types) > stop_after:
                return "left"
    except TransportFault as fault:
        return fault.fault.kind
    finally:
        assert numbers == list(range(len(numbers))), "no event is missing, and none is another lane's"
        await stream.aclose()
    assert types[-1] == "response.completed", "a stream that ends is whole"
    return "whole"


async def talk(transport: ResponsesTransport, lane: int, dice: random.Random) -> Counter[str]:
    """Run turns in one lane, whatever happens to them."""
    outcomes: Counter[str] = Counter()
    for turn in range(TURNS):
        body = msgspec.json.encode({"model": MODEL, "input": f"{lane} {turn}", "store": False})
        try:
            connected = await transport.connect(lane=lane)
            stream = await transport.create(body, lane=lane, connection=connected.connection)
        except TransportFault as fault:
            outcomes[fault.fault.kind] += 1
            continue
        outcomes[await read(stream, dice.choice((None, None, None, 0, 1, 5)))] += 1
    transport.release(lane)
    return outcomes


async def whole(transport: ResponsesTransport, lane: int) -> bool:
    """Run a turn after the last break; its first tries may still meet what is broken."""
    for _ in range(4):
        try:
            connected = await transport.connect(lane=lane)
            stream = await transport.create(
                b'{"model":"%b","input":"x"}' % MODEL.encode(), lane=lane, connection=connected.connection
            )
        except TransportFault:
            continue
        if await read(stream, None) == "whole":
            return True
    return False


async def break_links(link: EmulatedLink, dice: random.Random, most_bytes: int) -> None:
    """Break everything, again and again, after some bytes."""
    while True:
        cut = link.cut_after(down_bytes=dice.randrange(most_bytes))
        await cut.wait()


@pytest.mark.untraced
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", [HttpTransport, WebSocketTransport])
async def test_every_stream_ends_and_nothing_is_left(kind: type[HttpTransport | WebSocketTransport], seed: int) -> None:
    dice = random.Random(seed)
    tasks_before = asyncio.all_tasks()
    deltas = dice.choice((5, 60))
    upstream = ScriptedUpstream(deltas=deltas, pace_s=dice.choice((0.0, 0.001)))
    async with listening(upstream, server={"max_lanes": 4, "max_in_flight": 3}) as (_, url):
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        async with linked(address.hostname, address.port) as link:
            settings = ConnectionSettings(base_url=f"{link.url}/v1", deflate=dice.random() < 0.5)
            if kind is WebSocketTransport:
                limits = SocketLimits(queue_bytes=dice.choice((1000, 1_000_000)), slow_lane_s=0.2)
                transport: HttpTransport | WebSocketTransport = WebSocketTransport(settings, limits=limits)
            else:
                transport = HttpTransport(settings)
            breaking = asyncio.create_task(break_links(link, dice, LANES * (deltas + 10) * 500))
            async with asyncio.timeout(PATIENCE_S):
                lanes = [talk(transport, lane, random.Random(seed * 100 + lane)) for lane in range(LANES)]
                outcomes = sum(await asyncio.gather(*lanes), Counter[str]())
                breaking.cancel()
                await asyncio.gather(breaking, return_exceptions=True)
                afterwards = await asyncio.gather(*(whole(transport, lane) for lane in range(LANES)))
            await transport.aclose()
    assert outcomes.total() == LANES * TURNS
    assert afterwards == [True] * LANES, "every lane works again"
    assert outcomes.keys() <= {"whole", "left", "connect_failed", "connection_gone", "connection_lost", "stream_ended"}
    assert asyncio.all_tasks() == tasks_before

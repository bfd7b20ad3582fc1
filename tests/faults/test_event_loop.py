"""No request holds up the event loop, and with it everybody else: measured in processor time of the whole process.

What another thread computes counts too. It has the interpreter to itself until it gives it away, and until then the
loop waits, though it uses no processor time of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from time import process_time

import pytest

from segue.protocol.ids import parse_response_id
from segue.testing.protocol_checker import parse_json
from segue.upstreams.scripted import ScriptedUpstream
from tests.faults.clients import address_of, http, opened
from tests.faults.gateways import Local, listening

PATIENCE_S = 60.0
#: In the longest time for which the loop may be taken, the machine adds up so many numbers, as slow and busy as it is.
#: Of that, each takes a third at most; before, what was in its way took the time of 10 to 450 million numbers.
LONGEST_SUMS, NUMBERS = 6, 1_000_000

MESSAGE = '{{"role":"user","content":"x"}}'
PART = '{{"type":"input_text","text":"x"}}'
CALL = '{{"type":"function_call","call_id":"c{0}","name":"f","arguments":"{{}}"}}'
OUTPUT = '{{"type":"function_call_output","call_id":"c{0}","output":"x"}}'


def asking(fields: str) -> bytes:
    return f'{{"type":"response.create","model":"scripted","store":false,{fields}}}'.encode()


def listed(*units: str, times: int) -> str:
    return "[" + ",".join(unit.format(number) for number in range(times) for unit in units) + "]"


SHAPES: dict[str, Callable[[], bytes]] = {
    "fields": lambda: asking('"input":"x",' + listed('"f{0}":1', times=260_000)[1:-1]),
    "items": lambda: asking('"input":' + listed('{{"type":"a"}}', times=300_000)),
    "messages as many as may be": lambda: asking('"input":' + listed(MESSAGE, times=20_000)),
    "calls as many as may be": lambda: asking('"input":' + listed(CALL, OUTPUT, times=10_000)),
    "parts": lambda: asking('"input":[{"role":"user","content":' + listed(PART, times=60_000) + "}]"),
    "long numbers": lambda: asking('"input":"x","x":' + listed("7" * 4000, times=500)),
    "half characters": lambda: asking('"input":"' + "\\ud800" * 300_000 + '"'),
    "instructions": lambda: asking('"input":"x","instructions":"' + "x" * 16_000_000 + '"'),
    "escapes": lambda: asking('"input":"x","instructions":"' + '\\"xxxx' * 2_600_000 + '"'),
    "texts that are nearly values": lambda: asking('"input":' + listed('{{"a":"x,"}}', times=300_000)),
    "tools": lambda: asking('"input":"x","tools":' + listed('{{"type":"function","name":"f{0}"}}', times=30_000)),
    "properties": lambda: asking(
        '"input":"x","text":{"format":{"type":"json_schema","name":"s","schema":{"type":"object","properties":{'
        + listed('"p{0}":{{"type":"string"}}', times=45_000)[1:-1]
        + "}}}}"
    ),
}


QUICK = {"fields", "messages as many as may be"}


async def longest_turn(work: Awaitable[object]) -> float:
    """Return the most processor time that the loop took, while this was done, before it came to another task."""
    longest, done = 0.0, asyncio.ensure_future(work)
    while not done.done():
        before = process_time()
        await asyncio.sleep(0.001)
        longest = max(longest, process_time() - before)
    await done
    return longest


def sum_s() -> float:
    """Return the processor time of one sum, which is how fast the machine is now."""
    before = process_time()
    sum(range(NUMBERS))
    return process_time() - before


async def leave_the_loop_to_others(work: Awaitable[object]) -> None:
    """Do something, which must not take the loop for long at once."""
    sums_s = [sum_s() for _ in range(3)]
    longest_s = await longest_turn(work)
    sums_s += [sum_s() for _ in range(3)]
    assert longest_s < LONGEST_SUMS * max(sums_s)


async def post(local: Local, body: bytes) -> bytes:
    """Send a body that is there already, and return the head of the answer."""
    reader, writer = await asyncio.open_connection(*address_of(local.url))
    writer.write(b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body))
    for at in range(0, len(body), 1 << 18):
        writer.write(body[at : at + (1 << 18)])
        with contextlib.suppress(ConnectionError):  # refused before all of it was read
            await writer.drain()
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.readuntil(b"\r\n")
    writer.close()
    return head


@pytest.mark.parametrize(
    "shape", [shape if shape in QUICK else pytest.param(shape, marks=pytest.mark.deep) for shape in SHAPES]
)
async def test_a_request_of_any_shape_leaves_the_loop_to_others(shape: str) -> None:
    body = SHAPES[shape]()
    async with listening() as local:
        await leave_the_loop_to_others(post(local, body))


@pytest.mark.deep
@pytest.mark.parametrize("shape", ["fields", "messages as many as may be", "instructions", "escapes"])
async def test_a_message_of_any_shape_too(shape: str) -> None:
    message = SHAPES[shape]().decode()
    async with listening() as local, opened(local.url) as socket:

        async def say() -> None:
            await socket.connection.send(message)
            async with asyncio.timeout(PATIENCE_S):
                await socket.connection.recv()
            socket.connection.transport.abort()

        await leave_the_loop_to_others(say())


@pytest.mark.deep
async def test_a_page_of_a_long_history_too() -> None:
    """Its first page, and the one behind its oldest item."""
    body = json.loads(SHAPES["messages as many as may be"]()) | {"store": True}
    async with listening(ScriptedUpstream()) as local, http(local.url) as client:
        _, response = await client.send("POST", "/v1/responses", body)
        ident = parse_response_id(response["id"])
        pages: list[object] = []

        async def page(query: str) -> None:
            async with client.session.get(f"/v1/responses/{ident}/input_items?{query}") as reply:
                pages.append(parse_json(await reply.text()))

        await leave_the_loop_to_others(page("limit=1"))
        newest = pages[0]
        assert isinstance(newest, dict)
        await leave_the_loop_to_others(page(f"limit=1&order=asc&after={newest['last_id']}"))
        assert pages[1] == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}

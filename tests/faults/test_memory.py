"""What a client that does not read makes the gateway hold: little more than what it has sent, and that is gone with it.

Memory is that of Python's objects: what the kernel buffers, the kernel bounds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.faults.clients import narrow, reset, unread_bytes
from tests.faults.gateways import PATIENCE_S, listening, settled, until

MIB = 1024 * 1024
READERS = 4
SIZE = 2 * MIB
#: What a connection, its turn and the blocks that are being sent take, whatever the turn says.
EACH = MIB // 2

UPGRADE = (
    b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def request(**fields: object) -> bytes:
    """Write a request whose text has four bytes for each character in memory, if it is made a text: one is no ASCII."""
    body = {"type": "response.create", "model": "scripted", "input": "hi", "store": False, **fields}
    return json.dumps({**body, "instructions": "x" * SIZE + "\U0001f600"}, ensure_ascii=False).encode()


async def connect(url: str) -> Connection:
    """Connect without room for what comes."""
    return await asyncio.open_connection(sock=narrow(url), limit=1024)


async def over_sse(url: str, **fields: object) -> Connection:
    reader, writer = await connect(url)
    body = request(stream=True, **fields)
    writer.write(b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    return reader, writer


async def over_http(url: str) -> Connection:
    reader, writer = await connect(url)
    body = request()
    writer.write(b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    return reader, writer


async def over_websocket(url: str) -> Connection:
    """Send the message in a frame whose mask changes nothing (RFC 6455, 5.2)."""
    reader, writer = await connect(url)
    writer.write(UPGRADE)
    await reader.readuntil(b"\r\n\r\n")
    body = request()
    writer.write(b"\x81\xff" + len(body).to_bytes(8, "big") + bytes(4) + body)
    await writer.drain()
    return reader, writer


async def over_sse_kept(url: str) -> Connection:
    return await over_sse(url, segue={"resume": True})


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """Return how many bytes live. No garbage is collected: a process that rests collects none."""
    tracemalloc.start(1)
    gc.collect()
    gc.disable()
    yield lambda: tracemalloc.get_traced_memory()[0]
    gc.enable()
    tracemalloc.stop()


@pytest.mark.usefixtures("plain_loop")
@pytest.mark.parametrize("attack", [over_sse, over_http, over_websocket, over_sse_kept])
async def test_a_reader_that_sleeps_costs_twice_its_message_and_leaves_nothing(
    attack: Callable[[str], Awaitable[Connection]], traced: Callable[[], int]
) -> None:
    async with listening(resume_s=0.1, events_s=0.1) as local:
        slow = [await attack(local.url)]  # what is loaded and cached once does not count
        await settled(lambda: unread_bytes(slow[0][1].transport))
        before = traced()
        slow += [await attack(local.url) for _ in range(READERS)]
        await settled(lambda: all(unread := [unread_bytes(writer.transport) for _, writer in slow]) and sum(unread))
        assert traced() - before < READERS * (2 * SIZE + EACH)
        for _, writer in slow:
            reset(writer.transport)
        slow.clear()
        del writer
        async with asyncio.timeout(PATIENCE_S):
            await until(lambda: traced() - before < EACH)

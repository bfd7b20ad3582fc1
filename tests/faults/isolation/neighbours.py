"""`python -m tests.faults.isolation.neighbours PLAN`: tenants that take small turns at a steady pace, and time them.

Each has one way: HTTP, server-sent events, a WebSocket, a sidecar, or HTTP to a model in the gateway's process. A turn
counts from the moment at which it was due, so that one that waits behind another is not left out. Beside them a clock
does nothing at a steady pace: how late it is tells what the machine adds to every turn. On SIGTERM the process prints
what it has measured as JSON. The times are of the monotonic clock, which all processes of a machine share. Not here:
who judges (`trial`).
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec
import uvloop

from segue.sidecar.app import Sidecar, SidecarSettings
from segue.sidecar.connector import ConnectorSettings
from tests.faults.isolation.wire import Target, Wire, connected, create, frame

Way = Literal["http", "sse", "websocket", "tunnel", "model", "clock"]

#: So long a turn is waited for. Then it counts as failed.
PATIENCE_S = 20.0
_ENDS = (b'"type":"response.completed"', b'"type":"response.incomplete"')
#: So many turns continue each other.
_DEPTH = 10
_MOST_BYTES = 1 << 20
_TICK_S = 0.05


class Neighbour(msgspec.Struct, frozen=True):
    """A tenant: its key, its way, its model, and how often it takes a turn."""

    key: str
    way: Way
    interval_s: float
    model: str = "scripted"
    max_output_tokens: int | None = None


class Plan(msgspec.Struct, frozen=True):
    """The neighbours of one gateway."""

    url: str
    neighbours: list[Neighbour]


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One turn: when it was due, how long it took from then on, and what went wrong."""

    way: Way
    due_at: float
    took_s: float
    fault: str | None = None


class Line:
    """One neighbour's connection; it is opened anew if it breaks."""

    def __init__(self, way: Way, wire: Wire, target: Target, path: str) -> None:
        self._way = way
        self._wire = wire
        self._target = target
        self._path = path

    async def turn(self, body: bytes) -> bytes:
        """Take a turn and return what tells its id."""
        if self._way == "websocket":
            await self._wire.send(frame(body))
            while True:
                message = await self._wire.message()
                if any(end in message[:60] for end in _ENDS):
                    return message
                if b'"type":"error"' in message[:60] or b'"type":"response.failed"' in message[:60]:
                    raise ConnectionError(message[:200])
        await self._wire.send(self._target.post(body, self._path))
        status, reply = await self._wire.reply()
        if status != 200 or (self._way == "sse" and not any(end in reply for end in _ENDS)):
            raise ConnectionError(f"{status} {reply[-200:]!r}")
        return reply


@asynccontextmanager
async def lined_up(plan: Plan, neighbour: Neighbour) -> AsyncIterator[AbstractAsyncContextManager[Line]]:
    """Yield how to open a neighbour's connection; a sidecar is there for all of them."""
    target = Target(plan.url, neighbour.key)
    if neighbour.way != "tunnel":
        yield _Opened(neighbour.way, target, "/v1/responses")
        return
    parts = urlsplit(plan.url)
    settings = SidecarSettings(gateways=(f"ws://{parts.netloc}",), connector=ConnectorSettings(key=neighbour.key))
    async with Sidecar(settings) as sidecar:
        yield _Opened("tunnel", Target(sidecar.url, neighbour.key), "/own/v1/responses")


class _Opened(AbstractAsyncContextManager[Line]):
    """A connection that can be opened again and again."""

    def __init__(self, way: Way, target: Target, path: str) -> None:
        self._way: Way = way
        self._target = target
        self._path = path

    async def __aenter__(self) -> Line:
        first = self._target.upgrade() if self._way == "websocket" else b""
        self._open = connected(self._target, first, buffer_bytes=_MOST_BYTES)
        wire = await self._open.__aenter__()
        if self._way == "websocket":
            status, head = await wire.reply_head()
            if status != 101:
                raise ConnectionError(head)
        return Line(self._way, wire, self._target, self._path)

    async def __aexit__(self, *raised: object) -> None:
        await self._open.__aexit__(None, None, None)


class _Chain:
    """Turns that continue each other for a while."""

    def __init__(self, neighbour: Neighbour) -> None:
        self._fields: dict[str, object] = {
            "model": neighbour.model,
            "max_output_tokens": neighbour.max_output_tokens,
            "stream": neighbour.way == "sse",
        }
        self._parent: str | None = None
        self._count = 0

    def next(self) -> bytes:
        """Return the next body."""
        return create(**self._fields, previous_response_id=self._parent)

    def answered(self, reply: bytes) -> None:
        """Continue what was answered."""
        self._count += 1
        self._parent = None if self._count % _DEPTH == 0 else _id_of(reply)


async def live(plan: Plan, neighbour: Neighbour, samples: list[Sample], offset_s: float) -> None:
    """Take turns for ever."""
    due = time.monotonic() + offset_s
    async with lined_up(plan, neighbour) as opened:
        while True:
            try:
                async with opened as line:
                    chain = _Chain(neighbour)
                    while True:
                        await asyncio.sleep(max(0.0, due - time.monotonic()))
                        async with asyncio.timeout(PATIENCE_S):
                            chain.answered(await line.turn(chain.next()))
                        samples.append(Sample(neighbour.way, due, time.monotonic() - due))
                        due += neighbour.interval_s
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                samples.append(Sample(neighbour.way, due, time.monotonic() - due, f"{type(error).__name__}: {error}"))
            due = max(due + neighbour.interval_s, time.monotonic())


async def tick(samples: list[Sample]) -> None:
    """Note for ever how late one is woken."""
    due = time.monotonic()
    while True:
        due = max(due + _TICK_S, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
        samples.append(Sample("clock", due, time.monotonic() - due))


def _id_of(reply: bytes) -> str:
    at = reply.index(b'"resp_') + 1
    return reply[at : reply.index(b'"', at)].decode()


#: Where the samples go at the end, in the working folder: minutes of them are more than a pipe carries.
SAMPLES = "samples.json"


async def _main(plan: Plan) -> list[Sample]:
    samples: list[Sample] = []
    count = len(plan.neighbours)
    living = [
        asyncio.create_task(live(plan, one, samples, number * one.interval_s / count))
        for number, one in enumerate(plan.neighbours)
    ]
    living.append(asyncio.create_task(tick(samples)))
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    ending = asyncio.create_task(told.wait())
    await asyncio.wait([ending, *living], return_when=asyncio.FIRST_COMPLETED)
    for task in living:
        task.cancel()
    for outcome in await asyncio.gather(*living, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    return samples


if __name__ == "__main__":
    Path(SAMPLES).write_bytes(msgspec.json.encode(uvloop.run(_main(msgspec.json.decode(sys.argv[1], type=Plan)))))

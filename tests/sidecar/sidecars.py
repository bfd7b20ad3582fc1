"""A sidecar between raw agents and a gateway of a test."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec

from segue.sidecar.app import Sidecar, SidecarSettings
from segue.sidecar.direct import DirectForwarder
from segue.sidecar.link_status import LinkTimeouts
from tests.sidecar.agents import RawAgent

QUICK = LinkTimeouts(wait_s=0.2, give_up_s=30.0)
#: For where no link comes: a machine under load may need longer for one than this.
IMPATIENT = SidecarSettings(gateways=(), timeouts=QUICK)


class Running:
    """A sidecar while it runs."""

    def __init__(self, sidecar: Sidecar, stack: AsyncExitStack) -> None:
        self.sidecar = sidecar
        self._stack = stack

    async def connect(self) -> RawAgent:
        parts = urlsplit(self.sidecar.url)
        agent = RawAgent(*await asyncio.open_connection(parts.hostname, parts.port))
        self._stack.callback(agent.hang_up)
        return agent

    async def ask(self, data: bytes) -> bytes:
        """Send bytes on a new connection, and return all that comes back until its end."""
        agent = await self.connect()
        await agent.send(data)
        return await agent.rest()

    async def post(self, body: bytes, *, target: str = "/anthropic/v1/messages", key: str = "k") -> bytes:
        return await self.ask(post(body, target=target, key=key))

    async def parked(self, count: int) -> None:
        """Wait until so many exchanges are parked."""
        while self.sidecar.report().parked != count:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)

    async def finished(self, count: int) -> None:
        """Wait until so many requests have been answered, or given up by their agents."""
        while len(self.sidecar.stats.recent) < count:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)

    async def unlinked(self) -> None:
        """Wait until the loss of the link has been noticed."""
        while self.sidecar.report().link == "up":  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)

    async def linked(self) -> None:
        """Wait until there is a link."""
        while self.sidecar.report().link != "up":  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)

    async def alone(self) -> None:
        """Wait until the session for new exchanges is the only one."""
        while len(self.sidecar._sessions) > 1:  # noqa: ASYNC110, SLF001 - nothing tells of it
            await asyncio.sleep(0.005)

    async def tried(self) -> None:
        """Wait until an attempt to get a link has failed."""
        while not self.sidecar.report().reason:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)

    async def stats(self) -> dict[str, Any]:
        answer = await self.ask(b"GET /segue/stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        told: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return told


def conversation(turns: int, size: int = 4000) -> bytes:
    """A body as an agent sends it: each turn begins with all of the one before."""
    chooser = random.Random(7)
    messages = [{"role": "user", "content": f"{turn} {chooser.randbytes(size // 2).hex()}"} for turn in range(turns)]
    return json.dumps({"model": "m", "messages": messages}).encode()


def post(body: bytes, *, target: str = "/anthropic/v1/messages", key: str = "k", retries: int = 0) -> bytes:
    return (
        f"POST {target} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\nX-Stainless-Retry-Count: {retries}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode() + body


@asynccontextmanager
async def running(
    *gateways: str, settings: SidecarSettings | None = None, direct: DirectForwarder | None = None
) -> AsyncIterator[Running]:
    settings = SidecarSettings(gateways=()) if settings is None else settings
    async with (
        Sidecar(msgspec.structs.replace(settings, gateways=gateways), direct) as sidecar,
        AsyncExitStack() as stack,
    ):
        yield Running(sidecar, stack)

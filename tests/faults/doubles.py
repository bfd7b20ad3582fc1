"""Doubles that fail: stores that lose their disk, and models that do not keep to the contract of an upstream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

from segue.history.records import ChainLink, Record
from segue.protocol.events import Ended, OutputWriter
from segue.protocol.ids import ResponseId
from segue.protocol.response_query import ResponseQuery
from segue.protocol.responses import usage
from segue.stores.interface import StoreError, StoreSize
from segue.stores.memory import MemoryStore
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.scripted import ScriptedUpstream

Play = Callable[[UpstreamRequest], AsyncGenerator[Batch, None]]


class BrokenStore(MemoryStore):
    """A store whose methods named in `broken` raise `error`."""

    def __init__(self, *broken: str, error: Exception | None = None) -> None:
        super().__init__()
        self.broken = set(broken)
        self.error = error or StoreError("the disk is on fire")
        self.refusals = 0
        self.swept = 0

    async def append(self, record: Record) -> None:
        self._check("append")
        await super().append(record)

    async def chain(self, tenant: str, response_id: ResponseId, now: float) -> list[ChainLink] | None:
        self._check("chain")
        return await super().chain(tenant, response_id, now)

    async def record(self, tenant: str, response_id: ResponseId, now: float) -> Record | None:
        self._check("record")
        return await super().record(tenant, response_id, now)

    async def find_item(self, tenant: str, item_id: str, now: float) -> ResponseId | None:
        self._check("find_item")
        return await super().find_item(tenant, item_id, now)

    async def list_responses(self, tenant: str, query: ResponseQuery, now: float) -> list[ResponseId] | None:
        self._check("list_responses")
        return await super().list_responses(tenant, query, now)

    async def is_continued(self, tenant: str, response_id: ResponseId) -> bool:
        self._check("is_continued")
        return await super().is_continued(tenant, response_id)

    async def delete(self, tenant: str, response_id: ResponseId, now: float) -> bool:
        self._check("delete")
        return await super().delete(tenant, response_id, now)

    async def sweep(self, now: float) -> list[tuple[str, ResponseId]]:
        self._check("sweep")
        swept = await super().sweep(now)
        self.swept += len(swept)
        return swept

    async def erase(self, tenant: str, before: float | None) -> list[ResponseId]:
        self._check("erase")
        return await super().erase(tenant, before)

    async def tenant_size(self, tenant: str) -> StoreSize:
        self._check("tenant_size")
        return await super().tenant_size(tenant)

    async def size(self) -> StoreSize:
        self._check("size")
        return await super().size()

    async def check_writable(self) -> None:
        self._check("check_writable")
        await super().check_writable()

    def _check(self, method: str) -> None:
        if method in self.broken:
            self.refusals += 1
            raise self.error


class SlowStore(MemoryStore):
    """A store that can be caught in the middle: it sets `reached`, then waits for `gate`, before or after the work."""

    def __init__(self, method: str, *, works_first: bool) -> None:
        super().__init__()
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self._method = method
        self._works_first = works_first

    async def append(self, record: Record) -> None:
        await self._wait("append", first=True)
        await super().append(record)
        await self._wait("append", first=False)

    async def chain(self, tenant: str, response_id: ResponseId, now: float) -> list[ChainLink] | None:
        await self._wait("chain", first=True)
        links = await super().chain(tenant, response_id, now)
        await self._wait("chain", first=False)
        return links

    async def delete(self, tenant: str, response_id: ResponseId, now: float) -> bool:
        await self._wait("delete", first=True)
        deleted = await super().delete(tenant, response_id, now)
        await self._wait("delete", first=False)
        return deleted

    async def erase(self, tenant: str, before: float | None) -> list[ResponseId]:
        await self._wait("erase", first=True)
        erased = await super().erase(tenant, before)
        await self._wait("erase", first=False)
        return erased

    async def _wait(self, method: str, *, first: bool) -> None:
        if method == self._method and first is not self._works_first:
            self.reached.set()
            await self.gate.wait()


class Model(ScriptedUpstream):
    """A model that answers first as these functions say, whatever the contract says, and then as it should."""

    def __init__(self, *plays: Play) -> None:
        super().__init__()
        self._plays = deque(plays)

    def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        return self._plays.popleft()(request) if self._plays else super().stream(request)


class Gated(ScriptedUpstream):
    """A model that answers when its gate is open."""

    def __init__(self, *, deltas: int = 1, delta_bytes: int = 24) -> None:
        super().__init__(deltas=deltas, delta_bytes=delta_bytes)
        self.gate = asyncio.Event()

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Wait, then play."""
        yield []
        await self.gate.wait()
        async for batch in super().stream(request):
            yield batch


class Torrent:
    """A model that says much more than fits between it and a client, and counts how much was asked of it."""

    def __init__(self, deltas: int, delta_bytes: int) -> None:
        self.pulled = 0
        self.stopped = False
        self.pieces = tuple(f"{number:08}" * (delta_bytes // 8) for number in range(deltas))

    async def play(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Answer one turn, a delta per batch."""
        writer = OutputWriter(request.response_id)
        try:
            for piece in self.pieces:
                self.pulled += 1
                yield writer.text(piece)
            yield [*writer.end_item(), Ended("completed", usage(1, 1))]
        finally:
            self.stopped = True

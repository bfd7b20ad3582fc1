"""Bodies are read as long as they go on coming, within their limit and within what tenants share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from aiohttp import web

from segue.gateway.api.request_body import PROGRESS_BYTES, BodyReader
from segue.gateway.api.request_keys import HELD
from segue.gateway.request_memory import HeldRequest, RequestMemory
from segue.gateway.tunnel.uploads import Uploads
from segue.protocol.problems import Refused
from segue.upstreams.bulk_turns import BulkTurns
from tests.faults.gateways import until
from tests.loop_clock import LoopClock


class Body:
    """A body of these pieces; `None` waits for `gate`. It stands in for a request and for its content."""

    def __init__(self, pieces: Sequence[bytes | None], length: int | None = None, *, whole: bool = False) -> None:
        self.content_length = length
        self._whole = whole
        self.content = self
        self.gate = asyncio.Event()
        self.taken = 0
        self.held: HeldRequest | None = None
        self._pieces = list(pieces)

    @property
    def total_bytes(self) -> int:
        return sum(len(piece) for piece in self._pieces if piece is not None)

    def is_eof(self) -> bool:
        return self._whole

    def read_nowait(self) -> bytes:
        return b"".join(piece for piece in self._pieces if piece is not None)

    def __setitem__(self, key: object, held: HeldRequest) -> None:
        assert key is HELD
        self.held = held

    async def read(self, most: int) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if piece is None:
            await self.gate.wait()
            return await self.read(most)
        if piece[most:]:
            self._pieces.insert(0, piece[most:])
        self.taken += len(piece[:most])
        return piece[:most]

    @property
    def request(self) -> web.Request:
        return cast("web.Request", self)


def reader(limit: int = 1000, *, stall_s: float = 20.0, budget: int = 10_000) -> tuple[BodyReader, Uploads]:
    uploads = Uploads(budget)
    return BodyReader(limit, stall_s=stall_s, uploads=uploads, memory=RequestMemory(budget)), uploads


async def test_a_body_that_is_there_already_is_taken_at_once_unless_it_is_too_large() -> None:
    bodies, uploads = reader()
    body = Body([b"x" * 500, b"y"], whole=True)
    assert await bodies.read(body.request, "ann") == b"x" * 500 + b"y"
    assert (body.taken, uploads.size_bytes) == (0, 0)
    with pytest.raises(web.HTTPRequestEntityTooLarge):
        await bodies.read(Body([b"x" * 1001], whole=True).request, "ann")


async def test_the_pieces_make_the_body_and_nothing_is_held_afterwards() -> None:
    bodies, uploads = reader()
    assert await bodies.read(Body([b"one", b"two"]).request, "a") == b"onetwo"
    assert await bodies.read(Body([]).request, "a") == b""
    assert uploads.size_bytes == 0


@pytest.mark.parametrize("body", [Body([b"x"], length=1001), Body([b"x" * 600, b"x" * 401])])
async def test_what_is_too_large_is_refused(body: Body) -> None:
    bodies, uploads = reader()
    with pytest.raises(web.HTTPRequestEntityTooLarge):
        await bodies.read(body.request, "a")
    assert uploads.size_bytes == 0


async def test_a_body_that_stops_coming_is_given_up() -> None:
    bodies, uploads = reader(stall_s=0.01)
    with pytest.raises(Refused) as caught:
        await bodies.read(Body([b"x", None]).request, "a")
    assert caught.value.problem.code == "request_timeout"
    assert uploads.size_bytes == 0


async def test_a_body_may_take_as_long_as_it_likes_while_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here longer than it may stall, all together."""
    clock = LoopClock(monkeypatch)

    class Slow(Body):
        async def read(self, most: int) -> bytes:
            clock.forward(40.0)
            for _ in range(3):  # what is over now ends first
                await asyncio.sleep(0)
            return await super().read(most)

    bodies, _ = reader(limit=100_000, stall_s=60.0, budget=100_000)
    pieces = [b"x" * PROGRESS_BYTES] * 5
    assert await bodies.read(Slow(pieces).request, "a") == b"".join(pieces)
    with pytest.raises(Refused, match="stopped coming"):
        await bodies.read(Slow([b"x" * (PROGRESS_BYTES - 1)] * 5).request, "a")


async def test_bodies_that_never_end_stop_no_other_tenant() -> None:
    """Of a tenant over its share, only the oldest is read on; the others wait, and waiting is not their fault."""
    bodies, uploads = reader(limit=10_000, stall_s=0.05, budget=1000)
    patient = BodyReader(10_000, stall_s=20.0, uploads=uploads, memory=RequestMemory(100_000))
    stuck = [Body([b"." * 600, None, b"!" * 600]) for _ in range(4)]
    attack = [asyncio.create_task(patient.read(body.request, "mallory")) for body in stuck]
    late = Body([b"." * 10, b"." * 10])
    await until(lambda: uploads.size_bytes >= 4 * 600)
    waiting = asyncio.create_task(bodies.read(late.request, "mallory"))
    assert await bodies.read(Body([b"." * 200, b"." * 250]).request, "alice") == b"." * 450
    await asyncio.sleep(0.1)
    assert (late.taken, waiting.done()) == (10, False), "it waits longer than a body may stall"
    for body in stuck:
        body.gate.set()
    assert [len(body) for body in await asyncio.gather(*attack)] == [1200] * 4
    assert len(await waiting) == 20
    assert uploads.size_bytes == 0


@pytest.mark.parametrize("whole", [False, True])
async def test_a_whole_body_counts_as_one_that_comes_until_there_is_memory_for_it(*, whole: bool) -> None:
    """So however many wait, they are bounded; and what was read stays counted until its handler has ended."""
    uploads, memory = Uploads(10_000), RequestMemory(300)
    bodies = BodyReader(1000, stall_s=0.05, uploads=uploads, memory=memory)
    first, second = Body([b"x" * 250], whole=whole), Body([b"y" * 250], whole=whole)
    await bodies.read(first.request, "a")
    assert (uploads.size_bytes, memory.size_bytes) == (0, 250)
    waiting = asyncio.create_task(bodies.read(second.request, "a"))
    await until(lambda: uploads.size_bytes == 250)
    await asyncio.sleep(0.1)
    assert not waiting.done(), "it waits longer than a body may stall"
    assert first.held is not None
    first.held.release()
    assert await waiting == b"y" * 250
    assert (uploads.size_bytes, memory.size_bytes) == (0, 250)


async def test_a_client_that_leaves_while_it_waits_for_memory_leaves_nothing() -> None:
    uploads, memory = Uploads(10_000), RequestMemory(300)
    bodies = BodyReader(1000, stall_s=20.0, uploads=uploads, memory=memory)
    first, second = Body([b"x" * 250]), Body([b"y" * 250])
    await bodies.read(first.request, "a")
    waiting = asyncio.create_task(bodies.read(second.request, "a"))
    await until(lambda: uploads.size_bytes == 250)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert second.held is not None
    second.held.release()  # as the wrapper of the handler does
    assert (uploads.size_bytes, memory.size_bytes) == (0, 250)
    assert first.held is not None
    first.held.release()
    assert memory.size_bytes == 0


async def test_the_large_pieces_of_a_body_keep_its_tenant_s_pace() -> None:
    """So a crowd of bodies that have come as far as the kernel lets them do not fill the event loop."""
    asked: list[tuple[str, int]] = []

    class Noted(BulkTurns):
        async def wait(self, tenant: str, size: int) -> None:
            asked.append((tenant, size))
            await super().wait(tenant, size)

    bodies = BodyReader(
        1_000_000, stall_s=20.0, uploads=Uploads(1_000_000), memory=RequestMemory(1_000_000), turns=Noted()
    )
    body = Body([b"x" * 1000, b"x" * 70_000, b"x" * 65_536, b"x" * 60_000])
    assert len(await bodies.read(body.request, "ann")) == 196_536
    assert asked == [("ann", 70_000), ("ann", 65_536)]
    asked.clear()
    assert len(await bodies.read(Body([b"x" * 300_000]).request, "ann")) == 300_000
    assert [size for _, size in asked] == [131_072, 131_072], "others get their turns within what has come at once"
    asked.clear()
    await bodies.read(Body([b"x" * 100], length=70_000).request, "ann")
    assert asked == [("ann", 0)], "its first piece may be large, too"

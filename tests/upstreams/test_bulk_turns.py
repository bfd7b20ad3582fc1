"""Pieces of bulk data are read one after the other, of each tenant, with a round of the loop between two."""

from __future__ import annotations

import asyncio

from segue.upstreams.bulk_pace import BulkPace
from segue.upstreams.bulk_turns import BulkTurns


async def test_pieces_that_are_due_together_are_read_in_rounds_of_their_own() -> None:
    turns, rounds, read = BulkTurns(BulkPace(1e12)), 0, list[tuple[str, int]]()

    async def piece(tenant: str) -> None:
        await turns.wait(tenant, 1000)
        read.append((tenant, rounds))

    reading = [asyncio.create_task(piece(tenant)) for tenant in ("mallory", "mallory", "mallory", "ann")]
    while not all(task.done() for task in reading):
        rounds += 1
        await asyncio.sleep(0)
    assert len({at for tenant, at in read if tenant == "mallory"}) == 3
    assert read.index(next(one for one in read if one[0] == "ann")) <= 1, "another tenant waits for none of them"


async def test_the_pace_of_a_tenant_is_kept() -> None:
    asked: list[tuple[str, int]] = []

    class Noted(BulkPace):
        def wait_s(self, tenant: str, size: int, now: float) -> float:
            asked.append((tenant, size))
            return super().wait_s(tenant, size, now) / 1e6

    turns = BulkTurns(Noted(1.0))
    await turns.wait("ann", 5)
    await turns.wait("bob", 7)
    assert asked == [("ann", 5), ("bob", 7)]


async def test_who_leaves_while_waiting_holds_up_nobody() -> None:
    turns = BulkTurns(BulkPace(1.0, burst_s=0.0))
    waiting = [asyncio.create_task(turns.wait("ann", 3600)) for _ in range(2)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    async with asyncio.timeout(20):
        await BulkTurns(BulkPace(1e12)).wait("ann", 1)
        await turns.wait("bob", 0)

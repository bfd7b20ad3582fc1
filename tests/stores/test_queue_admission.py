"""Room in a queue is given in the order in which it was asked for."""

from __future__ import annotations

import asyncio

from segue.stores.queue_admission import QueueAdmission


async def test_who_finds_no_room_waits_in_the_order_they_came() -> None:
    """Also one that would find room now, behind a larger one that does not."""
    queue, admitted = QueueAdmission(10), list[int]()

    async def admit(size: int) -> None:
        await queue.admit(size)
        admitted.append(size)

    await admit(8)
    waiting = [asyncio.create_task(admit(size)) for size in (7, 1)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (admitted, queue.queued_bytes) == ([8], 8)
    queue.release(8)
    await asyncio.gather(*waiting)
    assert (admitted, queue.queued_bytes) == ([8, 7, 1], 8)


async def test_what_is_larger_than_the_queue_is_queued_alone() -> None:
    queue = QueueAdmission(10)
    await queue.admit(100)
    assert queue.queued_bytes == 100
    next_one = asyncio.create_task(queue.admit(1))
    await asyncio.sleep(0)
    assert not next_one.done()
    queue.release(100)
    await next_one
    assert queue.queued_bytes == 1


async def test_who_is_cancelled_while_waiting_takes_no_room() -> None:
    queue = QueueAdmission(10)
    await queue.admit(10)
    waiting = asyncio.create_task(queue.admit(5))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    queue.release(10)
    await queue.admit(10)
    assert queue.queued_bytes == 10

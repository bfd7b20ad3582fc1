"""A bounded queue of messages that ends in order or with a fault."""

from __future__ import annotations

import asyncio

from segue.http_client.message_queue import EACH_BYTES, MessageQueue

FAULT = "the connection was lost"


async def test_what_was_put_in_comes_out_and_then_the_end() -> None:
    queue = MessageQueue[str](100)
    for message in (b"a", b"b"):
        queue.put(message)
    queue.end()
    assert [await queue.get() for _ in range(4)] == [b"a", b"b", None, None]


async def test_a_fault_comes_after_the_messages_and_once() -> None:
    queue = MessageQueue[str](100)
    queue.put(b"a")
    queue.end(FAULT)
    queue.end(None)
    assert [await queue.get() for _ in range(3)] == [b"a", FAULT, None]


async def test_who_reads_first_waits() -> None:
    queue = MessageQueue[str](100)
    reading = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put(b"a")
    assert await reading == b"a"
    reading = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.end(FAULT)
    assert await reading == FAULT


async def test_a_full_queue_has_room_again_when_enough_is_read() -> None:
    queue = MessageQueue[str](4 + EACH_BYTES)
    queue.put(b"abc")
    await queue.wait_for_room()
    queue.put(b"de")
    waiting = asyncio.create_task(queue.wait_for_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await queue.get()
    await waiting
    assert not queue.full


async def test_a_message_that_is_larger_than_the_queue_passes() -> None:
    queue = MessageQueue[str](4 + EACH_BYTES)
    queue.put(b"abcdefgh")
    assert queue.full
    assert await queue.get() == b"abcdefgh"
    assert not queue.full


async def test_a_queue_that_nobody_reads_any_more_lets_the_writer_go() -> None:
    queue = MessageQueue[str](4 + EACH_BYTES)
    queue.put(b"abcdefgh")
    waiting = asyncio.create_task(queue.wait_for_room())
    await asyncio.sleep(0)
    queue.clear()
    await waiting
    assert await queue.get() is None
    queue.end(FAULT)
    assert await queue.get() is None


async def test_what_is_here_comes_in_parts_and_makes_room() -> None:
    queue = MessageQueue[str](4 + EACH_BYTES)
    reading = asyncio.create_task(queue.get_some(100))
    await asyncio.sleep(0)
    for message in (b"abc", b"def"):
        queue.put(message)
    assert await reading == [b"abc", b"def"]
    assert not queue.full
    for message in (b"gh", b"i", b"jkl"):
        queue.put(message)
    waiting = asyncio.create_task(queue.wait_for_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await queue.get_some(3 + EACH_BYTES) == [b"gh", b"i"]
    await waiting
    queue.end(FAULT)
    assert [await queue.get_some(1) for _ in range(3)] == [[b"jkl"], FAULT, None]

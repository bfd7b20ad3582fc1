"""Reading a link: each packet is taken in the call that brings it, and the task ends with what ends the link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from segue.sidecar.connector import TunnelSocket
from segue.sidecar.packet_intake import PacketIntake


class Socket:
    """A socket whose packets a test brings."""

    def __init__(self, *waiting: bytes) -> None:
        self.queue = asyncio.Queue[bytes | None]()
        for packet in waiting:
            self.queue.put_nowait(packet)
        self.take: Callable[[bytes], object] | None = None
        self.closed_for = ""
        self.aborted = False

    async def receive(self) -> bytes | None:
        return await self.queue.get()

    def hand_over(self, take: Callable[[bytes], object] | None) -> None:
        if take is None or self.queue.empty():
            self.take = take

    async def close(self, reason: str) -> bool:
        self.closed_for = reason
        self.queue.put_nowait(None)
        return True

    def abort(self) -> None:
        self.aborted = True
        self.queue.put_nowait(None)


async def begun(socket: Socket, take: Callable[[bytes], str | None]) -> asyncio.Task[str | None]:
    task = asyncio.create_task(PacketIntake(cast("TunnelSocket", socket), take).run())
    while socket.take is None:  # noqa: ASYNC110 - the socket sets no event
        await asyncio.sleep(0)
    return task


async def test_what_waits_comes_first_and_then_each_packet_at_once() -> None:
    socket, taken = Socket(b"a", b"b"), list[bytes]()
    task = await begun(socket, taken.append)
    assert socket.take is not None
    socket.take(b"c")
    assert taken == [b"a", b"b", b"c"]
    socket.queue.put_nowait(b"d")  # of a socket that cannot hand over any more
    socket.queue.put_nowait(None)
    assert await task is None
    assert taken == [b"a", b"b", b"c", b"d"]
    assert [socket.take] == [None]


async def test_what_is_wrong_closes_the_link_and_nothing_more_is_taken() -> None:
    for in_the_queue in (False, True):
        socket, taken = Socket(), list[bytes]()

        def take(packet: bytes, taken: list[bytes] = taken) -> str | None:
            taken.append(packet)
            return "no such frame" if packet == b"bad" else None

        task = await begun(socket, take)
        assert socket.take is not None
        if in_the_queue:
            socket.queue.put_nowait(b"bad")
            await asyncio.sleep(0)
        else:
            socket.take(b"bad")
            socket.take(b"more")
        assert (await task, socket.closed_for, taken) == ("no such frame", "no such frame", [b"bad"])


async def test_a_fault_of_ours_cuts_the_link_and_is_raised_by_the_task() -> None:
    def take(packet: bytes) -> str | None:
        raise LookupError(packet)

    socket = Socket()
    task = await begun(socket, take)
    assert socket.take is not None
    socket.take(b"x")
    with pytest.raises(LookupError):
        await task
    assert socket.aborted

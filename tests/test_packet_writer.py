"""What a writer sends, when it waits, and how it ends."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

import aiohttp
import pytest
import uvloop

from segue import packet_writer
from segue.packet_writer import PacketSocket, PacketWriter
from segue.tunnel.frames import MAX_PACKET_BYTES


class Source:
    """Packets that a test puts in."""

    def __init__(self, *packets: bytes) -> None:
        self.packets = deque(packets)
        self.deadline: float | None = None
        self.dead = False
        self.fault: Exception | None = None

    @property
    def has_to_send(self) -> bool:
        return bool(self.packets)

    def next_packet(self, now: float) -> bytes | None:
        del now
        if self.fault is not None:
            raise self.fault
        return self.packets.popleft() if self.packets else None

    def next_deadline(self) -> float | None:
        return self.deadline

    def handle_timeout(self, now: float) -> list[str]:
        del now
        return ["silent"] if self.dead else []


class Wire(PacketSocket):
    """A socket that takes what a test lets it take."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.room = 100
        self.cut = False
        self.waited = asyncio.Event()
        self.emptied = asyncio.Event()

    @property
    def closed(self) -> bool:
        return self.cut

    @property
    def has_room(self) -> bool:
        return len(self.sent) < self.room

    def write(self, packet: bytes) -> None:
        if packet == b"lost":
            raise ConnectionResetError
        self.sent.append(packet)

    async def wait_for_room(self) -> None:
        self.waited.set()
        await self.emptied.wait()

    def abort(self) -> None:
        self.cut = True


async def resting(writer: PacketWriter) -> asyncio.Task[None]:
    """Run a writer, and return when it has sent what there was."""
    task = asyncio.create_task(writer.run())
    await asyncio.sleep(0)
    return task


async def test_what_there_is_leaves_at_once_and_what_comes_later_when_it_is_told() -> None:
    source, wire, seen, sizes = Source(b"a", b"bc"), Wire(), list[int](), list[int]()
    writer = PacketWriter(source, wire, before_packet=lambda: seen.append(len(wire.sent)), count=sizes.append)
    task = await resting(writer)
    assert wire.sent == [b"a", b"bc"]
    source.packets.append(b"d")
    writer.wake()
    writer.wake()
    await asyncio.sleep(0)
    assert (wire.sent, seen, sizes) == ([b"a", b"bc", b"d"], [0, 1, 2, 2, 3], [1, 2, 1])
    wire.cut = True
    writer.wake()
    await task


async def test_what_can_be_sent_once_the_last_packet_has_left_is_sent_too() -> None:
    source, wire, held = Source(b"a", b"b"), Wire(), [b"d", b"c"]

    def release() -> None:
        if held and not source.packets:
            source.packets.append(held.pop())

    task = await resting(PacketWriter(source, wire, before_packet=release))
    assert wire.sent == [b"a", b"b", b"c", b"d"]
    task.cancel()
    await asyncio.wait([task])


async def test_a_full_socket_is_waited_for_and_the_order_kept() -> None:
    source, wire = Source(b"a"), Wire()
    wire.room = 2
    writer = PacketWriter(source, wire)
    task = await resting(writer)
    source.packets.extend([b"b", b"c", b"d"])
    writer.wake()
    await wire.waited.wait()
    writer.wake()  # of no use before there is room
    assert wire.sent == [b"a", b"b"]
    wire.room = 100
    wire.emptied.set()
    while len(wire.sent) < 4:  # noqa: ASYNC110 - the wire sets no event
        await asyncio.sleep(0)
    assert wire.sent == [b"a", b"b", b"c", b"d"]
    task.cancel()
    await asyncio.wait([task])


async def test_a_full_socket_does_not_hide_that_the_link_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet_writer, "STUCK_S", 0.01)
    source, wire = Source(b"a"), Wire()
    wire.room = 0
    task = await resting(PacketWriter(source, wire))
    await wire.waited.wait()
    source.dead = True
    await asyncio.wait_for(task, 5)
    assert (wire.cut, wire.sent) == (True, [])


async def test_it_ends_when_all_is_said() -> None:
    source, wire, over = Source(b"a"), Wire(), list[bool]()
    writer = PacketWriter(source, wire, is_over=lambda: bool(over))
    task = await resting(writer)
    over.append(True)
    source.packets.append(b"last")
    writer.wake()
    await asyncio.wait_for(task, 5)
    assert (wire.sent, wire.cut) == ([b"a", b"last"], False)


@pytest.mark.parametrize("later", [False, True])
async def test_what_goes_wrong_is_raised_by_the_task(later: bool) -> None:
    source, wire = Source(), Wire()
    writer = PacketWriter(source, wire)
    if later:
        task = await resting(writer)
        source.fault = LookupError("a bug")
        writer.wake()
    else:
        source.fault = LookupError("a bug")
        task = await resting(writer)
    with pytest.raises(LookupError, match="a bug"):
        await asyncio.wait_for(task, 5)
    source, wire = Source(b"lost"), Wire()
    with pytest.raises(ConnectionResetError):
        await PacketWriter(source, wire).run()


def test_a_deadline_wakes_it_on_every_event_loop() -> None:
    """uvloop returns something else than a timer for a deadline that is past."""

    async def wait_for_deadlines(past_s: float) -> None:
        source, wire = Source(b"a"), Wire()
        now = asyncio.get_running_loop().time()
        source.deadline = now - past_s
        writer = PacketWriter(source, wire)
        task = await resting(writer)
        source.deadline = now - past_s - 1  # an earlier one replaces it
        writer.wake()
        await asyncio.sleep(0)
        source.deadline, source.dead = now + 60, True
        await asyncio.wait_for(task, 5)
        assert wire.cut

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        for past_s in (1.0, -0.01):
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(wait_for_deadlines(past_s))


async def test_what_comes_is_answered_when_that_is_due() -> None:
    source, wire, asked = Source(), Wire(), list[int]()
    writer = PacketWriter(source, wire, before_packet=lambda: asked.append(1))
    task = await resting(writer)
    asked.clear()
    source.deadline = asyncio.get_running_loop().time() + 0.01
    writer.note_received()
    await asyncio.sleep(0)
    assert not asked  # nothing to send, and nobody looks
    source.packets.append(b"an answer")
    while not wire.sent:
        source.deadline = None
        await asyncio.sleep(0.001)
    source.packets.append(b"a second one")
    writer.note_received()
    await asyncio.sleep(0)
    assert wire.sent == [b"an answer", b"a second one"]
    task.cancel()
    await asyncio.wait([task])


class Pipe(asyncio.Transport):
    """A transport in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.marks: list[int | None] = []
        self.lost = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.marks.append(high)
        assert low is None

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def is_closing(self) -> bool:
        return self.lost

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def abort(self) -> None:
        self.lost = True


class Opened:
    """A WebSocket that is open."""

    closed = False


@pytest.mark.parametrize("masked", [False, True])
def test_a_packet_is_one_binary_message(masked: bool) -> None:
    pipe = Pipe()
    socket = PacketSocket(cast("aiohttp.ClientWebSocketResponse[bool]", Opened()), pipe, masked=masked)
    socket.write(b"x" * MAX_PACKET_BYTES)
    assert bytes(pipe.written[:2]) == (b"\x82\xfe" if masked else b"\x82\x7e")
    assert pipe.marks == [MAX_PACKET_BYTES]
    assert (socket.has_room, socket.closed) == (False, False)
    socket.abort()
    assert socket.closed
    with pytest.raises(ConnectionResetError):
        socket.write(b"y")


async def test_what_is_waited_for_leaves_in_the_call_and_what_comes_with_it_in_the_next_turn() -> None:
    source, wire = Source(), Wire()
    writer = PacketWriter(source, wire)
    task = await resting(writer)
    source.packets.append(b"first")
    writer.write_now()
    assert wire.sent == [b"first"]
    source.packets.append(b"with it")
    writer.write_now()
    assert wire.sent == [b"first"]
    await asyncio.sleep(0)
    assert wire.sent == [b"first", b"with it"]
    await asyncio.sleep(0)
    source.packets.append(b"later")
    writer.write_now()
    assert wire.sent == [b"first", b"with it", b"later"]
    task.cancel()
    await asyncio.wait([task])

"""Frames of a link: packets go where they are waited for, everything else to aiohttp, however it is cut."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.http.websocket import binary_frame
from segue.sidecar.packet_protocol import PacketFrames, PacketProtocol
from segue.tunnel.frames import MAX_PACKET_BYTES
from tests.strategies import examples

PING, CLOSE, TEXT = b"\x89\x01p", b"\x88\x02\x03\xe8", b"\x81\x02hi"
BEGUN = b"\x02\x03abc"  # the first frame of a message of several


class Reader:
    """What aiohttp's reader gets; some bytes break the protocol."""

    def __init__(self, broken: bytes | None = None) -> None:
        self.got = b""
        self.ended = False
        self._broken = broken

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.got += data
        return data == self._broken, b""

    def feed_eof(self) -> None:
        self.ended = True


def feed(frames: PacketFrames, data: bytes) -> None:
    if not frames.take_whole(data):
        frames.feed_data(data)


@settings(max_examples=examples(100))
@given(
    st.lists(st.one_of(st.binary(max_size=300).map(binary_frame), st.sampled_from([PING, CLOSE])), max_size=6),
    st.sampled_from([b"", TEXT, BEGUN, b"\x82\x81abcdx", b"\x82\x7f" + bytes(8), b"\xc2\x00", b"\x82\x7e\x40\x01"]),
    st.lists(st.integers(0, 1000), max_size=6),
)
def test_packets_come_in_order_however_they_are_cut(frames: list[bytes], strange: bytes, edges: list[int]) -> None:
    reader, taken = Reader(), list[bytes]()
    split = PacketFrames(reader)
    split.take = taken.append
    whole = b"".join(frames) + strange + (binary_frame(b"behind it") if strange else b"")
    start = 0
    for end in [*sorted(min(edge, len(whole)) for edge in edges), len(whole)]:
        feed(split, whole[start:end])
        start = end
    assert list(map(binary_frame, taken)) == [frame for frame in frames if frame[0] == 0x82]
    left = b"".join(frame for frame in frames if frame[0] != 0x82)
    assert reader.got == left + whole[len(b"".join(frames)) :]  # aiohttp reads all from the strange frame on
    assert split.queued == 0


@pytest.mark.parametrize("size", [0, 125, 126, MAX_PACKET_BYTES])
def test_a_packet_of_any_size_is_handed_over_at_once(size: int) -> None:
    reader, taken = Reader(), list[bytes]()
    split = PacketFrames(reader)
    assert not split.take_whole(binary_frame(bytes(size)))  # nobody has asked for it
    split.take = taken.append
    assert split.take_whole(binary_frame(bytes(size)))
    assert (taken, reader.got) == ([bytes(size)], b"")
    for other in (b"", b"\x82", PING, binary_frame(b"x")[:-1], binary_frame(b"x") * 2, b"\x82\x7f" + bytes(8) + b"y"):
        assert not split.take_whole(other)


def test_before_anybody_asks_packets_go_to_aiohttp_and_are_counted() -> None:
    reader, taken = Reader(), list[bytes]()
    split = PacketFrames(reader)
    split.feed_data(binary_frame(b"a") + binary_frame(b"b")[:2])
    split.take = taken.append
    feed(split, binary_frame(b"b")[2:])
    assert (split.queued, taken, reader.got) == (1, [b"b"], binary_frame(b"a"))
    split.feed_eof()
    assert reader.ended


def test_what_breaks_the_protocol_is_told() -> None:
    split = PacketFrames(Reader(broken=PING))
    assert split.feed_data(PING + CLOSE) == (True, b"")


async def test_the_protocol_of_a_connection_hands_over_what_it_reads() -> None:
    protocol, reader, taken = PacketProtocol(asyncio.get_running_loop()), Reader(), list[bytes]()
    protocol.data_received(b"")  # no parser yet: aiohttp keeps it
    protocol.set_parser(reader, None)
    assert protocol.frames is not None
    protocol.frames.take = taken.append
    protocol.data_received(binary_frame(b"whole"))
    protocol.data_received(PING)
    assert (taken, reader.got) == ([b"whole"], PING)

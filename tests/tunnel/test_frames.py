"""Frames and packets: what is written is read, and nothing else is."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar, cast, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.http.varints import MAX_VARINT, encode_varint
from segue.tunnel.client import TunnelClient
from segue.tunnel.events import LinkFailed
from segue.tunnel.frames import (
    MAX_PACKET_BYTES,
    OVERHEAD_BYTES,
    SUBPROTOCOL,
    VERSION,
    Ack,
    BadPacket,
    Data,
    ExchangeResume,
    ExchangeResumed,
    ExtensionFrame,
    Frame,
    GoAway,
    Hello,
    Miss,
    Open,
    Parameter,
    Ping,
    Pong,
    ReplyFrame,
    Reset,
    ResetCode,
    Welcome,
    Window,
    _read_others,
    encode_frame,
    encode_packet,
    pieces,
    read_packet,
)
from segue.tunnel.server import Node, TunnelServer
from tests.strategies import examples

T = TypeVar("T")


def rising(
    listed: st.SearchStrategy[T], number: Callable[[T], int], *, most: int = 20
) -> st.SearchStrategy[tuple[T, ...]]:
    """Lists in the order of their numbers, each number once."""
    lists = st.lists(listed, max_size=most, unique_by=number)
    return lists.map(lambda some: tuple(sorted(some, key=number)))


NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, MAX_VARINT))
EPOCHS = st.binary(max_size=64)
CODES: tuple[ResetCode, ...] = get_args(ResetCode)
RESUMES = rising(st.builds(ExchangeResume, NUMBERS, NUMBERS, st.booleans(), st.booleans()), lambda one: one.exchange)
RESUMED = rising(st.builds(ExchangeResumed, NUMBERS, NUMBERS), lambda one: one.exchange)
PARAMETERS = rising(st.builds(Parameter, NUMBERS, st.binary(max_size=1024)), lambda one: one.id, most=4)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Hello, NUMBERS, EPOCHS, NUMBERS, RESUMES, PARAMETERS),
    st.builds(Welcome, NUMBERS, EPOCHS, NUMBERS, NUMBERS, st.binary(max_size=1024), RESUMED, PARAMETERS),
    st.builds(Open, NUMBERS, st.booleans(), st.booleans(), st.binary()),
    st.builds(ReplyFrame, NUMBERS, st.booleans(), st.binary()),
    st.builds(Data, NUMBERS, NUMBERS, st.booleans(), st.booleans(), st.binary()),
    st.builds(Ack, NUMBERS, NUMBERS),
    st.builds(Ping, NUMBERS),
    st.builds(Pong, NUMBERS),
    st.builds(Window, NUMBERS, NUMBERS),
    st.builds(Miss, NUMBERS, NUMBERS),
    st.builds(Reset, NUMBERS, st.sampled_from(CODES), st.binary(max_size=1024)),
    st.just(GoAway()),
    st.builds(ExtensionFrame, st.integers(64, 127), st.binary()),
)


def packet_of(*frames: Frame) -> bytes:
    return encode_packet([encode_frame(frame) for frame in frames])


def sealed(content: bytes) -> bytes:
    """Any bytes as a packet with the right checksum."""
    return content + zlib.crc32(content).to_bytes(4, "big")


def test_the_subprotocol_names_the_version() -> None:
    assert SUBPROTOCOL == f"segue-tunnel-{VERSION}" == "segue-tunnel-1"


@settings(max_examples=examples(400))
@given(st.lists(FRAMES, min_size=1, max_size=5))
def test_a_packet_reads_as_the_frames_it_was_made_of(frames: list[Frame]) -> None:
    read = read_packet(packet_of(*frames))
    assert read == frames
    assert isinstance(read, list)
    assert list(map(type, read)) == list(map(type, frames))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_packet_or_a_bad_one(data: bytes) -> None:
    assert isinstance(read_packet(data), BadPacket)  # one in four thousand million would have the checksum
    assert isinstance(read_packet(sealed(data)), BadPacket | list)


@given(st.lists(FRAMES, min_size=1, max_size=3), st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_a_changed_packet_with_a_right_checksum_never_raises(frames: list[Frame], at: int, change: bytes) -> None:
    content = packet_of(*frames)[:-4]
    at %= len(content)
    read = read_packet(sealed(content[:at] + change + content[at + len(change) :]))
    assert isinstance(read, BadPacket | list)


@settings(max_examples=examples(50))
@given(st.lists(FRAMES, min_size=1, max_size=3))
def test_a_flipped_bit_or_a_cut_anywhere_makes_a_bad_packet(frames: list[Frame]) -> None:
    packet = packet_of(*frames)
    for at in range(len(packet)):
        assert isinstance(read_packet(packet[:at]), BadPacket)
        for bit in range(8):
            flipped = bytearray(packet)
            flipped[at] ^= 1 << bit
            assert isinstance(read_packet(bytes(flipped)), BadPacket)


@settings(max_examples=examples(200))
@given(FRAMES)
def test_a_frame_that_ends_too_early_is_bad_even_with_a_right_checksum(frame: Frame) -> None:
    content = encode_frame(frame)
    for at in range(1, len(content)):
        assert isinstance(read_packet(sealed(content[:at])), BadPacket)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes([0]),  # no type
        bytes([13]),
        bytes([255]),
        bytes([3, 1, 4, 0]),  # OPEN with a flag nobody knows
        bytes([5, 1, 4, 0, 0]),  # DATA likewise
        bytes([11, 1, 5, 0]),  # RESET with a code nobody knows
        bytes([6, 0x80, 0, 0]),  # a number that is not in its shortest form
        bytes([1, 1, 65]) + bytes(65) + bytes([0, 0]),  # an epoch that is too long
        encode_frame(Welcome(1, bytes(65), 0, 1, b"", ())),  # likewise
        bytes([1, 1, 0, 0]) + encode_varint(4097) + bytes(3 * 4097),  # too many exchanges
        bytes([1, 1, 0, 0]) + encode_varint(2**60),  # so many that are not there
        bytes([5, 1, 0, 0]) + encode_varint(2**60),  # a payload that is not there
        bytes([63, 0]),  # not of the types that may be skipped
        bytes([128, 1, 0]),
        bytes([64, 2, 0]),  # a payload that is cut
        bytes([1, 1, 0, 9, 2, 5, 0, 0, 5, 0, 0, 0]),  # one exchange twice
        bytes([1, 1, 0, 9, 2, 5, 0, 0, 4, 0, 0, 0]),  # exchanges out of order
        bytes([2, 1, 1, 7, 9, 0, 0, 2, 5, 0, 5, 0, 0]),  # likewise in a WELCOME
        bytes([1, 1, 0, 0, 0]),  # no parameters, not even a count
        bytes([1, 1, 0, 0, 0, 2, 1, 0, 1, 0]),  # one parameter twice
        bytes([1, 1, 0, 0, 0, 65]) + b"".join(bytes([number, 0]) for number in range(65)),  # too many parameters
    ],
)
def test_what_is_no_frame_is_a_bad_packet(content: bytes) -> None:
    read = read_packet(sealed(content))
    assert isinstance(read, BadPacket)
    assert " " in read.reason, "it says why"


def test_a_packet_has_a_largest_size() -> None:
    room = MAX_PACKET_BYTES - len(packet_of(Data(1, 0, final=False, again=False, payload=bytes(16_000)))) + 16_000
    largest = packet_of(Data(1, 0, final=False, again=False, payload=bytes(room)))
    assert len(largest) == MAX_PACKET_BYTES
    assert isinstance(read_packet(largest), list)
    assert isinstance(read_packet(sealed(bytes(MAX_PACKET_BYTES))), BadPacket)


def test_what_is_set_aside_for_a_frame_is_enough_for_the_largest_numbers() -> None:
    empty = Data(MAX_VARINT, MAX_VARINT, final=True, again=True, payload=b"")
    assert len(encode_frame(empty)) + 2 <= OVERHEAD_BYTES  # two bytes more tell the length of a payload
    answers = packet_of(Pong(MAX_VARINT), Ack(MAX_VARINT, MAX_VARINT))
    assert len(answers) <= OVERHEAD_BYTES
    for piece in pieces(bytes(100_000)):
        frames = (Pong(MAX_VARINT), Ack(MAX_VARINT, MAX_VARINT), ReplyFrame(MAX_VARINT, last=True, piece=piece))
        assert len(packet_of(*frames)) <= MAX_PACKET_BYTES


def test_the_pieces_of_a_head_are_the_head() -> None:
    assert b"".join(pieces(bytes(range(256)) * 300)) == bytes(range(256)) * 300
    assert pieces(b"") == [b""]


def test_a_message_is_cut_to_what_a_reset_may_say() -> None:
    assert read_packet(packet_of(Reset(1, "failed", bytes(5_000)))) == [Reset(1, "failed", bytes(1024))]


# -------------------------------------------------------------------------------------------------------------- vectors


class Vector(NamedTuple):
    name: str
    goes: str
    packet: bytes
    frames: list[Frame] | None


def parameter(number: int, value: str) -> Parameter:
    return Parameter(number, bytes.fromhex(value))


KINDS = {kind.__name__.removesuffix("Frame"): kind for kind in get_args(Frame)}
LISTED: dict[str, Callable[..., object]] = {
    "resumes": ExchangeResume,
    "resumed": ExchangeResumed,
    "parameters": parameter,
}


def load_vectors() -> list[Vector]:
    read = json.loads((Path(__file__).parent / "vectors" / "packets.json").read_text())
    return [
        Vector(one["name"], one.get("goes", ""), bytes.fromhex(one["packet"]), frames_in(one.get("frames")))
        for one in read["packets"]
    ]


def frames_in(listed: list[dict[str, object]] | None) -> list[Frame] | None:
    if listed is None:
        return None
    return [KINDS[cast(str, one["frame"])](*map(field, list(one.items())[1:])) for one in listed]


def field(item: tuple[str, object]) -> object:
    name, value = item
    if isinstance(value, list):
        return tuple(LISTED[name](*one) for one in value)
    is_bytes = isinstance(value, str) and name != "code"
    return bytes.fromhex(cast(str, value)) if is_bytes else value


@pytest.mark.parametrize("vector", load_vectors(), ids=lambda vector: vector.name)
def test_the_packets_of_the_specification_are_read_and_written_as_it_says(vector: Vector) -> None:
    if vector.frames is None:
        assert isinstance(read_packet(vector.packet), BadPacket)
        return
    assert read_packet(vector.packet) == vector.frames
    assert packet_of(*vector.frames) == vector.packet


ONE_WAY = (Hello, Welcome, Open, ReplyFrame, Miss, Reset, GoAway)


@pytest.mark.parametrize(
    "vector",
    [vector for vector in load_vectors() if vector.frames and isinstance(vector.frames[0], ONE_WAY)],
    ids=lambda vector: vector.name,
)
def test_the_end_that_a_packet_comes_from_does_not_take_it(vector: Vector) -> None:
    end = TunnelClient() if vector.goes == "up" else TunnelServer(Node(b"e", b"", 1))
    end.link_opened(0.0)
    first = Welcome(VERSION, b"e", 0, 1, b"", ()) if vector.goes == "up" else Hello(VERSION, b"", 0, ())
    end.receive(packet_of(first), 0.0)
    assert isinstance(end.receive(vector.packet, 0.0)[-1], LinkFailed)


def test_the_vectors_have_every_frame() -> None:
    frames = [frame for vector in load_vectors() for frame in vector.frames or []]
    assert {type(frame) for frame in frames} == set(KINDS.values())


def test_an_open_names_only_an_exchange_before_it() -> None:
    named = Open(7, last=True, has_body=False, piece=b"p", reply_base=6)
    assert read_packet(encode_packet([encode_frame(named)])) == [named]
    for back in (b"\x00", b"\x07", b"\x08"):
        packet = encode_packet([encode_frame(named)[:-1] + back])
        assert read_packet(packet) == BadPacket("an OPEN names the reply of an exchange that cannot be")


@settings(max_examples=examples(300))
@given(
    st.sampled_from([Data(3, 300, True, False, b"payload"), ReplyFrame(300, True, b"piece", True), Ack(70_000, 3)]),
    st.integers(0, 12),
    st.binary(max_size=3),
    st.binary(max_size=8),
)
def test_a_frequent_frame_is_read_as_any_other(frame: Frame, at: int, instead: bytes, behind: bytes) -> None:
    """Also one that is damaged, or cut off."""
    whole = encode_frame(frame)
    content = whole[:at] + instead + whole[at + len(instead) :] + behind
    assert read_packet(encode_packet([content])) == _read_others(content, 0, [])

"""The second reader of packets: it takes what the vectors have, and nothing else."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.http.varints import encode_varint
from segue.testing.tunnel_frames import WireFault, read_number, read_wire_packet
from segue.tunnel.frames import MAX_PACKET_BYTES

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "tunnel" / "vectors" / "packets.json").read_text(encoding="utf-8")
)["packets"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_vectors_are_read_alike(vector: dict[str, Any]) -> None:
    packet = bytes.fromhex(vector["packet"])
    if "frames" not in vector:
        with pytest.raises(WireFault):
            read_wire_packet(packet)
        return
    frames = read_wire_packet(packet)
    assert [frame.name for frame in frames] == [one["frame"].upper() for one in vector["frames"]]
    for frame, one in zip(frames, vector["frames"], strict=True):
        assert frame.exchange == one.get("exchange", 0)
        assert [[number, value.hex()] for number, value in frame.parameters] == one.get("parameters", [])
        assert frame.data.hex() == one.get("payload", one.get("piece", one.get("epoch", one.get("message", ""))))


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_packets_or_faults(content: bytes) -> None:
    try:
        frames = read_wire_packet(content + zlib.crc32(content).to_bytes(4, "big"))
    except WireFault:
        return
    assert frames


def test_a_packet_over_the_limit_is_none() -> None:
    content = bytes(MAX_PACKET_BYTES)
    with pytest.raises(WireFault, match="bytes"):
        read_wire_packet(content + zlib.crc32(content).to_bytes(4, "big"))


@given(st.integers(0, 2**62 - 1))
def test_numbers_are_read_in_their_shortest_form_alone(number: int) -> None:
    shortest = encode_varint(number)
    assert read_number(shortest + b"x", 0) == (number, len(shortest))
    for wrong in (shortest[:-1], shortest[:-1] + bytes([shortest[-1] | 0x80, 0]), b"\xff" * 10):
        with pytest.raises(WireFault):
            read_number(wrong, 0)

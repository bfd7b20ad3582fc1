"""Messages as a client reads them, out of one piece."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import OP_TEXT, Frame
from websockets.protocol import CLIENT, Protocol

from segue.gateway.api.websocket_frames import text_frames
from tests.strategies import examples


def read(data: bytes) -> list[bytes]:
    """What a client that is not ours reads from the bytes of a server."""
    client = Protocol(CLIENT, max_size=None)
    client.receive_data(data)
    frames = [event for event in client.events_received() if isinstance(event, Frame)]
    assert all(frame.fin and frame.opcode is OP_TEXT for frame in frames)
    return [bytes(frame.data) for frame in frames]


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x81\x00"),
        (1, b"\x81\x01"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_length_has_three_forms(size: int, head: bytes) -> None:
    """RFC 6455, 5.2: seven bits, sixteen or sixty-four."""
    payload = b"x" * size
    assert text_frames([payload]) == head + payload
    assert read(head + payload) == [payload]


@settings(max_examples=examples(300))
@given(st.lists(st.text(max_size=3) | st.sampled_from(["x" * 125, "é" * 63, "x" * 65_535, "é" * 32_768]), max_size=5))
def test_a_client_reads_what_was_written(texts: list[str]) -> None:
    """Message by message, out of one piece."""
    payloads = [text.encode() for text in texts]
    assert read(text_frames(payloads)) == payloads

"""The socket below a transport: frames as the protocol wants them, and a kernel that watches the peer."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import OP_TEXT, Frame
from websockets.protocol import CLIENT, Protocol

from segue.gateway.websocket_transport import text_frames, watch_peer


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


@settings(max_examples=300)
@given(st.lists(st.text(max_size=3) | st.sampled_from(["x" * 125, "é" * 63, "x" * 65_535, "é" * 32_768]), max_size=5))
def test_a_client_reads_what_was_written(texts: list[str]) -> None:
    """Message by message, out of one piece."""
    payloads = [text.encode() for text in texts]
    assert read(text_frames(payloads)) == payloads


class Connected:
    """A transport with a real socket, not connected to anybody."""

    def __init__(self, sock: socket.socket | None) -> None:
        self._socket = sock

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._socket if name == "socket" else default


def request_on(transport: Connected) -> web.Request:
    return make_mocked_request("GET", "/", transport=transport)


def options(sock: socket.socket, names: Sequence[str]) -> dict[str, int]:
    here = [name for name in names if hasattr(socket, name)]
    return {name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in here}


def test_the_kernel_gives_up_a_peer_within_two_minutes() -> None:
    """Probes while it is silent, and a limit on what it does not acknowledge."""
    with socket.socket() as sock:
        watch_peer(request_on(Connected(sock)))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        expected = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 120_000}
        found = options(sock, list(expected))
        assert found == {name: expected[name] for name in found}


def test_a_connection_without_a_socket_is_left_alone() -> None:
    """It was never one of the kernel's, or is gone already."""
    request = request_on(Connected(None))
    watch_peer(request)
    request.protocol.transport = None
    watch_peer(request)

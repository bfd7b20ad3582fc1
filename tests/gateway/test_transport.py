"""The connection below a request: a kernel that watches the peer, a full flush, a reset."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from segue.gateway.transport import watch_peer


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

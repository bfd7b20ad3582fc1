"""Opening a connection to a target: TCP directly to it, and TLS with its certificate verified.

Also here: what a connection can do beyond httpcore's interface. Not here: what is sent on it, and proxies.
"""

from __future__ import annotations

import socket
import ssl
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import httpcore

from segue.http.routes import Target


class PushingStream(httpcore.AsyncNetworkStream):
    """A stream that can tell at once that something has come: no task has to be woken for it."""

    @abstractmethod
    def call_on_arrival(self, arrived: Callable[[], bool] | None) -> None:
        """Call this, and not for the end, as soon as bytes have come; where it returns False, wake the reader too."""

    @abstractmethod
    def take(self, max_bytes: int) -> bytes | None:
        """Return what has come; `b""`: the peer has ended; None: nothing has come yet.

        Raises:
            httpcore.ReadError: nothing will come.
        """

    @abstractmethod
    async def wait(self, silence_s: float | None = None) -> None:
        """Return when there may be something to take.

        Raises:
            httpcore.ReadTimeout: nothing has come for so long.
        """


def client_tls(cafile: Path | None = None) -> ssl.SSLContext:
    """Return a TLS context that verifies servers by the system's authorities, or by those of a file."""
    context = ssl.create_default_context(cafile=cafile)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def connect(
    target: Target, *, network: httpcore.AsyncNetworkBackend, tls: ssl.SSLContext | None, wait_s: float
) -> httpcore.AsyncNetworkStream:
    """Connect within `wait_s`, and within as long again for TLS. `tls` is for targets that are reached so.

    Raises:
        httpcore.ConnectError, httpcore.ConnectTimeout: there is no connection.
    """
    stream = await network.connect_tcp(target.host, target.port, wait_s, None, keep_alive_options())
    if target.scheme == "http":
        return stream
    assert tls is not None, "the target is reached with TLS"
    try:
        return await stream.start_tls(tls, target.host, wait_s)
    except BaseException:
        await stream.aclose()
        raise


def keep_alive_options() -> Sequence[httpcore.SOCKET_OPTION]:
    """Return the options with which the kernel notices within two minutes that the other machine is gone.

    An answer has no timeout, since the agent has its own; but a machine that is gone will never answer.
    """
    options: list[httpcore.SOCKET_OPTION] = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if sys.platform == "linux":
        options += [
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
        ]
    return options

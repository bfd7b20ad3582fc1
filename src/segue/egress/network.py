"""How a connection to a target comes about: TCP straight to it, and TLS with its certificate verified.

Not here: what is said on it, and any proxy.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

import httpcore

from segue.http.routes import Target


def client_tls(cafile: Path | None = None) -> ssl.SSLContext:
    """Return how servers are verified: by the system's authorities, or by those of a file."""
    context = ssl.create_default_context(cafile=cafile)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def connect(
    target: Target, *, network: httpcore.AsyncNetworkBackend, tls: ssl.SSLContext, wait_s: float
) -> httpcore.AsyncNetworkStream:
    """Connect, and wait for `wait_s` at most; then as long again for TLS.

    Raises:
        httpcore.ConnectError, httpcore.ConnectTimeout: no connection comes about.
    """
    stream = await network.connect_tcp(target.host, target.port, wait_s, None, keep_alive_options())
    if target.scheme == "http":
        return stream
    try:
        return await stream.start_tls(tls, target.host, wait_s)
    except BaseException:
        await stream.aclose()
        raise


def keep_alive_options() -> Sequence[httpcore.SOCKET_OPTION]:
    """Return the options by which the kernel notices within two minutes that the other machine has gone.

    There is no timeout for an answer, since that is the agent's own affair; but who is gone will never answer.
    """
    options: list[httpcore.SOCKET_OPTION] = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if sys.platform == "linux":
        options += [
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
        ]
    return options

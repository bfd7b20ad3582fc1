"""Connections to targets, which notice in time that a kept one has died. Not here: HTTP, and any proxy.

A server may close a kept connection just when a request is about to go out on it. What is certain is used: if anything
can be read from the connection before the request's first byte is written, the server has closed it, or is about to,
and the request goes out on another one. After that byte nothing is ever sent again.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Iterable
from typing import Any, Final

import httpcore

#: Through `get_extra_info` of a stream: the `NetworkStream` itself, whatever it is wrapped in.
OURS: Final = "segue_stream"


class StaleConnectionError(httpcore.WriteError):
    """A kept connection was found closed before anything was written to it."""


class Network(httpcore.AsyncNetworkBackend):
    """Connects by TCP, straight to where it is told."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend | None = None) -> None:
        self._inner = httpcore.AnyIOBackend() if inner is None else inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect, with Happy Eyeballs (RFC 8305)."""
        stream = await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        return NetworkStream(stream)

    async def sleep(self, seconds: float) -> None:
        """Wait; only retries would, and there are none."""
        await self._inner.sleep(seconds)


class NetworkStream(httpcore.AsyncNetworkStream):
    """One connection, plain or TLS."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._heard = False  # since something was written
        self._stale = False
        self._upgraded = False

    def upgrade(self) -> None:
        """Say that there are no more requests and answers here, but messages whenever either side likes."""
        self._upgraded = True

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - as above
        """Return what the server sent; `b""` at its end, but not where an answer is due."""
        if self._stale:
            raise httpcore.ReadError("nothing was asked")
        data = await self._inner.read(max_bytes, timeout)
        if not data and not self._heard and not self._upgraded:
            raise httpcore.ReadError("closed without an answer")
        self._heard = True
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as above
        """Send, unless this would begin a request on a connection that is known to be dead."""
        if self._heard and not self._upgraded:
            if self._inner.get_extra_info("is_readable"):
                self._stale = True
                raise StaleConnectionError("closed while it was kept")
            self._heard = False
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close at once; what was not sent yet is dropped."""
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> httpcore.AsyncNetworkStream:
        """Go on in TLS."""
        return NetworkStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - the interface is httpcore's
        """Tell about the connection."""
        return self if info == OURS else self._inner.get_extra_info(info)


def keep_alive_options() -> list[httpcore.SOCKET_OPTION]:
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

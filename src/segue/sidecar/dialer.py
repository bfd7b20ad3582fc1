"""Opens links to gateways by whatever way their addresses name: TCP, TLS, a proxy, or ssh.

A link by ssh is the same WebSocket, over the bytes of an ssh connection. Not here: when links are opened
(`segue.sidecar.session`), the WebSocket (`segue.sidecar.connector`), and ssh (`segue.sidecar.ssh_stream`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from segue.sidecar.connector import (
    ConnectorSettings,
    FirstPacket,
    GatewayRefusedError,
    GatewayUnreachableError,
    TunnelSocket,
    connected,
    no_hello,
    tunnel_url,
)
from segue.sidecar.ssh_address import is_ssh, parse_ssh_address
from segue.sidecar.ssh_stream import SshFailedError, SshSettings, SshStream, open_stream
from segue.sidecar.tls_sessions import ResumingContext, verifying_context

#: The far gateway is on its own machine's Unix socket: this only names its loopback.
_FAR_URL = "ws://localhost/segue/tunnel"


def check_gateway(gateway: str) -> None:
    """Raise `ValueError` if this is not the address of a gateway."""
    if is_ssh(gateway):
        parse_ssh_address(gateway)
    else:
        tunnel_url(gateway)


class Dialer:
    """Opens links with the same settings. `context` verifies gateways, instead of the one that the settings ask for."""

    def __init__(self, settings: ConnectorSettings, context: ResumingContext | None = None) -> None:
        if not (settings.key or "").isprintable():
            raise ValueError("the key for gateways cannot be sent: it holds a line break or another control character")
        self._settings = settings
        self._ssh = SshSettings(settings.install, settings.connect_s)
        self._context = context or verifying_context(settings.cafile)
        self._prepared: dict[str, SshStream] = {}

    async def prepare(self, gateway: str, *, attended: bool) -> None:
        """Connect to a machine of ssh:// before the first link to it, which uses this connection.

        `attended`: a person is at the terminal, and may be asked by ssh.

        Raises:
            GatewayUnreachableError, GatewayRefusedError: there is no connection.
        """
        if is_ssh(gateway):
            self._prepared[gateway] = await self._open_stream(gateway, attended=attended)

    @asynccontextmanager
    async def link(self, gateway: str, session_name: str, hello: FirstPacket = no_hello) -> AsyncIterator[TunnelSocket]:
        """Open a link around a block. `hello`: what its upgrade request carries (`segue.sidecar.connector`).

        Raises:
            GatewayUnreachableError, GatewayRefusedError: it was not opened.
        """
        if not is_ssh(gateway):
            url = tunnel_url(gateway)
            async with connected(url, session_name, self._settings, self._context, hello=hello) as link:
                if link.tls is not None:
                    self._context.remember(link.tls)
                yield link
            return
        stream = self._prepared.pop(gateway, None) or await self._open_stream(gateway, attended=False)
        no_key = msgspec.structs.replace(self._settings, key=None)  # ssh has said who we are
        try:
            async with connected(
                _FAR_URL, session_name, no_key, self._context, through=stream.socket, hello=hello
            ) as link:
                yield link
        finally:
            await stream.aclose()

    async def aclose(self) -> None:
        """Close what was prepared and not used."""
        while self._prepared:
            await self._prepared.popitem()[1].aclose()

    async def _open_stream(self, gateway: str, *, attended: bool) -> SshStream:
        try:
            return await open_stream(parse_ssh_address(gateway), self._ssh, attended=attended)
        except SshFailedError as error:
            if error.failure.persistent:
                raise GatewayRefusedError("segue_gateway_refused", error.failure.reason) from None
            raise GatewayUnreachableError(error.failure.reason) from None

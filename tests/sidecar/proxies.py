"""An HTTP proxy that connects whoever asks to one server, whatever name was asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trustme

from segue.sidecar.connector import ConnectorSettings
from segue.sidecar.proxy import parse_proxy
from tests.sidecar.gateways import FakeGateway, fake_gateway


class ConnectProxy:
    """The heads that it was sent; `refusal` is its answer in place of a connection."""

    def __init__(self, port: int) -> None:
        self.asked: list[bytes] = []
        self.refusal: bytes | None = None
        self.port = 0
        self._target = port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        try:
            if self.refusal is not None:
                writer.write(self.refusal)
                return
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await relay(self._target, reader, writer)
        finally:
            writer.close()


async def relay(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Connect a connection to a port of this machine."""
    inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def connect_proxy(port: int) -> AsyncIterator[ConnectProxy]:
    proxy = ConnectProxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()


@asynccontextmanager
async def proxied(tmp_path: Path) -> AsyncIterator[tuple[FakeGateway, ConnectProxy, ConnectorSettings]]:
    """A gateway by a name that only the proxy can resolve."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("gateway.invalid").configure_cert(tls)
    async with fake_gateway(tls=tls) as gateway, connect_proxy(gateway.port) as proxy:
        told = parse_proxy(f"http://alice:hunter2@127.0.0.1:{proxy.port}", "elsewhere.invalid")
        yield gateway, proxy, ConnectorSettings(key="secret", cafile=str(tmp_path / "ca.pem"), proxy=told)

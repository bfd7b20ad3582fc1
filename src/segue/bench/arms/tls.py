"""TLS for benchmarks: a throw-away certificate authority, and a forwarder that ends TLS before a plain server.

The authority lives as long as the benchmark, and nothing but the two ends that it is given to trusts it. It needs
trustme (extra `bench`). Not here: counting bytes (`segue.bench.meters`), and delay (`segue.testing.link`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from segue.extras import how_to_add
from segue.listening import stop_listening

_HOST = "127.0.0.1"
_CHUNK_BYTES = 64 * 1024


def why_no_tls() -> str | None:
    """Return what to do so that TLS can be spoken here; None: nothing."""
    if find_spec("trustme"):
        return None
    return f"TLS in benchmarks needs trustme, which is not installed: {how_to_add('bench')}"


class Authority:
    """A certificate authority of one benchmark."""

    def __init__(self) -> None:
        import trustme  # noqa: PLC0415 - an extra

        self._authority = trustme.CA()

    @property
    def pem(self) -> bytes:
        """The certificate that whoever trusts it must know."""
        return self._authority.cert_pem.bytes()

    def write(self, path: Path) -> None:
        """Write the certificate to a file, as a sidecar takes it."""
        path.write_bytes(self.pem)

    def server_context(self) -> ssl.SSLContext:
        """Return the context of a server on this machine."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(_HOST).configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority and no other."""
        return ssl.create_default_context(cadata=self.pem.decode())


class ServedAddress(NamedTuple):
    """Where a forwarder listens."""

    host: str
    port: int


@asynccontextmanager
async def terminated(host: str, port: int, context: ssl.SSLContext) -> AsyncIterator[ServedAddress]:
    """Accept TLS on a free port around a block, and forward what is in it to a plain server."""
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = loop.create_task(_forward(reader, writer, host, port))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, _HOST, 0, ssl=context, backlog=1024)
    try:
        yield ServedAddress(*server.sockets[0].getsockname()[:2])
    finally:
        await stop_listening(server)
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    """Join one connection to the server, until either side ends: TLS has no half-closed connection (RFC 8446, 6.1)."""
    try:
        behind, before = await asyncio.open_connection(host, port)
    except OSError:
        writer.transport.abort()
        return
    ways = [asyncio.ensure_future(_copy(reader, before)), asyncio.ensure_future(_copy(behind, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        whole = all(way.exception() is None for way in ways if way.done())
        for end in (before, writer):
            if whole:
                end.close()
            else:
                end.transport.abort()
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (before, writer):
            if not end.transport.is_closing():
                end.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()

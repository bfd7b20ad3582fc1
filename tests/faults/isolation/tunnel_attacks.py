"""What one hostile tenant does to a gateway through the tunnel: a sidecar's own end of it, without its manners."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp

from segue.http.heads import Line, RequestHead
from segue.tunnel.client import TunnelClient, TunnelRequest
from segue.tunnel.documents import encode_document
from segue.tunnel.frames import SUBPROTOCOL
from tests.faults.isolation.attacks import MIB, Attack, Run, aborted_upgrade, crowd, many, shape
from tests.faults.isolation.wire import Target, connected

_HOLE = RequestHead(b"POST", b"/hole/v1", (Line(b"Content-Type", b"application/json"),))
_OWN = RequestHead(b"POST", b"/own/v1/responses", (Line(b"Content-Type", b"application/json"),))


class RawSidecar:
    """One link of a sidecar that sends what it is told to, and takes no notice of replies."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.end = TunnelClient()
        self._socket = socket
        self.packets_left = 1 << 60

    async def pump(self) -> None:
        """Send what may be sent, with pauses as behind a link."""
        while self.packets_left and (packet := self.end.next_packet(asyncio.get_running_loop().time())) is not None:
            self.packets_left -= 1
            await self._socket.send_bytes(packet)
            await asyncio.sleep(0.001)  # 16 MB/s

    async def carry(self) -> None:
        """Take packets until the link is over."""
        async for message in self._socket:
            self.end.receive(message.data, asyncio.get_running_loop().time())
            await self.pump()


@asynccontextmanager
async def linked(target: Target) -> AsyncIterator[RawSidecar]:
    """Have a link of a new session around a block."""
    headers = {"Segue-Session": secrets.token_hex(16), "Authorization": f"Bearer {target.key}"}
    async with aiohttp.ClientSession() as client:
        address = target.url.replace("http", "ws", 1) + "/segue/tunnel"
        async with client.ws_connect(address, protocols=(SUBPROTOCOL,), headers=headers) as socket:
            sidecar = RawSidecar(socket)
            sidecar.end.link_opened(asyncio.get_running_loop().time())
            await sidecar.pump()
            yield sidecar


async def endless_uploads(target: Target) -> None:
    """Six uploads of 48 MiB that stop before their end."""
    async with linked(target) as sidecar:
        document = b"\1" * (48 * MIB)
        for _ in range(6):
            sidecar.end.open(TunnelRequest(_HOLE, document))
        sidecar.packets_left = 6 * 2900
        async with asyncio.timeout(60):
            await sidecar.carry()


async def uploads_left_behind(target: Target) -> None:
    """Uploads of sessions whose link goes and never comes back."""
    async with linked(target) as sidecar:
        sidecar.end.open(TunnelRequest(_HOLE, b"\1" * (48 * MIB)))
        sidecar.packets_left = 1000
        carrying = asyncio.create_task(sidecar.carry())
        await asyncio.sleep(2)
        carrying.cancel()


async def expanding_documents(target: Target) -> None:
    """Documents of some kilobytes that expand to 60 MiB, for a provider that does not read."""
    async with linked(target) as sidecar:
        document = encode_document(b"." * (60 * MIB))
        for _ in range(20):
            sidecar.end.open(TunnelRequest(_HOLE, document))
        async with asyncio.timeout(20):
            await sidecar.carry()


def own_requests(name: str) -> Run:
    async def attempt(target: Target) -> None:
        async with linked(target) as sidecar:
            sidecar.end.open(TunnelRequest(_OWN, encode_document(shape(name))))
            async with asyncio.timeout(5):
                await sidecar.carry()

    return attempt


async def many_sessions(target: Target) -> None:
    """Sessions, one after the other, that are never used again."""
    numbers = itertools.count()

    async def attempt() -> None:
        lines = (f"Sec-WebSocket-Protocol: {SUBPROTOCOL}", f"Segue-Session: {next(numbers):032x}")
        async with connected(target, target.upgrade("/segue/tunnel", *lines)) as wire:
            await wire.reply_head()
            await asyncio.sleep(1)

    await crowd(target, 100, attempt, every_s=0.1, per_s=50)


TUNNEL_ATTACKS: Sequence[Attack] = (
    Attack("A2", "uploads that never end", many(1, endless_uploads)),
    Attack("A2", "uploads that are left behind", many(2, uploads_left_behind)),
    Attack("A6", "large requests through the tunnel", many(1, own_requests("messages"), every_s=0.5), ("messages",)),
    Attack(
        "A12",
        "links that are given up",
        many(
            5,
            aborted_upgrade("/segue/tunnel", f"Sec-WebSocket-Protocol: {SUBPROTOCOL}", "Segue-Session: " + "0" * 32),
            every_s=0.1,
        ),
    ),
    Attack("A13", "documents that expand", many(1, expanding_documents)),
    Attack("A15", "sessions of sidecars", many_sessions),
)

"""The sidecar put together: the listener for agents, the tunnel to a gateway, and the bases between them.

    async with Sidecar(Settings(gateways=("wss://gateway.example.com",))) as sidecar:
        ...agents talk to sidecar.url + "/anthropic", "/openai/v1", "/gemini"

Not here: configuration, signals and printing, which are the command line's.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from segue.egress.client import Egress
from segue.http.heads import Line, ReplyHead
from segue.sidecar import connector, listener, request_handler
from segue.sidecar.base_cache import Shelf, ShelfLimits
from segue.sidecar.direct import Direct
from segue.sidecar.listener import Listener
from segue.sidecar.request import Request
from segue.sidecar.request_handler import Exchanges
from segue.sidecar.session import Patience
from segue.sidecar.sessions import Tunnel
from segue.sidecar.stats import Report, Stats

#: Where the listener tells what has been counted; all other targets are the agents' own.
STATS_PATH = b"/segue/stats"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a sidecar is to do."""

    gateways: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 0
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    direct: bool = False
    cache: Path | None = None
    """Where bases are kept for the next start; None: nowhere."""
    save_every_s: float = 5.0
    dialing: connector.Settings = field(default_factory=connector.Settings)
    patience: Patience = field(default_factory=Patience)
    listener: listener.Limits = field(default_factory=listener.Limits)
    exchanges: request_handler.Limits = field(default_factory=request_handler.Limits)
    shelf: ShelfLimits = field(default_factory=ShelfLimits)


class Sidecar:
    """One sidecar in this process. `direct` replaces the way to providers that the settings ask for."""

    def __init__(self, settings: Settings, direct: Direct | None = None) -> None:
        self.settings = settings
        self.url = ""
        self.stats = Stats()
        self._shelf = Shelf(settings.cache, settings.shelf)
        self._tunnel = Tunnel(settings.gateways, settings.dialing, stats=self.stats, patience=settings.patience)
        self._direct = direct or (Direct(Egress()) if settings.direct else None)
        self._exchanges = Exchanges(
            self._tunnel, self._shelf, stats=self.stats, direct=self._direct, limits=settings.exchanges
        )
        self._listener = Listener(
            self._handle,
            host=settings.host,
            port=settings.port,
            hosts=settings.hosts,
            origins=settings.origins,
            limits=settings.listener,
        )
        self._saver: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the bases of earlier times, and begin to look for a gateway."""
        await asyncio.to_thread(self._shelf.load)
        self._tunnel.start()
        self._saver = asyncio.get_running_loop().create_task(self._save())

    async def listen(self) -> str:
        """Open the port for agents; returns the URL."""
        self.url = await self._listener.start()
        return self.url

    async def close(self) -> None:
        """Cut what is under way, let go of the gateway, and save the bases."""
        await self._listener.close()
        await self._exchanges.close()
        await self._tunnel.close()
        if self._saver is not None:
            self._saver.cancel()
            await asyncio.gather(self._saver, return_exceptions=True)
        await asyncio.to_thread(self._shelf.flush)
        if self._direct is not None:
            await self._direct.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self.open()
            await self.listen()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def report(self) -> Report:
        """Return what has been counted, and the state of the link."""
        session = self._tunnel.session
        return self.stats.report(
            parked=self._exchanges.parked, link=session.state, gateway=session.gateway, rtt_s=session.end.rtt_s
        )

    async def _handle(self, request: Request) -> None:
        if request.kind == "http" and request.head.target.partition(b"?")[0] == STATS_PATH:
            await self._tell_stats(request)
        else:
            await self._exchanges.handle(request)

    async def _tell_stats(self, request: Request) -> None:
        body = msgspec.json.encode(self.report())
        lines = (Line(b"Content-Type", b"application/json"), Line(b"Content-Length", b"%d" % len(body)))
        await request.start(ReplyHead(200, b"OK", lines))
        await request.send(body)
        await request.end()

    async def _save(self) -> None:
        """Save new bases now and then, when no agent waits for anything."""
        while True:
            await asyncio.sleep(self.settings.save_every_s)
            if self._shelf.needs_flush and not self.stats.active:
                await asyncio.to_thread(self._shelf.flush)

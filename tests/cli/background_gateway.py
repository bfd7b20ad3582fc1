"""A gateway in a thread of its own, for commands that have the event loop of this one.

Not here: what its model says (`segue.testing.scripted`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from segue.config import Config, RouteConfig, ServerConfig
from segue.gateway.app import serving
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream


class BackgroundGateway:
    """Runs around a block. `url` is its API as SDKs name it."""

    def __init__(self, upstream: ScriptedUpstream, routes: Sequence[RouteConfig] = ()) -> None:
        self.url = ""
        self._routes = list(routes)
        self._upstream = upstream
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def soon(self, work: Callable[[], object]) -> None:
        """Do something in the gateway's event loop."""
        self._loop.call_soon_threadsafe(work)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        config = Config(server=ServerConfig(port=0, store="memory:"), route=self._routes)
        async with serving(config, Router([ModelRule(self._upstream, ("*",))])) as (_, url):
            self.url = f"{url}/v1"
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

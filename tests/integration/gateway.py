"""A gateway that really listens on a port, around one scripted model, with clients for it; everything is closed and
judged at the end: no turn of the script may be left over, and no client may have seen a frame that breaks the rules.
Not here: the clients themselves, and what the SDKs see (`tap`).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import Any, Final, Protocol

import msgspec

from segue.config import Config, KeyConfig, ListenerConfig, ServerConfig
from segue.gateway.app import Gateway, serving
from segue.upstreams.interface import Upstream
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL, ScriptedTurn, ScriptedUpstream
from tests.integration.clients import Http, Socket
from tests.integration.tap import Tap, tapping

#: Settings of `[server]` beside a free port and a store in memory.
NO_SETTINGS: Final[Mapping[str, object]] = MappingProxyType({})


def key(tenant: str) -> KeyConfig:
    """The API key `sk-TENANT` of a tenant."""
    return KeyConfig(tenant, tenant, hashlib.sha256(f"sk-{tenant}".encode()).hexdigest())


class Running:
    """A gateway while it runs: `url` is its own, `upstream` the model behind it."""

    def __init__(self, gateway: Gateway, url: str, upstream: ScriptedUpstream, stack: AsyncExitStack) -> None:
        self.gateway = gateway
        self.url = url
        self.upstream = upstream
        self._stack = stack

    async def http(self, secret: str | None = None) -> Http:
        """A client over HTTP, with connections of its own."""
        return await self._stack.enter_async_context(Http(self.url, secret))

    async def socket(
        self, secret: str | None = None, *, lanes: Iterable[str] = (), lean: bool = False, **options: object
    ) -> Socket:
        """A new connection in WebSocket mode; `lanes` are those used on it, `options` those of `websockets.connect`."""
        return await self._stack.enter_async_context(Socket(self.url, secret, lanes=lanes, lean=lean, **options))

    async def tap(self) -> Tap:
        """A way in for clients that do not judge what they get."""
        return await self._stack.enter_async_context(tapping(self.url))

    def seen(self) -> list[list[Any]]:
        """The items of each request that the scripted model saw, decoded."""
        return [[msgspec.json.decode(item) for item in request.history.items()] for request in self.upstream.requests]

    def metric(self, name: str, **labels: str) -> float:
        """One figure of the gateway's metrics."""
        value = self.gateway.services.metrics.registry.get_sample_value(name, labels)
        assert value is not None, f"no metric {name} with {labels}"
        return value


class Start(Protocol):
    """The fixture `start`: run a gateway, to the end of the test, that plays these turns."""

    async def __call__(self, *script: ScriptedTurn, keys: Sequence[KeyConfig] = (), **server: object) -> Running: ...


@asynccontextmanager
async def listening(
    upstream: Upstream,
    *,
    model: str = MODEL,
    keys: Sequence[KeyConfig] = (),
    listeners: Sequence[ListenerConfig] = (),
    server: Mapping[str, object] = NO_SETTINGS,
) -> AsyncIterator[tuple[Gateway, str]]:
    """Serve one model under the name given."""
    settings = msgspec.convert({"port": 0, "store": "memory:", **server}, ServerConfig)
    config = Config(server=settings, key=list(keys), listener=list(listeners))
    async with serving(config, Router([ModelRule(upstream, (model,))])) as (gateway, url):
        yield gateway, url


@asynccontextmanager
async def running(
    script: Sequence[ScriptedTurn], *, keys: Sequence[KeyConfig] = (), server: Mapping[str, object] = NO_SETTINGS
) -> AsyncIterator[Running]:
    """Run a gateway around a block; the script must be played to its end."""
    upstream = ScriptedUpstream(script)
    async with listening(upstream, keys=keys, server=server) as (gateway, url), AsyncExitStack() as stack:
        yield Running(gateway, url, upstream, stack)
    upstream.assert_done()

"""The two ends of the tunnel, each in a process of its own, so that each can be asked for its own CPU time.

`python -m segue.bench.arms.ends SPEC` runs what SPEC (JSON) describes: a gateway whose tunnel forwards to a provider,
a sidecar, which is ready when its link is up, or a relay, to compare them with. The process answers and ends as that of
`server` does. Not here: starting them (`child`), and the traffic through them (`tunnelled`).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias, assert_never

import msgspec

from segue.bench.arms.server import address_of, run_process
from segue.bench.meters.tcp import metered
from segue.config import Config, RouteConfig, ServerConfig
from segue.gateway.app import serving
from segue.sidecar.app import Sidecar, SidecarSettings
from segue.sidecar.connector import ConnectorSettings
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL, ScriptedUpstream

#: The paths of providers' APIs. The tunnel forwards all of them to the provider, none to the gateway's own API.
PATHS = ("/v1", "/v1beta")
_LOOK_EVERY_S = 0.005


class GatewaySpec(msgspec.Struct, frozen=True, tag="gateway"):
    """A gateway before the provider at this URL."""

    provider: str


class SidecarSpec(msgspec.Struct, frozen=True, tag="sidecar"):
    """A sidecar of the gateway at this URL; it keeps its bases in the folder `cache`, if there is one.

    `cafile`: the certificates by which it knows the gateway, if not those of the system.
    """

    gateway: str
    cache: str | None = None
    cafile: str | None = None


class RelaySpec(msgspec.Struct, frozen=True, tag="relay"):
    """What only copies bytes between its clients and the server at this address."""

    host: str
    port: int


EndSpec: TypeAlias = GatewaySpec | SidecarSpec | RelaySpec


@asynccontextmanager
async def run_gateway(spec: GatewaySpec) -> AsyncIterator[tuple[str, int]]:
    """Run a gateway around a block; yields where it listens."""
    routes = [RouteConfig(path=path, target=spec.provider) for path in PATHS]
    router = Router([ModelRule(ScriptedUpstream(), (MODEL,))])
    async with serving(Config(server=ServerConfig(port=0, store="memory:"), route=routes), router) as (_, url):
        yield address_of(url)


@asynccontextmanager
async def run_sidecar(spec: SidecarSpec) -> AsyncIterator[tuple[str, int]]:
    """Run a sidecar around a block; the block begins when the link is up."""
    cache = None if spec.cache is None else Path(spec.cache)
    connector = ConnectorSettings(cafile=spec.cafile)
    settings = SidecarSettings(gateways=(spec.gateway,), cache_directory=cache, connector=connector, access="anyone")
    async with Sidecar(settings) as sidecar:
        while sidecar.report().link != "up":  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(_LOOK_EVERY_S)
        yield address_of(sidecar.url)


@asynccontextmanager
async def run_relay(spec: RelaySpec) -> AsyncIterator[tuple[str, int]]:
    """Run a relay around a block; yields where it listens."""
    async with metered(spec.host, spec.port) as meter:
        yield address_of(meter.url)


def run_end(spec: EndSpec) -> AbstractAsyncContextManager[tuple[str, int]]:
    """Run what a spec describes around a block; yields where it listens."""
    match spec:
        case GatewaySpec():
            return run_gateway(spec)
        case SidecarSpec():
            return run_sidecar(spec)
        case RelaySpec():
            return run_relay(spec)
        case _:
            assert_never(spec)


def main() -> None:
    """Run what the command line specifies."""
    run_process(run_end(msgspec.json.decode(sys.argv[1], type=EndSpec)))


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # that a link which the benchmark breaks is broken is no news
    main()

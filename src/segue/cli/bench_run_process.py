"""The gateway or the sidecar of `segue bench run`, in a process of its own, so that it can be asked for its CPU time.

`python -m segue.cli.bench_run_process SPEC` runs what SPEC (JSON) names with the user's configuration. The process
answers and ends as that of `segue.bench.arms.server` does. A key for gateways comes in the environment, not in SPEC,
which everybody on the machine can read. Not here: starting them (`segue.cli.bench_run`).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec

from segue.bench.arms.server import address_of, run_process
from segue.cli.private_gateway import PrivateGateway, private_gateway
from segue.cli.sidecar import LoadedConfig, settings_of
from segue.config import KeyConfig, RouteConfig, choose_file, load
from segue.gateway.app import serving
from segue.http.routes import BUILT_IN
from segue.peer_credentials.lookup import peer_users
from segue.sidecar.app import Sidecar

#: How long the sidecar's first link may take; then it is told that there is none.
LINK_S = 10.0
#: The gateway ends after its only sidecar, whose last words a network that breaks off may have swallowed. So nobody
#: will come for what a gateway waits for when it drains.
_DRAIN_S = 0.1


class PrivateGatewaySpec(msgspec.Struct, frozen=True, tag="gateway"):
    """A gateway with the routes of a configuration; only who has the key with this SHA-256 can use it."""

    config: str | None
    key_sha256: str
    provider: str | None = None
    """The address of what stands in for the provider of every route that is built in."""


class UserSidecarSpec(msgspec.Struct, frozen=True, tag="sidecar"):
    """A sidecar of these gateways, otherwise as the configuration says."""

    config: str | None
    gateways: tuple[str, ...]
    cafile: str | None = None
    cache: bool | None = None
    proxy: str | None = None
    """The proxy on the way to the gateways; empty: none, whatever the configuration says."""


RunProcessSpec: TypeAlias = PrivateGatewaySpec | UserSidecarSpec


def gateway_of(spec: PrivateGatewaySpec) -> PrivateGateway:
    """Return the gateway that is specified."""
    loaded = _loaded(spec.config)
    config = loaded.config
    if spec.provider is not None:
        routes = [RouteConfig(target=spec.provider, mount=mount) for mount, _ in BUILT_IN]
        config = msgspec.structs.replace(config, route=routes)
    server = msgspec.structs.replace(config.server, drain_s=_DRAIN_S)
    keys = [KeyConfig("run", "run", spec.key_sha256)]
    return private_gateway(
        msgspec.structs.replace(config, server=server), loaded.file, keys=keys, named=spec.config is not None
    )


@asynccontextmanager
async def run_private_gateway(spec: PrivateGatewaySpec) -> AsyncIterator[tuple[str, int]]:
    """Run the gateway around a block; yields where it listens."""
    own = gateway_of(spec)
    async with serving(own.config, own.router) as (_, url):
        yield address_of(url)


@asynccontextmanager
async def run_user_sidecar(spec: UserSidecarSpec) -> AsyncIterator[tuple[str, int]]:
    """Run the sidecar around a block; the block begins when there is a link, or after a while without one."""
    options = {
        "gateways": list(spec.gateways),
        "port": 0,
        "cafile": spec.cafile,
        "cache": spec.cache,
        "proxy": spec.proxy,
        # The meter before it lets nobody else in, if that can be known; a token would be one more thing to measure.
        "access": "user" if peer_users().known else "anyone",
    }
    async with Sidecar(settings_of(_loaded(spec.config, **options).config.sidecar)) as sidecar:
        await sidecar.has_link(LINK_S)
        yield address_of(sidecar.url)


def _loaded(path: str | None, **options: object) -> LoadedConfig:
    """Read the configuration again; what there is to say about the choice of its file was said before."""
    chosen = choose_file(None if path is None else Path(path))
    return LoadedConfig(load(chosen.path, relative_to=chosen.relative_to, sidecar=options), chosen.path)


def main() -> None:
    """Run what the command line specifies."""
    spec: RunProcessSpec = msgspec.json.decode(sys.argv[1], type=RunProcessSpec)
    match spec:
        case PrivateGatewaySpec():
            run_process(run_private_gateway(spec))
        case UserSidecarSpec():
            run_process(run_user_sidecar(spec))


if __name__ == "__main__":
    logging.disable()  # the agent has the terminal
    main()

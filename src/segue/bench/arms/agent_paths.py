"""The paths from an agent to the server of an arm: straight, over HTTP/2, or through a sidecar.

A path is opened at a site: where the server is, the link before it, and whether the wire is coded by TLS. It says where
the agent connects to, what its wire carries, and how to wait for what is still on its way. Not here: the arms that use
the paths (`table`), and the paths of recorded sessions, which lead to a provider (`paths`).
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec

import msgspec

from segue.bench.arms.coded_wire import CarriedBytes, CodedWire, coded_wire
from segue.bench.arms.ends import SidecarSpec
from segue.bench.arms.tls_coding import TlsContexts
from segue.bench.arms.tunnelled import QUIET_S, Start, silence, started
from segue.extras import how_to_add
from segue.testing.link import LinkProfile

#: How long a wire without a tunnel must be silent, beyond a round trip, before its last byte has come.
_QUIET_S = 0.03


class AgentPath(msgspec.Struct, frozen=True, kw_only=True):
    """An open path."""

    host: str
    port: int
    carried: CarriedBytes
    quiet_s: float
    """After so long without a byte, nothing is on its way any more."""

    @property
    def url(self) -> str:
        """Where the agent connects to, as the beginning of an HTTP URL."""
        return f"http://{self.host}:{self.port}"

    async def settle(self) -> None:
        """Wait for what is still on its way."""
        await silence(lambda: self.carried.total_bytes, self.quiet_s)


class PathSite(msgspec.Struct, frozen=True, kw_only=True):
    """Where a path is opened.

    `warm_up` does an earlier task of the same agent at a URL; only a path that can be warm asks for it.
    """

    host: str
    port: int
    tls: TlsContexts | None
    profile: LinkProfile | None
    warm_up: Callable[[str], Awaitable[None]]
    start: Start = started

    @property
    def rtt_s(self) -> float:
        """The round trip of the link."""
        return 0.0 if self.profile is None else self.profile.rtt_s

    def wire(self, *, linked: bool = True) -> AbstractAsyncContextManager[CodedWire]:
        """Open the wire to the server."""
        return coded_wire(self.host, self.port, tls=self.tls, profile=self.profile if linked else None)


#: Opens a path at a site.
OpenAgentPath = Callable[[PathSite], AbstractAsyncContextManager[AgentPath]]


@asynccontextmanager
async def straight(site: PathSite) -> AsyncIterator[AgentPath]:
    """Connect to the server."""
    async with site.wire() as wire:
        yield _path(wire.host, wire.port, wire.carried, _QUIET_S + site.rtt_s)


@asynccontextmanager
async def over_http2(site: PathSite) -> AsyncIterator[AgentPath]:
    """Connect to the server over HTTP/2. It needs h2."""
    from segue.bench.arms.http2 import http2_wire  # noqa: PLC0415 - an extra

    async with http2_wire(site.host, site.port, tls=site.tls is not None, profile=site.profile) as wire:
        yield _path(wire.host, wire.port, wire.carried, _QUIET_S + site.rtt_s)


def why_no_http2() -> str | None:
    """Return what to do so that HTTP/2 can be spoken here; None: nothing."""
    if find_spec("h2"):
        return None
    return f"HTTP/2 in benchmarks needs h2, which is not installed: {how_to_add('bench')}"


@asynccontextmanager
async def cold_sidecar(site: PathSite) -> AsyncIterator[AgentPath]:
    """Connect through a sidecar that has never seen the agent."""
    async with site.wire() as wire, site.start(SidecarSpec(wire.url)) as sidecar:
        yield _path(sidecar.host, sidecar.port, wire.carried, QUIET_S + site.rtt_s)


@asynccontextmanager
async def warm_sidecar(site: PathSite) -> AsyncIterator[AgentPath]:
    """Connect through a new sidecar with the bases that another left on disk, after an earlier task of the agent.

    The earlier task is done beside the link, and is not counted.
    """
    with tempfile.TemporaryDirectory(prefix="segue-bench-") as cache:
        async with site.wire(linked=False) as wire, site.start(SidecarSpec(wire.url, cache)) as before:
            await site.warm_up(f"http://{before.host}:{before.port}")
        async with site.wire() as wire, site.start(SidecarSpec(wire.url, cache)) as sidecar:
            yield _path(sidecar.host, sidecar.port, wire.carried, QUIET_S + site.rtt_s)


def _path(host: str, port: int, carried: CarriedBytes, quiet_s: float) -> AgentPath:
    return AgentPath(host=host, port=port, carried=carried, quiet_s=quiet_s)

"""The whole way: an agent in raw bytes, a sidecar, a link that can be broken, a gateway that can be ended and started
anew, and an independent provider. What is broken, and when, is each test's part.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from segue.config import Config, RouteConfig, ServerConfig, TunnelConfig
from segue.gateway.app import Gateway
from segue.sidecar.app import SidecarSettings
from segue.sidecar.link_status import LinkTimeouts
from segue.testing.link import EmulatedLink, LinkProfile, linked
from segue.testing.provider import MessageScript, Script, ScriptedProvider, provided
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL, ScriptedUpstream
from tests.sidecar.agents import RawAgent
from tests.sidecar.sidecars import Running
from tests.sidecar.sidecars import running as sidecar_running

#: Long enough for whatever comes back in a test, and never waited for in full by one that passes.
PATIENT = SidecarSettings(gateways=(), timeouts=LinkTimeouts(wait_s=30.0, give_up_s=30.0))


class Node:
    """A gateway at one address, whichever process run it is in."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.gateway: Gateway | None = None
        self.port = 0

    async def start(self) -> None:
        """Start a new run, with a new epoch and without any base, at the same port."""
        server = ServerConfig(port=self.port, store="memory:")
        router = Router([ModelRule(ScriptedUpstream(), (MODEL,))])
        self.gateway = await Gateway.open(
            Config(server=server, tunnel=self._config.tunnel, route=self._config.route), router
        )
        self.port = urlsplit(await self.gateway.listen()).port or 0

    async def stop(self) -> None:
        """End the run without letting anything end."""
        if self.gateway is not None:
            gateway, self.gateway = self.gateway, None
            await gateway.aclose()


class Way:
    """All of it while it runs."""

    def __init__(self, provider: ScriptedProvider, node: Node, link: EmulatedLink, sidecar: Running) -> None:
        self.provider = provider
        self.node = node
        self.link = link
        self.sidecar = sidecar

    async def post(self, body: bytes, **how: str) -> bytes:
        """Send a request and return all that comes back until the connection ends."""
        async with asyncio.timeout(60):
            return await self.sidecar.post(body, target="/v1/messages", **how)

    async def connect(self) -> RawAgent:
        """Connect an agent."""
        return await self.sidecar.connect()

    @property
    def bodies(self) -> list[bytes | None]:
        """What the provider was asked, in order."""
        return [request.body for request in self.provider.requests]


@asynccontextmanager
async def tunnelled(
    script: Script,
    *,
    message_script: MessageScript | None = None,
    profile: LinkProfile | None = None,
    settings: SidecarSettings = PATIENT,
    cache: Path | None = None,
    tunnel: TunnelConfig | None = None,
) -> AsyncIterator[Way]:
    """Run everything around a block."""
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(provided(script, message_script))
        route = [RouteConfig(path="/v1", target=provider.url)]
        node = Node(Config(tunnel=TunnelConfig() if tunnel is None else tunnel, route=route))
        await node.start()
        stack.push_async_callback(node.stop)
        link = await stack.enter_async_context(linked("127.0.0.1", node.port, profile or LinkProfile()))
        sidecar = await stack.enter_async_context(
            sidecar_running(
                f"ws://{link.host}:{link.port}", settings=msgspec.structs.replace(settings, cache_directory=cache)
            )
        )
        await sidecar.linked()
        yield Way(provider, node, link, sidecar)


def body_of(response: bytes) -> bytes:
    """Return the body of a response in chunks or with a length; it must be whole."""
    head, _, rest = response.partition(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        assert len(lengths) == 1, head
        assert int(lengths[0].partition(b":")[2]) == len(rest), "the body is cut"
        return rest
    body = bytearray()
    while True:
        size, _, rest = rest.partition(b"\r\n")
        count = int(size, 16)
        if count == 0:
            assert rest == b"\r\n", "something follows the last chunk"
            return bytes(body)
        assert len(rest) >= count + 2, "the body is cut"
        body += rest[:count]
        rest = rest[count + 2 :]


def is_whole(response: bytes) -> bool:
    """Tell whether a response ends as it should."""
    try:
        body_of(response)
    except (AssertionError, ValueError):
        return False
    return True


def status_of(response: bytes) -> int:
    """Return the status of a response."""
    return int(response.split(b" ", 2)[1])

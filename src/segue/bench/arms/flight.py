"""The two ways of an agent on a flight, each over a link of its own that meets the same troubles at the same times.

The plain agent speaks TLS with the provider. The other speaks with a sidecar on its own machine, and the sidecar over
TLS with a gateway beside the provider. TLS is real, with a throw-away authority; the captive portal has another one.
The link is emulated; gateway and sidecar are processes of their own. Not here: the plan (`flight_plan`), and what the
agent does (`retrying_player`).
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import msgspec
from msgspec.structs import replace

from segue.bench.arms.ends import GatewaySpec, SidecarSpec
from segue.bench.arms.tls import Authority, terminated
from segue.bench.arms.tunnelled import Start, started
from segue.bench.links.profiles import NamedLink
from segue.bench.workloads.flight_plan import FlightEvent
from segue.http.heads import Line
from segue.testing.link import EmulatedLink, LinkProfile, linked
from segue.testing.provider import Answer, Script, ScriptedProvider, provided

#: RFC 6585, 6. Nobody who verifies certificates gets to read it.
PORTAL_PAGE = Answer(
    status=511,
    reason=b"Network Authentication Required",
    lines=(Line(b"Content-Type", b"text/html"),),
    pieces=(b"<html>Log in to the network of this aircraft</html>",),
    framing="length",
)


class FlownWay(msgspec.Struct, frozen=True, kw_only=True):
    """One way while it is open."""

    host: str
    port: int
    context: ssl.SSLContext | None
    """How the agent speaks TLS; None: it does not."""
    link: EmulatedLink
    provider: ScriptedProvider


def flown_profile(link: NamedLink, seed: int) -> LinkProfile:
    """Return the link as it is emulated here: TLS is real, so that it is not simulated once more."""
    return replace(link.profile, setup_rtts=1.0, seed=seed)


@asynccontextmanager
async def plain_way(script: Script, profile: LinkProfile) -> AsyncIterator[FlownWay]:
    """Open the plain agent's way: TLS with the provider, over the link."""
    authority = Authority()
    async with (
        provided(script, ssl=authority.server_context()) as provider,
        linked(provider.host, provider.port, profile) as link,
    ):
        context = authority.client_context()
        yield FlownWay(host=link.host, port=link.port, context=context, link=link, provider=provider)


@asynccontextmanager
async def sidecar_way(script: Script, profile: LinkProfile, *, start: Start = started) -> AsyncIterator[FlownWay]:
    """Open the way through a sidecar and a gateway. It begins when their link is up."""
    authority = Authority()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="segue-bench-")))
        authority.write(folder / "authority.pem")
        provider = await stack.enter_async_context(provided(script))
        gateway = await stack.enter_async_context(start(GatewaySpec(provider.url)))
        ended = await stack.enter_async_context(terminated(gateway.host, gateway.port, authority.server_context()))
        link = await stack.enter_async_context(linked(ended.host, ended.port, profile))
        spec = SidecarSpec(f"wss://{link.host}:{link.port}", cafile=str(folder / "authority.pem"))
        sidecar = await stack.enter_async_context(start(spec))
        yield FlownWay(host=sidecar.host, port=sidecar.port, context=None, link=link, provider=provider)


@asynccontextmanager
async def troubled(
    events: Iterable[FlightEvent],
    link: EmulatedLink,
    *,
    context: ssl.SSLContext | None,
    on_event: Callable[[FlightEvent | None], None],
) -> AsyncIterator[ScriptedProvider]:
    """Let the events happen to a link around a block, at their times from its beginning; yields the captive portal.

    `context`: how the portal speaks TLS; None: it does not. `on_event` hears of each event, and of its end with None.
    """
    async with provided(lambda _: PORTAL_PAGE, ssl=context) as portal:
        happening = asyncio.ensure_future(_carry_out(events, link, portal, on_event=on_event))
        try:
            yield portal
        finally:
            happening.cancel()
            await asyncio.gather(happening, return_exceptions=True)


async def _carry_out(
    events: Iterable[FlightEvent],
    link: EmulatedLink,
    portal: ScriptedProvider,
    *,
    on_event: Callable[[FlightEvent | None], None],
) -> None:
    loop = asyncio.get_running_loop()
    begun_at = loop.time()
    for event in events:
        await asyncio.sleep(begun_at + event.at_s - loop.time())
        on_event(event)
        with ExitStack() as trouble:
            if event.what != "dark":
                link.cut()
            if event.what == "portal":
                trouble.enter_context(link.diverted(portal.host, portal.port))
            else:
                trouble.enter_context(link.silenced())
            await asyncio.sleep(begun_at + event.end_s - loop.time())
        on_event(None)

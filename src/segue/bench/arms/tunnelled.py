"""The way through a sidecar and a gateway, with the meter on the socket between them.

    paths = {COLD: sidecar_path, WARM: warmed(earlier)}

What the meter counts is all that the tunnel's socket carries, acknowledgements included; an acknowledgement may come a
second after what it acknowledges, so a way can be asked to wait until there is none left. Warm means that the agent has
been here before: an earlier session of it is played first, and then the sidecar is started anew, with the bases that
the one before left on disk. The gateway goes on, as its bases are in memory only.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from msgspec.structs import replace

from segue.bench.arms.child import launched
from segue.bench.arms.ends import EndSpec, GatewaySpec, SidecarSpec
from segue.bench.arms.player import play
from segue.bench.meters.tcp import Meter, metered
from segue.bench.table import MeteredPath, OpenPath
from segue.testing.provider import ScriptedProvider, replying, replying_to_messages
from segue.testing.recorded_session import RecordedSession
from segue.tunnel.link import ACK_DELAY_S

#: After so long without a byte every acknowledgement has come.
QUIET_S = ACK_DELAY_S + 0.1
_LOOK_EVERY_S = 0.02

COLD, WARM = "sidecar cold", "sidecar warm"
GATEWAY, SIDECAR = "gateway", "sidecar"


class RunningEnd(NamedTuple):
    """Where one end listens, and how to ask for its CPU time so far if it is in a process of its own."""

    host: str
    port: int
    cpu_s: Callable[[], Awaitable[float]] | None = None


#: Runs one end around a block.
Start = Callable[[EndSpec], AbstractAsyncContextManager[RunningEnd]]


@asynccontextmanager
async def started(spec: EndSpec) -> AsyncIterator[RunningEnd]:
    """Run an end in a process of its own around a block."""
    async with launched(spec, "segue.bench.arms.ends") as child:

        async def cpu_s() -> float:
            return (await child.usage()).cpu_ns / 1e9

        yield RunningEnd(child.host, child.port, cpu_s)


@asynccontextmanager
async def sidecar_path(provider: ScriptedProvider, *, start: Start = started) -> AsyncIterator[MeteredPath]:
    """Connect through a sidecar and a gateway that have both been started just now."""
    async with (
        start(GatewaySpec(provider.url)) as gateway,
        metered(gateway.host, gateway.port) as meter,
        start(SidecarSpec(meter.url)) as sidecar,
    ):
        yield _way(gateway, sidecar, meter)


def warmed(earlier: RecordedSession, *, start: Start = started) -> OpenPath:
    """Return the way through a sidecar on whose disk there are bases of an earlier session, which is not counted."""

    @asynccontextmanager
    async def path(provider: ScriptedProvider) -> AsyncIterator[MeteredPath]:
        async with AsyncExitStack() as stack:
            cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="segue-bench-"))
            gateway = await stack.enter_async_context(start(GatewaySpec(provider.url)))
            meter = await stack.enter_async_context(metered(gateway.host, gateway.port))
            spec = SidecarSpec(meter.url, cache)
            async with start(spec) as before:
                await _play_before(provider, earlier, before)
            meter.take()
            sidecar = await stack.enter_async_context(start(spec))
            yield _way(gateway, sidecar, meter)

    return path


def first_request(session: RecordedSession) -> RecordedSession:
    """Return a session's first request alone: what to warm up with where there is no other session of its agent."""
    return replace(session, turns=session.turns[:1])


async def _play_before(provider: ScriptedProvider, earlier: RecordedSession, sidecar: RunningEnd) -> None:
    """Play a session that the provider then forgets."""
    script, message_script = provider.script, provider.message_script
    provider.script, provider.message_script = replying(earlier), replying_to_messages(earlier)
    await play(earlier, sidecar.host, sidecar.port)
    provider.script, provider.message_script = script, message_script
    provider.requests.clear()
    provider.messages.clear()


def _way(gateway: RunningEnd, sidecar: RunningEnd, meter: Meter) -> MeteredPath:
    async def cpu_s() -> dict[str, float]:
        ends = {GATEWAY: gateway.cpu_s, SIDECAR: sidecar.cpu_s}
        return {name: await spent_s() for name, spent_s in ends.items() if spent_s is not None}

    async def settle() -> None:
        await _silence(lambda: meter.up_bytes + meter.down_bytes)

    return MeteredPath(host=sidecar.host, port=sidecar.port, meter=meter, cpu_s=cpu_s, settle=settle)


async def _silence(count: Callable[[], int]) -> None:
    """Wait until nothing has been carried for as long as an acknowledgement may take."""
    loop = asyncio.get_running_loop()
    carried, since = count(), loop.time()
    while loop.time() < since + QUIET_S:
        await asyncio.sleep(_LOOK_EVERY_S)
        if count() != carried:
            carried, since = count(), loop.time()

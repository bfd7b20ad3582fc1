"""The path through a sidecar and a gateway, with the meter on the socket between them.

    paths = {COLD: sidecar_path, WARM: warmed(earlier)}

The meter counts everything that the tunnel's socket carries, acknowledgements included. An acknowledgement may come a
second after the data, so `settle` waits until all of them have come. *Warm* means that this agent has used the sidecar
before: an earlier session is played first, and then a new sidecar starts with the bases that the first one left on
disk. The gateway stays the same, because it keeps its bases only in memory.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import msgspec
from msgspec.structs import replace

from segue.bench.arms.child import launched
from segue.bench.arms.ends import EndSpec, GatewaySpec, SidecarSpec
from segue.bench.arms.paths import MeteredPath, OpenPath
from segue.bench.arms.player import play
from segue.bench.meters.tcp import Meter, metered
from segue.testing.provider import ScriptedProvider, replying, replying_to_messages
from segue.testing.recorded_session import RecordedSession
from segue.tunnel.link import ACK_DELAY_S

#: After this time without a byte, every acknowledgement has come.
QUIET_S = ACK_DELAY_S + 0.1
_LOOK_EVERY_S = 0.02

COLD, WARM = "sidecar cold", "sidecar warm"
GATEWAY, SIDECAR = "gateway", "sidecar"


class RunningEnd(msgspec.Struct, frozen=True):
    """Where one end listens. `cpu_s` asks for its CPU time so far, if it has a process of its own."""

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
    """Connect through a new sidecar and a new gateway."""
    async with (
        start(GatewaySpec(provider.url)) as gateway,
        metered(gateway.host, gateway.port) as meter,
        start(SidecarSpec(meter.url)) as sidecar,
    ):
        yield _metered_path(gateway, sidecar, meter)


def warmed(earlier: RecordedSession, *, start: Start = started) -> OpenPath:
    """Return the path through a sidecar that has bases of an earlier session on disk. That session is not counted."""

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
            yield _metered_path(gateway, sidecar, meter)

    return path


def first_request(session: RecordedSession) -> RecordedSession:
    """Return a session with its first request alone: it warms a sidecar up where the agent has no other session."""
    return replace(session, turns=session.turns[:1])


async def _play_before(provider: ScriptedProvider, earlier: RecordedSession, sidecar: RunningEnd) -> None:
    """Play a session, and then make the provider forget it."""
    script, message_script = provider.script, provider.message_script
    provider.script, provider.message_script = replying(earlier), replying_to_messages(earlier)
    await play(earlier, sidecar.host, sidecar.port)
    provider.script, provider.message_script = script, message_script
    provider.requests.clear()
    provider.messages.clear()


def _metered_path(gateway: RunningEnd, sidecar: RunningEnd, meter: Meter) -> MeteredPath:
    async def cpu_s() -> dict[str, float]:
        ends = {GATEWAY: gateway.cpu_s, SIDECAR: sidecar.cpu_s}
        return {name: await spent_s() for name, spent_s in ends.items() if spent_s is not None}

    async def settle() -> None:
        await silence(lambda: meter.up_bytes + meter.down_bytes)

    return MeteredPath(host=sidecar.host, port=sidecar.port, meter=meter, cpu_s=cpu_s, settle=settle)


async def silence(count: Callable[[], int], quiet_s: float = QUIET_S) -> None:
    """Wait until nothing has been counted for a time: by default, for as long as an acknowledgement may take."""
    loop = asyncio.get_running_loop()
    carried, since = count(), loop.time()
    while loop.time() < since + quiet_s:
        await asyncio.sleep(min(_LOOK_EVERY_S, quiet_s))
        if count() != carried:
            carried, since = count(), loop.time()

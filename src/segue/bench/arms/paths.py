"""A path is how bytes leave the agent's machine for a provider, with a meter on the socket that is measured.

Not here: the paths through a sidecar (`tunnelled`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec

from segue.bench.meters.tcp import Meter, metered
from segue.testing.provider import ScriptedProvider


class MeteredPath(msgspec.Struct, frozen=True, kw_only=True):
    """A path to the provider: where the agent connects to, and the meter on the socket that is measured."""

    host: str
    port: int
    meter: Meter
    cpu_s: Callable[[], Awaitable[Mapping[str, float]]] | None = None
    """Returns the CPU time so far of each process between agent and provider, if it can be measured."""
    settle: Callable[[], Awaitable[None]] | None = None
    """Waits for the bytes that the path still sends after the last reply."""


#: Opens a path to a provider while one session is played.
OpenPath = Callable[[ScriptedProvider], AbstractAsyncContextManager[MeteredPath]]


@asynccontextmanager
async def straight_path(provider: ScriptedProvider) -> AsyncIterator[MeteredPath]:
    """Connect straight to the provider."""
    async with metered(provider.host, provider.port) as meter:
        yield MeteredPath(host=meter.url_host, port=meter.port, meter=meter)

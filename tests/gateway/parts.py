"""The parts of a gateway without its sockets: turns are run as a transport would run them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Final

import msgspec

from segue.config import Config
from segue.gateway.principal import Principal
from segue.gateway.services import Services, build_services
from segue.gateway.turns.caller import Caller
from segue.gateway.turns.erasure import Erasure
from segue.history.cache import Slot
from segue.protocol.events import Event, response_of
from segue.protocol.ids import ResponseId, parse_response_id
from segue.protocol.problems import Problem
from segue.protocol.requests import Create, parse_create
from segue.stores.interface import Store
from segue.stores.live.interface import Live
from segue.stores.memory import MemoryStore
from segue.upstreams.interface import Upstream
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream

TENANT = "alice"
NO_TABLES: Final[Mapping[str, object]] = MappingProxyType({})


class Clock:
    """Unix seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def parts(
    upstream: Upstream | None = None,
    *,
    models: Sequence[str] = ("*",),
    store: Store | None = None,
    clock: Clock | None = None,
    live: Live | None = None,
    tables: Mapping[str, object] = NO_TABLES,
    **server: object,
) -> AsyncIterator[Services]:
    """Build services around one model that answers to these names; kept turns are stopped at the end.

    With `live`, it is one of several gateways. `tables` are those of the configuration beside `[server]`.
    """
    router = Router([ModelRule(upstream or ScriptedUpstream(), models)])
    config = msgspec.convert({"server": server, **tables}, Config)
    services = build_services(config, router, store or MemoryStore(), clock or Clock(), live)
    await services.start_node(Erasure(services.executor, services.background, services.grace, len))
    try:
        yield services
    finally:
        await services.background.aclose()
        await services.executor.deletions.aclose()
        services.grace.close()
        if live is not None:
            await live.aclose()


def create(text: str = "hello", **fields: object) -> Create:
    """Parse a request as the HTTP endpoint does."""
    parsed = parse_create(json.dumps({"model": "m", "input": text, **fields}).encode(), "http")
    assert not isinstance(parsed, Problem), parsed
    return parsed


def caller(
    services: Services, tenant: str = TENANT, *, slot: Slot | None = None, places: Sequence[Slot] = ()
) -> Caller:
    """Somebody who asks, over a WebSocket if there is a slot."""
    return Caller(Principal(tenant), services.metrics.by_transport["websocket"], slot, places)


async def collect(batches: AsyncGenerator[Sequence[Event], None]) -> list[Event]:
    """Read a turn to its end."""
    return [event async for batch in batches for event in batch]


async def respond(services: Services, asked: Create, by: Caller | None = None) -> dict[str, Any]:
    """Run a turn to its end and return its response object."""
    events = await collect(services.executor.run(asked, by or caller(services)).events())
    return response(events[-1])


def response(event: Event) -> dict[str, Any]:
    """The response object of an event that carries one."""
    decoded: dict[str, Any] = msgspec.json.decode(response_of(event).whole())
    return decoded


def ident(response_object: dict[str, Any]) -> ResponseId:
    """The id of a response object."""
    parsed = parse_response_id(response_object["id"])
    assert parsed is not None
    return parsed


def metric(services: Services, name: str, **labels: str) -> float:
    """One figure of the metrics."""
    return services.metrics.registry.get_sample_value(name, labels) or 0.0


async def nothing(error: Exception | None = None) -> AsyncGenerator[Any, None]:
    """A stream that yields nothing and ends, or fails at once."""
    if error is not None:
        raise error
    for batch in list[Any]():
        yield batch

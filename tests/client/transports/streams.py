"""Events and settings for the tests of transports: a short response, whole or in parts, as servers send it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from segue.client.recovery import TurnFault
from segue.client.settings import ConnectionSettings
from segue.client.transports.http import HttpTransport
from segue.client.transports.interface import EventStream, TransportFault
from segue.http.heads import Line
from segue.testing.provider import Answer, ReceivedRequest, ScriptedProvider, provided

#: How long anything may take that takes milliseconds. Only a failing test waits that long.
PATIENCE_S = 20.0

SSE = (Line(b"Content-Type", b"text/event-stream"),)
JSON = (Line(b"Content-Type", b"application/json"),)
HTML = (Line(b"Content-Type", b"text/html"),)
CREATE = b'{"model":"m","input":"hi"}'


def event(kind: str, number: int, lane: str = "", **more: object) -> bytes:
    """An event as it stands on the wire."""
    tagged = {"stream_id": lane} if lane else {}
    return msgspec.json.encode({"type": kind, **more, "sequence_number": number, **tagged})


def response(response_id: str = "resp_1", lane: str = "") -> tuple[bytes, ...]:
    """The events of a response, from the first to the last."""
    shown = {"id": response_id, "object": "response"}
    return (
        event("response.created", 0, lane, response=shown),
        event("response.output_text.delta", 1, lane, delta="hello"),
        event("response.completed", 2, lane, response=shown),
    )


def refusal(code: str, status: int = 400, lane: str = "", **more: object) -> bytes:
    """An error event."""
    tagged = {"stream_id": lane} if lane else {}
    return msgspec.json.encode(
        {"type": "error", "status": status, "error": {"code": code, "message": "m"}, **more, **tagged}
    )


def sse(*events: bytes) -> tuple[bytes, ...]:
    """Events as pieces of an event stream."""
    return tuple(b"event: x\ndata: %b\n\n" % one for one in events)


def streamed(*events: bytes, **changes: Any) -> Answer:  # noqa: ANN401 - fields of an answer
    """An answer that is a stream of these events."""
    return Answer(lines=SSE, pieces=sse(*events), **changes)


def settings_for(provider: ScriptedProvider, **changes: Any) -> ConnectionSettings:  # noqa: ANN401 - fields of the settings
    """Settings that lead to a provider."""
    changes.setdefault("api_key", "sk-of-the-test")
    return ConnectionSettings(base_url=f"{provider.url}/v1", **changes)


async def drained(stream: EventStream) -> tuple[list[bytes], TurnFault | None]:
    """Read a stream to its end: its events, and the fault that it ended with."""
    events: list[bytes] = []
    try:
        async for one in stream:
            events.append(one)  # noqa: PERF401 - what came before a fault is kept
    except TransportFault as fault:
        return events, fault.fault
    return events, None


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is true that tells nobody when it becomes so."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(
    answer: Answer | Callable[[ReceivedRequest], Answer],
    **changes: Any,  # noqa: ANN401 - fields of the settings
) -> AsyncIterator[tuple[ScriptedProvider, HttpTransport]]:
    script = answer if callable(answer) else lambda _: answer
    async with provided(script) as provider:
        transport = HttpTransport(settings_for(provider, **changes))
        try:
            yield provider, transport
        finally:
            await transport.aclose()


async def create(transport: HttpTransport) -> EventStream:
    return await transport.create(CREATE, lane=1, connection=0)

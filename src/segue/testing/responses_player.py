"""Sends the events of one turn of a double of a Responses server, and does on the way what the turn's fault says.

`TurnPlayer` is the same for every transport; an outlet writes to one: `StreamOutlet` server-sent events, `WholeOutlet`
one JSON object, `SocketOutlet` the messages of a lane. Not here: which turns begin (`responses_rules`), and connections
(`responses_server`).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from typing import Protocol

import msgspec
from aiohttp import web

from segue.testing.response_events import Json, ResponseIdentity, response_object
from segue.testing.responses_faults import Cut, ErrorAt, FailAt, Fault, HoldAt, RestartAt, Rewritten
from segue.testing.responses_rules import ConnectionMemory, CreateRefusal, PlannedTurn, ServerMemory

TERMINAL_EVENTS = frozenset({"response.completed", "response.failed", "response.incomplete"})

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 seconds: closing sends RST
_TEXT_FRAME = 0x81  # RFC 6455, 5.2: a whole text message
_LONG_FRAME = 127  # its length follows in eight bytes


class Outlet(Protocol):
    """Where the events of a turn go."""

    async def send(self, event: Json) -> None:
        """Send an event."""

    async def send_half(self, event: Json) -> None:
        """Send the first half of what the event is on the wire."""

    async def send_error(self, refusal: CreateRefusal, *, flat: bool, number: int) -> None:
        """End the turn with an error."""

    async def close(self, code: int) -> None:
        """Close the connection politely."""

    async def reset(self) -> None:
        """Reset the connection after what was sent."""


class Restart(Protocol):
    """Restarts the server."""

    def __call__(self, *, keeps_stored: bool) -> None:
        """Reset all connections, and forget."""


class _EndedEarly(Exception):
    """A fault ended the turn."""


class TurnPlayer:
    """Plays one turn. The server keeps it before its terminal event leaves, as one does that loses nothing."""

    def __init__(
        self, memory: ServerMemory, turn: PlannedTurn, *, connection: ConnectionMemory | None, restart: Restart
    ) -> None:
        self._memory = memory
        self._turn = turn
        self._connection = connection
        self._restart = restart
        self.ended = False

    async def play(self, outlet: Outlet, fault: Fault | None) -> bool:
        """Send the events, as far as the fault lets them; return whether all were sent."""
        events: Iterable[Json] = self._turn.events
        if isinstance(fault, Rewritten):
            events = fault.rewrite(self._turn.events)
        try:
            for number, event in enumerate(events):
                await self._meet(fault, number, outlet)
                if event["type"] in TERMINAL_EVENTS:
                    await self._finish(event, outlet, fault)
                await outlet.send(event)
            if isinstance(fault, Cut) and fault.at == "end":
                await _cut(fault, outlet)
        except _EndedEarly:
            return False
        return True

    async def _meet(self, fault: Fault | None, number: int, outlet: Outlet) -> None:
        """Do what the fault says before the event with this number."""
        match fault:
            case Cut(at="events", events=at) if at == number:
                await _cut(fault, outlet)
            case RestartAt(events=at) if at == number:
                self._restart(keeps_stored=fault.keeps_stored)
                raise _EndedEarly
            case ErrorAt(events=at) if at == number:
                self._fail()
                await outlet.send_error(fault.refusal, flat=fault.flat, number=number)
                raise _EndedEarly
            case FailAt(events=at) if at == number:
                self._fail()
                await outlet.send(self._failed_event(fault, number))
                raise _EndedEarly
            case HoldAt(events=at) if at == number:
                await fault.gate.wait()
            case _:
                pass

    async def _finish(self, event: Json, outlet: Outlet, fault: Fault | None) -> None:
        if not self.ended:
            self._memory.finish(self._turn, self._connection)
            self.ended = True
        if isinstance(fault, Cut) and fault.at == "terminal":
            await outlet.send_half(event)
            await _cut(fault, outlet)

    def _fail(self) -> None:
        self._memory.fail(self._turn, self._connection)
        self.ended = True

    def _failed_event(self, fault: FailAt, number: int) -> Json:
        begun = self._turn.kept.response
        identity = ResponseIdentity(create=self._turn.create, response_id=begun["id"], created_at=begun["created_at"])
        error = {"code": fault.code, "message": fault.message}
        response = response_object(identity, "failed", [], error=error)
        return {"type": "response.failed", "response": response, "sequence_number": number}


async def _cut(fault: Cut, outlet: Outlet) -> None:
    if fault.close_code is None:
        await outlet.reset()
    else:
        await outlet.close(fault.close_code)
    raise _EndedEarly


# --- outlets ---------------------------------------------------------------------------------------------------------


class StreamOutlet:
    """Server-sent events. The head goes out with the first of them."""

    def __init__(self, request: web.Request, *, ids: bool) -> None:
        self._request = request
        self._ids = ids
        self._response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})

    async def send(self, event: Json) -> None:
        """Send an event in one write."""
        await self._write(self._block(event))

    async def send_half(self, event: Json) -> None:
        """Send the first half of its bytes."""
        block = self._block(event)
        await self._write(block[: len(block) // 2])

    async def send_error(self, refusal: CreateRefusal, *, flat: bool, number: int) -> None:
        """Send an `error` event."""
        await self.send(error_event(refusal, flat=flat, number=number))

    async def close(self, code: int) -> None:
        """End the body; HTTP has no close codes."""
        del code
        await self._prepare()

    async def reset(self) -> None:
        """Reset the connection."""
        await reset(self._request.transport)

    async def finish(self, *, whole: bool) -> web.StreamResponse:
        """Return the response for the server to end it; a stream that is whole says so."""
        if whole:
            await self._write(b"data: [DONE]\n\n")
        return self._response

    async def _prepare(self) -> None:
        if not self._response.prepared:
            await self._response.prepare(self._request)

    async def _write(self, data: bytes) -> None:
        await self._prepare()
        await self._response.write(data)

    def _block(self, event: Json) -> bytes:
        named = f"id: {event['sequence_number']}\n" if self._ids and "sequence_number" in event else ""
        return f"event: {event['type']}\n{named}data: {text_of(event)}\n\n".encode()


class WholeOutlet:
    """One JSON object: the response of the terminal event."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response: web.StreamResponse = web.Response()

    async def send(self, event: Json) -> None:
        """Keep the last response."""
        if event["type"] in TERMINAL_EVENTS:
            self._response = _json(200, event["response"])

    async def send_half(self, event: Json) -> None:
        """Send the head, and half of the object."""
        body = text_of(event["response"]).encode()
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
        await response.prepare(self._request)
        await response.write(body[: len(body) // 2])

    async def send_error(self, refusal: CreateRefusal, *, flat: bool, number: int) -> None:
        """Answer with the error."""
        del flat, number
        self._response = error_response(refusal)

    async def close(self, code: int) -> None:
        """Answer with nothing; HTTP has no close codes."""
        del code

    async def reset(self) -> None:
        """Reset the connection."""
        await reset(self._request.transport)

    async def finish(self, *, whole: bool) -> web.StreamResponse:
        """Return the response."""
        del whole
        return self._response


class SocketOutlet:
    """The messages of one lane of a WebSocket."""

    def __init__(self, request: web.Request, websocket: web.WebSocketResponse, lane: str | None) -> None:
        self._request = request
        self._websocket = websocket
        self._lane: Json = {} if lane is None else {"stream_id": lane}

    async def send(self, event: Json) -> None:
        """Send an event as one message, and let other lanes send theirs."""
        await self._websocket.send_str(text_of({**event, **self._lane}))
        await asyncio.sleep(0)

    async def send_half(self, event: Json) -> None:
        """Send the head of a frame and half of what it announces."""
        data = text_of({**event, **self._lane}).encode()
        transport = self._request.transport
        assert transport is not None, "the connection is open"
        frame = bytes([_TEXT_FRAME, _LONG_FRAME]) + len(data).to_bytes(8, "big") + data
        transport.write(frame[: len(frame) // 2])

    async def send_error(self, refusal: CreateRefusal, *, flat: bool, number: int) -> None:
        """Send an `error` frame."""
        event = error_event(refusal, flat=flat, number=number)
        await self._websocket.send_str(text_of({**event, **self._lane}))

    async def close(self, code: int) -> None:
        """Close the WebSocket."""
        await self._websocket.close(code=code)

    async def reset(self) -> None:
        """Reset the connection."""
        await reset(self._request.transport)


# --- parts -----------------------------------------------------------------------------------------------------------


def text_of(value: object) -> str:
    """Write JSON."""
    return msgspec.json.encode(value).decode()


def _json(status: int, value: object, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=text_of(value), content_type="application/json", headers=headers)


def error_response(refusal: CreateRefusal) -> web.Response:
    """Tell a refusal over HTTP."""
    return _json(refusal.status, {"error": refusal.error()}, _retry_after(refusal))


def error_event(refusal: CreateRefusal, *, flat: bool, number: int | None = None) -> Json:
    """Tell a refusal or an error in a stream. Only a flat one is numbered, as in OpenAI's schema."""
    if flat:
        told = {"code": refusal.code, "message": refusal.message, "param": refusal.param}
        return {"type": "error", **told, "sequence_number": number or 0}
    headers = _retry_after(refusal)
    error = {**refusal.error(), "headers": headers} if headers else refusal.error()
    return {"type": "error", "status": refusal.status, "error": error}


def _retry_after(refusal: CreateRefusal) -> dict[str, str]:
    return {} if refusal.retry_after_s is None else {"retry-after": str(refusal.retry_after_s)}


async def reset(transport: asyncio.Transport | None) -> None:
    """Reset a connection, after what was written to it has gone out."""
    if transport is None:
        return
    while not transport.is_closing() and transport.get_write_buffer_size():  # noqa: ASYNC110 - a buffer tells nobody
        await asyncio.sleep(0)
    reset_now(transport)


def reset_now(transport: asyncio.Transport | None) -> None:
    """Reset a connection; what was not sent yet is lost."""
    if transport is None or transport.is_closing():
        return
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()

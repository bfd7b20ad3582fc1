"""Runs single turns on anybody's Responses server, over HTTP or one WebSocket, and times them; it trusts nothing.

Each turn has a deadline and a bound on what it may send; a broken, refused or endless turn comes back as a value. The
connections are those of the client library, so redirects are not followed, TLS is verified, and keys are left out of
what is quoted. It never retries. Not here: what a reply means (`segue.bench.endpoint`), and a client that costs as
little CPU as possible (`websocket_client`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import aiohttp
import msgspec

from segue.bench.meters.message_threads import ThreadTransport
from segue.client.errors import cut
from segue.client.recovery import TurnFault
from segue.client.settings import TransportKind
from segue.client.transports.event_scan import scan
from segue.client.transports.http import HttpTransport
from segue.client.transports.http_exchange import ServerExchanges
from segue.client.transports.interface import TransportFault
from segue.client.transports.server_errors import ServerWords
from segue.client.transports.upgrade import OpenedSocket, open_socket
from segue.protocol.codec import UNREADABLE

#: What one turn may send. Its answers are a few words; the rest is for servers that echo a lot.
MAX_TURN_BYTES = 8 * 1024 * 1024
_MAX_TEXT_CHARS = 4_000
_MAX_ID_CHARS = 512
_STREAM_MEMBER = len(b'"stream":true,')

Json = dict[str, Any]
TurnEnd = Literal["completed", "incomplete", "failed", "fault"]


class TurnReply(msgspec.Struct, frozen=True, kw_only=True):
    """What one create came to. `fault` says what went wrong with it; a failed response has one, too."""

    ended: TurnEnd
    response_id: str | None = None
    text: str = ""
    lane: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    fault: TurnFault | None = None
    bytes_up_payload: int = 0
    bytes_up_wire: int = 0
    bytes_down_wire: int = 0
    ttft_s: float | None = None
    time_s: float = 0.0

    @property
    def answered(self) -> bool:
        """Whether the model answered."""
        return self.ended in {"completed", "incomplete"}


class _ReadResponse(msgspec.Struct):
    id: Any = None
    output: Any = None
    usage: Any = None
    error: Any = None
    status: Any = None


class _ReadEvent(msgspec.Struct):
    type: str | None = None
    object: str | None = None
    delta: Any = None
    response: _ReadResponse | None = None
    stream_id: Any = None


class ReplyReader:
    """Reads the events of one turn. Pure: times are passed in."""

    def __init__(self, begun_s: float) -> None:
        self._begun_s = begun_s
        self._size = 0
        self._pieces: list[str] = []
        self._chars = 0
        self._first_s: float | None = None
        self._lane = ""
        self._ended: TurnReply | None = None

    @property
    def ended(self) -> TurnReply | None:
        """The reply, after its last event."""
        return self._ended

    def feed(self, data: bytes, now_s: float) -> None:
        """Take the JSON of one event, or of a whole response."""
        self._size += len(data)
        if self._size > MAX_TURN_BYTES:
            self.break_off(_unreadable("The answer is too large."), now_s)
            return
        try:
            event = msgspec.json.decode(data, type=_ReadEvent)
            whole = msgspec.json.decode(data, type=_ReadResponse) if event.object == "response" else event.response
        except UNREADABLE:
            self.break_off(_unreadable("An event is not as the API has it."), now_s)
            return
        if isinstance(event.stream_id, str):
            self._lane = cut(event.stream_id)
        kind = event.type or ""
        if kind.endswith(".delta"):
            self._take_piece(kind, event.delta, now_s)
        ends = (kind.removeprefix("response.") if event.object is None else whole and whole.status) or ""
        if ends in {"completed", "incomplete", "failed"}:
            self._end(ends, whole or _ReadResponse(), now_s)

    def break_off(self, fault: TurnFault, now_s: float) -> None:
        """End the turn with a fault."""
        self._ended = self._reply("fault", now_s, fault=fault)

    def _take_piece(self, kind: str, delta: object, now_s: float) -> None:
        if self._first_s is None:
            self._first_s = now_s - self._begun_s
        if kind == "response.output_text.delta" and isinstance(delta, str) and self._chars < _MAX_TEXT_CHARS:
            self._pieces.append(delta)
            self._chars += len(delta)

    def _end(self, ends: str, response: _ReadResponse, now_s: float) -> None:
        if ends == "failed":
            message = _text_of(response.error, "message")
            code = _text_of(response.error, "code")
            fault = TurnFault(kind="failed", transport="http", code=code, message=message)
            self._ended = self._reply("failed", now_s, fault=fault)
            return
        text = "".join(self._pieces) or written_text(response.output)
        reply = self._reply("completed" if ends == "completed" else "incomplete", now_s)
        self._ended = msgspec.structs.replace(
            reply,
            response_id=response.id if isinstance(response.id, str) and len(response.id) <= _MAX_ID_CHARS else None,
            text=text[:_MAX_TEXT_CHARS],
            input_tokens=_count_of(response.usage, "input_tokens"),
            output_tokens=_count_of(response.usage, "output_tokens"),
        )

    def _reply(self, ended: TurnEnd, now_s: float, *, fault: TurnFault | None = None) -> TurnReply:
        time_s = now_s - self._begun_s
        return TurnReply(ended=ended, lane=self._lane, fault=fault, ttft_s=self._first_s, time_s=time_s)


def written_text(output: object) -> str:
    """Return the text of the messages of a response's output."""
    parts: list[str] = []
    for item in output if isinstance(output, list) else ():
        content = item.get("content") if isinstance(item, dict) else None
        found = (_text_part(part) for part in (content if isinstance(content, list) else ()))
        parts += [text for text in found if text]
    return "".join(parts)


def _text_part(part: object) -> str | None:
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else None


def _text_of(value: object, name: str) -> str | None:
    found = value.get(name) if isinstance(value, dict) else None
    return cut(found) if isinstance(found, str) else None


def _count_of(usage: object, name: str) -> int | None:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def _unreadable(message: str) -> TurnFault:
    return TurnFault(kind="unreadable", transport="http", message=message)


# --- over HTTP -------------------------------------------------------------------------------------------------------


class HttpTurns:
    """Turns over HTTP. Connections are kept from turn to turn, as agents keep them."""

    transport: TransportKind = "http"

    def __init__(self, http: HttpTransport | ThreadTransport, deadline_s: float) -> None:
        self._http = http
        self._deadline_s = deadline_s

    async def turn(self, create: Mapping[str, Any]) -> TurnReply:
        """Run one turn."""
        body = msgspec.json.encode(create)
        begun_s, meter = time.perf_counter(), self._http.meter
        reader, before = ReplyReader(begun_s), (meter.sent_bytes, meter.received_bytes)
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._read(reader, body)
        except TransportFault as fault:
            reader.break_off(fault.fault, time.perf_counter())
        except TimeoutError:
            reader.break_off(_late("http"), time.perf_counter())
        assert reader.ended is not None, "a stream ends with its last event or raises"
        own = self._http.payload_bytes if isinstance(self._http, ThreadTransport) else len(body) + _STREAM_MEMBER
        return msgspec.structs.replace(
            reader.ended,
            bytes_up_payload=own,
            bytes_up_wire=meter.sent_bytes - before[0],
            bytes_down_wire=meter.received_bytes - before[1],
        )

    async def _read(self, reader: ReplyReader, body: bytes) -> None:
        stream = await self._http.create(body, lane=0, connection=0)
        try:
            async for data in stream:
                reader.feed(data, time.perf_counter())
                if reader.ended is not None:
                    return
        finally:
            await stream.aclose()
        reader.break_off(TurnFault(kind="stream_ended", transport="http"), time.perf_counter())


# --- over a WebSocket ------------------------------------------------------------------------------------------------


class SocketTurns:
    """Turns over one WebSocket."""

    transport: TransportKind = "websocket"

    def __init__(self, server: ServerExchanges, opened: OpenedSocket, deadline_s: float) -> None:
        self._server = server
        self._opened = opened
        self._deadline_s = deadline_s

    async def turn(self, create: Mapping[str, Any]) -> TurnReply:
        """Run one turn."""
        (reply,) = await self.run((create,))
        return reply

    async def run(self, creates: Sequence[Mapping[str, Any]]) -> list[TurnReply]:
        """Send creates one right after the other, each in a lane of its own, and read until all have ended."""
        bodies = [msgspec.json.encode({"type": "response.create", **create}) for create in creates]
        begun_s = time.perf_counter()
        readers = {create.get("stream_id", ""): ReplyReader(begun_s) for create in creates}
        meter = self._opened.meter
        before = (meter.sent_bytes, meter.received_bytes)
        try:
            async with asyncio.timeout(self._deadline_s):
                for body in bodies:
                    await self._opened.socket.send_str(body.decode())
                while any(reader.ended is None for reader in readers.values()):
                    await self._receive(readers)
        except TimeoutError:
            self._break_off(readers, _late("websocket"))
        except (OSError, aiohttp.ClientError):
            self._break_off(readers, TurnFault(kind="connection_lost", transport="websocket"))
        carried = (meter.sent_bytes - before[0], meter.received_bytes - before[1])
        replies = [reader.ended for reader in readers.values() if reader.ended is not None]
        return [
            msgspec.structs.replace(
                reply, bytes_up_payload=len(body), bytes_up_wire=carried[0], bytes_down_wire=carried[1]
            )
            for reply, body in zip(replies, bodies, strict=True)
        ]

    async def aclose(self) -> None:
        """Break the connection: a server need not be waited for."""
        self._opened.abort()

    async def _receive(self, readers: Mapping[str, ReplyReader]) -> None:
        message = await self._opened.socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            fault = TurnFault(kind="connection_lost", transport="websocket", close_code=self._opened.socket.close_code)
            self._break_off(readers, fault)
            return
        data, now_s = bytes(message.data), time.perf_counter()
        event = scan(data)
        if event is None:
            self._break_off(readers, _unreadable("A message is no event."))
        elif event.error:
            words = self._server.words.read_event(data, time.time()) or ServerWords()
            self._of_lane(readers, event.lane).break_off(words.fault("refused", "websocket"), now_s)
        elif event.of_response:
            self._of_lane(readers, event.lane).feed(data, now_s)

    def _of_lane(self, readers: Mapping[str, ReplyReader], lane: str) -> ReplyReader:
        """Return whose event it is: its lane's, or the first turn's that runs, where the server has no lanes."""
        named = readers.get(lane)
        if named is not None and named.ended is None:
            return named
        return next(reader for reader in readers.values() if reader.ended is None)

    def _break_off(self, readers: Mapping[str, ReplyReader], fault: TurnFault) -> None:
        for reader in readers.values():
            if reader.ended is None:
                reader.break_off(fault, time.perf_counter())


async def open_turns(server: ServerExchanges, deadline_s: float) -> SocketTurns | TurnFault:
    """Open a WebSocket; returns what went wrong if there is none."""
    try:
        async with asyncio.timeout(deadline_s):
            return SocketTurns(server, await open_socket(server), deadline_s)
    except TransportFault as fault:
        return fault.fault
    except TimeoutError:
        return _late("websocket")


def _late(transport: TransportKind) -> TurnFault:
    return TurnFault(kind="timeout", transport=transport, message="The turn did not end in time.")

"""A client of Anthropic's message threads, as a transport of the client library: what the library says goes to
`/v1/messages`, and what comes back are the events of the Responses API.

It asks as Anthropic's own SDKs do: a request without a parent creates a thread and has everything; one that continues a
response has the new messages alone, since the server keeps `system` and `tools`. It never repeats a request, and begins
no thread anew: that a server loses one is a result. Not here: what is measured of it (`turn_meter`), and the reader of
the stream (`segue.dialects.messages.stream`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import aiohttp
import msgspec

from segue.client.capabilities import PLAIN_SERVER
from segue.client.recovery import TurnFault
from segue.client.settings import ConnectionSettings
from segue.client.transports.http_exchange import ServerExchanges, fault_of
from segue.client.transports.interface import Connected, EventStream, TransportFault
from segue.dialects.messages.stream import MessagesDecoder
from segue.http.sse import SseEvent, SseReader
from segue.http_client.body import JsonBody
from segue.http_client.reply_body import read_piece, read_start
from segue.http_client.wire_meter import WireMeter
from segue.protocol.codec import UNREADABLE
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.requests import LeanForm, Settings
from segue.protocol.responses import encode_echo
from segue.protocol.turns import TurnStream

#: The header lines of a client of message threads (https://platform.claude.com/docs/en/build-with-claude/message-threads).
THREAD_HEADERS = (("anthropic-version", "2023-06-01"), ("anthropic-beta", "message-threads-2026-08-12"))
#: A limit that this API demands.
_MAX_TOKENS = 4096
_OK = 200
_STREAM = "text/event-stream"
#: How long the end of a stream may take to come after its last event, and how much may come.
_TAIL_S, _MOST_TAIL_BYTES = 2.0, 64 * 1024
_PROVIDER = "bench"

Json = dict[str, Any]


class ThreadObserver(Protocol):
    """What is told of a turn as it goes over the wire; `TurnMeter` is one."""

    def sent(self, create: bytes) -> None:
        """Note the body of a request."""

    def received(self, event: bytes, kind: str) -> None:
        """Note the data of an event, and its type."""


class _SaidItem(msgspec.Struct):
    type: str = "message"
    content: Any = None
    call_id: str = ""
    output: Any = None


class _CreateToCarry(msgspec.Struct):
    model: str
    input: list[_SaidItem] | str
    instructions: str | None = None
    tools: list[Json] = []
    previous_response_id: str | None = None
    max_output_tokens: int | None = None


class _MessageStart(msgspec.Struct):
    message: Json


_creates = msgspec.json.Decoder(_CreateToCarry)
_starts = msgspec.json.Decoder(_MessageStart)


class ThreadTransport:
    """One server. `payload_bytes`: the size of the last body."""

    def __init__(self, settings: ConnectionSettings, observer: ThreadObserver | None = None) -> None:
        self.server = ServerExchanges(msgspec.structs.replace(settings, headers=(*settings.headers, *THREAD_HEADERS)))
        self.observer = observer
        self.messages: dict[str, str] = {}
        """The ids of messages, by those that the library calls them by."""
        self.payload_bytes = 0

    @property
    def kind(self) -> Literal["http"]:
        """Which transport it is."""
        return "http"

    @property
    def meter(self) -> WireMeter:
        """What all connections have carried."""
        return self.server.meter

    async def connect(self, *, lane: int, near: int | None = None, fresh: bool = False) -> Connected:  # noqa: ARG002 - over HTTP a lane has no connection
        """Ask nothing: the request makes the connection."""
        return Connected(0, PLAIN_SERVER)

    async def create(self, body: bytes, *, lane: int, connection: int) -> EventStream:  # noqa: ARG002 - as above
        """Send a request."""
        written = self.write(body)
        self.payload_bytes = len(written)
        if self.observer is not None:
            self.observer.sent(written)
        before = (self.meter.sent_bytes, self.meter.received_bytes)
        url, upload = self.server.base_url / "messages", JsonBody((written,))
        response = await self.server.send("POST", url, accept=_STREAM, body=upload)
        if response.status != _OK or response.content_type != _STREAM:
            raise await self.server.refusal(response)
        return _ThreadStream(self, response, before)

    def write(self, body: bytes) -> bytes:
        """Write a create as a request of this API."""
        create = _creates.decode(body)
        asked: Json = {"model": create.model, "max_tokens": create.max_output_tokens or _MAX_TOKENS, "stream": True}
        previous = create.previous_response_id
        if previous is None:
            asked |= {"thread": {"type": "create"}} | _settings(create)
        else:
            message_id = self.messages.get(previous, previous)
            asked["thread"] = {"type": "continue", "previous_message_id": message_id}
        return msgspec.json.encode({**asked, "messages": _messages(create.input)})

    async def resume(
        self,
        response_id: str,  # noqa: ARG002 - as above
        starting_after: int,  # noqa: ARG002 - as above
        *,
        lane: int,  # noqa: ARG002 - as above
        connection: int,  # noqa: ARG002 - as above
        lean: LeanForm = False,  # noqa: ARG002 - as above
    ) -> EventStream:
        """Say that this API has nothing for it."""
        raise _absent()

    async def retrieve(self, response_id: str) -> bytes:  # noqa: ARG002 - as above
        """Say that this API has nothing for it."""
        raise _absent()

    async def forget(self, response_id: str) -> None:
        """Do nothing: this API has nothing for it."""

    def release(self, lane: int) -> None:
        """Forget a lane: over HTTP it holds nothing."""

    async def aclose(self) -> None:
        """Close all connections."""
        await self.server.aclose()


class _ThreadStream:
    """The events of one message, as those of a response."""

    def __init__(self, transport: ThreadTransport, response: aiohttp.ClientResponse, before: tuple[int, int]) -> None:
        self._transport = transport
        self._response = response
        self._id = new_response_id(os.urandom(ENTROPY_BYTES), None)
        self._reader = SseReader(transport.server.settings.max_message_bytes)
        self._decoder = MessagesDecoder(self._id, _PROVIDER)
        echo = encode_echo(Settings(model=""), store=True)  # to the library, that it can be continued
        self._turn = TurnStream(self._id, None, echo, time.time())
        self._ready = deque(event.whole() for event in self._turn.open())
        self._over = False
        self._before = before

    @property
    def wire_sent_bytes(self) -> int:
        """What all connections have carried since the request was sent."""
        return self._transport.meter.sent_bytes - self._before[0]

    @property
    def wire_received_bytes(self) -> int:
        """As above."""
        return self._transport.meter.received_bytes - self._before[1]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            await self._read()
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Stop reading. The connection serves the next request if the answer has ended; else it is broken."""
        if self._over:
            await read_start(self._response, limit=_MOST_TAIL_BYTES, patience_s=_TAIL_S)
        self._response.release()

    async def _read(self) -> None:
        settings = self._transport.server.settings
        try:
            async with asyncio.timeout(settings.idle_timeout_s):
                piece = await read_piece(self._response.content)
        except (OSError, aiohttp.ClientError) as error:
            self._response.close()
            raise TransportFault(fault_of(error, "http")) from error
        if not piece or self._reader.overflowed:
            self._response.close()
            raise TransportFault(TurnFault(kind="stream_ended", transport="http"))
        for event in self._reader.feed(piece):
            self._take(event)

    def _take(self, event: SseEvent) -> None:
        if self._transport.observer is not None:
            self._transport.observer.received(event.data, event.type)
        if event.type == "message_start":
            self._name(event.data)
        self._ready += (one.whole() for one in self._turn.feed(self._decoder.feed(event)))
        if self._turn.ended is not None and not self._over:
            self._over = True
            self._ready.append(self._turn.close(self._turn.ended, time.time()).terminal.whole())

    def _name(self, data: bytes) -> None:
        try:
            ident = _starts.decode(data).message.get("id")
        except UNREADABLE:
            return
        if isinstance(ident, str):
            self._transport.messages[self._id] = ident


def _absent() -> TransportFault:
    return TransportFault(TurnFault(kind="unreadable", transport="http", message="Message threads have no such thing."))


def _settings(create: _CreateToCarry) -> Json:
    system = {} if create.instructions is None else {"system": create.instructions}
    tools = [_tool(tool) for tool in create.tools]
    return {**system, **({"tools": tools} if tools else {})}


def _tool(tool: Mapping[str, Any]) -> Json:
    described = {"description": tool["description"]} if "description" in tool else {}
    return {"name": tool["name"], **described, "input_schema": tool.get("parameters") or {"type": "object"}}


def _messages(said: Sequence[_SaidItem] | str) -> list[Json]:
    """Write what the client says now: one message of the user, with the outputs of tools first."""
    if isinstance(said, str):
        return [{"role": "user", "content": said}]
    blocks = [_block(item) for item in said]
    blocks.sort(key=lambda block: block["type"] != "tool_result")  # as this API demands
    return [{"role": "user", "content": blocks}]


def _block(item: _SaidItem) -> Json:
    if item.type == "function_call_output":
        return {"type": "tool_result", "tool_use_id": item.call_id, "content": item.output}
    content = item.content
    return {"type": "text", "text": content if isinstance(content, str) else _joined(content)}


def _joined(parts: Sequence[Mapping[str, str]]) -> str:
    return "".join(part["text"] for part in parts)

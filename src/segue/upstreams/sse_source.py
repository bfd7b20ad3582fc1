"""The body of a provider's reply as the events of a stream: server-sent events, read a piece at a time.

A body that has come to its end leaves its connection for the next turn; one that is dropped before breaks it. Some
servers announce a stream and send an error as plain JSON: `error_instead` finds it. Not here: what the events mean, and
how long a stream may be silent (`provider_stream`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import aiohttp

from segue.dialects.error_shapes import find_error
from segue.dialects.provider_errors import ProviderError
from segue.http.sse import MAX_EVENT_BYTES, SseEvent, SseReader
from segue.http_client.body import JsonBody
from segue.http_client.reply_body import read_piece
from segue.protocol.events import Ended
from segue.upstreams.failures import MAX_REFUSAL_BYTES

#: What may follow the end of the turn before the connection is given up, in bytes and seconds.
_TAIL_BYTES = 64 * 1024
_TAIL_S = 2.0
#: What is read of a stream before others have their turn: to pass on the events of so much takes some milliseconds.
_PIECE_BYTES = 4 * 1024


class SseSource:
    """The body of one reply. After a large read, of this size, it waits for its `turn` to go on."""

    def __init__(
        self, response: aiohttp.ClientResponse, body: JsonBody, *, turn: Callable[[int], Awaitable[None]]
    ) -> None:
        self._response = response
        self._content = response.content
        self._body = body
        self._turn = turn
        self._head: bytes | None = b""  # of the body, until it shows an event
        self._reader = SseReader(MAX_EVENT_BYTES)
        self._rest = b""  # of what has arrived
        self._large = 0  # bytes of the last read, if it takes some time to pass them on

    @property
    def headers(self) -> Mapping[str, str]:
        """The header lines of the reply."""
        return self._response.headers

    @property
    def overflowed(self) -> bool:
        """Whether an event was too large."""
        return self._reader.overflowed

    async def next_events(self) -> list[SseEvent] | None:
        """Return the events of the next read, often none; None at the end of the body."""
        data = await self._next_piece()
        if not data:
            return None
        events = self._reader.feed(data)
        if self._head is not None:
            self._head = None if events else (self._head + data)[:MAX_REFUSAL_BYTES]
        return events

    async def _next_piece(self) -> bytes:
        """Return what has arrived, a piece at a time: thousands of small events at once would hold up all others."""
        if self._large:
            await self._turn(self._large)
        data = self._rest or await read_piece(self._content)
        self._rest = data[_PIECE_BYTES:]
        piece = data[:_PIECE_BYTES] if self._rest else data
        self._large = len(piece) if len(piece) == _PIECE_BYTES else 0
        return piece

    def error_instead(self) -> ProviderError | None:
        """Return the error that the body was, if it was no stream at all."""
        return find_error(self._head) if self._head else None

    def forget_request(self) -> None:
        """Give up the body of the request: there is no other attempt."""
        self._body.forget()

    def release(self, *, ended: Ended | None) -> asyncio.Task[None] | None:
        """Break the connection, or keep it for the next turn: then return the task that reads what is left."""
        if ended is None or self._content.at_eof():
            self.drop()
            return None
        tail = asyncio.create_task(self.read_tail())
        tail.add_done_callback(lambda _: self.drop())
        return tail

    def drop(self) -> None:
        """Break the connection, unless the whole reply has been read."""
        drop(self._response, self._body)

    async def read_tail(self) -> None:
        """Read what follows the end of the turn, such as `[DONE]`, so that the connection can be used again."""
        size = 0
        try:
            async with asyncio.timeout(_TAIL_S):
                while size < _TAIL_BYTES and (piece := await self._content.readany()):
                    size += len(piece)
        except (OSError, aiohttp.ClientError):
            pass  # the connection is of no use to the next turn


def drop(response: aiohttp.ClientResponse, body: JsonBody) -> None:
    """Break a response's connection, unless the response is complete: its connection may be another turn's by now."""
    if response.connection is not None:
        body.abort()
    response.close()

"""The reply stream of a provider: server-sent events in, events of the turn out, from the head of the reply on.

The stream is read only when its turn asks for more, so that a slow client slows its own provider. A stream that has
ended leaves its connection for the next turn; one that is dropped before breaks it. So does one that says everything
and then does not end: its turn ends without it. Not here: sending the request and retrying (`http`), and what the
events mean (the dialect's decoder).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import get_args

import aiohttp
import msgspec

from segue.dialects.error_shapes import find_error
from segue.dialects.interface import NOTHING, Awaited, Rendered, ReplyDecoder
from segue.dialects.key_redaction import KeyRedactor
from segue.dialects.provider_errors import DOCUMENTED, code_of_word, failure_of
from segue.dialects.refused_fields import refused_fields
from segue.http.sse import MAX_EVENT_BYTES, SseReader
from segue.http_client.body import JsonBody
from segue.http_client.reply_body import read_piece
from segue.protocol.events import Ended, Event
from segue.protocol.problems import Code, Problem
from segue.protocol.responses import Failure
from segue.upstreams.failures import (
    MAX_REFUSAL_BYTES,
    TRANSIENT,
    read_request_id,
    speaks_against_server,
    tell_end,
)
from segue.upstreams.retries import FailedAttempt

#: The codes that a stream can fail with, by their names. A provider's server error is none of the gateway's.
_CODES: Mapping[str, Code] = MappingProxyType(
    {code: code for code in get_args(Code)} | {"server_error": "upstream_error"}
)

#: How long the end of a stream may take when all of the answer and its usage are there. Some servers send neither
#: `[DONE]` nor the end of the body.
_END_S = 2.0

#: The status that a refusal would have if it did not come in a stream.
_REFUSED = 400

#: What may follow the end of the turn before the connection is given up, in bytes and seconds.
_TAIL_BYTES = 64 * 1024
_TAIL_S = 2.0
#: What is read of a stream before others have their turn.
_PIECE_BYTES = 16 * 1024


class StreamLimits(msgspec.Struct, frozen=True):
    """`pace` is told the size of a large read, and the time, and tells how long the next one has to wait."""

    idle_timeout_s: float
    pace: Callable[[int, float], float]


class ProviderStream:
    """One reply stream of the upstream called `name`, which may be silent for `idle_timeout_s`.

    `redactor` knows the keys that were sent; `clients_key`: one of them is the client's own. `rendered` is the request.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        body: JsonBody,
        decoder: ReplyDecoder,
        *,
        name: str,
        limits: StreamLimits,
        clients_key: bool,
        redactor: KeyRedactor,
        rendered: Rendered,
    ) -> None:
        self._response = response
        self._pace = limits.pace
        self._content = response.content
        self._body = body
        self.decoder = decoder
        self._name = name
        self._idle_timeout_s = limits.idle_timeout_s
        self._clients_key = clients_key
        self._redactor = redactor
        self._rendered = rendered
        self._head: bytes | None = b""  # of the body, until it shows an event
        self._reader = SseReader(MAX_EVENT_BYTES)
        self._rest = b""  # of what has arrived
        self._large = 0  # bytes of the last read, if it takes some time to pass them on
        self._awaited: Awaited = "answer"
        self._deadline = 0.0  # of the end of the stream, once the answer is there
        self._forwarded = False
        self._cut = False
        self.broken = False

    @property
    def at_eof(self) -> bool:
        """Whether the whole reply has been read."""
        return self._content.at_eof()

    async def read(self) -> list[Event | Ended]:
        """Return the events of the next read, often none; at the end of the stream, how the turn ended."""
        output = await self._read()
        last = output[-1] if output else None
        if isinstance(last, Ended):
            output[-1] = tell_end(
                last, self._name, clients_key=self._clients_key, redactor=self._redactor, ours=self._rendered.warnings
            )
        return output

    async def _read(self) -> list[Event | Ended]:
        decoder, name = self.decoder, self._name
        try:
            async with asyncio.timeout_at(self._next_deadline()):
                data = await self._next_piece()
        except TimeoutError:
            self.broken = True
            if decoder.awaited != "answer":
                return decoder.end()
            message = f"The upstream {name!r} said nothing for {self._idle_timeout_s:g} s."
            return decoder.fail(Failure("upstream_timeout", message))
        except (OSError, aiohttp.ClientError):
            self.broken = self._cut = True
            return decoder.end(truncated=True)
        if not data:
            return self._on_eof()
        events = self._reader.feed(data)
        if self._head is not None:
            self._head = None if events else (self._head + data)[:MAX_REFUSAL_BYTES]
        output: list[Event | Ended] = []
        for event in events:
            output += decoder.feed(event)
        if self._reader.overflowed:
            self.broken = True
            output += decoder.fail(
                Failure("upstream_protocol_error", f"An event of the upstream {name!r} is too large.")
            )
        return output

    async def _next_piece(self) -> bytes:
        """Return what has arrived, a piece at a time: thousands of small events at once would hold up all others."""
        if self._large:
            await asyncio.sleep(self._pace(self._large, asyncio.get_running_loop().time()))
        data = self._rest or await read_piece(self._content)
        self._rest = data[_PIECE_BYTES:]
        piece = data[:_PIECE_BYTES] if self._rest else data
        self._large = len(piece) if len(piece) > _PIECE_BYTES // 4 else 0
        return piece

    def _on_eof(self) -> list[Event | Ended]:
        """End the turn. Some servers announce a stream and send an error as plain JSON."""
        error = find_error(self._head) if self._head else None
        if error is not None:
            return self.decoder.fail(failure_of(error))
        self._cut = True
        return self.decoder.end()

    def _next_deadline(self) -> float:
        """Return until when the next bytes must come. Once the answer is there, pings do not put it off."""
        now, awaited = asyncio.get_running_loop().time(), self.decoder.awaited
        if awaited == "answer" or awaited != self._awaited:
            wait_s = min(_END_S, self._idle_timeout_s) if awaited == "end" else self._idle_timeout_s
            self._awaited, self._deadline = awaited, now + wait_s
        return self._deadline

    def failure_of(self, batch: Sequence[Event | Ended]) -> FailedAttempt | None:
        """Return the failure if the stream fails before any event that a client could have seen, else None."""
        if self._forwarded or not batch:
            return None
        self._forwarded = True
        ended = batch[0]
        if not isinstance(ended, Ended) or ended.error is None:
            self._body.forget()  # there is no other attempt
            self._rendered = msgspec.structs.replace(self._rendered, pieces=())
            return None
        code = _CODES.get(ended.error.code) or code_of_word(ended.error.code) or "upstream_error"
        transient = code in TRANSIENT and not (self._cut or self.broken)  # the provider had begun
        documented = ended.error.code if ended.error.code in DOCUMENTED else None
        problem = Problem(code, ended.error.message, retry_after_s=ended.retry_after_s, documented_code=documented)
        request_id = read_request_id(self._response.headers, self._redactor)
        message, own = ended.error.message.encode("utf-8", "replace"), self._rendered.own_fields
        refused = refused_fields(_REFUSED, message, own) if code == "upstream_rejected" else NOTHING
        return FailedAttempt(
            problem,
            transient=transient,
            request_id=request_id,
            refused_fields=refused,
            elsewhere=transient,
            unhealthy=speaks_against_server(code, clients_key=self._clients_key),
        )

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

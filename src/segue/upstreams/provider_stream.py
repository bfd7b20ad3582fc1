"""The reply stream of a provider: its events in, events of the turn out, from the head of the reply on.

The stream is read only when its turn asks for more, so that a slow client slows its own provider. A stream that has
ended leaves its connection for the next turn; one that is dropped before breaks it. So does one that says everything
and then does not end: its turn ends without it. Not here: sending the request and retrying (`http`), what the events
come on (`sse_source`), and what they mean (the dialect's decoder).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, get_args

import aiohttp
import msgspec

from segue.dialects.interface import NOTHING, Awaited, Rendered, ReplyDecoder
from segue.dialects.key_redaction import KeyRedactor
from segue.dialects.provider_errors import DOCUMENTED, ProviderError, code_of_word, failure_of
from segue.dialects.refused_fields import refused_fields
from segue.http.sse import SseEvent
from segue.protocol.events import Ended, Event
from segue.protocol.problems import Code, Problem
from segue.protocol.responses import Failure
from segue.upstreams.failures import (
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


class ReaderOutrunError(ConnectionError):
    """The turn was given up, since its client reads more slowly than others that share its connection."""


class EventSource(Protocol):
    """What the events of one reply come on."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The header lines of the reply."""

    @property
    def overflowed(self) -> bool:
        """Whether an event was too large; the source is of no use any more."""

    async def next_events(self) -> Sequence[SseEvent] | None:
        """Return the events that come next, perhaps none yet; None if there will be no more.

        Raises:
            ReaderOutrunError: the turn was given up, since its reader is too slow.
            OSError, aiohttp.ClientError: the connection is broken.
        """

    def error_instead(self) -> ProviderError | None:
        """Return the error that came where a stream was announced."""

    def forget_request(self) -> None:
        """Give up the request: there is no other attempt."""

    def release(self, *, ended: Ended | None) -> asyncio.Task[None] | None:
        """Keep the connection for the next turn if the stream has `ended` well, and else break it.

        Returns what must still be done to keep it.
        """


class ProviderStream:
    """One reply stream of the upstream called `name`, which may be silent for `idle_timeout_s`.

    `redactor` knows the keys that were sent; `clients_key`: one of them is the client's own. `rendered` is the request.
    """

    def __init__(
        self,
        source: EventSource,
        decoder: ReplyDecoder,
        *,
        name: str,
        idle_timeout_s: float,
        clients_key: bool,
        redactor: KeyRedactor,
        rendered: Rendered,
    ) -> None:
        self._source = source
        self.decoder = decoder
        self._name = name
        self._idle_timeout_s = idle_timeout_s
        self._clients_key = clients_key
        self._redactor = redactor
        self._rendered = rendered
        self._awaited: Awaited = "answer"
        self._deadline = 0.0  # of the end of the stream, once the answer is there
        self._forwarded = False
        self._cut = False
        self._ended: Ended | None = None
        self._released = False
        self.broken = False

    async def read(self) -> list[Event | Ended]:
        """Return the events of the next read, often none; at the end of the stream, how the turn ended."""
        output = await self._read()
        last = output[-1] if output else None
        if isinstance(last, Ended):
            self._ended = last
            output[-1] = tell_end(
                last, self._name, clients_key=self._clients_key, redactor=self._redactor, ours=self._rendered.warnings
            )
        return output

    async def _read(self) -> list[Event | Ended]:
        decoder, name = self.decoder, self._name
        try:
            async with asyncio.timeout_at(self._next_deadline()):
                events = await self._source.next_events()
        except TimeoutError:
            self.broken = True
            if decoder.awaited != "answer":
                return decoder.end()
            message = f"The upstream {name!r} said nothing for {self._idle_timeout_s:g} s."
            return decoder.fail(Failure("upstream_timeout", message))
        except ReaderOutrunError:
            self.broken = True
            message = f"The client reads more slowly than others that share its WebSocket to the upstream {name!r}."
            return decoder.fail(Failure("upstream_error", message))
        except (OSError, aiohttp.ClientError):
            self.broken = self._cut = True
            return decoder.end(truncated=True)
        if events is None:
            return self._on_eof()
        output: list[Event | Ended] = []
        for event in events:
            output += decoder.feed(event)
        if self._source.overflowed:
            self.broken = True
            output += decoder.fail(
                Failure("upstream_protocol_error", f"An event of the upstream {name!r} is too large.")
            )
        return output

    def _on_eof(self) -> list[Event | Ended]:
        """End the turn. Some servers announce a stream and send an error as plain JSON."""
        error = self._source.error_instead()
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
            self._source.forget_request()  # there is no other attempt
            self._rendered = msgspec.structs.replace(self._rendered, pieces=())
            return None
        code = _CODES.get(ended.error.code) or code_of_word(ended.error.code) or "upstream_error"
        transient = code in TRANSIENT and not (self._cut or self.broken)  # the provider had begun
        documented = ended.error.code if ended.error.code in DOCUMENTED else None
        problem = Problem(code, ended.error.message, retry_after_s=ended.retry_after_s, documented_code=documented)
        request_id = read_request_id(self._source.headers, self._redactor)
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

    def release(self) -> asyncio.Task[None] | None:
        """Keep the connection of a reply that has ended for the next turn, and break that of one that still comes."""
        if self._released:
            return None
        self._released = True
        return self._source.release(ended=None if self.broken else self._ended)

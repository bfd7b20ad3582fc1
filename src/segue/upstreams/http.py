"""The client for providers: one for all dialects, over HTTP with server-sent events.

A turn takes its place (`admission`), its request is rendered by the dialect and sent, and what comes back goes through
the SSE reader into the dialect's decoder. Tries that fail before anything was forwarded are repeated as `retries`
decides. The upstream's request lives as long as the turn: whoever stops asking for batches, or is cancelled, breaks its
connection at once, even in the middle of an upload. A reply that came to its end leaves the connection for the next
turn. A turn has its slot at the server, if the server has such, for as long as its place, through all its tries.
Nothing that is sent or received is logged. Not here: what the bytes mean (`dialects`), what a refusal means
(`failures`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import get_args

import aiohttp
import msgspec

from segue import __version__
from segue.dialects.interface import Dialect, Rendered, ReplyDecoder
from segue.dialects.render_cache import RenderCache
from segue.http.sse import MAX_EVENT_BYTES, SseReader
from segue.protocol.events import Ended, Event
from segue.protocol.problems import Code, Problem, Refused
from segue.protocol.responses import Failure
from segue.upstreams.admission import AdmissionQueue
from segue.upstreams.conversation_key import conversation_key_of
from segue.upstreams.failures import MAX_REFUSAL_BYTES, PASSING, read_refusal, read_request_id
from segue.upstreams.http_body import JsonBody
from segue.upstreams.http_connector import DesyncSafeConnector
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.retries import FailedAttempt, RetryPolicy, wait_before_retry
from segue.upstreams.session_affinity import SessionAffinity
from segue.upstreams.slots import SLOT_FIELD, SlotTable

_log = logging.getLogger("segue.upstreams")

_STREAM = "text/event-stream"
_OK = 200

#: Header lines of every request. Compression would hold back events.
_LINES = (("Accept", _STREAM), ("Accept-Encoding", "identity"), ("User-Agent", f"segue/{__version__}"))

#: The codes that a stream can fail with, by their names; one that is a provider's own is not among them.
_CODES: Mapping[str, Code] = MappingProxyType({code: code for code in get_args(Code)})

#: What may follow the end of an answer before its connection is given up, in bytes and seconds.
_TAIL_BYTES = 64 * 1024
_TAIL_S = 2.0


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """Where a provider is and how it is treated. The gateway's key is not in here, so that this can be shown.

    With `slots`, that many, each conversation is sent to its own; `max_concurrent` must be no more.
    """

    name: str
    base_url: str
    headers: tuple[tuple[str, str], ...] = ()
    pass_key: bool = False
    max_concurrent: int = 64
    max_queued: int = 256
    queue_timeout_s: float = 30.0
    connect_timeout_s: float = 10.0
    first_byte_timeout_s: float = 300.0
    idle_timeout_s: float = 300.0
    retry: RetryPolicy = RetryPolicy()
    slots: int | None = None


class UpstreamRuntime(msgspec.Struct, frozen=True):
    """What an upstream takes from its process: unix seconds, a random number from 0 to 1, and the fragments kept."""

    clock: Callable[[], float]
    jitter: Callable[[], float]
    fragments: RenderCache


class HttpUpstream:
    """One provider; `key` is the gateway's own for it, `affinity` tells a router there what belongs together."""

    def __init__(
        self,
        provider: Provider,
        dialect: Dialect,
        runtime: UpstreamRuntime,
        *,
        models: Sequence[str],
        key: str | None,
        affinity: SessionAffinity | None = None,
    ) -> None:
        assert provider.slots is None or provider.max_concurrent <= provider.slots, "each turn needs a slot"
        self._provider = provider
        self._dialect = dialect
        self._runtime = runtime
        self._models = tuple(models)
        self._key = key
        self._affinity = affinity
        self._slots = None if provider.slots is None else SlotTable(provider.slots)
        self._session: aiohttp.ClientSession | None = None
        self._tails: set[asyncio.Task[None]] = set()
        self.failures: Counter[Code] = Counter()  # tries that failed, by code
        self.admission = AdmissionQueue(
            provider.name,
            limit=provider.max_concurrent,
            max_waiting=provider.max_queued,
            patience_s=provider.queue_timeout_s,
        )

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._provider.name

    @property
    def models(self) -> Sequence[str]:
        """The names it answers to."""
        return self._models

    async def start(self) -> None:
        """Make ready to connect; nothing is sent before there is a turn."""
        self._session = aiohttp.ClientSession(
            connector=DesyncSafeConnector(),
            cookie_jar=aiohttp.DummyCookieJar(),  # tenants share connections, and nothing else
            timeout=aiohttp.ClientTimeout(total=None, connect=self._provider.connect_timeout_s),
            trust_env=False,  # a proxy would be shown what is sent
        )

    async def aclose(self) -> None:
        """Close every connection."""
        for tail in self._tails:
            tail.cancel()
        await asyncio.gather(*self._tails, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Run one turn."""
        headers = self._headers(request)
        rendered = self._dialect.render(request, self._runtime.fragments)
        if isinstance(rendered, Problem):
            raise Refused(rendered)
        async with self._place(request, rendered) as addressed:
            attempt = 0
            while True:
                attempt += 1
                wait_s: float | None = None
                reply = await self._open(request, addressed, headers)
                if isinstance(reply, FailedAttempt):
                    wait_s = self._decide(reply, attempt, request)
                    if wait_s is None:
                        raise Refused(reply.problem)
                    await asyncio.sleep(wait_s)
                    continue
                try:
                    yield ()  # it has begun; once more after another try says nothing new
                    while wait_s is None and not reply.decoder.ended:
                        batch = await reply.read()
                        failed = reply.failure_of(batch)
                        if failed is not None:
                            wait_s = self._decide(failed, attempt, request)
                        if batch and wait_s is None:
                            yield batch
                finally:
                    self._let_go(reply)
                if wait_s is None:
                    return
                await asyncio.sleep(wait_s)

    @asynccontextmanager
    async def _place(self, request: UpstreamRequest, rendered: Rendered) -> AsyncIterator[Rendered]:
        """Hold a place around a block, and a slot if the server has them; yield the body that asks for that slot."""
        async with self.admission.place(request.tenant):
            if self._slots is None:
                yield rendered
                return
            parent = request.history.parent
            slot = self._slots.take(
                conversation_key_of(request), request.response_id, None if parent is None else parent.id
            )
            try:
                yield rendered.with_fields({SLOT_FIELD: slot})
            finally:
                self._slots.release(slot)

    # --- one try -----------------------------------------------------------------------------------------------------

    async def _open(
        self, request: UpstreamRequest, rendered: Rendered, headers: Mapping[str, str]
    ) -> _Reply | FailedAttempt:
        """Send the request; return the reply once its head is there and says that a stream follows."""
        provider, session = self._provider, self._session
        assert session is not None, "start() comes first"
        body = JsonBody(rendered.pieces)
        url = provider.base_url.rstrip("/") + self._dialect.path(request.model)
        try:
            async with asyncio.timeout(provider.first_byte_timeout_s):
                response = await session.post(url, data=body, headers=headers, allow_redirects=False)
        except BaseException as error:
            body.abort()
            if not isinstance(error, OSError | aiohttp.ClientError):
                raise
            return self._failure(error)
        if response.status == _OK and response.content_type == _STREAM:
            decoder = self._dialect.decoder(request, rendered.warnings)
            return _Reply(response, body, decoder, provider)
        return await self._refusal(response, body)

    async def _refusal(self, response: aiohttp.ClientResponse, body: JsonBody) -> FailedAttempt:
        """Read why there is no stream."""
        provider = self._provider
        read = b""
        try:
            async with asyncio.timeout(provider.idle_timeout_s):
                while len(read) < MAX_REFUSAL_BYTES and (piece := await response.content.readany()):
                    read += piece
        except (OSError, aiohttp.ClientError):
            pass  # the status says enough
        finally:
            _drop(response, body)
        return read_refusal(
            provider.name,
            response.status,
            response.headers,
            read,
            clients_key=provider.pass_key,
            now=self._runtime.clock(),
        )

    def _failure(self, error: OSError | aiohttp.ClientError) -> FailedAttempt:
        """Say what it means that there is no reply."""
        name = self._provider.name
        match error:
            case aiohttp.ConnectionTimeoutError():
                within = f"{self._provider.connect_timeout_s:g} s"
                problem = Problem("upstream_unreachable", f"No connection to the upstream {name!r} within {within}.")
                return FailedAttempt(problem, may_pass=True)
            case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
                message = f"The upstream {name!r} cannot be trusted: its TLS certificate or handshake is not valid."
                return FailedAttempt(Problem("upstream_unreachable", message))
            case aiohttp.ClientConnectorError():
                problem = Problem("upstream_unreachable", f"The upstream {name!r} cannot be reached.")
                return FailedAttempt(problem, may_pass=True)
            case TimeoutError():
                within = f"{self._provider.first_byte_timeout_s:g} s"
                return FailedAttempt(
                    Problem("upstream_timeout", f"The upstream {name!r} did not answer within {within}.")
                )
            case aiohttp.ClientConnectionError() | OSError():
                message = f"The upstream {name!r} closed the connection before it answered."
                return FailedAttempt(Problem("upstream_unreachable", message), may_pass=True)
            case _:
                message = f"What the upstream {name!r} answered is not valid HTTP."
                return FailedAttempt(Problem("upstream_protocol_error", message))

    def _let_go(self, reply: _Reply) -> None:
        """Break off a reply that is still coming; let one that has ended leave its connection for the next turn."""
        if not reply.decoder.ended or reply.broken or reply.at_eof:
            reply.drop()
            return

        def drop(tail: asyncio.Task[None]) -> None:
            self._tails.discard(tail)
            reply.drop()

        tail = asyncio.create_task(reply.read_tail())
        self._tails.add(tail)
        tail.add_done_callback(drop)

    # --- between tries -----------------------------------------------------------------------------------------------

    def _decide(self, failed: FailedAttempt, attempt: int, request: UpstreamRequest) -> float | None:
        """Return how long to wait before the next try; None if this was the last."""
        self.failures[failed.problem.code] += 1
        wait_s = wait_before_retry(self._provider.retry, failed, attempt, jitter=self._runtime.jitter())
        _log.warning(
            "action=try upstream=%s response_id=%s attempt=%d code=%s wait_s=%s provider_request_id=%s",
            self._provider.name,
            request.response_id,
            attempt,
            failed.problem.code,
            "none" if wait_s is None else f"{wait_s:.3f}",
            failed.request_id or "none",
        )
        return wait_s

    def _headers(self, request: UpstreamRequest) -> Mapping[str, str]:
        lines = [*_LINES, *self._dialect.headers(self._key_for(request)), *self._provider.headers]
        if self._affinity is not None:
            lines.append(self._affinity.line(conversation_key_of(request)))
        return dict({name.lower(): (name, value) for name, value in lines}.values())  # the last of a name counts

    def _key_for(self, request: UpstreamRequest) -> str | None:
        if not self._provider.pass_key:
            return self._key
        if request.credential is None:
            message = (
                f"The upstream {self._provider.name!r} is called with the client's own key, and the request has none. "
                "Send it as the header X-Upstream-Key."
            )
            raise Refused(Problem("invalid_api_key", message))
        return request.credential.reveal()


class _Reply:
    """One reply stream of a provider, from its head on."""

    def __init__(
        self, response: aiohttp.ClientResponse, body: JsonBody, decoder: ReplyDecoder, provider: Provider
    ) -> None:
        self._response = response
        self._content = response.content
        self._body = body
        self.decoder = decoder
        self._provider = provider
        self._reader = SseReader(MAX_EVENT_BYTES)
        self._forwarded = False
        self._cut = False
        self.broken = False

    @property
    def at_eof(self) -> bool:
        """Whether everything was read."""
        return self._content.at_eof()

    async def read(self) -> list[Event | Ended]:
        """Return what the next read of the stream brings, often nothing; at its end, how the turn ended."""
        decoder, name = self.decoder, self._provider.name
        try:
            async with asyncio.timeout(self._provider.idle_timeout_s):
                data = await self._content.readany()
        except TimeoutError:
            self.broken = True
            message = f"The upstream {name!r} said nothing for {self._provider.idle_timeout_s:g} s."
            return decoder.fail(Failure("upstream_timeout", message))
        except (OSError, aiohttp.ClientError):
            self.broken = self._cut = True
            return decoder.end(truncated=True)
        if not data:
            self._cut = True
            return decoder.end()
        output: list[Event | Ended] = []
        for event in self._reader.feed(data):
            output += decoder.feed(event)
        if self._reader.overflowed:
            self.broken = True
            output += decoder.fail(
                Failure("upstream_protocol_error", f"An event of the upstream {name!r} is too large.")
            )
        return output

    def failure_of(self, batch: Sequence[Event | Ended]) -> FailedAttempt | None:
        """Return the failure that the stream consists of, if it is one before anything else was forwarded."""
        if self._forwarded or not batch:
            return None
        self._forwarded = True
        ended = batch[0]
        if not isinstance(ended, Ended) or ended.error is None:
            return None
        code = _CODES.get(ended.error.code, "upstream_error")
        may_pass = self._cut or (code in PASSING and not self.broken)
        request_id = read_request_id(self._response.headers)
        return FailedAttempt(Problem(code, ended.error.message), may_pass=may_pass, request_id=request_id)

    def drop(self) -> None:
        """Give it up: its connection is broken, unless everything was read."""
        _drop(self._response, self._body)

    async def read_tail(self) -> None:
        """Read what follows the end of the answer, such as `[DONE]`, so that the connection can be used again."""
        size = 0
        try:
            async with asyncio.timeout(_TAIL_S):
                while size < _TAIL_BYTES and (piece := await self._content.readany()):
                    size += len(piece)
        except (OSError, aiohttp.ClientError):
            pass  # then it is of no use to the next turn


def _drop(response: aiohttp.ClientResponse, body: JsonBody) -> None:
    """Give up a response: its connection is broken, unless it has come to its end and may be another turn's by now."""
    if response.connection is not None:
        body.abort()
    response.close()

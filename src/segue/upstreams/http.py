"""The client for providers: one for all dialects, over HTTP with server-sent events.

A turn waits for a permit (`admission`); then the dialect renders its request, the request is sent, and the events of
the reply go through the dialect's decoder (`provider_stream`). An attempt that fails before anything was forwarded is
repeated as `retries` decides, or not here if another upstream stands by. If the provider refuses fields that the
gateway added by itself, the attempt is repeated at once without them, and once it is taken, that is remembered
(`learned_refusals`). The request lives as long as the turn: if the turn is closed or cancelled, its connection is
broken at once, even in the middle of an upload. A reply that was read to its end leaves its connection for the next
turn. With `slots`, a turn has a slot of the server for as long as it has its permit, through all attempts. Nothing that
is sent or received is logged. Not here: what the bytes mean (`dialects`), and what a failure means (`failures`).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import aiohttp
import msgspec

from segue import __version__
from segue.connection_failures import connection_failure
from segue.dialects.interface import NOTHING, Dialect, Rendered
from segue.dialects.key_redaction import KeyRedactor
from segue.dialects.messages.thread_request import THREAD
from segue.dialects.model_list import read_model_names
from segue.dialects.refused_fields import SEALED_REASONING
from segue.dialects.render_cache import RenderCache
from segue.dialects.source_events import SourceDecoder
from segue.dialects.token_counting import counting_body, read_count
from segue.http_client.body import JsonBody
from segue.http_client.connector import DesyncSafeConnector
from segue.protocol.codec import encode
from segue.protocol.problems import Code, Problem, Refused, not_counted
from segue.protocol.requests import NativeBody
from segue.upstreams.admission import AdmissionQueue
from segue.upstreams.attempted_turn import AttemptedTurn
from segue.upstreams.bulk_turns import BulkTurns
from segue.upstreams.continuation import ContinuationCounts
from segue.upstreams.conversation_key import conversation_key_of
from segue.upstreams.failures import MAX_REFUSAL_BYTES, failure_without_reply, read_refusal
from segue.upstreams.interface import Batch, Secret, UpstreamFailed, UpstreamRequest
from segue.upstreams.learned_refusals import LearnedRefusals
from segue.upstreams.message_threads import MessageThreads, ThreadedTurn
from segue.upstreams.model_listing import ModelListing
from segue.upstreams.provider_stream import ProviderStream
from segue.upstreams.retries import FailedAttempt, RetryPolicy, backoff_before_retry
from segue.upstreams.session_affinity import SessionAffinity
from segue.upstreams.slots import SLOT_FIELD, SlotTable
from segue.upstreams.sse_source import SseSource, drop

_log = logging.getLogger("segue.upstreams")

_STREAM = "text/event-stream"
_OK = 200
#: What servers answer that do not have an endpoint.
_NO_ENDPOINT = frozenset({404, 405, 501})

#: Where another upstream stands by, the next attempt is at that one.
_ONCE = RetryPolicy(attempts=1)

#: How a header line is called that holds a key.
_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|credential|password|signature", re.IGNORECASE)

#: Header lines of every request. A compressed stream would delay events.
_LINES = (("Accept", _STREAM), ("Accept-Encoding", "identity"), ("User-Agent", f"segue/{__version__}"))
#: Header lines of a request whose answer is JSON.
_JSON_LINES = (("Accept", "application/json"), *_LINES[1:])
#: Header lines that hold a list.
_LISTS = frozenset({"anthropic-beta"})
#: What is rendered beside the event loop: more new items or tools than this, or more bytes of items.
_MANY = 1000
_MUCH_BYTES = 256 * 1024
#: How long a request for the list of models may take, and how long the list may be.
_LIST_TIMEOUT_S = 10.0
_MAX_LIST_BYTES = 4 * 1024 * 1024


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's address and limits. The gateway's key for it is not in here, so that this can be printed.

    `slots` is how many slots the server has: each conversation is then pinned to one. `max_concurrent` must be no more.
    `rerun`: another upstream may run a turn again whose outcome here is not known. Nothing of a turn may be kept there
    for the tenants of `zero_retention`. `compacts`: it compacts histories itself.
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
    rerun: bool = False
    zero_retention: frozenset[str] = frozenset()
    compacts: bool = False


class UpstreamRuntime(msgspec.Struct, frozen=True):
    """What an upstream gets from the process: unix time, random numbers from 0 to 1, the render cache, the pace."""

    clock: Callable[[], float]
    jitter: Callable[[], float]
    render_cache: RenderCache
    bulk_turns: BulkTurns = msgspec.field(default_factory=BulkTurns)


R = TypeVar("R")


class HttpUpstream:
    """One provider. `key` is the gateway's own key for it; `affinity` adds the header that a router there reads."""

    stops_between_items = True

    def __init__(
        self,
        provider: Provider,
        dialect: Dialect,
        runtime: UpstreamRuntime,
        *,
        models: Sequence[str],
        key: str | None,
        affinity: SessionAffinity | None = None,
        threads: MessageThreads | None = None,
    ) -> None:
        assert provider.slots is None or provider.max_concurrent <= provider.slots, "each turn needs a slot"
        self._provider = provider
        self.compacts = provider.compacts
        self._dialect = dialect
        self.runtime = runtime
        """What it shares with the other upstreams of its gateway."""
        self._models = tuple(models)
        self._key = key
        self._redactor = KeyRedactor(_keys_in(provider.headers, key))
        self._affinity = affinity
        self._threads = threads
        self._slots = None if provider.slots is None else SlotTable(provider.slots)
        self._session: aiohttp.ClientSession | None = None
        self._tails: set[asyncio.Task[None]] = set()
        self._refusals = LearnedRefusals()
        self._listing = ModelListing(self._fetch_models)
        self.failures: Counter[Code] = Counter()  # failed attempts, by code
        self.learned: Counter[str] = Counter()  # fields that models were found to refuse, by name
        self._large = AdmissionQueue(provider.name, limit=1, max_waiting=provider.max_queued, timeout_s=None)
        self.admission = AdmissionQueue(
            provider.name,
            limit=provider.max_concurrent,
            max_waiting=provider.max_queued,
            timeout_s=provider.queue_timeout_s,
        )

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._provider.name

    @property
    def dialect_name(self) -> str:
        """The API that it speaks."""
        return self._dialect.name

    @property
    def models(self) -> Sequence[str]:
        """The names it answers to."""
        return self._models

    @property
    def continuations(self) -> ContinuationCounts | None:
        """How often only what is new was sent; None if that is never done."""
        return None if self._threads is None else self._threads.counts

    def forget_tenant(self, tenant: str) -> None:
        """Drop what is remembered of a tenant's responses."""
        if self._threads is not None:
            self._threads.forget_tenant(tenant)

    def has_place(self) -> bool:
        """Say whether a turn would run at once."""
        return self.admission.running < self._provider.max_concurrent and not self.admission.waiting

    async def start(self) -> None:
        """Create the session; it connects when there is a turn."""
        self._session = aiohttp.ClientSession(
            connector=DesyncSafeConnector(),
            cookie_jar=aiohttp.DummyCookieJar(),  # tenants share connections and nothing else
            timeout=aiohttp.ClientTimeout(total=None, connect=self._provider.connect_timeout_s),
            trust_env=False,  # a proxy would see what is sent
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._listing.aclose()
        for tail in self._tails:
            tail.cancel()
        await asyncio.gather(*self._tails, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Run one turn."""
        headers = self._headers(request)
        turn = self._begin(request, self._thread_of(request, headers))
        try:
            await self._render_first(turn)
            async with self._permit(request) as slot:
                while True:
                    wait_s: float | None = None
                    reply = await self._open(turn, headers, slot)
                    if isinstance(reply, FailedAttempt):
                        reply = self._free(reply)
                        wait_s = self._decide(reply, turn)
                        if wait_s is None:
                            raise UpstreamFailed(reply)
                        await asyncio.sleep(wait_s)
                        continue
                    try:
                        yield ()  # the turn has begun; after another attempt, an empty batch says nothing new
                        while wait_s is None and not reply.decoder.ended:
                            batch = await reply.read()
                            failed = reply.failure_of(batch)
                            if failed is not None:
                                failed = self._free(failed)
                                wait_s = self._decide(failed, turn)
                                if wait_s is None and request.standby and failed.elsewhere:
                                    raise UpstreamFailed(failed)
                            elif batch:
                                self._note_output(turn, reply)
                            if batch and wait_s is None:
                                yield batch
                    finally:
                        reply.broken |= turn.forgotten
                        self._release(reply)
                    if wait_s is None:
                        return
                    await asyncio.sleep(wait_s)
        finally:
            self._end(turn)

    def _thread_of(self, request: UpstreamRequest, headers: Mapping[str, str]) -> ThreadedTurn | None:
        """Return what a turn has to do with threads of the upstream; None if there are to be none."""
        if self._threads is None or request.tenant in self._provider.zero_retention:
            return None
        return self._threads.begin(request, headers, now=self.runtime.clock())

    def _end(self, turn: AttemptedTurn) -> None:
        """Note what of a turn its upstream has kept, before anybody can continue it."""
        if turn.thread is not None:
            turn.thread.close(now=self.runtime.clock())

    @asynccontextmanager
    async def _permit(self, request: UpstreamRequest) -> AsyncIterator[Mapping[str, int]]:
        """Hold a permit, and a slot if the server has them, for a block; yield the fields that name that slot."""
        async with self.admission.permit(request.tenant):
            if self._slots is None:
                yield {}
                return
            parent = request.history.parent
            slot = self._slots.take(
                conversation_key_of(request), request.response_id, None if parent is None else parent.id
            )
            try:
                yield {SLOT_FIELD: slot}
            finally:
                self._slots.release(slot)

    async def count_input(self, request: UpstreamRequest) -> int:
        """Ask the provider how many tokens the input of a turn would have, once."""
        endpoint = self._dialect.counting
        if endpoint is None:
            raise Refused(not_counted(request.model))
        headers = _merge([*self._headers(request).items(), *_JSON_LINES])
        turn = self._begin(request, None)
        await self._render_whole(turn)
        rendered = turn.rendered
        if request.native is None or request.history.parent is not None:
            body = JsonBody((counting_body(rendered, endpoint),))
        else:  # it came to count tokens, too
            changed = request.native.body.changed({"model": (encode(request.model),)}, without={"thread"})
            body = JsonBody(changed)
        async with self.admission.permit(request.tenant):
            reply = await self._post(endpoint.path, body, headers)
            if isinstance(reply, FailedAttempt):
                raise UpstreamFailed(reply)
            read = await self._read(reply, body)
        count = read_count(read) if reply.status == _OK else None
        if count is not None:
            return count
        named = re.search(rf"(?<![\w-]){re.escape(request.model)}(?![\w-])", read.decode("utf-8", "replace"))
        if reply.status in _NO_ENDPOINT and named is None:  # else it may be the model that is not there
            raise Refused(not_counted(request.model))
        raise UpstreamFailed(self._judge(reply, read, rendered.own_fields, self._redactor_for(request)))

    async def list_models(self, credential: Secret | None) -> Sequence[str]:
        """Return the names of the models that the provider lists, as far as they are known."""
        if self._provider.pass_key and credential is None:
            return ()  # there is nobody to ask as
        return await self._listing.names(credential if self._provider.pass_key else None)

    async def _fetch_models(self, credential: Secret | None) -> Sequence[str] | None:
        """Ask the provider for its models; None if it does not list them."""
        assert self._session is not None, "start() comes first"
        key = self._key if credential is None else credential.reveal()
        url = self._provider.base_url.rstrip("/") + self._dialect.models_path
        headers = _merge([*self._dialect.headers(key), *self._provider.headers, *_JSON_LINES])
        read = b""
        try:
            async with (
                asyncio.timeout(_LIST_TIMEOUT_S),
                self._session.get(url, headers=headers, allow_redirects=False) as response,
            ):
                while len(read) <= _MAX_LIST_BYTES and (piece := await response.content.readany()):
                    read += piece
        except (OSError, aiohttp.ClientError) as error:
            self._log_no_list(str(connection_failure(error)))
            return None
        if response.status != _OK:
            self._log_no_list(f"status {response.status}")
            return None
        names = read_model_names(read) if len(read) <= _MAX_LIST_BYTES else None
        if names is None:
            self._log_no_list("what it answers is no list of models, or too long")
        if not names:
            return names
        redact, text = self._redactor.redact, "\n".join(names)
        return names if redact(text) == text else tuple(name for name in names if redact(name) == name)

    def _log_no_list(self, why: str) -> None:
        """Log why there is no list. Clients are shown what else there is, and turns run all the same."""
        _log.info("action=list_models upstream=%s failed=%r", self.name, why)

    # --- one attempt -------------------------------------------------------------------------------------------------

    def _begin(self, request: UpstreamRequest, thread: ThreadedTurn | None) -> AttemptedTurn:
        """Return a turn without what its model is known to refuse."""
        return AttemptedTurn(request, self._refusals.fields_of(request.model), thread)

    async def _render_first(self, turn: AttemptedTurn) -> None:
        """Render the request of the first attempt. Raises `Refused` if that cannot be done."""
        await self._render_whole(turn)

    async def _render_whole(self, turn: AttemptedTurn) -> None:
        """Render a request to be sent over HTTP. Raises `Refused` if that cannot be done."""
        rendered = await self._rendered_beside(turn.request, lambda cache: self._render(turn, cache, turn.without))
        if isinstance(rendered, Problem):
            raise Refused(rendered)
        turn.rendered = rendered if turn.thread is None else turn.thread.settle(rendered, turn.without)

    async def _rendered_beside(self, request: UpstreamRequest, render: Callable[[RenderCache], R]) -> R:
        """Return what `render` makes of a request; a large one is rendered in another thread, one at a time."""
        cache = self.runtime.render_cache
        if not _is_large(request):
            return render(cache)
        staged = cache.staged()
        rendered = await self._large.run_in_thread(request.tenant, lambda: render(staged))
        staged.commit()
        return rendered

    def _render(self, turn: AttemptedTurn, cache: RenderCache, without: frozenset[str]) -> Rendered | Problem:
        request = turn.request
        if turn.thread is not None:
            return turn.thread.render(cache, without)
        if request.native is not None:
            return self._dialect.pass_on(request, request.native, cache, without=without)
        return self._dialect.render(request, cache, without=without)

    async def _open(
        self, turn: AttemptedTurn, headers: Mapping[str, str], slot: Mapping[str, int]
    ) -> ProviderStream | FailedAttempt:
        """Send the request; return its reply when the head has come and announces a stream."""
        provider, request, rendered = self._provider, turn.request, turn.rendered
        body = JsonBody((rendered.with_fields(slot) if slot else rendered).pieces)
        headers = headers if turn.thread is None else turn.thread.open(headers)
        response = await self._post(self._dialect.path(request.model), body, headers)
        if isinstance(response, FailedAttempt):
            return response
        redactor = self._redactor_for(request)
        if response.status == _OK and response.content_type == _STREAM:
            decoder = self._dialect.decoder(request, rendered.warnings)
            decoder = decoder if turn.thread is None else turn.thread.decoder(decoder)
            if request.native is not None:
                decoder = SourceDecoder(decoder)
            return ProviderStream(
                SseSource(response, body, turn=partial(self.runtime.bulk_turns.wait, request.tenant)),
                decoder,
                name=provider.name,
                idle_timeout_s=provider.idle_timeout_s,
                clients_key=provider.pass_key,
                redactor=redactor,
                rendered=rendered,
            )
        return self._judge(response, await self._read(response, body), rendered.own_fields, redactor)

    async def _post(
        self, path: str, body: JsonBody, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse | FailedAttempt:
        """Send a body; return the reply when its head has come."""
        provider, session = self._provider, self._session
        assert session is not None, "start() comes first"
        connector = session.connector
        assert isinstance(connector, DesyncSafeConnector), "start() made it"
        url = provider.base_url.rstrip("/") + path
        while True:
            try:
                async with asyncio.timeout(provider.first_byte_timeout_s):
                    return await session.post(url, data=body, headers=headers, allow_redirects=False)
            except BaseException as error:
                body.abort()
                if not isinstance(error, OSError | aiohttp.ClientError):
                    raise
                if connector.was_closed_idle(body, error, asyncio.get_running_loop().time()):
                    continue  # on another connection
                return failure_without_reply(
                    provider.name,
                    error,
                    sent=body.written,
                    connect_timeout_s=provider.connect_timeout_s,
                    first_byte_timeout_s=provider.first_byte_timeout_s,
                )

    async def _read(self, response: aiohttp.ClientResponse, body: JsonBody) -> bytes:
        """Read a reply that is no stream, as much of it as may matter."""
        read = b""
        try:
            async with asyncio.timeout(self._provider.idle_timeout_s):
                while len(read) < MAX_REFUSAL_BYTES and (piece := await response.content.readany()):
                    read += piece
        except (OSError, aiohttp.ClientError):
            pass  # the status says enough
        finally:
            drop(response, body)
        return read

    def _judge(
        self, response: aiohttp.ClientResponse, read: bytes, own_fields: frozenset[str], redactor: KeyRedactor
    ) -> FailedAttempt:
        """Say what a reply means that is not what was asked for."""
        provider = self._provider
        return read_refusal(
            provider.name,
            response.status,
            response.headers,
            read,
            clients_key=provider.pass_key,
            now=self.runtime.clock(),
            own_fields=own_fields,
            redactor=redactor,
        )

    def _release(self, reply: ProviderStream) -> None:
        """Break the connection of a reply that is still coming; keep that of one that has ended for the next turn."""
        tail = reply.release()
        if tail is not None:
            self._tails.add(tail)
            tail.add_done_callback(self._tails.discard)

    # --- between attempts --------------------------------------------------------------------------------------------

    def _decide(self, failed: FailedAttempt, turn: AttemptedTurn) -> float | None:
        """Return how long to wait before the next attempt; None if this was the last. Counts and logs the failure."""
        reaction = None if turn.thread is None else turn.thread.react(failed)
        refused = failed.refused_fields | ({THREAD} if reaction == "stateless" else NOTHING)
        if self._leave_out(refused, turn) or (reaction == "otherwise" and self._render_again(turn, turn.without)):
            return 0.0
        self.failures[failed.problem.code] += 1
        policy = _ONCE if turn.request.standby and failed.elsewhere else self._provider.retry
        wait_s = backoff_before_retry(policy, failed, turn.attempt, jitter=self.runtime.jitter())
        _log.warning(
            "action=try upstream=%s response_id=%s attempt=%d code=%s wait_s=%s provider_request_id=%s cause=%r",
            self._provider.name,
            turn.request.response_id,
            turn.attempt,
            failed.problem.code,
            "none" if wait_s is None else f"{wait_s:.3f}",
            failed.request_id or "none",
            failed.cause or "none",
        )
        turn.attempt += 1
        if wait_s is not None and turn.thread is not None and turn.thread.outdated:
            return wait_s if self._render_again(turn, turn.without) else None
        return wait_s

    def _free(self, failed: FailedAttempt) -> FailedAttempt:
        """Let another upstream have a turn of unknown outcome, if the configuration says that turns cost nothing."""
        if not (self._provider.rerun and failed.unhealthy):
            return failed
        return msgspec.structs.replace(failed, elsewhere=True)

    def _leave_out(self, refused_fields: frozenset[str], turn: AttemptedTurn) -> bool:
        """Render a turn without fields that were refused; say whether there is something else to send now.

        That is none of the attempts that the configuration allows: the provider has done nothing yet. There are fewer
        such fields each time.
        """
        return bool(refused_fields) and self._render_again(turn, turn.without | refused_fields)

    def _render_again(self, turn: AttemptedTurn, without: frozenset[str]) -> bool:
        rendered = self._render(turn, self.runtime.render_cache, without)
        if isinstance(rendered, Problem):
            return False
        turn.rendered, turn.without = rendered, without
        return True

    def _note_output(self, turn: AttemptedTurn, reply: ProviderStream) -> None:
        """Note what follows from output, before anybody can know of it."""
        if turn.rendered.pieces:
            self._note_answer(turn)
        if reply.decoder.ended:
            self._end(turn)

    def _note_answer(self, turn: AttemptedTurn) -> None:
        """Leave out from now on what a model has refused, now that it answers a request without it."""
        turn.answered()
        if turn.thread is not None:
            turn.thread.note_answer()
        model = turn.request.model
        fields = turn.without - self._refusals.fields_of(model) - {SEALED_REASONING}
        turn.without = NOTHING
        if not fields:
            return
        self._refusals.learn(model, fields)
        self.learned.update(fields)
        _log.warning("action=learn upstream=%s model=%r left_out=%s", self.name, model[:80], ",".join(sorted(fields)))

    def _headers(self, request: UpstreamRequest) -> Mapping[str, str]:
        lines = [*_LINES, *self._dialect.headers(self._key_for(request))]
        lines += self._provider.headers if request.native is None else _joined(request.native, self._provider.headers)
        if self._affinity is not None:
            lines.append(self._affinity.header_line(conversation_key_of(request)))
        return _merge(lines)

    def _redactor_for(self, request: UpstreamRequest) -> KeyRedactor:
        """Return what knows the keys that the provider got with a request, and may quote."""
        if request.credential is None:
            return self._redactor
        return KeyRedactor((*_keys_in(self._provider.headers, self._key), request.credential.reveal()))

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


def _merge(lines: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Return header lines by name; the last line of a name wins."""
    return dict({name.lower(): (name, value) for name, value in lines}.values())


def _joined(native: NativeBody, configured: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the header lines of a client, and those of the configuration, which win; of lists, all elements."""
    own = {name.lower(): value for name, value in configured}
    yield from native.headers
    yield from configured
    for name, value in native.headers:
        if name in _LISTS and name in own:
            yield name, f"{own[name]},{value}"


def _keys_in(headers: Sequence[tuple[str, str]], key: str | None) -> Sequence[str]:
    """Return the gateway's key, and what configured header lines hold that are keys by their names."""
    values = [value.rpartition(" ")[2] for name, value in headers if _SECRET_HEADER.search(name)]
    return values if key is None else [*values, key]


def _is_large(request: UpstreamRequest) -> bool:
    """Tell whether rendering takes more than some milliseconds: many new items or tools, or many bytes of anything."""
    given = request.history.input
    many = max(len(given), len(request.settings.tools)) > _MANY
    return many or request.size_bytes > _MUCH_BYTES or sum(map(len, given)) > _MUCH_BYTES

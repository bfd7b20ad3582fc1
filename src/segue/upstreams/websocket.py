"""The client for Responses servers in WebSocket mode: a turn is sent what the provider does not hold yet.

A provider keeps the latest response of a socket, or of each of its lanes if it offers lanes, in that connection's
memory. The turn that continues it goes to the same lane, with the provider's own `previous_response_id` and the new
items alone. Every other turn goes with its whole history to a free lane of its owner, or to a new socket. So does a
turn whose socket turns out to be gone, or whose response the provider does not know: nothing was generated then. A turn
whose message may have arrived, and to which nothing came back, is not sent again: it may have run. A turn goes over
HTTP if the server has no WebSockets, if they keep breaking, or if its message is too large. Not here: whether the
provider holds what a replay would say (`dialects.responses.held_context`), retries, and HTTP (`http`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import aiohttp
from aiohttp.client_middlewares import ClientMiddlewareType
from yarl import URL

from segue.dialects.error_shapes import read_error
from segue.dialects.provider_errors import ProviderError
from segue.dialects.responses.held_context import RenderedCreate
from segue.dialects.responses.request import ResponsesDialect
from segue.http.sse import MAX_EVENT_BYTES
from segue.http.websocket import says_no_websocket
from segue.http_client.connector import DesyncSafeConnector
from segue.http_client.websocket_opening import UpgradeRefused, open_websocket
from segue.http_client.wire_meter import WireMeter
from segue.protocol.capabilities import HEADER as CAPABILITIES
from segue.protocol.codec import encode
from segue.protocol.continuation_errors import CONNECTION_ENDED, says_parent_is_lost
from segue.protocol.events import Ended, Event
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem, Refused
from segue.protocol.responses import Usage, usage
from segue.upstreams.attempted_turn import AttemptedTurn
from segue.upstreams.continuation import HIT, ContinuationCounts, ReplayReason
from segue.upstreams.failures import MAX_REFUSAL_BYTES, failure_without_reply, read_refusal
from segue.upstreams.http import HttpUpstream, Provider, UpstreamRuntime
from segue.upstreams.interface import UpstreamRequest
from segue.upstreams.lane_offer import read_offer
from segue.upstreams.provider_socket import ProviderSocket, SocketEnd, SocketLane
from segue.upstreams.provider_stream import ProviderStream
from segue.upstreams.retries import FailedAttempt
from segue.upstreams.session_affinity import SessionAffinity
from segue.upstreams.socket_lanes import IdleLimits, SocketOwner
from segue.upstreams.socket_pool import SocketPool
from segue.upstreams.socket_source import SocketSource, TurnBegun, TurnRefused
from segue.upstreams.websocket_trust import HttpReason, WebSocketTrust

#: A larger message goes over HTTP, where it is written in pieces. OpenAI takes 16 MiB.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
#: No server takes so little. What is smaller was not too big: a proxy may close like this over an answer, too.
_LEAST_TOO_BIG_BYTES = 64 * 1024
#: The code of a close after a message that is too big to process (RFC 6455, 7.4.1).
_TOO_BIG = 1009
#: How many sockets a turn tries whose message has certainly not been taken.
_MOST_SOCKETS = 3
_SERVER_ERROR = 500


class _SentAnew(NamedTuple):
    """The turn has certainly not run, and goes to another socket; `why` it did not go on this one."""

    why: ReplayReason


class _AskedTurn:
    """A turn as it is sent on a socket; `response_id` is the provider's, once it has begun."""

    __slots__ = ("created", "lane", "request", "response_id")

    def __init__(self, request: UpstreamRequest, lane: SocketLane, created: RenderedCreate) -> None:
        self.request = request
        self.lane = lane
        self.created = created
        self.response_id: str | None = None


class WebSocketUpstream(HttpUpstream):
    """One provider; `limits` are those of its sockets that wait for a turn.

    `warms_up`: it is known to take `generate: false`. One that is not might run the model. A gateway of this project
    says so itself.
    """

    #: Stopping a turn closes its socket, and with it goes what the provider keeps there for the next one.
    stops_between_items = False

    def __init__(
        self,
        provider: Provider,
        dialect: ResponsesDialect,
        runtime: UpstreamRuntime,
        *,
        models: Sequence[str],
        key: str | None,
        affinity: SessionAffinity | None = None,
        limits: IdleLimits | None = None,
        warms_up: bool = False,
    ) -> None:
        assert provider.slots is None, "slots are an API of HTTP servers"
        super().__init__(provider, dialect, runtime, models=models, key=key, affinity=affinity)
        self._responses = dialect
        self.warms_up = warms_up
        """Whether it takes `generate: false`, as far as is known."""
        self._connector: DesyncSafeConnector | None = None
        self._url = URL(provider.base_url.rstrip("/") + dialect.path(""))
        self._counts = ContinuationCounts()
        self._trust = WebSocketTrust()
        self.limits = limits or IdleLimits()
        """Those of its sockets."""
        self._runs_lanes = self.limits.lanes != 1  # as far as is known
        self._opening: dict[SocketOwner, asyncio.Future[bool]] = {}
        self.sockets = SocketPool(self.limits)

    @property
    def continuations(self) -> ContinuationCounts:
        """How often only what is new was sent."""
        return self._counts

    @property
    def fallbacks(self) -> Counter[HttpReason]:
        """How many turns went over HTTP, by why."""
        return self._trust.fallbacks

    async def start(self) -> None:
        """Create what opens sockets; it connects when there is a turn."""
        await super().start()
        self._connector = DesyncSafeConnector(WireMeter())

    async def aclose(self) -> None:
        """Close every connection."""
        await self.sockets.aclose()
        if self._connector is not None:
            await self._connector.close()
        await super().aclose()

    def forget(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        """Let the provider drop responses that are gone, with the sockets that hold them."""
        self.sockets.forget(tenant, response_ids)

    def forget_tenant(self, tenant: str) -> None:
        """Close the sockets of a tenant."""
        self.sockets.forget_tenant(tenant)

    async def prefill(self, request: UpstreamRequest) -> Usage:
        """Let the provider prepare a prompt, if it is known to do that. If it does not, the turn itself is told why."""
        nothing = usage(0, 0)
        if not self.warms_up or request.native is not None or self._trust.why_http(_now()) is not None:
            return nothing
        turn = self._begin(request, None)
        turn.generate = False
        async with self._permit(request):
            reply = await self._open_on_socket(turn, self._headers(request))
            if not isinstance(reply, ProviderStream):
                return nothing
            ended: Event | Ended | None = None
            try:
                while not reply.decoder.ended:
                    *_, ended = (ended, *await reply.read())
            finally:
                self._release(reply)
        return nothing if not isinstance(ended, Ended) or ended.usage is None else ended.usage

    # --- one attempt -------------------------------------------------------------------------------------------------

    async def _render_first(self, turn: AttemptedTurn) -> None:
        """Leave it until it is known on what socket the request goes; one as its client wrote it goes on none."""
        if turn.request.native is not None:
            await super()._render_first(turn)

    def _render_again(self, turn: AttemptedTurn, without: frozenset[str]) -> bool:
        """Leave fields out from now on; what is sent is rendered when it is known on what socket."""
        if turn.request.native is not None:
            return super()._render_again(turn, without)
        turn.without = without
        return True

    async def _open(
        self, turn: AttemptedTurn, headers: Mapping[str, str], slot: Mapping[str, int]
    ) -> ProviderStream | FailedAttempt:
        """Send the request over a socket, or else over HTTP."""
        if turn.request.native is not None:
            return await super()._open(turn, headers, slot)
        reason = self._trust.why_http(_now())
        if reason is None:
            opened = await self._open_on_socket(turn, headers)
            if not isinstance(opened, str):
                return opened
            reason = opened
        self._trust.fallbacks[reason] += 1
        await self._render_whole(turn)
        return await super()._open(turn, headers, slot)

    async def _open_on_socket(
        self, turn: AttemptedTurn, headers: Mapping[str, str]
    ) -> ProviderStream | FailedAttempt | HttpReason:
        """Send the request on the socket of its chain, or on others until one has taken it."""
        request = turn.request
        owner = SocketOwner(request.tenant, _digest(request.model, headers))
        lane, why = self._take(turn, owner)
        for _ in range(_MOST_SOCKETS):
            found = lane or await self._lane_of_new_socket(request, headers, owner)
            if not isinstance(found, SocketLane):
                return found
            outcome = await self._ask(turn, found, why)
            if not isinstance(outcome, _SentAnew):
                return outcome
            lane, why = None, outcome.why
        self._trust.note_failure(_now())
        message = f"The upstream {self.name!r} closes every connection before it takes a request."
        return FailedAttempt(Problem("upstream_unreachable", message), transient=True, elsewhere=True, unhealthy=True)

    def _take(self, turn: AttemptedTurn, owner: SocketOwner) -> tuple[SocketLane | None, ReplayReason]:
        """Take a lane that waits: that of the chain, or a free one; and say why a turn that continues is sent whole.

        A turn that failed before is sent whole: the provider may have dropped the response that it continues.
        """
        parent = turn.request.history.parent
        why: ReplayReason = "refused" if turn.attempt > 1 else "unknown"
        if parent is not None and turn.attempt == 1:
            held = self.sockets.take_held(owner.tenant, parent.id, owner)
            if isinstance(held, SocketLane):
                return held, "history"
            why = held
        return self.sockets.take_free(owner), why

    async def _ask(
        self, turn: AttemptedTurn, lane: SocketLane, why: ReplayReason
    ) -> ProviderStream | FailedAttempt | HttpReason | _SentAnew:
        """Send the request in a lane, and return what comes of it when the provider has answered."""
        created = await self._create_in(lane, turn)
        message = created.rendered.body if created.rendered.size_bytes <= MAX_MESSAGE_BYTES else None
        if message is None:
            self.sockets.give_back(lane, None)
            return "too_large"
        asked = _AskedTurn(turn.request, lane, created)
        turns = partial(self.runtime.bulk_turns.wait, turn.request.tenant)
        source = SocketSource(lane, turn=turns, on_release=partial(self._on_release, asked))
        try:
            async with asyncio.timeout(self._provider.first_byte_timeout_s):
                first = await source.ask(message)
        except BaseException as error:
            source.release(ended=None)
            if not isinstance(error, OSError | aiohttp.ClientError):
                raise
            return self._without_answer(error, lane.socket, sent=lane.written)
        match first:
            case TurnBegun(response_id):
                asked.response_id = response_id
                self._count(created, turn.request, why)
                return self._stream_of(source, asked)
            case TurnRefused(event):
                source.release(ended=None)
                return self._refused(event, asked)
            case SocketEnd(code):
                too_large = code == _TOO_BIG and len(message) >= _LEAST_TOO_BIG_BYTES and lane.alone_unanswered
                source.release(ended=None)
                return "too_large" if too_large else self._without_answer(ConnectionResetError(), lane.socket)

    async def _create_in(self, lane: SocketLane, turn: AttemptedTurn) -> RenderedCreate:
        """Render what is sent in a lane. Raises `Refused` if that cannot be done."""
        request = turn.request
        render = partial(
            self._responses.render_create,
            held=lane.held,
            without=turn.without,
            generate=turn.generate,
            stream_id=lane.name,
        )
        created: RenderedCreate | Problem | None = None
        try:
            created = await self._rendered_beside(request, lambda cache: render(request, cache))
        finally:
            if not isinstance(created, RenderedCreate):
                self.sockets.give_back(lane, None)
        if isinstance(created, Problem):
            raise Refused(created)
        turn.rendered = created.rendered
        return created

    def _stream_of(self, source: SocketSource, asked: _AskedTurn) -> ProviderStream:
        request, rendered = asked.request, asked.created.rendered
        return ProviderStream(
            source,
            self._dialect.decoder(request, rendered.warnings),
            name=self.name,
            idle_timeout_s=self._provider.idle_timeout_s,
            clients_key=self._provider.pass_key,
            redactor=self._redactor_for(request),
            rendered=rendered,
        )

    # --- what comes of it --------------------------------------------------------------------------------------------

    def _refused(self, event: bytes, asked: _AskedTurn) -> FailedAttempt | _SentAnew:
        """Say what an error event means that came in place of a response: what a refusal over HTTP means."""
        error = read_error(event[:MAX_REFUSAL_BYTES])
        status = error.status or _SERVER_ERROR
        ended = bool(CONNECTION_ENDED.intersection(error.words))
        if ended or status >= _SERVER_ERROR:  # the next turn might meet the same, or a close
            self.sockets.retire(asked.lane.socket)
        if ended:
            return _SentAnew("expired")
        if asked.created.continues and _says_parent_is_lost(error):
            return _SentAnew("not_found")
        return read_refusal(
            self.name,
            status,
            {},
            event[:MAX_REFUSAL_BYTES],
            clients_key=self._provider.pass_key,
            now=self.runtime.clock(),
            own_fields=asked.created.rendered.own_fields,
            redactor=self._redactor_for(asked.request),
        )

    def _without_answer(
        self, error: OSError | aiohttp.ClientError, socket: ProviderSocket, *, sent: bool = True
    ) -> FailedAttempt | _SentAnew:
        """Say what it means that a socket broke, or was silent, before anything came."""
        if not sent:
            return _SentAnew("disconnected")
        if not isinstance(error, TimeoutError):
            self._note_broken(socket)
        return failure_without_reply(
            self.name,
            error,
            sent=True,
            connect_timeout_s=self._provider.connect_timeout_s,
            first_byte_timeout_s=self._provider.first_byte_timeout_s,
        )

    def _on_release(self, asked: _AskedTurn, ended: Ended | None) -> None:
        """Leave a lane to the next turn, with what the provider holds in it now; or give it up."""
        lane, response_id = asked.lane, asked.response_id
        if lane.socket.end is not None and response_id is not None:
            self._note_broken(lane.socket)
        if ended is None or ended.status == "failed" or not (lane.at_rest or lane.name is None):
            self.sockets.give_up(lane)
            return
        if lane.socket.end is None:
            self._trust.note_success()
        keeps = response_id and asked.request.held and ended.status == "completed"
        lane.held = asked.created.sent.answered(response_id) if response_id and keeps else None
        self.sockets.give_back(lane, asked.request.response_id if keeps else None)

    def _note_broken(self, socket: ProviderSocket) -> None:
        """Note once that a socket broke, of which each of its turns tells."""
        if not socket.blamed:
            socket.blamed = True
            self._trust.note_failure(_now())

    def _note_output(self, turn: AttemptedTurn, reply: ProviderStream) -> None:
        """Give the lane back before the client knows that the turn has ended, and may continue it."""
        super()._note_output(turn, reply)
        if reply.decoder.ended:
            self._release(reply)

    def _count(self, created: RenderedCreate, request: UpstreamRequest, why: ReplayReason) -> None:
        if created.continues:
            self._counts.note_hit(created.saved_bytes)
            request.notes.continuation = HIT
        elif request.history.parent is not None:
            self._counts.replays[why] += 1
            request.notes.continuation = why

    # --- opening sockets ---------------------------------------------------------------------------------------------

    async def _lane_of_new_socket(
        self, request: UpstreamRequest, headers: Mapping[str, str], owner: SocketOwner
    ) -> SocketLane | FailedAttempt | HttpReason:
        """Open a socket, unless another turn of this owner opens one just now, which may have a lane for this one."""
        while self._runs_lanes and (opening := self._opening.get(owner)) is not None:
            if not await asyncio.shield(opening):
                reason = self._trust.why_http(_now())
                if reason is not None:
                    return reason
                break  # each finds out for itself what is wrong, and not one after the other
            lane = self.sockets.take_free(owner)
            if lane is not None:
                return lane
        mine = None if owner in self._opening else asyncio.get_running_loop().create_future()
        if mine is None:
            return await self._connect(request, headers, owner)
        self._opening[owner] = mine
        found: SocketLane | FailedAttempt | HttpReason = "unreliable"
        try:
            found = await self._connect(request, headers, owner)
        finally:
            del self._opening[owner]
            mine.set_result(isinstance(found, SocketLane))
        return found

    async def _connect(
        self, request: UpstreamRequest, headers: Mapping[str, str], owner: SocketOwner
    ) -> SocketLane | FailedAttempt | HttpReason:
        """Open a socket. Nothing was sent of a turn if that fails."""
        provider = self._provider
        try:
            opened = await open_websocket(
                self._new_session,
                self._url,
                patience_s=provider.connect_timeout_s,
                max_message_bytes=MAX_EVENT_BYTES,
                autoping=False,
                headers={name: value for name, value in headers.items() if name.lower() != "accept"},
            )
        except UpgradeRefused as refused:
            return self._judge_upgrade(refused, request)
        except aiohttp.WSServerHandshakeError:  # a 101 that breaks the rules
            self._trust.note_absence(_now())
            return "no_websocket"
        except (OSError, aiohttp.ClientError) as error:
            if not isinstance(error, aiohttp.ClientConnectorError | TimeoutError):
                self._trust.note_failure(_now())
            silent = isinstance(error, TimeoutError)
            return failure_without_reply(
                provider.name,
                aiohttp.ConnectionTimeoutError() if silent else error,
                sent=False,
                connect_timeout_s=provider.connect_timeout_s,
                first_byte_timeout_s=provider.first_byte_timeout_s,
            )
        offered = read_offer(opened.headers.get(CAPABILITIES), self.limits.lanes)
        self.warms_up = self.warms_up or offered.warms_up
        self._runs_lanes = offered.count > 1
        clearing = partial(_clearing, request.model) if self.warms_up else None
        return self.sockets.add(opened, owner, offered, clearing=clearing)

    def _judge_upgrade(self, refused: UpgradeRefused, request: UpstreamRequest) -> FailedAttempt | HttpReason:
        page = refused.body.lstrip()[:1] == b"<" or "html" in refused.headers.get("Content-Type", "")
        if says_no_websocket(refused.status, page=page):
            self._trust.note_absence(_now())
            return "no_websocket"
        failed = read_refusal(
            self.name,
            refused.status,
            refused.headers,
            refused.body,
            clients_key=self._provider.pass_key,
            now=self.runtime.clock(),
            redactor=self._redactor_for(request),
        )
        if refused.status >= _SERVER_ERROR:
            self._trust.note_failure(_now())
        return failed

    def _new_session(self, middlewares: Sequence[ClientMiddlewareType]) -> aiohttp.ClientSession:
        assert self._connector is not None, "start() comes first"
        return aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._provider.connect_timeout_s),
            trust_env=False,  # a proxy would see what is sent
            middlewares=middlewares,
        )


def _clearing(model: str, stream_id: str) -> bytes:
    """Write a turn that runs nothing and continues nothing: after it, its lane holds no conversation."""
    message = {"type": "response.create", "model": model, "input": "", "generate": False, "store": False}
    return encode({**message, "stream_id": stream_id})


def _says_parent_is_lost(error: ProviderError) -> bool:
    code = error.words[0] if error.words else None
    return says_parent_is_lost(code, error.param, error.status)


def _digest(model: str, headers: Mapping[str, str]) -> bytes:
    """Return a digest of what a socket is opened for; the header lines hold keys, which nobody should print."""
    digest = hashlib.sha256(model.encode("utf-8", "surrogatepass"))
    for name, value in sorted(headers.items()):
        digest.update(f"\0{name.lower()}\0{value}".encode("utf-8", "surrogatepass"))
    return digest.digest()


def _now() -> float:
    return asyncio.get_running_loop().time()

"""The handler of every request of an agent: it sends the body up as a document, and has the reply written back.

A request that cannot go through the tunnel gets an error that agents understand, or goes straight to the provider if
the sidecar may do that. Data runs one way: the handler opens an exchange in a session, and what comes back is taken
from the exchange (`segue.sidecar.response_writer`). Not here: the connections of agents (`segue.sidecar.listener`), the
links to gateways (`segue.sidecar.session`), and the encoding of bodies (`segue.sidecar.body_encoder`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import msgspec

from segue.http.error_replies import FailureCode
from segue.http.heads import ReplyHead
from segue.http.request_rules import RequestRefusal
from segue.sidecar.agent_request import AgentRequest
from segue.sidecar.agent_transport import AgentGone
from segue.sidecar.arriving_reply import Ending
from segue.sidecar.base_cache import BaseCache
from segue.sidecar.body_encoder import BodyEncoder, EncodedBody
from segue.sidecar.direct import DirectForwarder
from segue.sidecar.link_status import LinkUnavailable
from segue.sidecar.orphaned_exchanges import OrphanedExchanges, OrphanLimits
from segue.sidecar.response_writer import ResponseWriter, failure_of, is_repeatable, wait_for_head
from segue.sidecar.session import AgentExchange
from segue.sidecar.session_pool import SessionPool
from segue.sidecar.stats import ExchangeSummary, Outcome, Stats, request_bytes
from segue.sidecar.websocket_relay import WebSocketRelay
from segue.tunnel.client import TunnelRequest
from segue.tunnel.header_table import fits

_log = logging.getLogger("segue.sidecar")

_SWITCHING_PROTOCOLS = 101
_MAX_PATH_LENGTH = 200
#: A provider thinks for longer than this, and the request has left by then.
_PREPARE_AFTER_S = 0.002
#: How long a request waits for one attempt to get a link, if the link has been away for too long to be waited for.
_ATTEMPT_S = 2.0


class HandlerLimits(msgspec.Struct, frozen=True):
    """Sizes."""

    keep_reply_bytes: int = 1024 * 1024
    """How much of a reply, as it travels, is kept so that a retry can get an orphaned exchange from its beginning."""
    max_message_bytes: int = 64 * 1024 * 1024
    orphans: OrphanLimits = OrphanLimits()


class _AccessRecord:
    """What the log says about one request."""

    def __init__(self) -> None:
        self.started_at = asyncio.get_running_loop().time()
        self.status: int | None = None
        self.failure: FailureCode = "segue_internal_error"
        """The code of the error that the agent got, if its request failed."""
        self.document_bytes = 0
        self.reply_bytes = 0


class RequestHandler:
    """Handles all requests of one sidecar. `direct`: where requests go when no gateway can be reached."""

    def __init__(
        self,
        sessions: SessionPool,
        cache: BaseCache,
        *,
        stats: Stats,
        direct: DirectForwarder | None = None,
        limits: HandlerLimits | None = None,
    ) -> None:
        self._sessions = sessions
        self._stats = stats
        self._direct = direct
        self._limits = HandlerLimits() if limits is None else limits
        self._encoder = BodyEncoder(cache, stats)
        self._orphans = OrphanedExchanges(self._encoder, self._limits.orphans)
        self._uploads: set[asyncio.Task[None]] = set()
        self.idle = asyncio.Event()
        """Set while no request is under way."""
        self.idle.set()

    @property
    def orphans(self) -> int:
        """How many exchanges are orphaned."""
        return len(self._orphans)

    async def aclose(self) -> None:
        """Give up the orphaned exchanges."""
        self._orphans.clear()
        for upload in self._uploads:
            upload.cancel()
        await asyncio.gather(*self._uploads, return_exceptions=True)
        await self._encoder.aclose()

    async def handle(self, request: AgentRequest) -> None:
        """Answer a request."""
        self._stats.exchanges += 1
        self._stats.active += 1
        self.idle.clear()
        record = _AccessRecord()
        outcome: Outcome = "failed"
        try:
            outcome = await self._answer(request, record)
        except AgentGone:
            outcome = "gone"
            request.abort()
        finally:
            self._stats.active -= 1
            if not self._stats.active:
                self.idle.set()
            error = "cut" if outcome == "cut" else record.failure if outcome == "failed" else ""
            if error:
                self._stats.note_failure(error)
            self._log_request(request, record, outcome, error=error)

    async def _answer(self, request: AgentRequest, record: _AccessRecord) -> Outcome:
        if request.kind == "http":
            orphan = self._orphans.take(request.head, request.body)
            if orphan is not None:
                self._stats.attached += 1
                exchange, body = orphan
                return await self._deliver(request, exchange, body=body, record=record)
        refusal = self._refusal(request)
        if refusal is not None:
            return await self._fail(request, refusal.code, refusal.message, record=record)
        unavailable = await self._unavailable()
        if unavailable is not None:
            return await self._go_without_tunnel(request, unavailable, record)
        if request.kind == "websocket":
            return await self._relay_websocket(request, record)
        folds_alike = self._sessions.current.folds_alike
        body = await self._encoder.encode(request.head, request.body, folds_alike=folds_alike)
        if request.gone.is_set():
            raise AgentGone
        record.document_bytes = 0 if body is None else len(body.document)
        return await self._deliver(request, self._open(request, body), body=body, record=record)

    async def _unavailable(self) -> LinkUnavailable | None:
        """Return why the request need not wait for the link. After a long outage, it waits for one more attempt.

        A request that can go straight to the provider does not.
        """
        session = self._sessions.current
        unavailable = session.unavailable()
        if unavailable is None:
            return None
        attempted = session.ask_for_link()
        if self._direct is not None or unavailable.code != "segue_gateway_unreachable":
            return unavailable
        with suppress(TimeoutError):
            async with asyncio.timeout(_ATTEMPT_S):
                await attempted.wait()
        return self._sessions.current.unavailable()

    def _refusal(self, request: AgentRequest) -> RequestRefusal | None:
        """Return why no gateway would take the request."""
        if not fits(request.head):
            return RequestRefusal("request_head_too_large", "The request head is too large for the tunnel.")
        limit = self._sessions.current.max_body_bytes
        if limit is not None and request.body is not None and len(request.body) > limit:
            return RequestRefusal("request_too_large", f"The request body is larger than {limit} bytes.")
        return None

    async def _fail(self, request: AgentRequest, code: FailureCode, message: str, *, record: _AccessRecord) -> Outcome:
        record.failure = code
        record.status = await request.fail(code, message)
        return "failed"

    async def _go_without_tunnel(
        self, request: AgentRequest, unavailable: LinkUnavailable, record: _AccessRecord
    ) -> Outcome:
        """Answer a request that was never forwarded and need not wait for a gateway."""
        if self._direct is None or unavailable.code != "segue_gateway_unreachable":
            return await self._fail(request, unavailable.code, unavailable.message, record=record)
        self._stats.direct += 1
        record.status = await self._direct.answer(request)
        return "direct"

    # --- through the tunnel ------------------------------------------------------------------------------------------

    def _open(self, request: AgentRequest, body: EncodedBody | None) -> AgentExchange:
        opening = TunnelRequest(request.head, None if body is None else body.document)
        exchange = self._sessions.open(opening, keep_bytes=self._limits.keep_reply_bytes)
        if body is not None:
            self._encoder.note_opened(exchange, body)
            upload = asyncio.get_running_loop().create_task(self._replace_missed_bases(exchange, body))
            self._uploads.add(upload)
            upload.add_done_callback(self._uploads.discard)
        return exchange

    async def _replace_missed_bases(self, exchange: AgentExchange, body: EncodedBody) -> None:
        """Upload the body without a base when the gateway does not have the base, until the exchange has ended."""
        while True:
            await exchange.upload_wanted.wait()
            if exchange.ending is not None:
                return
            exchange.upload_wanted.clear()
            document = await self._encoder.encode_without_base(body, exchange.session.epoch)
            exchange.session.upload_again(exchange, document)

    async def _deliver(
        self, request: AgentRequest, exchange: AgentExchange, *, body: EncodedBody | None, record: _AccessRecord
    ) -> Outcome:
        """Bring the reply to the agent. If the agent hangs up because of the link, the exchange becomes an orphan."""
        writer = ResponseWriter(request, exchange, self._stats)
        exchange.pass_on = writer.pass_on
        preparation = asyncio.get_running_loop().call_later(_PREPARE_AFTER_S, _prepare, writer, exchange)
        size = _size(request)  # while the provider thinks
        orphaned = False
        try:
            head = await wait_for_head(request, exchange)
            if not isinstance(head, ReplyHead):
                return await self._explain(request, head, record)
            record.status = head.status
            self._stats.agent_bytes_in += size
            return await writer.write(head)
        except AgentGone:
            if not exchange.session.is_suspect():
                raise
            orphaned = True
            if record.status is not None:  # a retry reads the reply from its beginning
                self._stats.agent_bytes_in -= size
                writer.take_back()
            self._orphans.add(exchange, request.body, body=body, folded=writer.folded)
            request.abort()
            return "parked"
        finally:
            preparation.cancel()
            exchange.pass_on = None
            record.reply_bytes = writer.sent_bytes
            if not orphaned:
                exchange.session.cancel(exchange)
                self._encoder.record(exchange, body, writer.folded)

    async def _explain(self, request: AgentRequest, ending: Ending, record: _AccessRecord) -> Outcome:
        """Answer a request whose exchange ended without a reply."""
        if isinstance(ending, LinkUnavailable):
            return await self._go_without_tunnel(request, ending, record)
        code, message = failure_of(ending)
        record.failure = code
        record.status = await request.fail(code, message, repeatable=is_repeatable(ending))
        return "failed"

    async def _relay_websocket(self, request: AgentRequest, record: _AccessRecord) -> Outcome:
        exchange = self._sessions.open(TunnelRequest(request.head, None, "websocket"))
        try:
            head = await wait_for_head(request, exchange)
            if not isinstance(head, ReplyHead):
                return await self._explain(request, head, record)
            record.status = head.status
            self._stats.agent_bytes_in += _size(request)
            if head.status != _SWITCHING_PROTOCOLS:
                return await ResponseWriter(request, exchange, self._stats).write(head)
            relay = WebSocketRelay(
                request, exchange, self._encoder, stats=self._stats, max_message_bytes=self._limits.max_message_bytes
            )
            try:
                return await relay.run(head)
            finally:
                record.reply_bytes = relay.sent_bytes
        finally:
            exchange.session.cancel(exchange)

    # --- the log -----------------------------------------------------------------------------------------------------

    def _log_request(self, request: AgentRequest, record: _AccessRecord, outcome: Outcome, *, error: str) -> None:
        """Log and remember a request, without content, query or credentials."""
        path = request.head.target.partition(b"?")[0].decode("latin-1")[:_MAX_PATH_LENGTH]
        time_s = round(asyncio.get_running_loop().time() - record.started_at, 3)
        body_bytes = len(request.body or b"")
        _log.info(
            "action=exchange method=%s path=%s status=%s outcome=%s body_bytes=%d document_bytes=%d reply_bytes=%d "
            "time_s=%.3f",
            request.head.method.decode("latin-1"),
            path,
            record.status,
            outcome,
            body_bytes,
            record.document_bytes,
            record.reply_bytes,
            time_s,
        )
        self._stats.recent.append(
            ExchangeSummary(
                path,
                record.status,
                outcome,
                body_bytes,
                record.document_bytes,
                record.reply_bytes,
                time_s,
                error,
            )
        )


def _prepare(writer: ResponseWriter, exchange: AgentExchange) -> None:
    writer.prepare(exchange.session.reply_base(exchange))


def _size(request: AgentRequest) -> int:
    """Return what the provider would have been sent."""
    return request_bytes(request.head) + len(request.body or b"")

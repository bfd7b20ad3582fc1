"""What is done with each request of an agent: the document of its body goes up, and its reply comes back.

A request that cannot go through the tunnel is told why in words that agents understand, or goes straight to the
provider if that is wanted. What was sent and what came back becomes a base for what follows. Not here: sockets of
agents (`segue.sidecar.listener`) and of gateways (`segue.sidecar.session`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import NamedTuple

from segue.http.content_coding import Unwrapped, unwrap
from segue.http.error_replies import FAILURES, FailureCode
from segue.http.heads import ReplyHead, values
from segue.sidecar.agent_transport import AgentGone
from segue.sidecar.base_cache import Shelf
from segue.sidecar.direct import Direct
from segue.sidecar.exchange import Exchange, Over
from segue.sidecar.orphaned_exchanges import Bounds, Parking
from segue.sidecar.request import Request
from segue.sidecar.response_writer import Delivery, explain, wait_for_head
from segue.sidecar.session import Verdict
from segue.sidecar.sessions import Tunnel
from segue.sidecar.stats import Outcome, Stats, Summary, request_bytes
from segue.sidecar.websocket_relay import SocketExchange
from segue.tunnel.client import TunnelRequest as Opening
from segue.tunnel.documents import Base, encode_document
from segue.tunnel.header_table import fits

_log = logging.getLogger("segue.sidecar")

#: From so much on, base included, compressing happens in a thread (design: milliseconds off the event loop).
_THREAD_BYTES = 256 * 1024
#: How many of those at once: each may need several times the memory of what it compresses.
_THREADS = 2
_SWITCHING_PROTOCOLS = 101
_MAX_PATH_LENGTH = 200


class Limits(NamedTuple):
    """Sizes."""

    keep_reply_bytes: int = 1024 * 1024
    """How much of a reply, as it travels, is kept so that a parked exchange can be answered from its beginning."""
    max_message_bytes: int = 64 * 1024 * 1024
    parking: Bounds = Bounds()


class _Sent(NamedTuple):
    """What became of the body of a request."""

    plain: bytes | None
    sent: bytes | Unwrapped | None


class _Turn:
    """What is remembered of one request until it is logged."""

    def __init__(self) -> None:
        self.started_at = asyncio.get_running_loop().time()
        self.status: int | None = None
        self.document_bytes = 0
        self.reply_bytes = 0


class Exchanges:
    """The handler of all requests. `direct`: where to go when no gateway can be reached."""

    def __init__(
        self, tunnel: Tunnel, shelf: Shelf, *, stats: Stats, direct: Direct | None = None, limits: Limits | None = None
    ) -> None:
        self._tunnel = tunnel
        self._shelf = shelf
        self._stats = stats
        self._direct = direct
        self._limits = Limits() if limits is None else limits
        self._parking = Parking(self._nobody_came, self._limits.parking)
        self._folded: dict[Exchange, bytes] = {}  # of what is parked: what its agent had got
        self._bodies: dict[Exchange, _Sent] = {}
        self._encoding = asyncio.Semaphore(_THREADS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._adding: set[asyncio.Task[None]] = set()

    @property
    def parked(self) -> int:
        """How many exchanges are parked."""
        return len(self._parking)

    async def close(self) -> None:
        """Give up what is parked."""
        self._parking.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._adding, return_exceptions=True)

    async def handle(self, request: Request) -> None:
        """Answer a request."""
        self._stats.exchanges += 1
        self._stats.active += 1
        self._stats.agent_bytes_in += request_bytes(request.head) + len(request.body or b"")
        turn = _Turn()
        outcome: Outcome = "failed"
        try:
            outcome = await self._answer(request, turn)
        except AgentGone:
            outcome = "gone"
            request.abort()
        finally:
            self._stats.active -= 1
            self._note(request, turn, outcome)

    async def _answer(self, request: Request, turn: _Turn) -> Outcome:
        if request.kind == "websocket":
            return await self._answer_socket(request, turn)
        exchange = self._parking.find(request.head, request.body)
        if exchange is not None:
            self._stats.attached += 1
            self._folded.pop(exchange, None)
            return await self._bring(request, exchange, turn)
        refusal = self._refusal(request)
        if refusal is not None:
            return await self._refuse(request, refusal, turn)
        verdict = self._tunnel.session.verdict()
        if verdict is not None:
            return await self._without_tunnel(request, verdict, turn)
        exchange = await self._open(request)
        turn.document_bytes = len(exchange.request.document or b"")
        return await self._bring(request, exchange, turn)

    def _refusal(self, request: Request) -> Verdict | None:
        """Tell what no gateway would take."""
        if not fits(request.head):
            return Verdict("request_head_too_large", "The request head is too large for the tunnel.")
        limit = self._tunnel.session.max_body_bytes
        if limit is not None and request.body is not None and len(request.body) > limit:
            return Verdict("request_too_large", f"The request body is larger than {limit} bytes.")
        return None

    async def _refuse(self, request: Request, verdict: Verdict, turn: _Turn) -> Outcome:
        return await self._fail(request, verdict.code, verdict.message, turn)

    async def _fail(self, request: Request, code: FailureCode, message: str, turn: _Turn) -> Outcome:
        turn.status = FAILURES[code].status
        await request.fail(code, message)
        return "failed"

    async def _without_tunnel(self, request: Request, verdict: Verdict, turn: _Turn) -> Outcome:
        """Answer a request that was never forwarded and need not wait for a gateway."""
        if self._direct is None or verdict.code != "segue_gateway_unreachable":
            return await self._refuse(request, verdict, turn)
        self._stats.direct += 1
        turn.status = await self._direct.answer(request)
        return "direct"

    # --- the request -------------------------------------------------------------------------------------------------

    async def _open(self, request: Request) -> Exchange:
        sent = await self._unwrapped(request)
        document, base = await self._encode(sent)
        if request.gone.is_set():
            raise AgentGone
        exchange = Exchange(
            self._tunnel,
            Opening(request.head, document),
            keep_bytes=self._limits.keep_reply_bytes,
            base=base,
            on_missed=self._encode_again,
        )
        self._bodies[exchange] = sent
        return exchange

    async def _unwrapped(self, request: Request) -> _Sent:
        """Take a body out of its content coding, if the gateway can provably put it back."""
        body = request.body
        codings = values(request.head.lines, b"content-encoding")
        if not body or not codings:
            return _Sent(body, body)
        unwrapped = await asyncio.to_thread(unwrap, body, b", ".join(codings))
        return _Sent(body, body) if unwrapped is None else _Sent(unwrapped.plain, unwrapped)

    async def _encode(self, sent: _Sent) -> tuple[bytes | None, Base | None]:
        """Return the document of a body, and the base it is a delta against."""
        if sent.sent is None or sent.plain is None:
            return None, None
        if self._adding:
            await asyncio.gather(*self._adding)
        if len(sent.plain) <= _THREAD_BYTES // 2:  # the base is about as large
            base = self._shelf.choose(sent.plain)
            if base is None or base.size + len(sent.plain) <= _THREAD_BYTES:
                return encode_document(sent.sent, base), base
        async with self._encoding:
            return await asyncio.to_thread(_encode_against_best, sent.sent, sent.plain, self._shelf)

    def _encode_again(self, exchange: Exchange) -> None:
        """Answer a missed base: what the gateway does not have is not chosen again."""
        self._stats.base_misses += 1
        if exchange.base is not None:
            self._shelf.discard(exchange.base.id, exchange.epoch)
        sent = self._bodies[exchange].sent
        assert sent is not None, "only a document can be missed"
        self._begin(self._upload_again(exchange, sent), self._tasks)

    async def _upload_again(self, exchange: Exchange, sent: bytes | Unwrapped) -> None:
        async with self._encoding:
            document = await asyncio.to_thread(encode_document, sent.sent if isinstance(sent, Unwrapped) else sent)
        exchange.upload_again(document)

    def _begin(self, work: Coroutine[None, None, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    # --- the reply ---------------------------------------------------------------------------------------------------

    async def _bring(self, request: Request, exchange: Exchange, turn: _Turn) -> Outcome:
        """Bring the reply to the agent; if it hangs up because of the link, the exchange waits for it."""
        delivery = Delivery(request, exchange, self._stats)
        is_parked = False
        try:
            head = await wait_for_head(request, exchange)
            if not isinstance(head, ReplyHead):
                return await self._tell(request, head, turn)
            turn.status = head.status
            return await delivery.bring(head)
        except AgentGone:
            if not exchange.is_suspect():
                raise
            is_parked = True
            self._folded[exchange] = delivery.folded
            self._parking.park(exchange, request.body)
            request.abort()
            return "parked"
        finally:
            turn.reply_bytes = delivery.sent_bytes
            if not is_parked:
                exchange.cancel()
                self._keep(exchange, delivery.folded)

    async def _tell(self, request: Request, over: Over, turn: _Turn) -> Outcome:
        if isinstance(over, Verdict):
            return await self._without_tunnel(request, over, turn)
        return await self._fail(request, *explain(over), turn)

    def _keep(self, exchange: Exchange, folded: bytes) -> None:
        """Keep what both ends have of an exchange that is over, for later bodies to be sent against."""
        body = self._bodies.pop(exchange).plain
        if exchange.head is None or body is None:
            return
        if exchange.was_missed or exchange.base is None:
            self._stats.without_base += 1
        else:
            self._stats.base_hits += 1
        if len(body) <= _THREAD_BYTES:
            self._shelf.add(Base(body, folded), exchange.epoch)
        else:  # the next body waits for it
            self._begin(asyncio.to_thread(self._shelf.add, Base(body, folded), exchange.epoch), self._adding)

    def _nobody_came(self, exchange: Exchange) -> None:
        self._keep(exchange, self._folded.pop(exchange, b""))

    # --- a WebSocket -------------------------------------------------------------------------------------------------

    async def _answer_socket(self, request: Request, turn: _Turn) -> Outcome:
        refusal = self._refusal(request)
        if refusal is not None:
            return await self._refuse(request, refusal, turn)
        verdict = self._tunnel.session.verdict()
        if verdict is not None:
            return await self._without_tunnel(request, verdict, turn)
        exchange = Exchange(self._tunnel, Opening(request.head, None, "websocket"))
        try:
            head = await wait_for_head(request, exchange)
            if not isinstance(head, ReplyHead):
                return await self._tell(request, head, turn)
            turn.status = head.status
            if head.status != _SWITCHING_PROTOCOLS:
                return await Delivery(request, exchange, self._stats).bring(head)
            socket = SocketExchange(request, exchange, self._stats, max_message_bytes=self._limits.max_message_bytes)
            try:
                return await socket.carry(head)
            finally:
                turn.reply_bytes = socket.sent_bytes
        finally:
            exchange.cancel()

    # --- the log -----------------------------------------------------------------------------------------------------

    def _note(self, request: Request, turn: _Turn, outcome: Outcome) -> None:
        """Log and remember an exchange: without content, query or credentials."""
        path = request.head.target.partition(b"?")[0].decode("latin-1")[:_MAX_PATH_LENGTH]
        time_s = round(asyncio.get_running_loop().time() - turn.started_at, 3)
        body_bytes = len(request.body or b"")
        _log.info(
            "action=exchange method=%s path=%s status=%s outcome=%s body_bytes=%d document_bytes=%d reply_bytes=%d "
            "time_s=%.3f",
            request.head.method.decode("latin-1"),
            path,
            turn.status,
            outcome,
            body_bytes,
            turn.document_bytes,
            turn.reply_bytes,
            time_s,
        )
        self._stats.recent.append(
            Summary(path, turn.status, outcome, body_bytes, turn.document_bytes, turn.reply_bytes, time_s)
        )


def _encode_against_best(sent: bytes | Unwrapped, plain: bytes, shelf: Shelf) -> tuple[bytes, Base | None]:
    base = shelf.choose(plain)
    return encode_document(sent, base), base

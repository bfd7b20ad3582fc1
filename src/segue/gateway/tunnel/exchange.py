"""One exchange at the gateway: collect the upload, rebuild and check the body, forward it once, send the reply back.

The provider is read whether the sidecar is connected or not, as far as the exchange's buffer goes. What comes of a
reply goes on in the call that reads it; a task does the rest. The request body becomes a base when it was rebuilt, and
has the folded reply when the exchange is over, however it ended. Not here: sockets and frames (`session`), and how a
provider is reached (`segue.egress`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from itertools import count
from typing import Protocol, assert_never

from msgspec.structs import replace

from segue.egress.errors import NETWORK_ERRORS, EgressError
from segue.egress.reply import StreamedReply
from segue.egress.websocket import OutboundWebSocket
from segue.gateway.principal import Principal
from segue.gateway.tunnel.exchange_log import ExchangeRecord
from segue.gateway.tunnel.resources import TunnelResources
from segue.http.error_replies import FailureCode, failure_reply
from segue.http.heads import ReplyHead, has_content, reply_lines, values
from segue.http.routes import Resolved, RouteRefusal
from segue.http.websocket import ABNORMAL_CLOSURE, WebSocketClose, WebSocketMessage
from segue.protocol.problems import Refused
from segue.stores.live.interface import Exchanges, LiveUnavailable
from segue.tunnel.documents import (
    Base,
    BaseMiss,
    Body,
    DocumentError,
    declared_size,
    decode_document,
    may_be_missed,
)
from segue.tunnel.events import Opened
from segue.tunnel.folds.deferred import DeferredFold
from segue.tunnel.server import TunnelServer
from segue.tunnel.socket_opening import SocketOpening
from segue.tunnel.socket_transcript import SocketTranscript
from segue.tunnel.socket_upload import DOCUMENT_OVERHEAD_BYTES, SocketUploadReader, UploadRecords
from segue.tunnel.stream_compression import (
    REPLY_BASE_BYTES,
    REPLY_WINDOW_LOG,
    SOCKET_WINDOW_LOG,
    StreamEncoder,
)
from segue.tunnel.websocket_records import Record, RecordError, encode_record
from segue.upstreams.time_slices import TimeSlices

_log = logging.getLogger("segue.gateway")

#: Larger bodies are rebuilt in a thread: 1 MB takes some 2 ms.
_THREAD_BYTES = 1024 * 1024
#: A provider thinks for longer than this, and the request has been written by then.
_PREPARE_AFTER_S = 0.002
#: How long is waited for a claim of an exchange.
_CLAIM_S = 0.5
#: After so many messages of a WebSocket others have their turn: a socket that takes them all makes nobody wait.
_MESSAGES_AT_ONCE = 16


class ExchangeHost(Protocol):
    """What an exchange needs of the session that it belongs to."""

    @property
    def principal(self) -> Principal:
        """Whose sidecar it is."""

    @property
    def name(self) -> str:
        """By which the sidecar names it, at every gateway."""

    @property
    def has_link(self) -> bool:
        """Whether the sidecar is connected."""

    @property
    def rebuilding(self) -> asyncio.Lock:
        """Held while a body is rebuilt, so that bodies are in the order in which their documents were whole."""

    @property
    def end(self) -> TunnelServer:
        """The session's end of the tunnel."""

    @property
    def extra(self) -> Mapping[str, object]:
        """What the gateway's own API learns about the caller."""

    def wake(self) -> None:
        """Let the writer look again: there is something to send."""

    def write_now(self) -> None:
        """Let the writer send what there is in this call: somebody waits for it."""

    def note_unflushed(self, exchange: ForwardedExchange) -> None:
        """Note what `flush_later` does, and leave it to the caller to wake the writer."""

    def flush_later(self, exchange: ForwardedExchange) -> None:
        """Note that an exchange holds compressed bytes that its peer cannot read yet."""


class ForwardedExchange:
    """One request of an agent, from its head to the end of its reply."""

    def __init__(self, session: ExchangeHost, resources: TunnelResources, opened: Opened) -> None:
        self.number = opened.exchange
        self.cancel: Callable[[], object] = lambda: None
        """Cancels the task that runs this; the session sets it."""
        self.record = ExchangeRecord(opened.head, opened.kind)
        """How it goes, for the log and the metrics."""
        self._session = session
        self._end = session.end
        self._resources = resources
        self._opened = opened
        self._upload = bytearray()
        self._uncredited_bytes = 0
        self._upload_ended = False
        self._arrived = asyncio.Event()
        self._credited = asyncio.Event()
        self._has_room = asyncio.Event()
        self._encoder = StreamEncoder(self._window_log)
        self._prepared = False
        self._begun = False
        self._fold = DeferredFold()
        self._beginning = bytearray()
        self._body: Body | None = None
        self._base_id: bytes | None = None
        self._missed = False
        self._messages = SocketUploadReader(resources.config.max_body_bytes)
        self._transcript = SocketTranscript()

    @property
    def tenant(self) -> str:
        """The tenant whose sidecar it came from."""
        return self._session.principal.tenant

    @property
    def _for_websocket(self) -> bool:
        return self._opened.kind == "websocket"

    @property
    def _window_log(self) -> int:
        return SOCKET_WINDOW_LOG if self._for_websocket else REPLY_WINDOW_LOG

    # --- what the session reports ------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the upload."""
        self.record.up_link_bytes += len(data)
        if self._for_websocket:
            self._messages.feed(data)
        else:
            self._upload += data
        self._uncredited_bytes += len(data)
        if not self._messages.in_stream:  # the bytes of a stream are credited when they were passed on
            self._resources.uploads.hold(self, len(data))
        self._arrived.set()

    def receive_end(self) -> None:
        """The upload is complete."""
        self._upload_ended = True
        self._arrived.set()

    def credit(self) -> None:
        """Let the sidecar send more in place of what has arrived."""
        self._credited.set()
        if self._uncredited_bytes:
            self._end.consume(self.number, self._uncredited_bytes)
            self._uncredited_bytes = 0
            self._session.wake()

    def writable(self) -> None:
        """There is room again for the reply."""
        self._has_room.set()

    def flush(self) -> None:
        """Let the sidecar read everything that was sent; what is complete was flushed by its end."""
        if self.record.outcome != "completed":
            self._emit(self._encoder.flush())

    # --- the exchange ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry the exchange to its end."""
        principal = self._session.principal
        try:
            resolved = self._resources.resolve(self._opened.head.target, principal)
            if isinstance(resolved, RouteRefusal):
                self._fail(resolved.code, resolved.message)
                return
            self.record.route = resolved.route
            async with self._resources.counted(resolved, principal):
                await self._carry(resolved)
        except EgressError as error:
            self._fail(error.code, str(error), repeatable=not error.sent)
        except Refused as refused:
            problem = refused.problem
            code: FailureCode = "rate_limit_exceeded" if problem.code == "rate_limit_exceeded" else "segue_invalid_key"
            self._fail(code, problem.message, retry_after_s=problem.retry_after_s)

    async def _carry(self, resolved: Resolved) -> None:
        if not self._for_websocket and self._opened.has_body and not await self._rebuild():
            return
        if self._resources.owners is not None and not await self._is_own(self._resources.owners):
            self._fail("segue_outcome_unknown", "Another gateway has had this request: it may have been forwarded.")
        elif self._for_websocket:
            await self._connect(resolved)
        else:
            await self._forward(resolved)

    async def _is_own(self, owners: Exchanges) -> bool:
        """Claim the exchange, and say whether no other gateway has. If that cannot be found out, the sidecar knows.

        It opens an exchange at another gateway only if its request never left as a whole (`segue.tunnel.client`).
        """
        try:
            async with asyncio.timeout(_CLAIM_S):
                return await owners.claim(self.tenant, self._session.name, self.number)
        except (LiveUnavailable, TimeoutError):
            return True

    async def _rebuild(self) -> bool:
        """Collect the document, and rebuild and check the body; False if that was refused."""
        while self._body is None:
            if not await self._collect():
                return False
            document = self._upload  # no copy: it may have the size of the largest body
            await self._wait_for_room(declared_size(document))
            async with self._session.rebuilding:
                rebuilt = await self._decode(document)
                if isinstance(rebuilt, Body):  # from now on another body may be a delta against this one
                    self._resources.bases.add_body(self._session.principal.tenant, rebuilt.as_base(b""))
            match rebuilt:
                case BaseMiss() if not self._missed:
                    self._miss()
                case BaseMiss():
                    self._fail("invalid_request", "The document that was to need no base names one.")
                    return False
                case DocumentError():
                    code: FailureCode = "request_too_large" if rebuilt.too_large else "invalid_request"
                    self._fail(code, f"The tunnel's document cannot be taken: {rebuilt.reason}.")
                    return False
                case Body():
                    self._body = rebuilt
                    self._base_id, self.record.up_bytes = rebuilt.plain_id, len(rebuilt.sent)
                    self._resources.note_body(self._session.principal, len(rebuilt.sent))
        self._upload = bytearray()
        return True

    async def _collect(self) -> bool:
        """Collect the document; False if that was refused. While it may come, it has to: it holds memory."""
        config = self._resources.config
        while not self._upload_ended:
            if len(self._upload) > config.max_body_bytes + DOCUMENT_OVERHEAD_BYTES:
                self._fail("request_too_large", f"The request body is larger than {config.max_body_bytes} bytes.")
                return False
            self._arrived.clear()
            try:
                async with asyncio.timeout(config.upload_stall_s):
                    await self._arrived.wait()
            except TimeoutError:
                if self._session.has_link and not self._uncredited_bytes:
                    self._fail("request_timeout", f"Nothing came of the request in {config.upload_stall_s:g} s.")
                    return False
        return True

    async def _wait_for_room(self, size: int) -> None:
        """Wait until the body may be expanded: a small document can hold a large one."""
        uploads = self._resources.uploads
        uploads.hold(self, min(size, self._resources.config.max_body_bytes))
        while not uploads.may_go_on(self):
            self._credited.clear()
            await self._credited.wait()

    async def _decode(self, document: bytes | bytearray) -> Body | BaseMiss | DocumentError:
        limit = self._resources.config.max_body_bytes
        if max(len(document), declared_size(document)) <= _THREAD_BYTES:
            return decode_document(document, self._base, limit)
        tenant = self._session.principal.tenant
        slices = TimeSlices(asyncio.get_running_loop(), self._resources.accounts, tenant)

        def decode_in_slices() -> Body | BaseMiss | DocumentError:
            with slices:
                return decode_document(document, self._base, limit, pause=slices.pause)

        return await self._resources.rebuilding.run_in_thread(tenant, decode_in_slices)

    def _base(self, base_id: bytes) -> Base | None:
        return self._resources.bases.get(self._session.principal.tenant, base_id)

    def _miss(self) -> None:
        self._note_miss()
        self._missed = True
        self._resources.uploads.release(self)
        self._upload = bytearray()
        self._uncredited_bytes = 0
        self._upload_ended = False
        self._end.missed(self.number)
        self._session.wake()

    def _note_miss(self) -> None:
        self._resources.meter.base_misses.inc()
        self.record.base_misses += 1

    async def _forward(self, resolved: Resolved) -> None:
        preparation = asyncio.get_running_loop().call_later(_PREPARE_AFTER_S, self._prepare)
        try:
            async with aclosing(await self._open(resolved)) as reply:
                self._resources.uploads.release(self)
                self._body = None  # the provider has it, and it is a base as long as there is room
                self._fold.content_type = b"".join(values(reply.head.lines, b"content-type")[:1])
                await self._pass_on(reply)
            self._finish()
            await _let_writers_go_first()
        finally:
            preparation.cancel()
            self._keep()

    async def _open(self, resolved: Resolved) -> StreamedReply:
        body = None if self._body is None else self._body.sent
        return await self._resources.egress.open(
            resolved, self._opened.head, body, extra=self._session.extra, pass_on=self._pass_on_now
        )

    def _pass_on_now(self, reply: StreamedReply) -> bool:
        """Pass on what has just come of the reply, before any task is woken; False: the task has to go on.

        What the agent waits for goes first, in this call; what is kept of it is noted afterwards.
        """
        begins, end, number = not self._begun, self._end, self.number
        if begins:
            self._begin(reply.head)
        unwritten, goes_on = begins, False
        while not (reply.encoded or self._fold.due or end.room(number) <= 0):
            try:
                chunk = reply.take()
            except NETWORK_ERRORS:
                break  # the task meets it too
            if not chunk:
                goes_on = chunk is None and not begins
                break
            if end.is_idle(number):
                self._emit(self._encoder.feed_and_flush(chunk))
            else:
                self._emit(self._encoder.feed(chunk))
                self._session.note_unflushed(self)
            self._session.write_now()
            unwritten = False
            self._note(chunk)
        if unwritten:
            self._session.write_now()
        if begins:
            self._note_begun(reply.head)
        return goes_on

    async def _pass_on(self, reply: StreamedReply) -> None:
        if not self._begun:
            self._begin(reply.head)
            self._session.wake()
            self._note_begun(reply.head)
        while True:
            if self._fold.due:
                await _let_writers_go_first()
                self._fold.fold()
            chunk = await reply.read()
            if not chunk:
                return
            await self._send(chunk)

    async def _connect(self, resolved: Resolved) -> None:
        opened = await self._resources.egress.connect(resolved, self._opened.head, extra=self._session.extra)
        if isinstance(opened, StreamedReply):
            async with aclosing(opened):
                await self._pass_on(opened)
            self._finish()
            return
        self._begin(opened.head)
        self._session.wake()
        self._note_begun(opened.head)
        upward = asyncio.create_task(self._upward(opened))
        try:
            closed = await self._downward(opened)
        finally:
            upward.cancel()
            await opened.abort()
            await asyncio.wait((upward,))
            self._add_base(self._transcript.as_base())
        if not upward.cancelled():
            upward.result()
        self._finish()
        if closed.code == ABNORMAL_CLOSURE and not self._upload_ended:  # the agent had not left before
            self.record.outcome = "failed"

    async def _downward(self, socket: OutboundWebSocket) -> WebSocketClose:
        """Carry the provider's messages to the agent until one closes, and return that."""
        for number in count(1):
            message = await socket.receive()
            await self._send(encode_record(message))
            if isinstance(message, WebSocketClose):
                return message
            self._transcript.received(message)
            if number % _MESSAGES_AT_ONCE == 0:
                await asyncio.sleep(0)
        raise AssertionError("a provider's messages end with a close")

    async def _upward(self, socket: OutboundWebSocket) -> None:
        """Carry the agent's messages to the provider; cut its socket if one cannot be sent, for whatever reason."""
        try:
            await self._carry_up(socket)
        except EgressError:
            await socket.abort()
        except Exception:  # a bug of ours: nobody waits for what the provider will never be asked
            await socket.abort()
            raise

    async def _carry_up(self, socket: OutboundWebSocket) -> None:
        """Carry messages until one closes; cut the socket if no more can be read."""
        is_going_on = True
        while is_going_on:
            step = self._messages.read()
            match step:
                case None:
                    is_going_on = await self._wait_for_messages()
                case SocketOpening():
                    messages = await self._rebuild_message(step)
                    is_going_on = messages is not None and await self._send_up(socket, *messages)
                case UploadRecords(records):
                    if not await self._send_up(socket, *records):
                        return
                    self._note_stream_read()
                    await asyncio.sleep(0)  # a stream of some bytes may be millions of messages
                case RecordError():
                    is_going_on = False
                case _:
                    assert_never(step)
        await socket.abort()

    async def _wait_for_messages(self) -> bool:
        """Wait for more of the upload; False if it has ended, which without a close means that the agent was cut."""
        if self._upload_ended:
            return False
        if self._messages.in_stream:
            self._resources.uploads.release(self)
            self.credit()
        self._arrived.clear()
        await self._arrived.wait()
        return True

    def _note_stream_read(self) -> None:
        """Count what has come of a document: it stays until it is whole."""
        if not self._messages.in_stream and self._messages.held_bytes:
            self._resources.uploads.hold(self, self._messages.held_bytes)

    async def _send_up(self, socket: OutboundWebSocket, *records: Record) -> bool:
        """Send the agent's messages to the provider; False if one was the close."""
        for number, record in enumerate(records, 1):
            if isinstance(record, WebSocketClose):
                await socket.close(record.code, record.reason)
                return False
            self._transcript.sent(record)
            self.record.up_bytes += len(record.data)
            await socket.send(record)
            if number % _MESSAGES_AT_ONCE == 0:
                await asyncio.sleep(0)
        return True

    async def _rebuild_message(self, opening: SocketOpening) -> tuple[WebSocketMessage, ...] | None:
        """Rebuild a message that comes as a document: none if it was missed, and None if it cannot be rebuilt."""
        document = opening.document
        assert document is not None, "a stream is no message"
        await asyncio.sleep(0)  # there may be hundreds of small ones in one packet
        await self._wait_for_room(declared_size(document))
        async with self._session.rebuilding:
            rebuilt = await self._decode(document)
            if isinstance(rebuilt, Body):
                self._resources.bases.add_body(self.tenant, rebuilt.as_base(b""))
        if isinstance(rebuilt, DocumentError):
            return None
        if isinstance(rebuilt, BaseMiss):
            self._note_miss()
            self._messages.drop_message(opening)
            self._end.missed(self.number)
            messages: tuple[WebSocketMessage, ...] = ()
        else:
            self._resources.note_body(self._session.principal, len(rebuilt.sent))
            if may_be_missed(document):
                self._end.taken(self.number)
            messages = (self._messages.take_message(opening, rebuilt.sent),)
        self._resources.uploads.release(self)
        self.credit()
        self._session.wake()
        return messages

    # --- the reply ---------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Begin the stream of the reply, which builds on an earlier one if both ends have that.

        That takes longer than all else that an event has to wait for, so it is done while the provider thinks.
        """
        if self._prepared:
            return
        self._prepared = True
        prefix = self._end.build_on(self.number)
        if prefix:
            self._encoder = StreamEncoder(self._window_log, prefix=prefix)
            self._encoder.go_through_prefix()

    def _begin(self, head: ReplyHead) -> None:
        """Send the head of the provider's reply, when the writer is woken."""
        self._begun = True
        if not self._prepared:
            self._prepare()
        self._end.reply(self.number, head)

    def _note_begun(self, head: ReplyHead) -> None:
        """Note that the reply has begun, when its head has gone on."""
        self.record.note_reply(head, asyncio.get_running_loop().time())

    def _emit(self, encoded: bytes) -> None:
        """Send compressed bytes of the reply."""
        self.record.down_link_bytes += len(encoded)
        self._end.send(self.number, encoded)

    async def _send(self, data: bytes) -> None:
        """Send bytes of the reply, and wait until there is room for more."""
        self._emit(self._encoder.feed(data))
        self._session.flush_later(self)
        self._note(data)
        while self._end.room(self.number) <= 0:
            self._has_room.clear()
            await self._has_room.wait()

    def _note(self, data: bytes) -> None:
        """Keep of what was sent what later replies and requests may build on."""
        self.record.down_bytes += len(data)
        if len(self._beginning) < REPLY_BASE_BYTES:
            self._beginning += data[: REPLY_BASE_BYTES - len(self._beginning)]
            if len(self._beginning) == REPLY_BASE_BYTES:
                self._end.keep_reply(self.number, bytes(self._beginning))
        if not self._for_websocket:
            self._fold.feed(data)

    def _finish(self) -> None:
        self._emit(self._encoder.finish())
        self._end.finish(self.number)
        if len(self._beginning) < REPLY_BASE_BYTES:
            self._end.keep_reply(self.number, bytes(self._beginning))
        self._session.wake()
        self.record.outcome = "completed"

    def _fail(
        self, code: FailureCode, message: str, *, repeatable: bool | None = None, retry_after_s: float | None = None
    ) -> None:
        """Tell a failure: as the reply, or by aborting the one that has begun."""
        self.record.outcome, self.record.code = "failed", code
        if self._end.has_reply(self.number):
            self.flush()
            self._end.abort(self.number, "aborted", message.encode())
            self._session.wake()
            return
        method, target = self._opened.head.method, self._opened.head.target
        head, body = failure_reply(
            code, message, method=method, target=target, repeatable=repeatable, retry_after_s=retry_after_s
        )
        self.record.status = head.status
        body = body if has_content(method, head.status) else b""
        self.record.down_bytes += len(body)
        self._end.reply(self.number, replace(head, lines=reply_lines(head, method)))
        self._emit(self._encoder.feed(body))
        self._emit(self._encoder.finish())
        self._end.finish(self.number)
        self._session.wake()

    def _keep(self) -> None:
        """Keep what was sent and what came back, as far as it came, for the next request to be sent against."""
        if self._base_id is not None:
            self._resources.bases.complete(self.tenant, self._base_id, self._fold.value)

    def _add_base(self, base: Base | None) -> None:
        if base is not None:
            self._resources.bases.add(self.tenant, base)


async def _let_writers_go_first() -> None:
    """Return when the session's writer has had its turn, and the event loop has written what that sent."""
    for _ in range(2):
        await asyncio.sleep(0)

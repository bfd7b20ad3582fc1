"""Exchanges in a session that has no link, so that a test itself decides what comes back."""

from __future__ import annotations

import asyncio

from segue.http.heads import Line, ReplyHead, RequestHead
from segue.sidecar.connector import ConnectorSettings
from segue.sidecar.dialer import Dialer
from segue.sidecar.link_status import LinkTimeouts
from segue.sidecar.session import AgentExchange, GatewaySession
from segue.sidecar.stats import Stats
from segue.sidecar.tls_sessions import ResumingContext
from segue.tunnel.client import TunnelRequest
from segue.tunnel.documents import Base, BaseMiss, Body, decode_document, may_be_missed
from segue.tunnel.socket_upload import SocketUploadReader, UploadRecords
from segue.tunnel.stream_compression import REPLY_WINDOW_LOG, StreamEncoder
from segue.tunnel.websocket_records import Record, RecordError

STREAM = ReplyHead(200, b"OK", (Line(b"Content-Type", b"text/event-stream"),))
NOWHERE = ["ws://127.0.0.1:1"]
PATIENT = LinkTimeouts(wait_s=1000.0, give_up_s=1000.0)


def post(*lines: Line, target: bytes = b"/v1/messages") -> RequestHead:
    return RequestHead(b"POST", target, lines)


def unlinked_session() -> GatewaySession:
    """A session that has not begun to look for its gateway."""
    context = ResumingContext()
    return GatewaySession(NOWHERE, Dialer(ConnectorSettings(), context), timeouts=PATIENT, stats=Stats(), was_up=True)


class ScriptedSession(GatewaySession):
    """A session without a link: it records what it is asked for, and the test writes what comes back."""

    def __init__(self) -> None:
        context = ResumingContext()
        super().__init__(NOWHERE, Dialer(ConnectorSettings(), context), timeouts=PATIENT, stats=Stats(), was_up=True)
        self.room = True
        self.sent = b""
        self.was_sent = asyncio.Event()
        self.finished = asyncio.Event()

    def send(self, exchange: AgentExchange, data: bytes, *, asks: bool = False) -> None:
        if asks:
            exchange.base_missed = False
            exchange.answered.clear()
        self.sent += data
        self.was_sent.set()

    def finish(self, exchange: AgentExchange) -> None:
        self.finished.set()

    def has_room(self, exchange: AgentExchange) -> bool:
        exchange.writable.clear()
        return self.room


def scripted_exchange(request: TunnelRequest | None = None, *, keep_bytes: int = 1024) -> AgentExchange:
    """An exchange whose reply the test writes."""
    return AgentExchange(ScriptedSession(), request or TunnelRequest(post(), b"document"), keep_bytes=keep_bytes)


def waiting_exchange(request: TunnelRequest | None = None, *, keep_bytes: int = 1024) -> AgentExchange:
    """An exchange that waits in its session for a link."""
    exchange = scripted_exchange(request, keep_bytes=keep_bytes)
    exchange.session.open(exchange)
    assert exchange.ending is None
    return exchange


def compressed(body: bytes, window_log: int = REPLY_WINDOW_LOG) -> bytes:
    """A reply's body as it travels, with its end."""
    encoder = StreamEncoder(window_log)
    return encoder.feed(body) + encoder.finish()


def upload_of(sent: bytes, *bases: Base, misses: int | None = None) -> tuple[list[Record], list[bool]]:
    """What a gateway with these bases reads of a WebSocket's upload, and which of its documents named a base.

    `misses`: it lacks them for the document with this number, from 0 on.
    """
    reader, records, asked = SocketUploadReader(2**20), list[Record](), list[bool]()
    reader.feed(sent)
    while (step := reader.read()) is not None:
        assert not isinstance(step, RecordError), step.reason
        if isinstance(step, UploadRecords):
            records += step.records
            continue
        document = step.document or b""
        asked.append(may_be_missed(document))
        known = () if len(asked) - 1 == misses else bases
        body = decode_document(document, {base.id: base for base in known}.get)
        if isinstance(body, BaseMiss):
            reader.drop_message(step)
        else:
            assert isinstance(body, Body)
            records.append(reader.take_message(step, body.sent))
    return records, asked


def receive(exchange: AgentExchange, head: ReplyHead | None, data: bytes = b"") -> None:
    """Let parts of a reply come back, as a session writes them."""
    exchange.head = head or exchange.head
    exchange.log.write(data)
    exchange.changed.set()

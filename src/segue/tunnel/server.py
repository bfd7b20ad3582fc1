"""The gateway's end of the tunnel, one for each session of a sidecar.

It opens an exchange, and so forwards it, once: its number must be higher than any before it in the session, and an
exchange that the sidecar resumes is never opened again. Without a link, exchanges go on until their buffers are full.
The session can be resumed as long as the shell keeps this object. Not here: what an exchange asks for, and whether its
body can be rebuilt.
"""

from __future__ import annotations

from functools import partial

import msgspec

from segue.byte_lru import ByteLru
from segue.http.heads import ExchangeKind, ReplyHead
from segue.tunnel import parameters, static_table
from segue.tunnel.endpoint import BUFFER_BYTES, MAX_EXCHANGES, Endpoint, Exchange, TunnelViolation
from segue.tunnel.events import Cancelled, Opened, ServerEvent, UploadData, UploadEnded
from segue.tunnel.frames import (
    VERSION,
    Data,
    ExchangeResume,
    ExchangeResumed,
    ExtensionFrame,
    Frame,
    GoAway,
    Hello,
    Miss,
    Open,
    ReplyFrame,
    Reset,
    ResetCode,
    Taken,
    Welcome,
    pieces,
)
from segue.tunnel.header_table import decode_request, encode_reply, fits
from segue.tunnel.stream_compression import REPLY_BASE_BYTES
from segue.tunnel.streams import Incoming

#: An OPEN that makes so many exchanges of one session ends the link: its sidecar heeds no refusal.
FATAL_EXCHANGES = 2 * MAX_EXCHANGES
#: The beginnings of so many replies are kept for later ones to build on; each has `REPLY_BASE_BYTES` at most.
_KEPT_REPLIES = 16
_SWITCHING_PROTOCOLS = 101


class Node(msgspec.Struct, frozen=True):
    """How a gateway introduces itself: an epoch that is new with each start, its address, and its largest body."""

    epoch: bytes
    address: bytes
    max_body_bytes: int


class _ServerExchange(Exchange):
    def __init__(self, number: int, kind: ExchangeKind, *, has_body: bool) -> None:
        super().__init__(number)
        self.kind = kind
        self.has_upload = has_body or kind == "websocket"
        self.head: ReplyHead | None = None
        self.reset: Reset | None = None
        self.missed_at = 0
        """The offset that the upload had reached when its base was missed."""
        self.reply_base = b""
        """What its reply may build on."""
        self.has_base = False
        """Its reply does."""
        self.answers = 0
        """How many messages of a WebSocket were answered."""
        self.answer: Miss | Taken | None = None
        """The last of these answers."""
        self.ended = False
        """The shell has finished or aborted it."""

    @property
    def takes_data(self) -> bool:
        """The sidecar may send DATA: a document, or messages once the WebSocket was accepted."""
        if self.kind == "websocket":
            return self.head is not None and self.head.status == _SWITCHING_PROTOCOLS
        return self.has_upload


class TunnelServer(Endpoint[_ServerExchange, ServerEvent]):
    """The tunnel of one session, at the gateway."""

    def __init__(self, node: Node) -> None:
        super().__init__(ping_every_s=None, sends=static_table.REPLY, receives=static_table.REQUEST)
        self._node = node
        self._greeted = False
        self._last_opened = 0
        self._draining = False
        self._kept: ByteLru[int, bytes] = ByteLru(_KEPT_REPLIES * REPLY_BASE_BYTES)

    # --- for the shell -----------------------------------------------------------------------------------------------

    def missed(self, number: int) -> None:
        """Ask the sidecar to send the body again, or the message of a WebSocket that was read last, without a base."""
        exchange = self._exchanges.get(number)
        if exchange is None:
            return
        if exchange.kind == "websocket":
            self._answer(exchange, Miss(number, exchange.answers + 1))
            return
        assert not exchange.again, "a document without a base is refused, not missed"
        exchange.again = True
        exchange.missed_at = exchange.incoming.offset
        exchange.incoming = Incoming()
        self._queue(Miss(number, 1))

    def taken(self, number: int) -> None:
        """Tell the sidecar that the message of a WebSocket that was read last, and has a base, was rebuilt."""
        exchange = self._exchanges.get(number)
        if exchange is not None:
            self._answer(exchange, Taken(number, exchange.answers + 1))

    def build_on(self, number: int) -> bytes:
        """Return the prefix for the stream of the response, empty if there is none. Call it before `reply`."""
        exchange = self._exchanges.get(number)
        if exchange is None or exchange.head is not None:
            return b""
        exchange.has_base = bool(exchange.reply_base)
        return exchange.reply_base

    def keep_reply(self, number: int, beginning: bytes) -> None:
        """Let later responses build on this one: `beginning` is the whole, or `REPLY_BASE_BYTES` of it."""
        self._kept.put(number, beginning, size_bytes=len(beginning))

    def reply(self, number: int, head: ReplyHead) -> None:
        """Send the head of the response; if it is too large for the tunnel, abort the exchange instead."""
        exchange = self._exchanges.get(number)
        if exchange is None or exchange.ended:
            return
        if not fits(head):
            self.abort(number, "failed", b"the head of the response is too large for the tunnel")
        else:
            exchange.head = head
            self._send_head(exchange)

    def send(self, number: int, data: bytes) -> None:
        """Send the next bytes of the response."""
        exchange = self._exchanges.get(number)
        if exchange is not None and not exchange.ended:
            exchange.outgoing.write(data)
            self._give_turn(exchange)

    def finish(self, number: int) -> None:
        """End the response: it is complete."""
        exchange = self._exchanges.get(number)
        if exchange is not None and not exchange.ended:
            exchange.ended = True
            exchange.outgoing.finish()
            self._give_turn(exchange)

    def abort(self, number: int, code: ResetCode, message: bytes) -> None:
        """Cut an exchange short, after the data already sent; a complete one stays complete."""
        exchange = self._exchanges.get(number)
        if exchange is not None and not exchange.ended:
            exchange.ended = True
            exchange.reset = Reset(number, code, message)
            self._send_reset(exchange)

    def holds(self, number: int) -> bool:
        """Tell whether an exchange is under way, or its reply, to its end, is not with the sidecar yet."""
        return number in self._exchanges

    def has_reply(self, number: int) -> bool:
        """Tell whether the head of the response was sent, so that only `abort` can report a failure."""
        exchange = self._exchanges.get(number)
        return exchange is not None and exchange.head is not None

    def room(self, number: int) -> int:
        """Return the free space of the send buffer; after a 0, `Writable` tells when there is room again.

        An exchange that has ended always has room, and drops what it gets: no `Writable` would follow.
        """
        exchange = self._exchanges.get(number)
        return BUFFER_BYTES if exchange is None or exchange.ended else self._room(exchange)

    def is_idle(self, number: int) -> bool:
        """Tell whether nothing waits for the link: what is sent now leaves next."""
        exchange = self._exchanges.get(number)
        return exchange is not None and not exchange.outgoing.has_unsent

    def unsent_bytes(self, number: int) -> int:
        """Return how many bytes wait for the link: as long as some do, flushing more would not make it faster."""
        exchange = self._exchanges.get(number)
        return 0 if exchange is None else exchange.outgoing.unsent_bytes

    def consume(self, number: int, size: int) -> None:
        """Note that you have taken bytes of `UploadData`, so that the sidecar may send more."""
        exchange = self._exchanges.get(number)
        if exchange is not None:
            self._consume(exchange, size)

    def drain(self) -> None:
        """Refuse new exchanges, and tell the sidecar to open them at another node."""
        if not self._draining:
            self._draining = True
            self._queue(GoAway())

    # --- frames ------------------------------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        if not self._ready and not isinstance(frame, Hello):
            raise TunnelViolation("the first frame is not a HELLO")
        match frame:
            case Hello():
                self._on_hello(frame)
            case Open():
                self._on_open(frame)
            case Reset():
                if frame.code != "cancelled":
                    raise TunnelViolation("a sidecar only cancels an exchange")
                if frame.exchange in self._exchanges:
                    self._drop(frame.exchange)
            case ExtensionFrame():
                pass  # of an extension that this end does not have
            case _:
                raise TunnelViolation(f"a {type(frame).__name__.removesuffix('Frame')} is not for a gateway")

    def _on_hello(self, hello: Hello) -> None:
        if self._ready or hello.version != VERSION:
            raise TunnelViolation("a HELLO that does not fit")
        self._ready = True
        if not self._greeted:  # an earlier server may have opened exchanges that this one must not deny
            self._greeted, self._last_opened = True, hello.last_number
        wanted = {one.exchange: one for one in hello.resumes} if hello.epoch == self._node.epoch else {}
        for number in tuple(self._exchanges):
            if number not in wanted:
                self._drop(number)
        going_on = tuple(self._exchanges.values())
        for exchange in going_on:
            self._go_on(exchange, wanted[exchange.number])
        resumed = tuple(ExchangeResumed(one.number, self._upload_offset(one, wanted[one.number])) for one in going_on)
        self._queue(
            Welcome(
                VERSION,
                self._node.epoch,
                self._last_opened,
                self._node.max_body_bytes,
                self._node.address,
                resumed,
                parameters.OWN,
            )
        )
        for exchange in going_on:
            self._tell_again(exchange, wanted[exchange.number])
        if self._draining:
            self._queue(GoAway())

    def _go_on(self, exchange: _ServerExchange, resume: ExchangeResume) -> None:
        """Send the reply from where the sidecar is, if it can be there."""
        if (resume.has_head and exchange.head is None) or (resume.again and not exchange.again):
            raise TunnelViolation("it has what was never sent")
        if resume.reply_offset and not resume.has_head:
            raise TunnelViolation("it has a part of a reply without the head")
        self._rewind(exchange, resume.reply_offset)

    def _upload_offset(self, exchange: _ServerExchange, resume: ExchangeResume) -> int:
        """Return the offset at which the sidecar continues; it may not know of the MISS yet."""
        return exchange.incoming.offset if resume.again == exchange.again else exchange.missed_at

    def _tell_again(self, exchange: _ServerExchange, resume: ExchangeResume) -> None:
        """Repeat on a new link the frames that the old one may have lost."""
        if exchange.again and not resume.again:
            self._queue(Miss(exchange.number, 1))
        if exchange.has_upload:
            self._tell_window(exchange)
        if exchange.head is not None and not resume.has_head:
            self._send_head(exchange)
        if exchange.answer is not None:
            self._queue(exchange.answer)
        if exchange.reset is not None:
            self._send_reset(exchange)

    def _on_open(self, frame: Open) -> None:
        blob = self._collect_head(frame)
        if blob is None:
            return
        read = decode_request(blob, self._received_heads)
        if read is None:
            raise TunnelViolation("an OPEN that cannot be read")
        head, kind = read
        if frame.exchange <= self._last_opened:
            raise TunnelViolation("an OPEN with a number that was used")
        if len(self._exchanges) + 1 >= FATAL_EXCHANGES:
            raise TunnelViolation("far too many exchanges at once")
        self._last_opened = frame.exchange
        exchange = _ServerExchange(frame.exchange, kind, has_body=frame.has_body)
        if frame.reply_base:
            exchange.reply_base = self._kept.get(frame.exchange - frame.reply_base) or b""
        if self._draining or len(self._exchanges) >= MAX_EXCHANGES:
            why = b"the gateway is shutting down" if self._draining else b"too many exchanges at once"
            self._exchanges[frame.exchange] = exchange
            self.abort(frame.exchange, "not_forwarded", why)
            return
        self._exchanges[frame.exchange] = exchange
        self._events.append(Opened(frame.exchange, head, kind, frame.has_body))

    def _on_data(self, exchange: _ServerExchange, frame: Data) -> None:
        if not exchange.takes_data:
            raise TunnelViolation("DATA of an exchange that takes none")
        if frame.again != exchange.again:
            if frame.again:
                raise TunnelViolation("an upload made again without a MISS")
            return  # data of the first upload, sent before the MISS arrived
        was_final = exchange.incoming.final
        data = self._accept(exchange, frame)
        if exchange.reset is not None:
            return
        if data:
            self._events.append(UploadData(exchange.number, data))
        if exchange.incoming.final and not was_final:
            self._events.append(UploadEnded(exchange.number))

    def _answer(self, exchange: _ServerExchange, answer: Miss | Taken) -> None:
        """Answer a message; the sidecar sends no other before it has the answer, so only the last is told again."""
        exchange.answers, exchange.answer = answer.answer, answer
        self._queue(answer)

    def _on_taken(self, exchange: _ServerExchange) -> None:
        if exchange.reset is not None:
            self._send_reset(exchange)

    def _on_delivered(self, exchange: _ServerExchange) -> None:
        if exchange.outgoing.done:
            self._forget(exchange)

    # --- exchanges ---------------------------------------------------------------------------------------------------

    def _send_head(self, exchange: _ServerExchange) -> None:
        if not self._ready:
            return  # it is sent when the sidecar resumes; encoding it now would change the header table
        assert exchange.head is not None, "the head is what is sent"
        *first, last = pieces(encode_reply(exchange.head, self._sent_heads))
        for piece in first:  # a head is nearly always one
            self._queue(ReplyFrame(exchange.number, last=False, piece=piece))
        self._queue(ReplyFrame(exchange.number, last=True, piece=last, has_base=exchange.has_base))

    def _send_reset(self, exchange: _ServerExchange) -> None:
        assert exchange.reset is not None, "the reset is what is sent"
        if not exchange.outgoing.unsent_bytes:  # a link keeps the order, and the next one repeats what was lost
            self._queue(exchange.reset, delivered=partial(self._forget, exchange))

    def _forget(self, exchange: _ServerExchange) -> None:
        self._exchanges.pop(exchange.number, None)

    def _drop(self, number: int) -> None:
        """Forget an exchange that the sidecar does not want any more."""
        exchange = self._exchanges.pop(number)
        if not exchange.ended:
            self._events.append(Cancelled(number))

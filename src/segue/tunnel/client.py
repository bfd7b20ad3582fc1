"""The sidecar's end of the tunnel: it opens exchanges and resumes them over link after link.

At most once (docs/spec/tunnel.md, "At most once"): a request is complete when a link has taken its last byte. If the
node that may have a complete request is gone, or does not know it any more, the outcome is unknown, and the request is
never sent again. A request that was provably never complete is sent again. The shell names an exchange by its handle,
which stays; its number on the wire may change. Not here: the base of a document, and retries.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import NamedTuple

import msgspec

from segue.byte_lru import ByteLru
from segue.http.heads import ExchangeKind, RequestHead
from segue.tunnel import parameters, static_table
from segue.tunnel.endpoint import MAX_EXCHANGES, Endpoint, Exchange, TunnelViolation
from segue.tunnel.events import (
    BaseMissed,
    ClientEvent,
    ExchangeReset,
    GoneAway,
    OutcomeUnknown,
    ReplyData,
    ReplyEnded,
    ReplyStarted,
    UploadTaken,
    Welcomed,
    Writable,
)
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
    Taken,
    Welcome,
    pieces,
)
from segue.tunnel.header_table import decode_reply, encode_request, fits
from segue.tunnel.stream_compression import REPLY_BASE_BYTES
from segue.tunnel.streams import Outgoing

#: How often the client sends a PING. It also keeps the entry in a NAT alive.
PING_EVERY_S = 10.0


class TunnelRequest(msgspec.Struct, frozen=True):
    """A request: its head, and the document of its body if it has one (`documents`)."""

    head: RequestHead
    document: bytes | None
    kind: ExchangeKind = "http"


#: Replies of so many kinds, by path, are kept to build on; each has `REPLY_BASE_BYTES` at most.
_KEPT_REPLIES = 16
#: So many replies that have ended may still be kept: the shell may be behind.
_ENDED_REPLIES = 64


class _EndedReply(NamedTuple):
    kind: tuple[ExchangeKind, bytes]
    number: int


class _KeptReply(NamedTuple):
    number: int
    beginning: bytes


class _ClientExchange(Exchange):
    def __init__(self, handle: int, request: TunnelRequest) -> None:
        super().__init__(0)
        self.handle = handle
        self.request = request
        self.epoch = b""
        """The epoch of the node that it was opened at; empty: at none."""
        self.opened = False
        """A link to that node has taken its whole head."""
        self.has_head = False
        self.awaits_document = False
        """The gateway missed the base, and the shell is making a document without one."""
        self.asked = 0
        """How many of the messages that went up ask for an answer, if it is a WebSocket."""
        self.answers = 0
        """How many of them were answered."""
        self.reply_base = b""
        """What its reply may build on."""

    @property
    def kind(self) -> tuple[ExchangeKind, bytes]:
        """Replies of one kind resemble each other: those of one path."""
        return self.request.kind, self.request.head.target.partition(b"?")[0]

    @property
    def sends_again(self) -> bool:
        """A MISS has come: what goes up now is the second upload."""
        return self.again

    @property
    def may_be_missed(self) -> bool:
        """A MISS may come of its document: there is one at most, before the reply."""
        return self.request.document is not None and not self.has_head and not self.again

    @property
    def complete(self) -> bool:
        """A link has taken the whole request, so the node may have forwarded it."""
        return self.opened and (self.request.document is None or self.outgoing.final_taken)


class TunnelClient(Endpoint[_ClientExchange, ClientEvent]):
    """The tunnel of one session of a sidecar. The shell sends the session id, in its upgrade request."""

    def __init__(self) -> None:
        super().__init__(PING_EVERY_S, sends=static_table.REQUEST, receives=static_table.REPLY)
        self._epoch = b""
        self._handles: dict[int, _ClientExchange] = {}
        self._waiting: OrderedDict[int, _ClientExchange] = OrderedDict()
        self._last_handle = 0
        self._last_number = 0
        self._ended: OrderedDict[int, _EndedReply] = OrderedDict()
        self._kept: ByteLru[tuple[ExchangeKind, bytes], _KeptReply] = ByteLru(_KEPT_REPLIES * REPLY_BASE_BYTES)

    def __len__(self) -> int:
        """How many exchanges are under way."""
        return len(self._handles)

    @property
    def epoch(self) -> bytes:
        """The epoch of the node at the other end of the present or last link; empty before the first."""
        return self._epoch

    def is_bound(self) -> bool:
        """Tell whether exchanges are under way that only the node of the last link can go on with."""
        return any(one.complete or one.has_head for one in self._exchanges.values())

    # --- for the shell -----------------------------------------------------------------------------------------------

    def link_opened(self, now: float) -> None:
        """Start on a new connection with a HELLO that names the exchanges to resume."""
        super().link_opened(now)
        resumes = tuple(
            ExchangeResume(one.number, one.incoming.offset, one.has_head, one.again)
            for one in self._exchanges.values()
            if one.epoch == self._epoch
        )
        assert self._link is not None, "it was opened"
        self._link.queue(Hello(VERSION, self._epoch, self._last_number, resumes, parameters.OWN))

    def open(self, request: TunnelRequest) -> int:
        """Open an exchange, as soon as there is a link and not too many run; return its handle.

        Its head must fit (`header_table.fits`).
        """
        if not fits(request.head):
            raise ValueError("the head of a request does not fit: refuse it with 431")
        self._last_handle += 1
        exchange = _ClientExchange(self._last_handle, request)
        self._handles[exchange.handle] = self._waiting[exchange.handle] = exchange
        self._open_waiting()
        return exchange.handle

    def upload_again(self, handle: int, document: bytes) -> None:
        """Answer `BaseMissed` with a document that needs no base."""
        exchange = self._handles.get(handle)
        if exchange is None or not exchange.awaits_document:
            return  # it was opened at another node meanwhile, with its first document
        exchange.request = msgspec.structs.replace(exchange.request, document=document)
        self._load(exchange)
        self._give_turn(exchange)

    def send(self, handle: int, data: bytes, *, asks: bool = False) -> None:
        """Send bytes of a WebSocket's messages.

        `asks`: they end with a document that needs a base. `UploadTaken` or `BaseMissed` answers it; send nothing
        behind it before.
        """
        exchange = self._handles.get(handle)
        if exchange is not None:
            exchange.asked += asks
            self._send(exchange, data)

    def finish(self, handle: int) -> None:
        """End the messages of a WebSocket."""
        exchange = self._handles.get(handle)
        if exchange is not None:
            exchange.outgoing.finish()
            self._give_turn(exchange)

    def room(self, handle: int) -> int:
        """Return the free space of the send buffer; after a 0, `Writable` tells when there is room again."""
        exchange = self._handles.get(handle)
        return 0 if exchange is None else self._room(exchange)

    def consume(self, handle: int, size: int) -> None:
        """Note that the agent has taken bytes of `ReplyData`, so that the gateway may send more."""
        exchange = self._handles.get(handle)
        if exchange is not None:
            self._consume(exchange, size)

    def reply_base(self, handle: int) -> bytes:
        """Return what the reply may build on; empty if that is not known yet, or nothing."""
        exchange = self._handles.get(handle)
        return b"" if exchange is None else exchange.reply_base

    def keep_reply(self, handle: int, beginning: bytes) -> None:
        """Let later replies of its kind build on a reply: `beginning` is the whole, or `REPLY_BASE_BYTES` of it."""
        running, ended = self._handles.get(handle), self._ended.pop(handle, None)
        if running is not None and running.has_head and len(beginning) == REPLY_BASE_BYTES:
            ended = _EndedReply(running.kind, running.number)
        if ended is not None and beginning:
            self._kept.put(ended.kind, _KeptReply(ended.number, beginning), size_bytes=len(beginning))

    def cancel(self, handle: int) -> None:
        """Give an exchange up, since the agent is gone. Without a link, the next HELLO just does not name it."""
        exchange = self._handles.get(handle)
        if exchange is None:
            return
        if exchange.epoch:
            self._queue(Reset(exchange.number, "cancelled", b""))
        self._forget(exchange)

    def leave(self) -> None:
        """Give up all exchanges and acknowledge what has come, in the next packets: the session is over."""
        for handle in tuple(self._handles):
            self.cancel(handle)
        self.acknowledge()

    def is_complete(self, handle: int) -> bool:
        """Tell whether the whole request has left, so that the gateway may have forwarded it."""
        exchange = self._handles.get(handle)
        return exchange is not None and exchange.complete

    # --- frames ------------------------------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        if not self._ready and not isinstance(frame, Welcome):
            raise TunnelViolation("the first frame is not a WELCOME")
        match frame:
            case Welcome():
                self._on_welcome(frame)
            case ReplyFrame():
                self._on_reply(frame)
            case Miss():
                self._on_miss(frame)
            case Taken():
                self._on_upload_taken(frame)
            case Reset():
                self._on_reset(frame)
            case GoAway():
                self._events.append(GoneAway())
            case ExtensionFrame():
                pass  # of an extension that this end does not have
            case _:
                raise TunnelViolation(f"a {type(frame).__name__} is not for a sidecar")

    def _on_welcome(self, welcome: Welcome) -> None:
        if self._ready or welcome.version != VERSION or not welcome.epoch:
            raise TunnelViolation("a WELCOME that does not fit")
        new_epoch = welcome.epoch != self._epoch
        self._epoch = welcome.epoch
        self._ready = True
        if new_epoch:  # another node has none of the replies
            self._ended.clear()
            self._kept = ByteLru(_KEPT_REPLIES * REPLY_BASE_BYTES)
        folds_alike = parameters.folds_alike(welcome.parameters)
        self._events.append(
            Welcomed(welcome.epoch, welcome.address, welcome.max_body_bytes, new_epoch, folds_alike=folds_alike)
        )
        resumed = {one.exchange: one for one in welcome.resumed}
        for exchange in tuple(self._exchanges.values()):  # in the order in which they were opened
            if exchange.epoch == welcome.epoch and exchange.number in resumed:
                self._resume(exchange, resumed.pop(exchange.number))
            elif self._never_arrived(exchange, welcome):
                self._open(exchange)
            else:
                self._lose(exchange)
        for number in resumed:  # given up after the HELLO which named it
            self._queue(Reset(number, "cancelled", b""))
        self._open_waiting()

    def _never_arrived(self, exchange: _ClientExchange, welcome: Welcome) -> bool:
        """Tell whether no node can have forwarded the request, so that it may be opened again.

        Either the request never left as a whole; or the very node that it was sent to never opened an exchange with
        this number or a later one. A request that was answered is never sent again: its agent has seen the answer.
        """
        if exchange.has_head:
            return False
        if not exchange.complete:
            return True
        return exchange.epoch == welcome.epoch and exchange.number > welcome.last_opened

    def _lose(self, exchange: _ClientExchange) -> None:
        self._forget(exchange)
        if exchange.complete:
            taken_bytes = exchange.outgoing.taken_bytes if exchange.request.kind == "websocket" else None
            self._events.append(OutcomeUnknown(exchange.handle, taken_bytes))
        else:  # answered before its request was complete, so nothing was forwarded
            self._events.append(ExchangeReset(exchange.handle, "aborted", b"the node that answered is gone"))

    def _resume(self, exchange: _ClientExchange, resumed: ExchangeResumed) -> None:
        self._rewind(exchange, resumed.upload_offset)
        self._tell_window(exchange)

    def _on_reply(self, frame: ReplyFrame) -> None:
        blob = self._collect_head(frame)
        if blob is None:
            return
        head = decode_reply(blob, self._received_heads)
        if head is None:
            raise TunnelViolation("a REPLY that cannot be read")
        exchange = self._exchanges.get(frame.exchange)
        if exchange is not None and not exchange.has_head:
            if frame.has_base and not exchange.reply_base:
                raise TunnelViolation("a REPLY that builds on what OPEN did not name")
            exchange.has_head = True
            prefix = exchange.reply_base if frame.has_base else b""
            self._events.append(ReplyStarted(exchange.handle, head, prefix))

    def _on_miss(self, frame: Miss) -> None:
        exchange = self._exchanges.get(frame.exchange)
        if exchange is None:
            return
        if exchange.request.kind == "websocket":
            self._on_answer(exchange, frame.answer, BaseMissed(exchange.handle))
            return
        if not exchange.may_be_missed or frame.answer != 1:
            raise TunnelViolation("a MISS of what has no base")
        exchange.again = exchange.awaits_document = True
        exchange.outgoing = Outgoing()
        self._events.append(BaseMissed(exchange.handle))

    def _on_answer(self, exchange: _ClientExchange, number: int, event: BaseMissed | UploadTaken) -> None:
        """Take the answer to a message, which every link tells again."""
        if not exchange.answers <= number <= min(exchange.asked, exchange.answers + 1) or not number:
            raise TunnelViolation("an answer to a message that asks for none")
        if number > exchange.answers:
            exchange.answers = number
            self._events.append(event)

    def _on_reset(self, frame: Reset) -> None:
        if frame.code == "cancelled":
            raise TunnelViolation("only a sidecar cancels an exchange")
        exchange = self._exchanges.get(frame.exchange)
        if exchange is not None:
            self._forget(exchange)
            self._events.append(ExchangeReset(exchange.handle, frame.code, frame.message))

    def _on_upload_taken(self, frame: Taken) -> None:
        exchange = self._exchanges.get(frame.exchange)
        if exchange is None:
            return
        if exchange.request.kind != "websocket":
            raise TunnelViolation("a TAKEN of what has no messages")
        self._on_answer(exchange, frame.answer, UploadTaken(exchange.handle))

    def _on_data(self, exchange: _ClientExchange, frame: Data) -> None:
        if not exchange.has_head or frame.again:
            raise TunnelViolation("DATA before its REPLY, or of an upload")
        data = self._accept(exchange, frame)
        if data:
            self._events.append(ReplyData(exchange.handle, data))
        if exchange.incoming.final:
            self._note_ended(exchange)
            self._forget(exchange)
            self._events.append(ReplyEnded(exchange.handle))

    def _note_ended(self, exchange: _ClientExchange) -> None:
        self._ended[exchange.handle] = _EndedReply(exchange.kind, exchange.number)
        if len(self._ended) > _ENDED_REPLIES:
            self._ended.popitem(last=False)

    def _tell_writable(self, exchange: _ClientExchange) -> None:
        self._events.append(Writable(exchange.handle))

    # --- exchanges ---------------------------------------------------------------------------------------------------

    def _open_waiting(self) -> None:
        while self._ready and self._waiting and len(self._exchanges) < MAX_EXCHANGES:
            self._open(self._waiting.popitem(last=False)[1])

    def _open(self, exchange: _ClientExchange) -> None:
        """Open an exchange at this node under a new number: no number is used twice in a session."""
        self._exchanges.pop(exchange.number, None)
        self._last_number += 1
        exchange.number = self._last_number
        exchange.epoch = self._epoch
        exchange.opened = exchange.again = False
        self._exchanges[exchange.number] = exchange
        request = exchange.request
        *first, last = pieces(encode_request(request.head, request.kind, self._sent_heads))
        for piece in first:
            self._queue(Open(exchange.number, last=False, has_body=False, piece=piece))
        has_body = request.document is not None
        kept = self._kept.get(exchange.kind)
        exchange.reply_base = b"" if kept is None else kept.beginning
        reply_base = 0 if kept is None else exchange.number - kept.number
        self._queue(
            Open(exchange.number, last=True, has_body=has_body, piece=last, reply_base=reply_base),
            taken=partial(self._note_opened, exchange, exchange.number),
        )
        if request.kind == "http":
            self._load(exchange)
        self._give_turn(exchange)

    def _note_opened(self, exchange: _ClientExchange, number: int) -> None:
        if exchange.number == number:
            exchange.opened = True

    def _load(self, exchange: _ClientExchange) -> None:
        exchange.awaits_document = False
        exchange.outgoing = Outgoing()
        if exchange.request.document is not None:
            exchange.outgoing.write(exchange.request.document)
            exchange.outgoing.finish()

    def _forget(self, exchange: _ClientExchange) -> None:
        self._handles.pop(exchange.handle, None)
        self._waiting.pop(exchange.handle, None)
        self._exchanges.pop(exchange.number, None)
        self._open_waiting()

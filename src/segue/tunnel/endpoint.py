"""What both ends of the tunnel share: a link that comes and goes, exchanges that outlive it, and a round-robin of data.

An endpoint is pure. Its shell calls `link_opened`, passes each binary message to `receive`, sends what `next_packet`
returns until it returns None, comes back at `next_deadline`, and calls `link_lost` when the connection is gone. The
shell must not pass on messages of an earlier connection, and must send packets on the present one only. Nothing that a
peer sends raises. Not here: what frames mean to each end (`client`, `server`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from segue.tunnel.events import LinkFailed, Writable
from segue.tunnel.frames import (
    Ack,
    BadPacket,
    Data,
    Frame,
    Open,
    Ping,
    Pong,
    ReplyFrame,
    Window,
    encode_data,
    read_packet,
)
from segue.tunnel.header_table import MAX_HEAD_BYTES, HeaderTable
from segue.tunnel.link import QueuedFrame, TunnelLink
from segue.tunnel.streams import Incoming, Outgoing, Piece

#: The most exchanges of one session at the same time: a client lets more wait, and a server refuses them.
MAX_EXCHANGES = 256
#: The size of the send buffer of an exchange: when it is full, `room` returns 0.
BUFFER_BYTES = 1024 * 1024
#: Frames that are not acknowledged.
_NOT_ELICITING = frozenset({Ack, Ping, Pong})


class TunnelViolation(Exception):
    """Raised inside an endpoint when the peer breaks the protocol; `receive` turns it into a `LinkFailed`."""


class Exchange:
    """The state of an exchange that both ends keep."""

    def __init__(self, number: int) -> None:
        self.number = number
        """Its number on the wire."""
        self.outgoing = Outgoing()
        self.incoming = Incoming()
        self.again = False
        """The upload is the second one, made after a MISS."""
        self.starved = False
        """`room` has returned 0, and `Writable` was not told since."""

    @property
    def sends_again(self) -> bool:
        """What this end sends is the upload made again; a reply never is."""
        return False


X = TypeVar("X", bound=Exchange)
V = TypeVar("V")


class Endpoint(ABC, Generic[X, V]):
    """One end of the tunnel; X is the type of its exchanges and V the type of its events."""

    def __init__(self, ping_every_s: float | None, *, sends: Sequence[bytes], receives: Sequence[bytes]) -> None:
        self._ping_every_s = ping_every_s
        self._exchanges: dict[int, X] = {}
        self._link: TunnelLink | None = None
        self._ready = False
        self._turns: OrderedDict[int, None] = OrderedDict()
        self._events: list[V | LinkFailed | Writable] = []
        self._static_tables = sends, receives
        self._sent_heads, self._received_heads = map(HeaderTable, self._static_tables)
        self._partial_head = bytearray()
        self._partial_of = 0

    # --- the link ----------------------------------------------------------------------------------------------------

    def link_opened(self, now: float) -> None:
        """Start on a new connection, and forget one that is still open."""
        self._link = TunnelLink(now, self._ping_every_s)
        self._ready = False
        self._turns.clear()
        self._sent_heads, self._received_heads = map(HeaderTable, self._static_tables)
        self._partial_head = bytearray()
        self._partial_of = 0

    def link_lost(self) -> None:
        """Go on without a connection."""
        self._link = None
        self._ready = False

    @property
    def ready(self) -> bool:
        """The link is open, and HELLO and WELCOME were exchanged."""
        return self._ready

    def is_quiet(self, now: float, for_s: float) -> bool:
        """Tell whether there is no link, or its peer owes an answer and has been silent for this long."""
        return self._link is None or self._link.is_quiet(now, for_s)

    def quiet_since(self) -> float | None:
        """Return since when the peer owes an answer and has been silent; None: it owes none, or there is no link."""
        return None if self._link is None else self._link.quiet_since()

    @property
    def heard_at(self) -> float | None:
        """When a packet of the peer came last, or the link began; None: there is no link."""
        return None if self._link is None else self._link.heard_at

    def probe(self) -> None:
        """Send a PING with the next packets: the link is in doubt."""
        if self._link is not None:
            self._link.probe()

    @property
    def rtt_s(self) -> float | None:
        """The minimum round-trip time of the link lately."""
        return None if self._link is None else self._link.rtt_s

    def receive(self, packet: bytes, now: float) -> list[V | LinkFailed | Writable]:
        """Take one binary message of the peer."""
        link = self._link
        if link is None:
            return []
        frames = read_packet(packet)
        if isinstance(frames, BadPacket):
            return self._fail(frames.reason)
        eliciting = False
        for frame in frames:
            if type(frame) not in _NOT_ELICITING:
                eliciting = True
                break
        link.note_received(len(packet), now, eliciting=eliciting)
        try:
            for frame in frames:
                self._receive_frame(frame, link, now)
        except TunnelViolation as error:
            return self._fail(str(error))
        if link.overrun:
            return self._fail("the other end does not take what it asks for")
        events, self._events = self._events, []
        return events

    @property
    def has_to_send(self) -> bool:
        """Call `next_packet` soon: before the next deadline there may be something."""
        link = self._link
        return link is not None and (bool(self._turns) or link.has_to_send)

    def next_packet(self, now: float) -> bytes | None:
        """Return the next message to send, or None if there is none that may be sent now."""
        return None if self._link is None else self._link.compose(now, self._take_data)

    def acknowledge(self) -> None:
        """Acknowledge in the next packet what the peer has sent: you are about to leave, and it need not keep that."""
        if self._link is not None:
            self._link.acknowledge()

    def next_deadline(self) -> float | None:
        """Return when to call `handle_timeout`, and then `next_packet` again."""
        return None if self._link is None else self._link.next_deadline()

    def handle_timeout(self, now: float) -> list[V | LinkFailed | Writable]:
        """Check whether the peer is still alive. You may call it early."""
        if self._link is not None and self._link.is_dead(now):
            return self._fail("the other end has been silent for too long")
        return []

    def _fail(self, reason: str) -> list[V | LinkFailed | Writable]:
        """Give the link up at once: after a frame that was not read, the header tables of the two ends differ."""
        self.link_lost()
        events, self._events = self._events, []
        return [*events, LinkFailed(reason)]

    # --- for both shells ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many exchanges are under way."""
        return len(self._exchanges)

    def _send(self, exchange: X, data: bytes) -> None:
        exchange.outgoing.write(data)
        self._give_turn(exchange)

    def _room(self, exchange: X) -> int:
        room = BUFFER_BYTES - exchange.outgoing.kept_bytes
        exchange.starved = room <= 0
        return max(0, room)

    def _consume(self, exchange: X, size: int) -> None:
        limit = exchange.incoming.consume(size)
        if limit is not None:
            self._queue(Window(exchange.number, limit))

    # --- frames ------------------------------------------------------------------------------------------------------

    def _receive_frame(self, frame: Frame, link: TunnelLink, now: float) -> None:
        if not self._ready and isinstance(frame, Data | Window):
            raise TunnelViolation("the first frame of a link says who is there")
        match frame:
            case Data():
                exchange = self._exchanges.get(frame.exchange)
                if exchange is not None:  # data of a cancelled exchange may still arrive
                    self._on_data(exchange, frame)
            case Ack():
                if not link.on_ack(frame, now):
                    raise TunnelViolation("an ACK of what was not sent")
            case Window():
                exchange = self._exchanges.get(frame.exchange)
                if exchange is not None:
                    exchange.outgoing.grant(frame.limit)
                    self._give_turn(exchange)
            case Ping():
                link.on_ping(frame)
            case Pong():
                link.on_pong(frame, now)
            case _:
                self._on_frame(frame)

    @abstractmethod
    def _on_data(self, exchange: X, frame: Data) -> None:
        """Take bytes of an exchange that is under way."""

    @abstractmethod
    def _on_frame(self, frame: Frame) -> None:
        """Take a frame that means something else at each end; may raise `TunnelViolation`."""

    def _on_taken(self, exchange: X) -> None:
        """Called when the link has taken more, maybe all, of what the exchange sends."""

    def _on_delivered(self, exchange: X) -> None:
        """Called when the peer has acknowledged more, maybe all, of what the exchange sends."""

    def _accept(self, exchange: X, frame: Data) -> bytes:
        data = exchange.incoming.accept(Piece(frame.offset, frame.payload, frame.final))
        if data is None:
            raise TunnelViolation("DATA that leaves a gap, or goes beyond the window")
        return data

    def _queue(
        self, frame: Frame, *, taken: Callable[[], None] | None = None, delivered: Callable[[], None] | None = None
    ) -> None:
        """Queue a control frame if the link is ready; whatever matters is told again when a link gets ready."""
        if self._link is not None and self._ready:
            self._link.queue(frame, taken=taken, delivered=delivered)

    def _tell_window(self, exchange: X) -> None:
        """Tell the window on a new link: the last WINDOW may have been lost with the old one."""
        self._queue(Window(exchange.number, exchange.incoming.limit))

    def _collect_head(self, frame: Open | ReplyFrame) -> bytes | None:
        """Put the pieces of a head together; return None until the last one."""
        if frame.last and not self._partial_head:
            return frame.piece  # no packet is as large as a head may be
        if self._partial_head and frame.exchange != self._partial_of:
            raise TunnelViolation("a head within another")
        self._partial_of = frame.exchange
        self._partial_head += frame.piece
        if len(self._partial_head) > 2 * MAX_HEAD_BYTES:
            raise TunnelViolation("a head is too large")
        if not frame.last:
            return None
        head = bytes(self._partial_head)
        self._partial_head.clear()
        return head

    # --- round-robin ------------------------------------------------------------------------------------------------

    def _give_turn(self, exchange: X) -> None:
        if exchange.number not in self._turns and exchange.outgoing.sendable:
            self._turns[exchange.number] = None

    def _take_data(self, limit: int) -> QueuedFrame | None:
        """Take a data frame from the exchange whose turn it is."""
        while self._turns and self._ready:
            exchange = self._exchanges.get(self._turns.popitem(last=False)[0])
            piece = None if exchange is None else exchange.outgoing.take(limit)
            if exchange is None or piece is None:
                continue
            if exchange.outgoing.has_unsent or exchange.outgoing.finished:
                self._give_turn(exchange)
            self._on_taken(exchange)
            offset, data, final = piece.offset, piece.data, piece.final
            encoded = encode_data(exchange.number, offset, data, final=final, again=exchange.sends_again)
            delivered = partial(self._delivered, exchange, exchange.outgoing, offset + len(data), final=final)
            return QueuedFrame(encoded, None, delivered)
        return None

    def _delivered(self, exchange: X, outgoing: Outgoing, end: int, *, final: bool) -> None:
        outgoing.acknowledge(end, final=final)
        if outgoing is not exchange.outgoing:
            return  # the upload was replaced after a MISS
        if exchange.starved:
            self._look_for_room(exchange)
        self._on_delivered(exchange)

    def _rewind(self, exchange: X, offset: int) -> None:
        """Continue on a new link at the offset that the peer has received."""
        if not exchange.outgoing.rewind(offset):
            raise TunnelViolation("it wants to go on from where nothing is")
        if exchange.starved:
            self._look_for_room(exchange)
        self._give_turn(exchange)

    def _look_for_room(self, exchange: X) -> None:
        if exchange.outgoing.kept_bytes <= BUFFER_BYTES // 2:
            exchange.starved = False
            self._tell_writable(exchange)

    def _tell_writable(self, exchange: X) -> None:
        self._events.append(Writable(exchange.number))

"""What both ends of the tunnel have in common: a link that comes and goes, exchanges that outlive it, and fair turns.

An end is pure. Its shell calls `link_opened`, feeds each binary message to `receive`, sends what `next_packet` gives
until it gives None, comes back at `next_deadline`, and says `link_lost` when the connection is gone for whatever
reason. What still comes out of an earlier connection must not be given to `receive`, and what `next_packet` gives must
go to the present one. Nothing a peer sends raises. Not here: what frames mean to each end (`sidecar_end`,
`gateway_end`).
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
    encode_frame,
    read_packet,
)
from segue.tunnel.header_table import MAX_HEAD_BYTES, HeaderTable
from segue.tunnel.link import Parcel, TunnelLink
from segue.tunnel.streams import Incoming, Outgoing, Piece

#: Exchanges of one session at the same time: a sidecar lets more wait, and a gateway refuses them.
MAX_EXCHANGES = 256
#: How much an exchange may hold of what it sends before `room` says that there is none.
BUFFER_BYTES = 1024 * 1024


class ProtocolViolation(Exception):
    """Raised inside an end when the peer breaks the protocol; `receive` makes a `LinkFailed` of it."""


class Exchange:
    """What both ends keep of an exchange."""

    def __init__(self, number: int) -> None:
        self.number = number
        """Its number on the wire."""
        self.outgoing = Outgoing()
        self.incoming = Incoming()
        self.again = False
        """The upload is the second, made after a MISS."""
        self.is_starved = False
        """`room` has said that there is none."""


X = TypeVar("X", bound=Exchange)
V = TypeVar("V")


class TunnelEndpoint(ABC, Generic[X, V]):
    """One end of the tunnel; X is its kind of exchange and V its kind of events."""

    def __init__(self, ping_every_s: float | None, *, sends: Sequence[bytes], receives: Sequence[bytes]) -> None:
        self._ping_every_s = ping_every_s
        self._exchanges: dict[int, X] = {}
        self._link: TunnelLink | None = None
        self._ready = False
        self._turns: OrderedDict[int, None] = OrderedDict()
        self._events: list[V | LinkFailed | Writable] = []
        self._presets = sends, receives
        self._sent_heads, self._received_heads = map(HeaderTable, self._presets)
        self._partial_head = bytearray()
        self._partial_of = 0

    # --- the link ----------------------------------------------------------------------------------------------------

    def link_opened(self, now: float) -> None:
        """Begin on a new connection; one that is still open is forgotten."""
        self._link = TunnelLink(now, self._ping_every_s)
        self._ready = False
        self._turns.clear()
        self._sent_heads, self._received_heads = map(HeaderTable, self._presets)
        self._partial_head = bytearray()
        self._partial_of = 0

    def link_lost(self) -> None:
        """Go on without a connection."""
        self._link = None
        self._ready = False

    @property
    def ready(self) -> bool:
        """The link is open and both first frames are through."""
        return self._ready

    def is_quiet(self, now: float, for_s: float) -> bool:
        """Tell whether the link is away, or silent with something outstanding for this long."""
        return self._link is None or self._link.is_quiet(now, for_s)

    @property
    def rtt_s(self) -> float | None:
        """The link's least round-trip time lately."""
        return None if self._link is None else self._link.rtt_s

    def receive(self, packet: bytes, now: float) -> list[V | LinkFailed | Writable]:
        """Take one binary message of the peer."""
        link = self._link
        if link is None:
            return []
        frames = read_packet(packet)
        if isinstance(frames, BadPacket):
            return self._fail(frames.reason)
        link.note_received(
            len(packet), now, eliciting=any(not isinstance(frame, Ack | Ping | Pong) for frame in frames)
        )
        try:
            for frame in frames:
                self._receive_frame(frame, link, now)
        except ProtocolViolation as error:
            return self._fail(str(error))
        if link.is_overrun:
            return self._fail("the other end does not take what it asks for")
        return self._take_events()

    def next_packet(self, now: float) -> bytes | None:
        """Return the next message to send, if there is one that may be sent now."""
        return None if self._link is None else self._link.compose(now, self._take_data)

    def next_deadline(self) -> float | None:
        """Return when to call `handle_timeout`, and to ask for packets again."""
        return None if self._link is None else self._link.next_deadline()

    def handle_timeout(self, now: float) -> list[V | LinkFailed | Writable]:
        """Look whether the peer is still there; called early it does no harm."""
        if self._link is not None and self._link.is_dead(now):
            return self._fail("the other end has been silent for too long")
        return []

    def _fail(self, reason: str) -> list[V | LinkFailed | Writable]:
        """Give the link up at once: what comes after something unread would be read against the wrong line table."""
        self.link_lost()
        return [*self._take_events(), LinkFailed(reason)]

    # --- for both kinds of shells ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many exchanges are under way."""
        return len(self._exchanges)

    def _send(self, exchange: X, data: bytes) -> None:
        exchange.outgoing.write(data)
        self._give_turn(exchange)

    def _room(self, exchange: X) -> int:
        room = BUFFER_BYTES - exchange.outgoing.kept_bytes
        exchange.is_starved = room <= 0
        return max(0, room)

    def _consume(self, exchange: X, size: int) -> None:
        limit = exchange.incoming.consume(size)
        if limit is not None:
            self._queue(Window(exchange.number, limit))

    # --- frames ------------------------------------------------------------------------------------------------------

    def _receive_frame(self, frame: Frame, link: TunnelLink, now: float) -> None:
        if not self._ready and isinstance(frame, Data | Window):
            raise ProtocolViolation("the first frame of a link says who is there")
        match frame:
            case Ack():
                if not link.on_ack(frame, now):
                    raise ProtocolViolation("an ACK of what was not sent")
            case Ping():
                link.on_ping(frame)
            case Pong():
                link.on_pong(frame, now)
            case Window():
                exchange = self._exchanges.get(frame.exchange)
                if exchange is not None:
                    exchange.outgoing.grant(frame.limit)
                    self._give_turn(exchange)
            case Data():
                exchange = self._exchanges.get(frame.exchange)
                if exchange is not None:  # what was cancelled may still be on its way
                    self._on_data(exchange, frame)
            case _:
                self._on_frame(frame)

    @abstractmethod
    def _on_data(self, exchange: X, frame: Data) -> None:
        """Take bytes of an exchange that is under way."""

    @abstractmethod
    def _on_frame(self, frame: Frame) -> None:
        """Take a frame that has another meaning at each end; may raise `ProtocolViolation`."""

    def _on_taken(self, exchange: X) -> None:
        """Look at an exchange that has more, maybe all, of what it sends on this link."""

    def _on_delivered(self, exchange: X) -> None:
        """Look at an exchange whose peer has received more, maybe all, of what it was sent."""

    def _accept(self, exchange: X, frame: Data) -> bytes:
        data = exchange.incoming.accept(Piece(frame.offset, frame.payload, frame.final))
        if data is None:
            raise ProtocolViolation("DATA that leaves a gap, or goes beyond the window")
        return data

    def _queue(
        self, frame: Frame, *, taken: Callable[[], None] | None = None, delivered: Callable[[], None] | None = None
    ) -> None:
        """Queue a control frame, unless the link is not ready: what matters is told when it is."""
        if self._link is not None and self._ready:
            self._link.queue(frame, taken=taken, delivered=delivered)

    def _tell_window(self, exchange: X) -> None:
        """Tell on a new link what may have been lost with the old one."""
        self._queue(Window(exchange.number, exchange.incoming.limit))

    def _collect_head(self, frame: Open | ReplyFrame) -> bytes | None:
        """Put the pieces of a head together; None until the last."""
        if self._partial_head and frame.exchange != self._partial_of:
            raise ProtocolViolation("a head within another")
        self._partial_of = frame.exchange
        self._partial_head += frame.piece
        if len(self._partial_head) > 2 * MAX_HEAD_BYTES:
            raise ProtocolViolation("a head is too large")
        if not frame.last:
            return None
        head = bytes(self._partial_head)
        self._partial_head.clear()
        return head

    # --- turns -------------------------------------------------------------------------------------------------------

    def _give_turn(self, exchange: X) -> None:
        if exchange.outgoing.sendable and exchange.number not in self._turns:
            self._turns[exchange.number] = None

    def _take_data(self, limit: int) -> Parcel | None:
        """Take a frame of the exchange whose turn it is."""
        while self._turns and self._ready:
            exchange = self._exchanges.get(self._turns.popitem(last=False)[0])
            piece = None if exchange is None else exchange.outgoing.take(limit)
            if exchange is None or piece is None:
                continue
            self._give_turn(exchange)
            self._on_taken(exchange)
            frame = Data(exchange.number, piece.offset, piece.final, exchange.again, piece.data)
            end = piece.offset + len(piece.data)
            delivered = partial(self._delivered, exchange, exchange.outgoing, end, final=piece.final)
            return Parcel(encode_frame(frame), None, delivered)
        return None

    def _delivered(self, exchange: X, outgoing: Outgoing, end: int, *, final: bool) -> None:
        outgoing.acknowledge(end, final=final)
        if outgoing is not exchange.outgoing:
            return  # of an upload that has been replaced
        self._look_for_room(exchange)
        self._on_delivered(exchange)

    def _rewind(self, exchange: X, offset: int) -> None:
        """Go on from where the peer is, on a new link."""
        if not exchange.outgoing.rewind(offset):
            raise ProtocolViolation("it wants to go on from where nothing is")
        self._look_for_room(exchange)
        self._give_turn(exchange)

    def _look_for_room(self, exchange: X) -> None:
        if exchange.is_starved and exchange.outgoing.kept_bytes <= BUFFER_BYTES // 2:
            exchange.is_starved = False
            self._tell_writable(exchange)

    def _tell_writable(self, exchange: X) -> None:
        self._events.append(Writable(exchange.number))

    def _take_events(self) -> list[V | LinkFailed | Writable]:
        events, self._events = self._events, []
        return events

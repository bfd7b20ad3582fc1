"""One connection of the tunnel, either end: acknowledgements, delay-based congestion control, and heartbeats.

A congestion window bounds the unacknowledged bytes: it grows while packets pass without queueing and shrinks when they
queue, so that a heartbeat never waits behind a megabyte. Every packet received is a sign of life. A link ends with its
connection; streams outlive it (`streams`). Not here: what frames mean, and the clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from segue.tunnel.frames import (
    MAX_PACKET_BYTES,
    OVERHEAD_BYTES,
    Ack,
    Frame,
    Ping,
    Pong,
    encode_ack,
    encode_frame,
    encode_packet,
)

#: An end acknowledges this many received bytes at once: half of the first window, so that a window grows without a
#: wait.
ACK_BYTES = 8 * 1024
#: It delays the acknowledgement of this many by `ACK_SOON_S`. The smallest window is twice as large, so the delay
#: hardly leaves a thin link idle; and a reply that comes at once, of some packets, takes one acknowledgement, which the
#: next request carries if it follows soon.
ACK_SOON_BYTES = 2 * 1024
ACK_SOON_S = 0.05
#: It delays the acknowledgement of fewer by this: the events of a reply are fewer bytes in a second.
ACK_DELAY_S = 1.0

#: The first size of the window (TCP's too, and 0.8 s of a link with 20 KB/s), and its bounds.
INITIAL_BYTES = 16 * 1024
MIN_BYTES = 4 * 1024
MAX_BYTES = 8 * 1024 * 1024
#: The queueing delay that the window aims at on a full link. Less would be the noise of hosts and radios; more would
#: delay heartbeats.
TARGET_QUEUE_S = 0.25
#: A measured minimum of the round-trip time counts for this long at least, and for twice as long at most.
MIN_RTT_LIFETIME_S = 30.0
#: After so long without anything in flight the window restarts: the path may be another one by now.
IDLE_S = 10.0
#: A window has room for at least this many packets: while some travel, others are acknowledged.
PACKETS_PER_WINDOW = 8
#: A data frame at the end of a packet has at least this much room for its payload, or is left for the next packet.
MIN_PAYLOAD_BYTES = 128

#: A link is dead if the peer is silent for so long while it owes an acknowledgement or a PONG.
DEAD_S = 20.0
#: A link is dead if the peer, which sends the pings, is silent for so long: several pings are missing.
UNPINGED_S = 60.0
#: No link has so many unacknowledged packets: the peer reads and never acknowledges.
MAX_UNACKED = 64 * 1024
#: A peer with so many control bytes waiting for it asks and does not read: twice the largest heads of all exchanges.
MAX_CONTROL_BYTES = 32 * 1024 * 1024
_NEVER = float("inf")
#: The memory that a queued frame takes beside its bytes.
_QUEUED_OVERHEAD_BYTES = 128


class QueuedFrame(msgspec.Struct, frozen=True):
    """An encoded frame, and what to call when it is put into a packet (`taken`) and when the peer has it."""

    encoded: bytes
    taken: Callable[[], None] | None
    delivered: Callable[[], None] | None


class _SentPacket(msgspec.Struct, frozen=True):
    total: int
    """The bytes of all packets up to this one."""
    at: float
    delivered: Sequence[Callable[[], None]]


class CongestionWindow:
    """How many bytes may be unacknowledged.

    What a packet takes longer than the minimum round-trip time, it spent in queues. Without a queue, the window doubles
    with each round trip in which it was full. If the queueing delay is too long, the window shrinks to the size that
    keeps it at `TARGET_QUEUE_S`. Our own queue must not pass for the path's delay after half a minute: so the window is
    drained before the minimum is measured anew.
    """

    def __init__(self, now: float) -> None:
        self.size_bytes = INITIAL_BYTES
        self._may_shrink_at = now
        self._min_rtt_since = now
        self._drained = False
        self._min_rtt_before_s = float("inf")
        self._min_rtt_now_s = float("inf")

    @property
    def min_rtt_s(self) -> float:
        """The minimum round-trip time of the last while: that of the path without a queue."""
        return min(self._min_rtt_before_s, self._min_rtt_now_s)

    def restart(self) -> None:
        """Start again from the first size, after a while of silence."""
        self.size_bytes = min(self.size_bytes, INITIAL_BYTES)

    def sample(self, rtt_s: float, acked_bytes: int, now: float, *, was_full: bool) -> None:
        """Learn from an acknowledgement: the time that its packet took, and whether the window was full meanwhile."""
        if now - self._min_rtt_since > 0.8 * MIN_RTT_LIFETIME_S:
            self._renew_min_rtt(rtt_s, now)
        self._min_rtt_now_s = min(self._min_rtt_now_s, rtt_s)
        queued_s = rtt_s - min(self._min_rtt_before_s, self._min_rtt_now_s)
        if queued_s < TARGET_QUEUE_S / 2:
            self.size_bytes = min(MAX_BYTES, self.size_bytes + (acked_bytes if was_full else 0))
        elif queued_s > 1.5 * TARGET_QUEUE_S and now >= self._may_shrink_at:
            self._shrink((self.min_rtt_s + TARGET_QUEUE_S) / rtt_s, now + rtt_s)

    def _renew_min_rtt(self, rtt_s: float, now: float) -> None:
        age_s = now - self._min_rtt_since
        if age_s > MIN_RTT_LIFETIME_S:  # a longer path must not look like a queue for ever
            self._min_rtt_since, self._min_rtt_before_s, self._min_rtt_now_s = now, self._min_rtt_now_s, rtt_s
            self._drained = False
        elif not self._drained and self._min_rtt_now_s > self.min_rtt_s + TARGET_QUEUE_S / 4:
            self._drained = True
            self._shrink(1 / 4, now + rtt_s)

    def _shrink(self, factor: float, may_shrink_at: float) -> None:
        """Shrink, and not again before the packets in flight are acknowledged."""
        self._may_shrink_at = may_shrink_at
        self.size_bytes = max(MIN_BYTES, int(self.size_bytes * max(factor, 1 / 4)))


class TunnelLink:
    """The state of one connection.

    Its owner calls `compose` until it returns None, passes on the size of each received packet and its ACK, PING and
    PONG frames, and comes back at `next_deadline`.
    """

    def __init__(self, now: float, ping_every_s: float | None) -> None:
        self._ping_every_s = ping_every_s
        self._control: deque[QueuedFrame] = deque()
        self._control_bytes = 0
        self._window = CongestionWindow(now)
        self._sent: deque[_SentPacket] = deque()
        self._sent_at = now
        self._sent_total = 0
        self._acked_total = 0
        self._received_total = 0
        self._received_at = now
        self._acked_to_peer = 0
        self._ack_due_at: float | None = None
        self._heard_at = now
        self._pong_due: int | None = None
        self._ping_token = 0
        self._ping_sent_at: float | None = None
        self._ping_wanted = False
        self._was_full = False

    @property
    def rtt_s(self) -> float | None:
        """The minimum round-trip time lately; None before the first acknowledgement."""
        min_rtt_s = self._window.min_rtt_s
        return None if min_rtt_s == float("inf") else min_rtt_s

    @property
    def window_bytes(self) -> int:
        """How many bytes may be unacknowledged now."""
        return self._window.size_bytes

    @property
    def in_flight_bytes(self) -> int:
        """How many bytes are unacknowledged now."""
        return self._sent_total - self._acked_total

    def is_quiet(self, now: float, for_s: float) -> bool:
        """Tell whether the peer owes an answer and has been silent for this long."""
        since = self.quiet_since()
        return since is not None and now >= since + for_s

    def quiet_since(self) -> float | None:
        """Return since when the peer owes an answer and has been silent; None: it owes none."""
        since = self._outstanding_since()
        return None if since is None else max(since, self._heard_at)

    @property
    def heard_at(self) -> float:
        """When a packet of the peer came last, or the link began."""
        return self._heard_at

    def probe(self) -> None:
        """Send a PING soon, or when the last one is answered: it is in doubt whether the peer can still be reached."""
        self._ping_wanted = True

    # --- sending -----------------------------------------------------------------------------------------------------

    @property
    def has_to_send(self) -> bool:
        """There are control frames, or what was received is to be answered without a delay."""
        owed_bytes = self._received_total - self._acked_to_peer
        return bool(self._control) or owed_bytes >= ACK_BYTES or self._pong_due is not None or self._ping_wanted

    def queue(
        self, frame: Frame, *, taken: Callable[[], None] | None = None, delivered: Callable[[], None] | None = None
    ) -> None:
        """Queue a control frame. Control frames leave before data, in order."""
        queued = QueuedFrame(encode_frame(frame), taken, delivered)
        self._control.append(queued)
        self._control_bytes += len(queued.encoded) + _QUEUED_OVERHEAD_BYTES

    def compose(self, now: float, take_data: Callable[[int], QueuedFrame | None]) -> bytes | None:
        """Return the next packet; None if there is nothing to send, or the window is full.

        `take_data` returns a data frame with a payload of at most so many bytes.
        """
        if not self._sent and now >= self._sent_at + IDLE_S:
            self._window.restart()
        queued: list[QueuedFrame] = []
        if self._control:
            self._take_control(queued)
        if not self._control:  # or data could overtake the head of its exchange
            self._add_data(queued, take_data)
        # Acknowledgements first: the exchanges that they end make room for those that the other frames open.
        owes = self._received_total != self._acked_to_peer or self._pong_due is not None
        encoded = self._answers(now, alone=not queued) if owes or self._ping_every_s is not None else []
        if not queued:
            return encode_packet(encoded) if encoded else None
        delivered: list[Callable[[], None]] = []
        for frame in queued:
            encoded.append(frame.encoded)
            if frame.delivered is not None:
                delivered.append(frame.delivered)
        packet = encode_packet(encoded)
        self._sent_at = now
        self._sent_total += len(packet)
        self._sent.append(_SentPacket(self._sent_total, now, delivered))
        return packet

    def _take_control(self, queued: list[QueuedFrame]) -> None:
        size = OVERHEAD_BYTES
        while self._control and size + len(self._control[0].encoded) <= MAX_PACKET_BYTES:
            frame = self._control.popleft()
            queued.append(frame)
            size += len(frame.encoded)
            self._control_bytes -= len(frame.encoded) + _QUEUED_OVERHEAD_BYTES
            if frame.taken is not None:
                frame.taken()

    def _add_data(self, queued: list[QueuedFrame], take_data: Callable[[int], QueuedFrame | None]) -> None:
        size, window_bytes = OVERHEAD_BYTES, self._window.size_bytes
        for before in queued:
            size += len(before.encoded)
        packet_bytes = min(MAX_PACKET_BYTES, window_bytes // PACKETS_PER_WINDOW)
        if window_bytes - (self._sent_total - self._acked_total) - size < packet_bytes:
            self._was_full = True  # a whole packet or none: no silly windows (RFC 1122, 4.2.3.4)
            return
        while True:
            limit = packet_bytes - size - OVERHEAD_BYTES
            frame = take_data(limit) if limit >= MIN_PAYLOAD_BYTES else None
            if frame is None:
                return
            queued.append(frame)
            size += len(frame.encoded)

    def _answers(self, now: float, *, alone: bool) -> list[bytes]:
        """Return the frames that the peer does not acknowledge; `alone`: the packet has no others."""
        answers: list[bytes] = []
        ping_due = alone and self._is_ping_due(now)
        if self._pong_due is not None:
            answers.append(encode_frame(Pong(self._pong_due)))
            self._pong_due = None
        if self._received_total > self._acked_to_peer and (answers or ping_due or not alone or self._is_ack_due(now)):
            answers.append(encode_ack(self._received_total, round((now - self._received_at) * 1000)))
            self._acked_to_peer = self._received_total
            self._ack_due_at = None
        if ping_due:
            self._ping_token += 1
            self._ping_sent_at = now
            self._ping_wanted = False
            answers.append(encode_frame(Ping(self._ping_token)))
        return answers

    # --- receiving ---------------------------------------------------------------------------------------------------

    def note_received(self, size: int, now: float, *, eliciting: bool) -> None:
        """Count a packet of the peer; `eliciting`: it has frames other than ACK, PING and PONG, and wants an ACK."""
        self._heard_at = now
        if not eliciting:
            return
        self._received_total += size
        self._received_at = now
        is_soon = self._received_total - self._acked_to_peer >= ACK_SOON_BYTES
        due_at = now + (ACK_SOON_S if is_soon else ACK_DELAY_S)
        self._ack_due_at = due_at if self._ack_due_at is None else min(self._ack_due_at, due_at)

    def on_ack(self, ack: Ack, now: float) -> bool:
        """Take an acknowledgement; return False if it acknowledges bytes that were never sent."""
        if not self._acked_total <= ack.total <= self._sent_total:
            return False
        acked_bytes = ack.total - self._acked_total
        last: _SentPacket | None = None
        while self._sent and self._sent[0].total <= ack.total:
            last = self._sent.popleft()
            for delivered in last.delivered:
                delivered()
        self._acked_total = ack.total
        if last is not None:
            rtt_s = max(0.0, now - last.at - ack.delay_ms / 1000)
            self._window.sample(rtt_s, acked_bytes, now, was_full=self._was_full)
            self._was_full = False
        return True

    def acknowledge(self) -> None:
        """Acknowledge what was received in the next packet, without the delay."""
        if self._ack_due_at is not None:
            self._ack_due_at = self._received_at

    def on_ping(self, ping: Ping) -> None:
        """Answer a heartbeat in the next packet."""
        self._pong_due = ping.token

    def on_pong(self, pong: Pong, now: float) -> None:
        """Take the answer to our heartbeat; a PONG with the token of an earlier PING is ignored."""
        if pong.token == self._ping_token and self._ping_sent_at is not None:
            self._window.sample(now - self._ping_sent_at, 0, now, was_full=False)
            self._ping_sent_at = None

    # --- time --------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when to call `compose` and `is_dead` again, though nothing was received or queued."""
        at = _NEVER if self._ack_due_at is None else self._ack_due_at
        since = self.quiet_since()
        if since is not None:
            at = min(at, since + DEAD_S)
        if self._ping_every_s is None:
            at = min(at, self._heard_at + UNPINGED_S)
        elif self._ping_sent_at is None:
            at = min(at, self._heard_at + self._ping_every_s)
        return None if at == _NEVER else at

    def is_dead(self, now: float) -> bool:
        """Tell whether the peer has been silent for too long."""
        if self._ping_every_s is None and now >= self._heard_at + UNPINGED_S:
            return True
        return self.is_quiet(now, DEAD_S)

    @property
    def overrun(self) -> bool:
        """The peer keeps asking, and does not read or does not acknowledge the answers."""
        return len(self._sent) > MAX_UNACKED or self._control_bytes > MAX_CONTROL_BYTES

    def _outstanding_since(self) -> float | None:
        sent_at = self._sent[0].at if self._sent else None
        if sent_at is None or self._ping_sent_at is None:
            return self._ping_sent_at if sent_at is None else sent_at
        return min(sent_at, self._ping_sent_at)

    def _is_ack_due(self, now: float) -> bool:
        if self._received_total - self._acked_to_peer >= ACK_BYTES:
            return True
        return self._ack_due_at is not None and now >= self._ack_due_at

    def _is_ping_due(self, now: float) -> bool:
        if self._ping_every_s is None or self._ping_sent_at is not None:
            return False
        return self._ping_wanted or now >= self._heard_at + self._ping_every_s

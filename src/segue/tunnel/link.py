"""One connection of the tunnel, either end: what may be sent now, what was acknowledged, and whether the peer is alive.

What is unacknowledged is bounded by a window that adapts to the link by delay: it grows while packets come through
without queueing and shrinks when they queue, so that a heartbeat never waits behind a megabyte. Any packet received is
a sign of life. A link ends with its connection; streams outlive it (`streams`). Not here: what frames mean, and the
clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from segue.tunnel.frames import MAX_PACKET_BYTES, OVERHEAD_BYTES, Ack, Frame, Ping, Pong, encode_frame, encode_packet

#: So much that is not acknowledged yet is acknowledged at once; less may wait for company. A window at its least is
#: two of these, so it is never the wait that empties a thin link; and events of a reply are fewer bytes in a second.
ACK_BYTES = 2 * 1024
ACK_DELAY_S = 1.0

#: The window: where it begins (as TCP does, and 0.8 s of a link with 20 KB/s), and its bounds.
INITIAL_BYTES = 16 * 1024
MIN_BYTES = 4 * 1024
MAX_BYTES = 8 * 1024 * 1024
#: The queue that a full link is kept at. Less is noise of hosts and radios; more is what heartbeats wait for.
QUEUE_S = 0.25
#: For how long the least round-trip time counts, at least (and twice that at most).
LEAST_S = 30.0
#: After so long without anything in flight the window begins again: it may be another link by now.
IDLE_S = 10.0
#: A packet is this part of a window at most: while some are on their way, others are acknowledged.
PARTS = 8
#: No frame is begun at the end of a packet for less payload than this.
CRUMB_BYTES = 128

#: Silence after which a link with something outstanding is taken for dead.
DEAD_S = 20.0
#: Silence after which a link is taken for dead by an end whose peer sends the pings: several of them are missing.
UNPINGED_S = 60.0
#: So many unacknowledged packets are no link's, but a peer's that reads and never acknowledges.
MAX_UNACKED = 64 * 1024
#: So much control waiting is a peer's that asks and does not read: twice the largest heads of all exchanges.
MAX_CONTROL_BYTES = 32 * 1024 * 1024
#: What a waiting frame costs beside its bytes.
_PARCEL_BYTES = 128


class Parcel(NamedTuple):
    """A frame for a packet: what to do when it is put into one, and when the peer has it."""

    frame: bytes
    taken: Callable[[], None] | None
    delivered: Callable[[], None] | None


class _SentPacket(NamedTuple):
    total: int
    at: float
    delivered: tuple[Callable[[], None], ...]


class CongestionWindow:
    """How much may be unacknowledged.

    The time that packets take beyond the least is what they waited in queues. Without a queue the window doubles with
    each round trip that it held us back; with one that is too long it becomes what would keep it at `QUEUE_S`. Half a
    minute of one's own queue must not pass for the link, so that the least is taken anew with the queue let go.
    """

    def __init__(self, now: float) -> None:
        self.size_bytes = INITIAL_BYTES
        self._settled_at = now
        self._turned_at = now
        self._is_drained = False
        self._least_before_s = float("inf")
        self._least_now_s = float("inf")

    @property
    def least_s(self) -> float:
        """The least round-trip time of the last while: that of the link without a queue."""
        return min(self._least_before_s, self._least_now_s)

    def restart(self) -> None:
        """Begin again after a while of silence."""
        self.size_bytes = min(self.size_bytes, INITIAL_BYTES)

    def sample(self, rtt_s: float, acked_bytes: int, now: float, *, was_full: bool) -> None:
        """Learn from an acknowledgement: the time its packet took, and whether the window was what held us back."""
        self._turn(rtt_s, now)
        self._least_now_s = min(self._least_now_s, rtt_s)
        queued_s = rtt_s - self.least_s
        if queued_s < QUEUE_S / 2:
            self.size_bytes = min(MAX_BYTES, self.size_bytes + acked_bytes * was_full)
        elif queued_s > 1.5 * QUEUE_S and now >= self._settled_at:
            self._shrink((self.least_s + QUEUE_S) / rtt_s, now + rtt_s)

    def _turn(self, rtt_s: float, now: float) -> None:
        age_s = now - self._turned_at
        if age_s > LEAST_S:  # a link that became another one must not look full for ever
            self._turned_at, self._least_before_s, self._least_now_s = now, self._least_now_s, rtt_s
            self._is_drained = False
        elif age_s > 0.8 * LEAST_S and not self._is_drained and self._least_now_s > self.least_s + QUEUE_S / 4:
            self._is_drained = True
            self._shrink(1 / 4, now + rtt_s)

    def _shrink(self, factor: float, settled_at: float) -> None:
        """Shrink, once for all that is in flight."""
        self._settled_at = settled_at
        self.size_bytes = max(MIN_BYTES, int(self.size_bytes * max(factor, 1 / 4)))


class TunnelLink:
    """The state of one connection.

    The owner asks `compose` for packets until it gives none, feeds each received packet's size and frames' acks and
    pings here, and comes back at `next_deadline`.
    """

    def __init__(self, now: float, ping_every_s: float | None) -> None:
        self._ping_every_s = ping_every_s
        self._control: deque[Parcel] = deque()
        self._control_bytes = 0
        self._window = CongestionWindow(now)
        self._sent: deque[_SentPacket] = deque()
        self._sent_at = now
        self._sent_total = 0
        self._acked_total = 0
        self._received_total = 0
        self._received_at = now
        self._told_total = 0
        self._ack_due_at: float | None = None
        self._heard_at = now
        self._pong_due: int | None = None
        self._ping_token = 0
        self._ping_sent_at: float | None = None
        self._was_full = False

    @property
    def rtt_s(self) -> float | None:
        """The least round-trip time seen; None before the first."""
        least_s = self._window.least_s
        return None if least_s == float("inf") else least_s

    @property
    def window_bytes(self) -> int:
        """How much may be unacknowledged now."""
        return self._window.size_bytes

    @property
    def in_flight_bytes(self) -> int:
        """How much is unacknowledged now."""
        return self._sent_total - self._acked_total

    def is_quiet(self, now: float, for_s: float) -> bool:
        """Tell whether something outstanding has gone without a sign of life for this long."""
        since = self._outstanding_since()
        return since is not None and now >= max(since, self._heard_at) + for_s

    # --- sending -----------------------------------------------------------------------------------------------------

    def queue(
        self, frame: Frame, *, taken: Callable[[], None] | None = None, delivered: Callable[[], None] | None = None
    ) -> None:
        """Queue a control frame: these leave before data, in order."""
        parcel = Parcel(encode_frame(frame), taken, delivered)
        self._control.append(parcel)
        self._control_bytes += len(parcel.frame) + _PARCEL_BYTES

    def compose(self, now: float, take_data: Callable[[int], Parcel | None]) -> bytes | None:
        """Return the next packet; None when there is nothing to send, or the window is full.

        `take_data` gives a data frame whose payload is at most so many bytes.
        """
        if not self._sent and now >= self._sent_at + IDLE_S:
            self._window.restart()
        parcels = self._take_control()
        if not self._control:  # or bytes could overtake the head they belong to
            self._add_data(parcels, take_data)
        answers = self._answers(now, is_alone=not parcels)
        if not parcels and not answers:
            return None
        # Acknowledgements first: what they end makes room for what the other frames begin.
        packet = encode_packet([*answers, *(parcel.frame for parcel in parcels)])
        if parcels:
            self._sent_at = now
            self._sent_total += len(packet)
            delivered = tuple(parcel.delivered for parcel in parcels if parcel.delivered is not None)
            self._sent.append(_SentPacket(self._sent_total, now, delivered))
        return packet

    def _take_control(self) -> list[Parcel]:
        parcels: list[Parcel] = []
        size = OVERHEAD_BYTES
        while self._control and size + len(self._control[0].frame) <= MAX_PACKET_BYTES:
            parcel = self._control.popleft()
            parcels.append(parcel)
            size += len(parcel.frame)
            self._control_bytes -= len(parcel.frame) + _PARCEL_BYTES
            if parcel.taken is not None:
                parcel.taken()
        return parcels

    def _add_data(self, parcels: list[Parcel], take_data: Callable[[int], Parcel | None]) -> None:
        size = OVERHEAD_BYTES + sum(len(parcel.frame) for parcel in parcels)
        part = min(MAX_PACKET_BYTES, self._window.size_bytes // PARTS)
        if self._window.size_bytes - self.in_flight_bytes - size < part:
            self._was_full = True  # a part or nothing: who fills up what an acknowledgement frees sends crumbs for ever
            return
        while True:
            limit = part - size - OVERHEAD_BYTES
            parcel = take_data(limit) if limit >= CRUMB_BYTES else None
            if parcel is None:
                return
            parcels.append(parcel)
            size += len(parcel.frame)

    def _answers(self, now: float, *, is_alone: bool) -> list[bytes]:
        """Return what goes into the packet that is not acknowledged itself."""
        answers: list[bytes] = []
        is_ping_due = is_alone and self._is_ping_due(now)
        if self._pong_due is not None:
            answers.append(encode_frame(Pong(self._pong_due)))
            self._pong_due = None
        if self._received_total > self._told_total and (
            answers or is_ping_due or not is_alone or self._is_ack_due(now)
        ):
            answers.append(encode_frame(Ack(self._received_total, round((now - self._received_at) * 1000))))
            self._told_total = self._received_total
            self._ack_due_at = None
        if is_ping_due:
            self._ping_token += 1
            self._ping_sent_at = now
            answers.append(encode_frame(Ping(self._ping_token)))
        return answers

    # --- receiving ---------------------------------------------------------------------------------------------------

    def note_received(self, size: int, now: float, *, eliciting: bool) -> None:
        """Count a packet of the peer; `eliciting`: it holds more than acknowledgements, pings and pongs."""
        self._heard_at = now
        if not eliciting:
            return
        self._received_total += size
        self._received_at = now
        if self._ack_due_at is None:
            self._ack_due_at = now + ACK_DELAY_S

    def on_ack(self, ack: Ack, now: float) -> bool:
        """Take an acknowledgement; False if it acknowledges what was never sent."""
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

    def on_ping(self, ping: Ping) -> None:
        """Answer a heartbeat in the next packet, whatever else waits."""
        self._pong_due = ping.token

    def on_pong(self, pong: Pong, now: float) -> None:
        """Take the answer to our heartbeat."""
        if pong.token == self._ping_token and self._ping_sent_at is not None:
            self._window.sample(now - self._ping_sent_at, 0, now, was_full=False)
            self._ping_sent_at = None

    # --- time --------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when `compose` or `is_dead` may have something new to say though nothing happened."""
        deadlines = [self._ack_due_at]
        since = self._outstanding_since()
        if since is not None:
            deadlines.append(max(since, self._heard_at) + DEAD_S)
        if self._ping_every_s is None:
            deadlines.append(self._heard_at + UNPINGED_S)
        elif self._ping_sent_at is None:
            deadlines.append(self._heard_at + self._ping_every_s)
        return min((at for at in deadlines if at is not None), default=None)

    def is_dead(self, now: float) -> bool:
        """Tell whether the peer has been silent for too long."""
        if self._ping_every_s is None and now >= self._heard_at + UNPINGED_S:
            return True
        return self.is_quiet(now, DEAD_S)

    @property
    def is_overrun(self) -> bool:
        """The peer asks for more and more, and does not read or acknowledge what it gets."""
        return len(self._sent) > MAX_UNACKED or self._control_bytes > MAX_CONTROL_BYTES

    def _outstanding_since(self) -> float | None:
        times = [self._sent[0].at] if self._sent else []
        times += [self._ping_sent_at] if self._ping_sent_at is not None else []
        return min(times, default=None)

    def _is_ack_due(self, now: float) -> bool:
        if self._received_total - self._told_total >= ACK_BYTES:
            return True
        return self._ack_due_at is not None and now >= self._ack_due_at

    def _is_ping_due(self, now: float) -> bool:
        if self._ping_every_s is None or self._ping_sent_at is not None:
            return False
        return now >= self._heard_at + self._ping_every_s

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

from segue.delta.frames import MAX_PACKET_BYTES, OVERHEAD_BYTES, Ack, Frame, Ping, Pong, encode_frame, encode_packet

#: A packet of this much unacknowledged data is acknowledged at once; less may wait for company.
ACK_BYTES = 8 * 1024
ACK_DELAY_S = 1.0

#: The window: where it begins, and its bounds.
INITIAL_BYTES = 64 * 1024
MIN_BYTES = 8 * 1024
MAX_BYTES = 8 * 1024 * 1024
#: Queueing that is taken for a full link. Less is noise of hosts and radios.
QUEUE_S = 0.2
#: For how long the least round-trip time counts, at least (and twice that at most).
LEAST_S = 30.0

#: Silence after which a link with something outstanding is taken for dead.
DEAD_S = 20.0


class Parcel(NamedTuple):
    """A frame with payload for a packet: the encoded frame, and what to do when the peer has it."""

    frame: bytes
    delivered: Callable[[], None] | None


class _Sent(NamedTuple):
    total: int
    at: float
    delivered: tuple[Callable[[], None], ...]


class CongestionWindow:
    """How much may be unacknowledged."""

    def __init__(self, now: float) -> None:
        self.size_bytes = INITIAL_BYTES
        self._shrunk_at = now
        self._turned_at = now
        self._least_before_s = float("inf")
        self._least_now_s = float("inf")

    @property
    def least_s(self) -> float:
        """The least round-trip time of the last while: that of the link without a queue."""
        return min(self._least_before_s, self._least_now_s)

    def sample(self, rtt_s: float, acked_bytes: int, now: float, *, was_full: bool) -> None:
        """Learn from an acknowledgement: the time its packet took, and whether the window was what held us back."""
        if now - self._turned_at > LEAST_S:  # a link that became another one must not look full for ever
            self._turned_at, self._least_before_s, self._least_now_s = now, self._least_now_s, rtt_s
        self._least_now_s = min(self._least_now_s, rtt_s)
        queued_s = rtt_s - self.least_s
        if queued_s < QUEUE_S:
            if was_full:
                self.size_bytes = min(MAX_BYTES, self.size_bytes + acked_bytes)
        elif queued_s > 2 * QUEUE_S and now - self._shrunk_at > rtt_s:  # once for what was in flight
            self._shrunk_at = now
            self.size_bytes = max(MIN_BYTES, self.size_bytes // 2)


class Link:
    """The state of one connection.

    The owner asks `compose` for packets until it gives none, feeds each received packet's size and frames' acks and
    pings here, and comes back at `next_deadline`.
    """

    def __init__(self, now: float, ping_every_s: float | None) -> None:
        self._ping_every_s = ping_every_s
        self._control: deque[Parcel] = deque()
        self._window = CongestionWindow(now)
        self._sent: deque[_Sent] = deque()
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
        return since is not None and now - max(since, self._heard_at) >= for_s

    # --- sending -----------------------------------------------------------------------------------------------------

    def queue(self, frame: Frame, delivered: Callable[[], None] | None = None) -> None:
        """Queue a control frame: these leave before data, in order."""
        self._control.append(Parcel(encode_frame(frame), delivered))

    def compose(self, now: float, take_data: Callable[[int], Parcel | None]) -> bytes | None:
        """Return the next packet; None when there is nothing to send, or the window is full.

        `take_data` gives a data frame whose payload is at most so many bytes.
        """
        frames: list[bytes] = []
        delivered: list[Callable[[], None]] = []
        size = OVERHEAD_BYTES
        while self._control and (not frames or size + len(self._control[0].frame) <= MAX_PACKET_BYTES):
            parcel = self._control.popleft()
            frames.append(parcel.frame)
            delivered += [parcel.delivered] if parcel.delivered is not None else []
            size += len(parcel.frame)
        if not self._control:  # or bytes could overtake the head they belong to
            self._add_data(frames, delivered, size, take_data)
        eliciting = bool(frames)
        if self._pong_due is not None:
            frames.append(encode_frame(Pong(self._pong_due)))
            self._pong_due = None
        if self._received_total > self._told_total and (frames or self._is_ack_due(now)):
            frames.append(encode_frame(Ack(self._received_total, round((now - self._received_at) * 1000))))
            self._told_total = self._received_total
            self._ack_due_at = None
        if not eliciting and self._is_ping_due(now):
            self._ping_token += 1
            self._ping_sent_at = now
            frames.append(encode_frame(Ping(self._ping_token)))
        if not frames:
            return None
        packet = encode_packet(frames)
        if eliciting:
            self._sent_total += len(packet)
            self._sent.append(_Sent(self._sent_total, now, tuple(delivered)))
        return packet

    def _add_data(
        self,
        frames: list[bytes],
        delivered: list[Callable[[], None]],
        size: int,
        take_data: Callable[[int], Parcel | None],
    ) -> None:
        while True:
            room = self._window.size_bytes - self.in_flight_bytes - size
            # Half a window at most: the other half is on its way while this one is acknowledged.
            limit = min(MAX_PACKET_BYTES - size, room, self._window.size_bytes // 2) - OVERHEAD_BYTES
            if limit <= 0:
                self._was_full = self._was_full or room <= OVERHEAD_BYTES
                return
            parcel = take_data(limit)
            if parcel is None:
                return
            frames.append(parcel.frame)
            delivered += [parcel.delivered] if parcel.delivered is not None else []
            size += len(parcel.frame)

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
        last: _Sent | None = None
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
        if self._ping_every_s is not None and self._ping_sent_at is None:
            deadlines.append(self._heard_at + self._ping_every_s)
        return min((at for at in deadlines if at is not None), default=None)

    def is_dead(self, now: float) -> bool:
        """Tell whether the peer has been silent for too long."""
        return self.is_quiet(now, DEAD_S)

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
        return now - self._heard_at >= self._ping_every_s

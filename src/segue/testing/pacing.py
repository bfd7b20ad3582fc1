"""The timing model of a network path: rate, delay, loss and TCP's windows decide when bytes arrive. It never waits.

One `Pacer` is one direction of a link with all connections on it. It knows sizes and times, and has no bytes, sockets
or clock: you tell it what is sent and the present time, and it returns what has arrived by then. The model:

- A bottleneck sends one segment after the other at the link's rate; connections take turns. Its buffer is bounded:
  what does not fit waits at the sender, and nothing is dropped for it.
- A segment takes half a round trip, and its acknowledgement the other half. The congestion window bounds what is in
  flight: ten segments at first (RFC 6928), and again after an idle time of one retransmission timeout (RFC 5681, 4.1).
  It doubles per round trip in slow start, but only while it is used: it grows to at most twice what was in flight
  (RFC 7661). A loss halves it, and further losses of the same window do not (RFC 6582); from there it grows by one
  segment per round trip.
- A lost segment arrives late: by one round trip if enough segments followed it for a fast retransmit (RFC 5681, 3.2),
  else by the timeout. Everything behind it on the same connection waits, as in TCP (head-of-line blocking). What is
  repeated may be lost again, and each timeout is twice the one before (RFC 6298, 5.5).
- In an outage nothing moves; then everything goes on at once, without the timeouts that TCP would wait for.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

SEGMENT_BYTES = 1460
INITIAL_WINDOW_BYTES = 10 * SEGMENT_BYTES
MIN_TIMEOUT_S = 0.2  # Linux: TCP_RTO_MIN, the least that it adds to the round trip
_MAX_TIMEOUT_S = 60.0  # RFC 6298, 2.5: the least that a bound on the timeout may be
_FAST_RETRANSMIT_SEGMENTS = 3
_SMALLEST_WINDOW_BYTES = 2 * SEGMENT_BYTES


class Outage(msgspec.Struct, frozen=True):
    """Nothing moves from `begin_s` (counted from the start of the link) for `length_s`."""

    begin_s: float
    length_s: float

    @property
    def end_s(self) -> float:
        """When it is over."""
        return self.begin_s + self.length_s


class LinkProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a link. The default is a plain wire: no delay, no rate limit, no loss."""

    rtt_s: float = 0.0
    up_bytes_s: float | None = None
    """Rate towards the server; None is without limit. As `down_bytes_s`."""
    down_bytes_s: float | None = None
    buffer_bytes: int = 64 * 1024
    """How much may queue at the bottleneck, each way. At a low rate this queue is what delays a heartbeat."""
    loss: float = 0.0
    """The probability that a segment is lost."""
    setup_rtts: float = 1.0
    """Round trips before the first byte of a connection: 1 is TCP; 2 simulates TLS 1.3 on top, where none is used."""
    slow_start: bool = False
    window_bytes: int = 4 * 1024 * 1024
    """The most bytes in flight on a connection, whatever its congestion window."""
    outages: tuple[Outage, ...] = ()
    seed: int = 0

    @property
    def timeout_s(self) -> float:
        """The retransmission timeout: after this time a sender repeats a segment that nobody acknowledged.

        RFC 6298, 2.3: the round trip and four times its variance, here the least that Linux takes for that.
        """
        return self.rtt_s + MIN_TIMEOUT_S

    @property
    def segmented(self) -> bool:
        """Tell whether writes are cut into segments; without rate, loss and slow start they travel whole."""
        return self.slow_start or self.loss > 0 or self.up_bytes_s is not None or self.down_bytes_s is not None


#: A plain wire.
PLAIN = LinkProfile()

#: What arrives: the connection itself, bytes, the end of the stream, or a reset.
ArrivalKind = Literal["open", "bytes", "end", "reset"]


class Arrival(msgspec.Struct, frozen=True):
    """Something that reached the far end."""

    flow: int
    what: ArrivalKind
    size: int


class _ScheduledEvent(NamedTuple):
    """Something that will happen, ordered by its time, then by when it was planned."""

    at: float
    order: int
    action: Callable[[float], None]


class _Flow:
    """One direction of one connection."""

    def __init__(self, number: int, window_bytes: float, seed: str) -> None:
        self.number = number
        self.opened = False
        self.held = False
        self.kept: deque[Arrival] = deque()  # what arrived while the receiver was slow
        self.unsent = 0
        self.mark: ArrivalKind | None = None  # follows the unsent bytes
        self.in_flight = 0
        self.window: float = window_bytes
        self.threshold: float = float("inf")
        self.most_in_flight = 0  # since the window was opened
        self.recovered_at = float("-inf")  # what was sent before that was lost from a window that was halved
        self.quiet_since = float("-inf")  # when it last sent, or heard that something arrived
        self.last_arrival_at = float("-inf")
        self.random = random.Random(seed)

    @property
    def waiting(self) -> bool:
        return self.opened and (self.unsent > 0 or self.mark is not None)


class Pacer:
    """One direction of a link. Call `arrived(now)` when `next_at` has come, and after everything that is sent."""

    def __init__(self, profile: LinkProfile, rate_bytes_s: float | None, name: str, begun_at: float) -> None:
        self._profile = profile
        self._rate = rate_bytes_s
        self._name = name
        self._begun_at = begun_at
        self._segment = SEGMENT_BYTES if profile.segmented else profile.window_bytes
        self._flows: dict[int, _Flow] = {}
        self._events: list[_ScheduledEvent] = []
        self._planned = 0
        self._turn: deque[_Flow] = deque()  # flows that have something to send, in round-robin order
        self._free_at = float("-inf")  # when the bottleneck has sent what it holds
        self._woken_at = float("-inf")  # the latest time at which sending is planned to go on
        self._stopped = False
        self._arrivals: list[Arrival] = []

    # --- what the caller does ----------------------------------------------------------------------------------------

    def open(self, flow: int, now: float) -> None:
        """Begin a connection: it arrives after the handshake, and what is sent on it after that."""
        initial = INITIAL_WINDOW_BYTES if self._profile.slow_start else self._profile.window_bytes
        window = min(initial, self._profile.window_bytes)
        one = self._flows[flow] = _Flow(flow, window, f"{self._profile.seed}:{self._name}:{flow}")
        self._plan(now + self._profile.setup_rtts * self._profile.rtt_s, lambda at: self._open(one, at))

    def send(self, flow: int, size: int, now: float) -> None:
        """Send bytes."""
        one = self._flows[flow]
        one.unsent += size
        self._queue(one, now)

    def end(self, flow: int, now: float, what: Literal["end", "reset"] = "end") -> None:
        """End the stream behind what was sent; a reset may follow an end."""
        one = self._flows[flow]
        one.mark = what
        self._queue(one, now)

    def drop(self, flow: int) -> None:
        """Forget a connection and all that is on its way."""
        one = self._flows.pop(flow, None)
        if one is not None and one in self._turn:
            self._turn.remove(one)

    def hold(self, flow: int) -> None:
        """Deliver nothing more: the receiver is slow. What it does not take is not acknowledged."""
        if flow in self._flows:
            self._flows[flow].held = True

    def release(self, flow: int, now: float) -> None:
        """Deliver again."""
        one = self._flows.get(flow)
        if one is None or not one.held:
            return
        one.held = False
        kept, one.kept = one.kept, deque()
        for arrival in kept:
            self._deliver(one, arrival, now)

    def stop(self) -> None:
        """Let nothing move until `resume`."""
        self._stopped = True

    def resume(self, now: float) -> None:
        """Let everything go on, from now."""
        self._stopped = False
        # a time that has passed stays in its order: all of it happens now
        self._events = [event._replace(at=max(event.at, now)) for event in sorted(self._events)]
        self._events = [event._replace(order=order) for order, event in enumerate(self._events)]
        self._planned = len(self._events)
        self._send_all(now)

    def unsent(self, flow: int) -> int:
        """Bytes that wait at the sender: stop reading from it when there are many."""
        one = self._flows.get(flow)
        return 0 if one is None else one.unsent

    def arrived(self, now: float) -> list[Arrival]:
        """Return what arrived since the last call, up to `now`."""
        while self._events and not self._stopped and self._events[0].at <= now:
            at, order, action = heapq.heappop(self._events)
            late = self._clear_at(at)
            if late > at:
                heapq.heappush(self._events, _ScheduledEvent(late, order, action))
            else:
                action(at)
        arrivals, self._arrivals = self._arrivals, []
        return arrivals

    def next_at(self) -> float | None:
        """Return when something may arrive next; None if nothing will before the next send, release or resume."""
        if self._stopped or not self._events:
            return None
        return self._clear_at(self._events[0].at)

    # --- what happens ------------------------------------------------------------------------------------------------

    def _plan(self, at: float, action: Callable[[float], None]) -> None:
        heapq.heappush(self._events, _ScheduledEvent(at, self._planned, action))
        self._planned += 1

    def _clear_at(self, at: float) -> float:
        """Return the end of the outage around `at`, or `at` itself."""
        for outage in self._profile.outages:
            if self._begun_at + outage.begin_s <= at < self._begun_at + outage.end_s:
                at = self._begun_at + outage.end_s
        return at

    def _open(self, flow: _Flow, at: float) -> None:
        if self._flows.get(flow.number) is not flow:
            return
        flow.opened = True
        self._arrivals.append(Arrival(flow.number, "open", 0))
        self._queue(flow, at)

    def _queue(self, flow: _Flow, now: float) -> None:
        if flow.waiting and flow not in self._turn:
            self._turn.append(flow)
        self._send_all(now)

    def _send_all(self, now: float) -> None:
        """Send what the buffer and the windows allow; connections take turns, segment by segment."""
        clear_at = self._clear_at(now)
        if self._stopped:
            return
        if clear_at > now:
            self._wake(clear_at)
            return
        while self._turn:
            room_at = self._room_at()
            if room_at > now:
                self._wake(room_at)
                return
            flow = self._turn.popleft()
            size = min(flow.unsent, self._segment)
            if flow.in_flight and flow.in_flight + size > flow.window:
                continue  # an acknowledgement brings it back
            self._send(flow, size, now)
            if flow.waiting:
                self._turn.append(flow)

    def _wake(self, at: float) -> None:
        if at > self._woken_at:
            self._woken_at = at
            self._plan(at, self._send_all)

    def _room_at(self) -> float:
        """Return when the bottleneck's buffer has room for a segment."""
        if self._rate is None:
            return float("-inf")
        return self._free_at - max(0, self._profile.buffer_bytes - self._segment) / self._rate

    def _send(self, flow: _Flow, size: int, now: float) -> None:
        profile = self._profile
        idle = not flow.in_flight and now - flow.quiet_since > profile.timeout_s
        if profile.slow_start and idle:
            flow.window = min(flow.window, INITIAL_WINDOW_BYTES)
            flow.most_in_flight = 0
        self._free_at = max(self._free_at, now) + (size / self._rate if self._rate else 0.0)
        arrival_at = self._free_at + profile.rtt_s / 2
        if size and profile.loss and flow.random.random() < profile.loss:
            arrival_at += self._lost(flow, now)
        flow.quiet_since = now
        flow.last_arrival_at = max(flow.last_arrival_at, arrival_at)
        if size:
            flow.unsent -= size
            flow.in_flight += size
            flow.most_in_flight = max(flow.most_in_flight, flow.in_flight)
            arrival = Arrival(flow.number, "bytes", size)
        else:
            assert flow.mark is not None, "a flow without bytes and mark does not send"
            arrival, flow.mark = Arrival(flow.number, flow.mark, 0), None
        self._plan(flow.last_arrival_at, lambda at: self._arrive(flow, arrival, at))

    def _lost(self, flow: _Flow, now: float) -> float:
        """Return by how much a lost segment is late; when the sender notices, the window shrinks."""
        followed = min(flow.unsent, int(flow.window)) > _FAST_RETRANSMIT_SEGMENTS * self._segment
        late_s = self._profile.rtt_s if followed else self._profile.timeout_s
        noticed_at = now + late_s
        timeout_s = self._profile.timeout_s if followed else 2 * self._profile.timeout_s
        while timeout_s < _MAX_TIMEOUT_S and flow.random.random() < self._profile.loss:
            late_s += timeout_s
            timeout_s *= 2
        if self._profile.slow_start:
            self._plan(noticed_at, lambda at: self._shrink(flow, now, at))
        return late_s

    def _shrink(self, flow: _Flow, sent_at: float, at: float) -> None:
        """Halve the window, unless it was halved for another segment that was on its way at the same time."""
        if sent_at < flow.recovered_at:
            return
        flow.window = flow.threshold = max(flow.window / 2, _SMALLEST_WINDOW_BYTES)
        flow.recovered_at = at

    def _arrive(self, flow: _Flow, arrival: Arrival, at: float) -> None:
        if self._flows.get(flow.number) is not flow:
            return
        if flow.held:
            flow.kept.append(arrival)
        else:
            self._deliver(flow, arrival, at)

    def _deliver(self, flow: _Flow, arrival: Arrival, at: float) -> None:
        self._arrivals.append(arrival)
        if arrival.size:
            self._plan(at + self._profile.rtt_s / 2, lambda then: self._acknowledge(flow, arrival.size, then))

    def _acknowledge(self, flow: _Flow, size: int, at: float) -> None:
        flow.in_flight -= size
        flow.quiet_since = at  # a timeout that real TCP measures has the delay of the queue in it
        if self._profile.slow_start and flow.window < 2 * flow.most_in_flight:
            growth = size if flow.window < flow.threshold else SEGMENT_BYTES * size / flow.window
            flow.window = min(flow.window + growth, self._profile.window_bytes)
        if self._flows.get(flow.number) is flow:
            self._queue(flow, at)

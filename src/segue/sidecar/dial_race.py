"""Which connections are opened for one link, and which of them asks for the upgrade. Pure: effects out, times in.

A network that was away loses the first packet of a connection, and TCP repeats it after 1, 3 and 7 seconds (RFC 6298,
5.5): the network may be back for seconds before that is noticed. So while something waits and nothing moves, another
connection is begun about every second. The first one stays, since a path may take that long; of the others only the
newest few do.

One connection at a time asks for the upgrade: to a gateway a second one takes the place of the first. The next one
that is ready asks only if the answer to the first is late. A set-up says little about how long an answer takes: on many
links something nearby sets connections up (RFC 3135). So the patience grows with each answer that was late, from race
to race, until a link is there. Not here: connections (`segue.sidecar.dialer`), and what is tried after this
(`segue.sidecar.link_search`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

import msgspec

#: Another connection is begun after this time in which nothing has moved, or so many times what the set-up of the last
#: link or its answer took. That may have been slow since a packet was lost, so it is not waited for much longer.
INTERVAL_S = 1.0
INTERVAL_STEPS = 1.3
LONGEST_INTERVAL_S = 2.0
#: An interval is at least this part of what it could be.
LEAST_JITTER = 0.8
#: So many connections at most are being set up at a time.
MOST_CONNECTING = 4
#: An answer to the upgrade is late after this time, or so many times what the last answer took.
LATE_S = 3.0
LATE_ANSWERS = 3.0
LONGEST_LATE_S = 60.0


class StartDial(msgspec.Struct, frozen=True):
    """Begin a connection."""

    dial: int


class AskUpgrade(msgspec.Struct, frozen=True):
    """Ask for the upgrade on this connection."""

    dial: int


class AbortDial(msgspec.Struct, frozen=True):
    """Drop a connection."""

    dial: int


RaceEffect: TypeAlias = StartDial | AskUpgrade | AbortDial


class DialPace:
    """What races have shown about the way: how long its steps take, and so how long to wait for the next one."""

    def __init__(self) -> None:
        self.interval_s = INTERVAL_S
        self.late_s = LATE_S

    def note_link(self, setup_s: float, answer_s: float) -> None:
        """Note how long the set-up and the answer took that have led to a link."""
        self.interval_s = min(LONGEST_INTERVAL_S, max(INTERVAL_S, INTERVAL_STEPS * setup_s, INTERVAL_STEPS * answer_s))
        self.late_s = min(LONGEST_LATE_S, max(LATE_S, LATE_ANSWERS * answer_s))

    def note_late(self) -> None:
        """Note that an answer was not waited for any longer; it may have been about to come."""
        self.late_s = min(LONGEST_LATE_S, 2 * self.late_s)


class DialRace:
    """The connections of one attempt to get a link. `jitter`: from 0 to 1; sidecars that wait do not come in step."""

    def __init__(self, pace: DialPace, jitter: float = 1.0) -> None:
        self._pace = pace
        self._interval_s = pace.interval_s * (LEAST_JITTER + (1 - LEAST_JITTER) * jitter)
        self._connecting: OrderedDict[int, float] = OrderedDict()  # since when
        self._ready: OrderedDict[int, float] = OrderedDict()  # how long it took
        self._setup_s = 0.0  # of the one that asks
        self._asking: int | None = None
        self._asked_at = 0.0
        self._moved_at = 0.0
        self._last = 0
        self.over = False
        """Nothing is left, and nothing more is begun."""

    def begin(self, now: float) -> list[RaceEffect]:
        """Begin the race."""
        return self._start(now)

    def next_at(self) -> float:
        """Return when to call `handle_timeout`."""
        return self._asked_at + self._pace.late_s if self._ready else self._moved_at + self._interval_s

    def handle_timeout(self, now: float, *, wanted: bool) -> list[RaceEffect]:
        """Begin another connection, or let the next one ask, if it is time. `wanted`: something waits for the link."""
        if self.over or now < self.next_at():
            return []
        if self._ready:
            assert self._asking is not None, "else nothing would wait"
            self._pace.note_late()
            return [AbortDial(self._asking), *self._ask(next(iter(self._ready)), now)]
        if wanted:
            return self._start(now)
        self._moved_at = now
        return []

    def hurry(self, now: float) -> list[RaceEffect]:
        """Begin another connection at once: the network has changed, and those before may lead nowhere."""
        return [] if self.over or self._ready else self._start(now)

    def ready(self, dial: int, now: float) -> list[RaceEffect]:
        """Note that a connection is set up, TLS included. One that was dropped does not count."""
        if dial not in self._connecting:
            return []
        self._ready[dial] = now - self._connecting.pop(dial)
        self._moved_at = now
        return self._ask(dial, now) if self._asking is None else []

    def failed(self, dial: int, now: float) -> list[RaceEffect]:
        """Note that a connection has failed. One that is further goes on; those behind would fail too."""
        self._connecting.pop(dial, None)
        self._ready.pop(dial, None)
        if self._asking == dial:
            self._asking = None
        if self._asking is not None:
            return []
        if self._ready:
            return self._ask(next(iter(self._ready)), now)
        return self._end()

    def opened(self, dial: int, now: float) -> list[RaceEffect]:
        """Note that a connection has become a link: all others are dropped."""
        self._pace.note_link(self._setup_s, now - self._asked_at)
        self._asking = None
        return self._end(but=dial)

    def _end(self, but: int = 0) -> list[RaceEffect]:
        self.over = True
        left = [dial for dial in (*self._connecting, *self._ready) if dial != but]
        self._connecting.clear()
        self._ready.clear()
        return [AbortDial(dial) for dial in left]

    def _start(self, now: float) -> list[RaceEffect]:
        self._last += 1
        self._moved_at = self._connecting[self._last] = now
        effects: list[RaceEffect] = []
        if len(self._connecting) > MOST_CONNECTING:
            _first, second, *_ = self._connecting
            del self._connecting[second]
            effects.append(AbortDial(second))
        return [*effects, StartDial(self._last)]

    def _ask(self, dial: int, now: float) -> list[RaceEffect]:
        self._setup_s = self._ready.pop(dial)
        self._asking, self._asked_at, self._moved_at = dial, now, now
        return [AskUpgrade(dial)]

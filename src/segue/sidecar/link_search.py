"""When a session that has no link looks for its gateway next.

After a link that was good at once, and after failures later and later; soon while something waits for the link, since
the network may be back any moment; at once when the network changes. Pure: times and randomness are passed in. Not
here: the attempt itself (`segue.sidecar.session`), its connections (`segue.sidecar.dial_race`), and the waits
(`segue.sidecar.backoff`).
"""

from __future__ import annotations

from segue.sidecar.backoff import delay_s, refused_delay_s, wanted_delay_s

#: A link that held for so long, or brought part of a reply, was good: the next attempt follows at once.
GOOD_S = 2.0
#: Attempts for a network that changes again and again begin no closer together than this.
CHANGES_S = 1.0


class LinkSearch:
    """The attempts of one session, one after the other."""

    def __init__(self) -> None:
        self._failures = 0
        self._ended_at = float("-inf")
        self._fraction = 0.0
        self._asked = False
        self._network_changed = False

    def ask(self) -> None:
        """Note that a request wants the link, though it may not be able to wait for it."""
        self._asked = True

    def network_changed(self) -> None:
        """Note that the network has changed, so that what failed before may work now."""
        self._network_changed = True

    @property
    def asked(self) -> bool:
        """A request has wanted the link since the last attempt ended."""
        return self._asked

    def attempt_ended(self, now: float, *, good: bool, fraction: float) -> None:
        """Note how an attempt, with the link that it led to, has ended. `fraction`: from 0 to 1, for the next wait."""
        self._failures = 0 if good else self._failures + 1
        self._ended_at = now
        self._fraction = fraction
        self._asked = self._network_changed = False

    def next_at(self, *, waiting: bool, refused: bool) -> float:
        """Return when to try. `waiting`: something waits for the link; `refused`: every gateway has refused it."""
        return self._ended_at + self._delay_s(waiting=waiting or self._asked, refused=refused)

    def _delay_s(self, *, waiting: bool, refused: bool) -> float:
        if refused:
            delay = refused_delay_s(self._fraction)
        elif waiting:
            delay = wanted_delay_s(self._failures, self._fraction)
        else:
            delay = delay_s(self._failures, self._fraction)
        return min(delay, CHANGES_S) if self._network_changed else delay

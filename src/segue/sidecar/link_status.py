"""Whether the link to a gateway is there, and whether it is still worth waiting for.

Pure: the caller passes the time in. Not here: the link itself (`segue.sidecar.session`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from segue.http.error_replies import FailureCode

LinkState = Literal["connecting", "up", "away", "refused"]


class LinkUnavailable(msgspec.Struct, frozen=True):
    """Why an exchange does not wait for the link: what its agent is told."""

    code: FailureCode
    message: str


class LinkTimeouts(msgspec.Struct, frozen=True):
    """How long exchanges wait without a link, while the session looks for its gateway."""

    wait_s: float = 20.0
    """After this time without a link, an exchange that was not forwarded yet fails: no gateway can be reached."""
    give_up_s: float = 300.0
    """After this time, an exchange that may have been forwarded has an unknown outcome; gateways keep it no longer."""


class LinkStatus:
    """The state of one session's link, from one connection to the next. It begins without one.

    The first link is waited for like a later one. `was_up`: a session before this one had a link.
    """

    def __init__(self, timeouts: LinkTimeouts, now: float, *, was_up: bool) -> None:
        self._timeouts = timeouts
        self._was_up = was_up
        self._away_since: float | None = now
        self._refusal: LinkUnavailable | None = None
        self._reasons: dict[str, str] = {}

    @property
    def reason(self) -> str:
        """Why the last attempts failed, by gateway if there are several; empty while the link is there."""
        if len(self._reasons) > 1:
            return "; ".join(f"{gateway}: {why.rstrip('.')}" for gateway, why in self._reasons.items())
        return "".join(self._reasons.values())

    def note_failed(self, gateway: str, reason: str) -> bool:
        """Record why there is no link to a gateway; tell whether that is news."""
        known = self._reasons.get(gateway)
        self._reasons[gateway] = reason
        return reason != known

    @property
    def up(self) -> bool:
        """The link is there."""
        return self._away_since is None

    @property
    def state(self) -> LinkState:
        """What the link is doing, in one word."""
        if self._away_since is None:
            return "up"
        if self._refusal is not None:
            return "refused"
        return "away" if self._was_up else "connecting"

    def note_up(self) -> None:
        """Record that a gateway has welcomed the session."""
        self._away_since = self._refusal = None
        self._was_up = True
        self._reasons.clear()

    def note_lost(self, now: float) -> None:
        """Record that the link is lost; once it is, a second call changes nothing."""
        if self._away_since is None:
            self._away_since = now

    def note_refused(self, refusal: LinkUnavailable | None) -> None:
        """Record what the gateways said, if all of them refused the session; None: not all of them did."""
        self._refusal = refusal

    @property
    def refused(self) -> bool:
        """Every gateway has refused the session."""
        return self._refusal is not None

    def has_patience(self, now: float) -> bool:
        """Tell whether an exchange that was not forwarded yet may still wait for the link."""
        return self._refusal is None and self.is_away_within(self._timeouts.wait_s, now)

    def is_away_within(self, seconds: float, now: float) -> bool:
        """Tell whether the link is away, and was lost less than this long ago."""
        return self._away_since is not None and now < self._away_since + seconds

    def unavailable(self, now: float) -> LinkUnavailable | None:
        """Return why an exchange that was not forwarded yet need not wait for the link; None: it should wait."""
        if self._away_since is None or self.has_patience(now):
            return None
        return self._refusal or LinkUnavailable(
            "segue_gateway_unreachable", f"No gateway can be reached: {self.reason.rstrip('.') or 'it is away'}."
        )

    def is_given_up(self, now: float) -> bool:
        """Tell whether even an exchange that may have been forwarded need not wait any more."""
        return self._away_since is not None and now >= self._away_since + self._timeouts.give_up_s

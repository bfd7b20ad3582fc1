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
    """How long exchanges wait for a link that was lost, while the session looks for its gateway."""

    wait_s: float = 20.0
    """After this time, an exchange that was not forwarded yet fails: no gateway can be reached."""
    give_up_s: float = 300.0
    """After this time, an exchange that may have been forwarded has an unknown outcome; gateways keep it no longer."""


class LinkStatus:
    """The state of one session's link, from one connection to the next. It begins without one.

    `was_up`: a session before this one had a link, so this one is worth waiting for.
    """

    def __init__(self, timeouts: LinkTimeouts, now: float, *, was_up: bool) -> None:
        self._timeouts = timeouts
        self._was_up = was_up
        self._away_since: float | None = now
        self._refusal: LinkUnavailable | None = None
        self._tried_all = False
        self.reason = ""
        """Why the last attempt failed."""

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
        self.reason = ""

    def note_lost(self, now: float) -> None:
        """Record that the link is lost; once it is, a second call changes nothing."""
        if self._away_since is None:
            self._away_since = now

    def note_tried_all(self, refusal: LinkUnavailable | None) -> None:
        """Record that every gateway was tried in vain. `refusal`: what the first one said that refused the session."""
        self._tried_all = True
        self._refusal = refusal

    def is_away_within(self, seconds: float, now: float) -> bool:
        """Tell whether the link is away, and was lost less than this long ago."""
        return self._away_since is not None and now < self._away_since + seconds

    def unavailable(self, now: float) -> LinkUnavailable | None:
        """Return why an exchange that was not forwarded yet need not wait for the link; None: it should wait."""
        if self._away_since is None:
            return None
        if self._refusal is not None:
            return self._refusal
        if self._was_up:
            if now < self._away_since + self._timeouts.wait_s:
                return None
        elif not self._tried_all:
            return None
        return LinkUnavailable(
            "segue_gateway_unreachable", f"No gateway can be reached: {self.reason or 'it is away'}."
        )

    def is_given_up(self, now: float) -> bool:
        """Tell whether even an exchange that may have been forwarded need not wait any more."""
        return self._away_since is not None and now >= self._away_since + self._timeouts.give_up_s

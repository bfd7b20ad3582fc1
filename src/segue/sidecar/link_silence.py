"""When a link that is silent is to be doubted: long before it counts as dead. Pure.

Not here: what is done then (`segue.sidecar.link_successor`), and when it is dead (`segue.tunnel.link`).
"""

from __future__ import annotations

#: Silence up to this long is no reason to doubt: an acknowledgement may be delayed by a second.
SILENT_S = 2.0
#: The same for a PING after the network has changed, which is answered at once.
MOVED_SILENT_S = 0.5
#: On top of that come so many round trips.
ROUND_TRIPS = 3.0


def doubt_at(now: float, quiet_since: float | None, *, rtt_s: float, moved: bool) -> float:
    """Return when to doubt a link, or to look again, if nothing comes by then.

    `quiet_since`: since when the peer owes an answer and says nothing; None: it owes none. `moved`: the network has
    changed.
    """
    silence_s = (MOVED_SILENT_S if moved else SILENT_S) + ROUND_TRIPS * rtt_s
    return (now if quiet_since is None else quiet_since) + silence_s

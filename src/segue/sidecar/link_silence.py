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
#: A link that took the place of another one a short while ago is given more time, up to three times twice as much: the
#: gateway may be slow, and another connection would make it slower.
STEADY_S = 30.0
_DOUBLINGS = 3


def doubt_at(now: float, quiet_since: float | None, *, rtt_s: float, moved: bool, replaced: int = 0) -> float:
    """Return when to doubt a link, or to look again, if nothing comes by then.

    `quiet_since`: since when the peer owes an answer and says nothing; None: it owes none. `moved`: the network has
    changed. `replaced`: so many links before it were given up in vain, a short while ago.
    """
    silence_s = (MOVED_SILENT_S if moved else SILENT_S) + ROUND_TRIPS * rtt_s
    silence_s *= 2.0 ** min(replaced, _DOUBLINGS)
    return (now if quiet_since is None else quiet_since) + silence_s

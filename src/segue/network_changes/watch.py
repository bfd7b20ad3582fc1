"""Whether the network may have changed between two looks at it: a lid was opened, a train has left its tunnel.

Pure. Not here: the looks, and what the system tells by itself (`monitor`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

#: How often to look, where and while the system tells nothing.
LOOK_EVERY_S = 2.0
#: Looks that are so much later than they should be have a suspended machine between them.
SUSPENDED_S = 3.0

#: `moved`: what was connected before may lead nowhere now. `stirred`: something has changed, maybe for others only.
NetworkChange = Literal["moved", "stirred"]


class NetworkLook(msgspec.Struct, frozen=True):
    """What one look shows."""

    addresses: tuple[str, ...]
    """Where packets to the internet would leave from; empty without a network."""
    clock_s: float
    """A clock that goes on while the machine is suspended."""


class NetworkWatch:
    """Compares each look with the one before."""

    def __init__(self) -> None:
        self._last: NetworkLook | None = None

    def look(self, seen: NetworkLook, *, told: bool = False) -> NetworkChange | None:
        """Return what has changed since the last look. `told`: the system says that something has."""
        last, self._last = self._last, seen
        if last is None or not seen.addresses:
            return None  # there is nothing to compare with, or no network to connect by
        suspended = seen.clock_s - last.clock_s >= LOOK_EVERY_S + SUSPENDED_S
        if seen.addresses != last.addresses or suspended:
            return "moved"
        return "stirred" if told else None

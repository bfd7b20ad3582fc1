"""Which lane has which name on one connection: pure.

The first seat has no name, the others have numbers, as short as they can be, since every event repeats them. A server
never forgets a name, so that names are used again. Not here: which connection a lane goes to (`connection_pool`).
"""

from __future__ import annotations

from collections.abc import Collection

from segue.protocol.lanes import DEFAULT_LANE, LaneBounds


class Seats:
    """The seats of one connection."""

    def __init__(self, bounds: LaneBounds) -> None:
        self._bounds = bounds
        self._names: dict[int, str] = {}
        self.closed = False
        """The server takes no new name any more."""

    @property
    def lanes(self) -> Collection[int]:
        """The lanes that have a seat."""
        return self._names.keys()

    def has_room(self, busy: Collection[str], *, near: bool = False) -> bool:
        """Tell whether another lane can sit here: at most as many as turns run at once.

        A lane that must be `near` another one may wait for its turns at the server. `busy` are the names whose turns
        run.
        """
        most = self._bounds.names + 1
        if not near:
            most = min(most, self._bounds.in_flight)
        return len(self._names) < most and self._free(busy) is not None

    def sit(self, lane: int, busy: Collection[str]) -> None:
        """Give a lane a seat; there must be room."""
        name = self._free(busy)
        assert name is not None, "has_room() comes first"
        self._names[lane] = name

    def name_of(self, lane: int, busy: Collection[str]) -> str | None:
        """Return the name of a lane, another one if its turn still runs; None if it has no seat, or can have none."""
        name = self._names.get(lane)
        if name is None or name not in busy:
            return name
        name = self._free(busy)
        if name is not None:
            self._names[lane] = name
        return name

    def leave(self, lane: int) -> None:
        """Free the seat of a lane."""
        self._names.pop(lane, None)

    def _free(self, busy: Collection[str]) -> str | None:
        taken = {*self._names.values(), *busy}
        if self.closed:
            return None
        names = (str(number) if number else DEFAULT_LANE for number in range(self._bounds.names + 1))
        return next((name for name in names if name not in taken), None)

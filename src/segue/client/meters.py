"""What a session has sent and received, and how often it had to recover: for views and benchmarks.

Not here: the sockets, which count what they carry (`transports`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from segue.client.recovery import Action


class SessionMeters(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the session was made. Payload is JSON; wire is what the sockets carried, as near as can be told."""

    turns: int = 0
    bytes_up_payload: int = 0
    bytes_down_payload: int = 0
    bytes_up_wire: int = 0
    bytes_down_wire: int = 0
    creates: int = 0
    reconnects: int = 0
    replays: int = 0
    repeats: int = 0
    resumes: int = 0
    retrievals: int = 0

    def plus(self, **counts: int) -> SessionMeters:
        """Return the counts with more added."""
        return msgspec.structs.replace(self, **{name: getattr(self, name) + more for name, more in counts.items()})


#: Which count a decision belongs to.
COUNTED: Mapping[Action, str] = MappingProxyType(
    {"replay": "replays", "repeat": "repeats", "resume": "resumes", "retrieve": "retrievals"}
)

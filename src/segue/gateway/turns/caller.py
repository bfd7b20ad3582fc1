"""Who asks for a turn, and how. Not here: what for (`segue.protocol.requests`), and running it (`executor`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from segue.gateway.admin.metrics import TransportMeter
from segue.gateway.principal import Principal
from segue.history.cache import Slot
from segue.upstreams.interface import Secret

#: Through which API a turn came.
Api = Literal["responses", "messages", "chat"]


class Caller(msgspec.Struct, frozen=True):
    """Who asks for a turn: the principal, the counters of its transport, and its own key for a provider if it sent one.

    On a WebSocket also the slot of its lane, where the turn becomes the latest, and the `places` where its parent may
    be (see `parents`).
    """

    principal: Principal
    meter: TransportMeter
    slot: Slot | None = None
    places: Sequence[Slot] = ()
    credential: Secret | None = None
    api: Api = "responses"
    through_tunnel: bool = False
    """Noted of kept turns alone: one that a tunnel took begins though the gateway drains."""

    @property
    def tenant(self) -> str:
        """The tenant that the turn belongs to."""
        return self.principal.tenant

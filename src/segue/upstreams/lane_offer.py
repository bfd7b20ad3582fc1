"""How many lanes of a socket are used: what its server says of itself, and what is configured. Pure.

Nothing in the protocol says whether a server runs several turns at once on one connection, and no message of it stops
one of them. A gateway of this project says in a header that it does both (`protocol.capabilities`), so that its lanes
are used without a setting. Of any other server the configuration must say so. Not here: what a lane does
(`lane_traffic`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from segue.http.structured_fields import read_dictionary
from segue.upstreams.lane_traffic import MOST_LANES

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class OfferedLanes(msgspec.Struct, frozen=True):
    """How many turns run at once on one socket, each in a lane with a name; with one, none has a name.

    `cancels`: the server takes the message that stops the turn of a lane. `warms_up`: it takes `generate: false`.
    """

    count: int = 1
    cancels: bool = False
    warms_up: bool = False


ONE_LANE = OfferedLanes()


def read_offer(header: str | None, configured: int | None) -> OfferedLanes:
    """Read the header `Segue-Capabilities`; `configured` is how many lanes are to be used at most.

    No more are used than turns run at once, so that no turn waits in its lane for those of others.
    """
    members = (None if header is None else read_dictionary(header)) or _NOTHING
    listed = members.get("extensions")
    extensions = frozenset(listed) if isinstance(listed, list | tuple) else frozenset()
    cancels, warms_up = "cancel" in extensions, "warm_up" in extensions
    if not extensions:
        count = configured or 1
    elif "lanes" in extensions and (cancels or configured):
        count = min(_count(members.get("lanes")), _count(members.get("in_flight")), configured or MOST_LANES)
    else:
        count = 1
    return OfferedLanes(max(1, min(count, MOST_LANES)), cancels=cancels, warms_up=warms_up)


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 1

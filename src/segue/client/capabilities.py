"""What a server says about itself, as a client reads it: the extensions, the lanes, the limits, and the epoch.

A gateway says it in a header and in an object; OpenAI's service documents it; any other server has what Open Responses
requires, and no more. Unknown names are ignored, and a value that makes no sense counts as absent. Not here: how the
header and the object are fetched (`transports`), and what a gateway writes (`segue.protocol.capabilities`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from segue.http.structured_fields import read_dictionary
from segue.protocol.codec import UNREADABLE
from segue.protocol.lanes import BOUNDS, LaneBounds

#: No object that a server sends on purpose is larger.
MAX_OBJECT_BYTES = 64 * 1024

#: No connection needs more lanes than this, whatever its server offers.
_MOST_LANES = 1024
_LONGEST_EPOCH_CHARS = 128


class ServerCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a server offers beyond Open Responses; sizes in bytes, times in seconds.

    `epoch` names one life of the server's memory: keys and kept events of another epoch are gone. `connection_age_s` is
    how old a connection may become, `connection_idle_s` how long it may be unused, and `message_bytes` how large a
    message may be; None means that the server does not say.
    """

    extensions: frozenset[str] = frozenset()
    lanes: LaneBounds = BOUNDS["serial"]
    epoch: str | None = None
    connection_age_s: float | None = None
    connection_idle_s: float | None = None
    message_bytes: int | None = None
    grace_s: float = 0.0
    resume_s: float = 0.0
    events_s: float = 0.0

    def offers(self, extension: str) -> bool:
        """Tell whether the server lists this extension."""
        return extension in self.extensions


#: A server that says nothing about itself.
PLAIN_SERVER = ServerCapabilities()
#: OpenAI's service, by its documentation: https://platform.openai.com/docs/guides/websocket-mode
OPENAI_SERVICE = ServerCapabilities(
    extensions=frozenset({"lanes", "warm_up"}),
    lanes=BOUNDS["openai"],
    connection_age_s=3600.0,
    message_bytes=16 * 1024 * 1024,  # not documented, but measured by several: it closes with 1009 beyond
)


def documented_capabilities(host: str) -> ServerCapabilities:
    """Return what the documentation of the service at this host says."""
    return OPENAI_SERVICE if host == "api.openai.com" else PLAIN_SERVER


def read_capabilities_header(header: str) -> ServerCapabilities | None:
    """Read the header `Segue-Capabilities`; None if it is no dictionary."""
    members = read_dictionary(header)
    return None if members is None else _capabilities(members, members, members.get("extensions"))


def read_capabilities_object(data: bytes) -> ServerCapabilities | None:
    """Read the object that `GET /segue/capabilities` answers; None if it is something else."""
    if len(data) > MAX_OBJECT_BYTES:
        return None
    try:
        found = msgspec.json.decode(data)
    except UNREADABLE:
        return None
    if not isinstance(found, dict) or found.get("object") != "segue.capabilities":
        return None
    limits = found.get("limits")
    return _capabilities(found, limits if isinstance(limits, dict) else {}, found.get("extensions"))


def _capabilities(named: Mapping[str, Any], limits: Mapping[str, Any], extensions: object) -> ServerCapabilities:
    listed = extensions if isinstance(extensions, list | tuple) else ()
    offered = frozenset(name for name in listed if isinstance(name, str))
    epoch, message_bytes = named.get("epoch"), _amount(limits.get("message_bytes"))
    return ServerCapabilities(
        extensions=offered,
        lanes=_lanes(limits) if "lanes" in offered else PLAIN_SERVER.lanes,
        epoch=epoch if isinstance(epoch, str) and 0 < len(epoch) <= _LONGEST_EPOCH_CHARS else None,
        connection_age_s=_amount(limits.get("connection_age_s")) or None,
        connection_idle_s=_amount(limits.get("connection_idle_s")) or None,
        message_bytes=int(message_bytes) if message_bytes else None,
        grace_s=_amount(limits.get("grace_s")) or 0.0,
        resume_s=_amount(limits.get("resume_s")) or 0.0,
        events_s=_amount(limits.get("events_s")) or 0.0,
    )


def _lanes(limits: Mapping[str, Any]) -> LaneBounds:
    names, in_flight = _amount(limits.get("lanes")), _amount(limits.get("in_flight"))
    if not names or not in_flight:
        return PLAIN_SERVER.lanes
    return LaneBounds(min(int(names), _MOST_LANES), min(max(int(in_flight), 1), _MOST_LANES))


def _amount(value: object) -> float | None:
    """Return a number that is no less than 0 and finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value < math.inf else None

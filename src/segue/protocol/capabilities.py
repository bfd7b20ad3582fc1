"""What a gateway tells clients about itself: its epoch, the profile of its connections, its limits and its extensions.

It is one JSON object, and the same in a header (a dictionary of RFC 9651). Not here: where the figures come from.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from segue.protocol.codec import encode
from segue.protocol.lanes import LaneBounds, Profile

#: The header with the same content. The answer to an upgrade has it, so that a client knows before it sends anything.
HEADER = "Segue-Capabilities"

Extension = Literal[
    "lanes", "warm_up", "cancel", "background", "resume", "idempotency", "epoch", "lean", "compact", "lists", "grace"
]
_ALWAYS: tuple[Extension, ...] = (
    "warm_up", "cancel", "background", "resume", "idempotency", "epoch", "lean", "compact", "lists",
)  # fmt: skip


class AdvertisedLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits that a client can reach; sizes in bytes, times in seconds."""

    lanes: int
    in_flight: int
    queued: int
    message_bytes: int
    connection_age_s: float
    connection_idle_s: float
    retention_s: float
    events_s: float
    resume_s: float
    grace_s: float


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """The object that `GET /segue/capabilities` answers.

    `epoch` names one life of what this server keeps in memory: idempotency keys, events of kept turns, running turns.
    A client that repeats a request compares it. Under another epoch, the server has forgotten the first request.
    """

    object: str = "segue.capabilities"
    version: str
    epoch: str
    profile: Profile
    limits: AdvertisedLimits
    extensions: tuple[Extension, ...]


def extensions(bounds: LaneBounds, grace_s: float) -> tuple[Extension, ...]:
    """Return what a gateway with these settings offers beyond Open Responses."""
    return (*(("lanes",) if bounds.names else ()), *_ALWAYS, *(("grace",) if grace_s else ()))


def encode_capabilities(capabilities: Capabilities) -> bytes:
    """Write the object."""
    return encode(capabilities)


def capabilities_header(capabilities: Capabilities) -> str:
    """Write the header: epoch and profile, every limit under its name, and the extensions as an inner list.

    The epoch is a string (RFC 9651, 3.3.3), since a token cannot begin with a digit.
    """
    fields = [f'epoch="{capabilities.epoch}"', f"profile={capabilities.profile}"]
    for name, value in msgspec.structs.asdict(capabilities.limits).items():
        fields.append(f"{name}={value:.3f}" if isinstance(value, float) else f"{name}={value}")
    fields.append(f"extensions=({' '.join(capabilities.extensions)})")
    return ", ".join(fields)

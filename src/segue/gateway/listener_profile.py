"""The faces of a gateway: what it offers on each of its addresses, which differ in their profile and nothing else."""

from __future__ import annotations

import msgspec

from segue import __version__
from segue.config import ServerConfig
from segue.protocol.capabilities import AdvertisedLimits, Capabilities, capabilities_header, extensions
from segue.protocol.lanes import BOUNDS, LaneBounds, Profile


class Face(msgspec.Struct, frozen=True):
    """What clients of one address get: the bounds of their connections, and what they are told."""

    bounds: LaneBounds
    capabilities: Capabilities
    header: str


def face_of(server: ServerConfig, profile: Profile) -> Face:
    """Return what is offered under a profile."""
    bounds = BOUNDS["serial"] if profile == "serial" else LaneBounds(server.max_lanes, server.max_in_flight)
    limits = AdvertisedLimits(
        lanes=bounds.names,
        in_flight=bounds.in_flight,
        queued=server.max_queued,
        message_bytes=server.max_message_bytes,
        connection_age_s=server.max_age_s,
        connection_idle_s=server.idle_timeout_s,
        retention_s=server.retention_s,
        events_s=server.events_s,
        resume_s=server.resume_s,
        grace_s=server.grace_s,
    )
    capabilities = Capabilities(
        version=__version__,
        profile=profile,
        limits=limits,
        extensions=extensions(bounds, server.grace_s),
    )
    return Face(bounds, capabilities, capabilities_header(capabilities))

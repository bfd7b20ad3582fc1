"""What the gateway offers on each of its addresses. Addresses differ in their profile and in nothing else."""

from __future__ import annotations

from typing import get_args

import msgspec
from aiohttp import web

from segue import __version__
from segue.config import ServerConfig
from segue.protocol.capabilities import AdvertisedLimits, Capabilities, capabilities_header, extensions
from segue.protocol.lanes import BOUNDS, LaneBounds, Profile


class ListenerProfile(msgspec.Struct, frozen=True):
    """The bounds of an address's connections, and its capabilities as an object and as a header."""

    bounds: LaneBounds
    capabilities: Capabilities
    header: str


class ListenerProfiles:
    """The profile of each port that the gateway listens on."""

    def __init__(self, server: ServerConfig, epoch: bytes) -> None:
        self._server = server
        self._by_port: dict[int, Profile] = {}
        self.name_epoch(epoch)

    def name_epoch(self, epoch: bytes) -> None:
        """Tell clients this epoch from now on."""
        profiles: tuple[Profile, ...] = get_args(Profile)
        self._profiles = {profile: listener_profile(self._server, profile, epoch) for profile in profiles}

    def bind(self, port: int, profile: Profile) -> None:
        """Note the profile of a port."""
        self._by_port[port] = profile

    def of(self, request: web.Request) -> ListenerProfile:
        """Return the profile of the address that a request came to."""
        name = None if request.transport is None else request.transport.get_extra_info("sockname")
        port = name[1] if isinstance(name, tuple) else 0  # a request through the tunnel has no port
        return self._profiles[self._by_port.get(port, self._server.profile)]


def listener_profile(server: ServerConfig, profile: Profile, epoch: bytes) -> ListenerProfile:
    """Return what a gateway with these settings offers under a profile; `epoch` names its present run."""
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
        epoch=epoch.hex(),
        profile=profile,
        limits=limits,
        extensions=extensions(bounds, server.grace_s),
    )
    return ListenerProfile(bounds, capabilities, capabilities_header(capabilities))

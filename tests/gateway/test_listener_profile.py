"""What each address offers, and which address a request came to."""

from __future__ import annotations

import msgspec
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from segue.config import ServerConfig
from segue.gateway.listener_profile import ListenerProfiles, listener_profile
from segue.protocol.lanes import BOUNDS, LaneBounds

EPOCH = b"\x0f\x1e"


class Transport:
    """A transport whose own address is known, or is not."""

    def __init__(self, name: object) -> None:
        self._name = name

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._name if name == "sockname" else default


def request_to(name: object) -> web.Request:
    return make_mocked_request("GET", "/", transport=Transport(name))


def test_the_settings_bound_the_connections_of_the_openai_profile_only() -> None:
    server = ServerConfig(max_lanes=3, max_in_flight=2, max_queued=5, grace_s=7)
    openai, serial = listener_profile(server, "openai", EPOCH), listener_profile(server, "serial", EPOCH)
    assert (openai.bounds, serial.bounds) == (LaneBounds(3, 2), BOUNDS["serial"])
    limits = openai.capabilities.limits
    assert (limits.lanes, limits.in_flight, limits.queued, limits.grace_s) == (3, 2, 5, 7)
    assert (openai.capabilities.profile, serial.capabilities.profile) == ("openai", "serial")
    assert openai.capabilities.epoch == serial.capabilities.epoch == "0f1e"
    assert openai.header != serial.header
    assert msgspec.structs.replace(limits, lanes=serial.bounds.names, in_flight=serial.bounds.in_flight) == (
        serial.capabilities.limits
    )


def test_a_request_gets_the_profile_of_the_port_it_came_to() -> None:
    profiles = ListenerProfiles(ServerConfig(profile="openai"), EPOCH)
    profiles.bind(1, "openai")
    profiles.bind(2, "serial")
    assert profiles.of(request_to(("127.0.0.1", 1))).capabilities.profile == "openai"
    assert profiles.of(request_to(("::1", 2, 0, 0))).capabilities.profile == "serial"


def test_a_request_without_a_port_gets_the_profile_of_the_server() -> None:
    """One that came through the tunnel, or whose connection is gone."""
    profiles = ListenerProfiles(ServerConfig(profile="serial"), EPOCH)
    profiles.bind(1, "openai")
    gone = request_to(None)
    gone.protocol.transport = None
    for request in (request_to(("127.0.0.1", 0)), request_to(None), gone):
        assert profiles.of(request).capabilities.profile == "serial"

"""The capabilities of the address that was asked."""

from __future__ import annotations

from aiohttp.test_utils import make_mocked_request

from segue.config import ServerConfig
from segue.gateway.admin.capabilities import CapabilityRoutes
from segue.gateway.listener_profile import ListenerProfiles, listener_profile
from segue.protocol.capabilities import HEADER, encode_capabilities


async def test_body_and_header_say_what_the_address_offers() -> None:
    server = ServerConfig(profile="serial")
    reply = await CapabilityRoutes(ListenerProfiles(server, b"\1")).show(make_mocked_request("GET", "/"))
    expected = listener_profile(server, "serial", b"\1")
    assert reply.body == encode_capabilities(expected.capabilities)
    assert (reply.content_type, reply.headers[HEADER]) == ("application/json", expected.header)

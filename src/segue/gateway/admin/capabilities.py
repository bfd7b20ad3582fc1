"""`GET /segue/capabilities`: what this gateway offers on the address that was asked, and its limits."""

from __future__ import annotations

from aiohttp import web

from segue.gateway.listener_profile import ListenerProfiles
from segue.protocol.capabilities import HEADER, encode_capabilities


class CapabilityRoutes:
    """The handler of `/segue/capabilities`."""

    def __init__(self, profiles: ListenerProfiles) -> None:
        self._profiles = profiles

    async def show(self, request: web.Request) -> web.Response:
        """Answer with the capabilities, as the body and as the header that other replies carry."""
        profile = self._profiles.of(request)
        body = encode_capabilities(profile.capabilities)
        return web.Response(body=body, content_type="application/json", headers={HEADER: profile.header})

"""`GET /v1/models`: the names that a request may ask for."""

from __future__ import annotations

from aiohttp import web

from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.services import Services
from segue.protocol.capabilities import HEADER
from segue.protocol.codec import encode


class ModelRoutes:
    """The handler of `/v1/models`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def list(self, request: web.Request) -> web.Response:
        """List the models that the configuration names, and then what upstreams list that match its globs."""
        services, principal = self._services, request[PRINCIPAL]
        created = int(services.started_at)
        router, tenant = services.router, principal.tenant
        found = await router.discover(services.access.credential(request.headers), tenant)
        names = filter(principal.may_use, dict.fromkeys((*router.models(tenant), *found)))
        models = [{"id": name, "object": "model", "created": created, "owned_by": "segue"} for name in names]
        body = encode({"object": "list", "data": models})
        headers = {HEADER: services.profiles.of(request).header}
        return web.Response(body=body, content_type="application/json", headers=headers)

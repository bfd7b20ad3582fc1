"""`GET /v1/models` and `GET /v1/models/{id}`: the names that a request may ask for.

Clients of Anthropic's API get what that API answers. Not here: who they are (`client_api`), and what a list looks like
(`segue.dialects.model_objects`).
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from segue.dialects.model_objects import anthropic_model, anthropic_page, openai_list, openai_model
from segue.gateway.api.client_api import is_from_anthropics_client
from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.services import Services
from segue.protocol.capabilities import HEADER
from segue.protocol.problems import Problem, Refused, model_not_found


class ModelRoutes:
    """The handlers of `/v1/models` and of what is below it."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def list(self, request: web.Request) -> web.Response:
        """List the models that the configuration names, and then what upstreams list that match its globs."""
        names, created_at = await self._names(request), self._services.started_at
        if not is_from_anthropics_client(request.headers):
            return self._reply(request, openai_list(names, created_at))
        page = anthropic_page(names, created_at, request.query)
        if isinstance(page, Problem):
            raise Refused(page)
        return self._reply(request, page)

    async def retrieve(self, request: web.Request) -> web.Response:
        """Answer with a model that is listed, or that a pattern of the configuration lets a request ask for."""
        services, principal, name = self._services, request[PRINCIPAL], request.match_info["id"]
        runs = principal.may_use(name) and services.router.find(name, principal.tenant) is not None
        if not runs:
            raise Refused(model_not_found(name))
        write = anthropic_model if is_from_anthropics_client(request.headers) else openai_model
        return self._reply(request, write(name, services.started_at))

    async def _names(self, request: web.Request) -> Sequence[str]:
        services, principal = self._services, request[PRINCIPAL]
        router, tenant = services.router, principal.tenant
        found = await router.discover(services.access.credential(request.headers), tenant)
        return [name for name in dict.fromkeys((*router.models(tenant), *found)) if principal.may_use(name)]

    def _reply(self, request: web.Request, body: bytes) -> web.Response:
        headers = {HEADER: self._services.profiles.of(request).header}
        return web.Response(body=body, content_type="application/json", headers=headers)

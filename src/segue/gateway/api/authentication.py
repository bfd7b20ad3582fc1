"""Who may call a route: wrappers around handlers. Not here: the rules themselves (`access`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web

from segue.gateway.access import Access
from segue.gateway.api.request_keys import TENANT
from segue.gateway.tunnel.session import tunnel_tenant
from segue.protocol.problems import Problem, Refused

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def keyed(access: Access, handler: Handler) -> Handler:
    """Let only requests with one of the gateway's API keys through, and note their tenant."""

    async def checked(request: web.Request) -> web.StreamResponse:
        tenant = tunnel_tenant(request) or access.tenant(request.headers)
        if isinstance(tenant, Problem):
            raise Refused(tenant)
        request[TENANT] = tenant
        return await handler(request)

    return checked


def private(access: Access, handler: Handler) -> Handler:
    """Let only requests with a key through, or from this machine if it has no keys and is for nobody else."""

    async def checked(request: web.Request) -> web.StreamResponse:
        # What comes through the tunnel has a connection within this process, but its sidecar may be anywhere.
        peer = None if tunnel_tenant(request) is not None else request.remote
        problem = access.refuse_private(request.headers, peer)
        if problem is not None:
            raise Refused(problem)
        return await handler(request)

    return checked

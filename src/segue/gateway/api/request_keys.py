"""What the wrappers around a handler note on its request."""

from __future__ import annotations

from aiohttp import web

from segue.gateway.principal import Principal

#: Who sent a request that came through `authentication.keyed`.
PRINCIPAL = web.RequestKey("principal", Principal)

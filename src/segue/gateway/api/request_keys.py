"""What the wrappers around a handler note on its request."""

from __future__ import annotations

from aiohttp import web

#: The tenant of a request that came through `authentication.keyed`.
TENANT = web.RequestKey("tenant", str)

"""What the wrappers around a handler note on its request."""

from __future__ import annotations

from aiohttp import web

from segue.gateway.principal import Principal
from segue.gateway.request_memory import HeldRequest

#: Who sent a request that came through `authentication.keyed`.
PRINCIPAL = web.RequestKey("principal", Principal)
#: What a request is called in a reply, if its API has a header line for that.
REQUEST_ID = web.RequestKey("request_id", str)
#: What a request whose body was read holds in memory. It is released after its handler.
HELD = web.RequestKey("held", HeldRequest)

"""What is noted on a request: by the wrappers around its handler, and what it is called in its reply."""

from __future__ import annotations

import os

from aiohttp import web

from segue.gateway.principal import Principal
from segue.gateway.request_memory import HeldRequest

#: Who sent a request that came through `authentication.keyed`.
PRINCIPAL = web.RequestKey("principal", Principal)
#: There on a request that was counted in its caller's limits already, since it runs no turn.
COUNTED = web.RequestKey("counted", bool)
_REQUEST_ID = web.RequestKey("request_id", str)
#: What a request whose body was read holds in memory. It is released after its handler.
HELD = web.RequestKey("held", HeldRequest)


def request_id(request: web.Request) -> str:
    """Return what a request is called in its reply, if its API has a header line for that. Most have none."""
    if _REQUEST_ID not in request:
        request[_REQUEST_ID] = f"req_{os.urandom(12).hex()}"
    return request[_REQUEST_ID]

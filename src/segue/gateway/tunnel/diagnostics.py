"""What `segue doctor` asks a gateway: where its routes lead, whether it reaches those servers, and bytes to time.

Targets come from the configuration alone, and a probe connects and sends nothing, so it costs nothing. Its results are
kept for a while, whoever asks. What is sent to measure the way has no content, and each tenant has an allowance of it.
Not here: who may ask (`segue.gateway.api.application`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence

from aiohttp import web

from segue.egress.client import Egress
from segue.egress.errors import EgressError
from segue.gateway.tunnel.transfer_allowance import TransferAllowance
from segue.http.routes import RouteTable, Target
from segue.protocol.codec import encode
from segue.protocol.problems import Problem, Refused

#: How long the results of probes are kept.
KEEP_S = 15.0
#: The largest body of a transfer, either way.
MAX_TRANSFER_BYTES = 256 * 1024
_PROBE_S = 5.0
_MAX_PROBES = 32
_AT_ONCE = 8
_TRANSFER_S = 60.0
_CHUNK_BYTES = 16 * 1024


class RouteDiagnostics:
    """The handlers of `/segue/diagnostics`. `others`: servers that the gateway calls beside those of its routes."""

    def __init__(self, routes: RouteTable, others: Sequence[Target], egress: Egress) -> None:
        self._egress = egress
        self._allowance = TransferAllowance()
        self._probing = asyncio.Lock()
        self.replace(routes, others)

    def replace(self, routes: RouteTable, others: Sequence[Target]) -> None:
        """Tell of these routes and servers from now on."""
        targets = [route.target for route in routes.routes if isinstance(route.target, Target)]
        servers = {
            target.authority: Target(scheme=target.scheme, host=target.host, port=target.port)
            for target in (*targets, *others)
        }
        self._servers = list(servers.values())[:_MAX_PROBES]
        self._routes = [
            {"prefix": route.prefix.decode("ascii"), "target": _named(route.target)} for route in routes.routes
        ]
        self._probed_at: float | None = None
        self._results: list[dict[str, object]] = []

    async def show(self, request: web.Request) -> web.Response:
        """Answer with the routes, and with which servers can be reached from here."""
        del request
        body = encode({"routes": self._routes, "providers": await self._reachable()})
        return web.Response(body=body, content_type="application/json")

    async def transfer(self, request: web.Request, tenant: str) -> web.Response:
        """Read a body of some size, and answer with as many bytes as `bytes` asks for, which nothing can compress."""
        wanted, sent = _size(request.query.get("bytes", "0")), request.content_length or 0
        if wanted is None:
            message = f"'bytes' is a number from 0 to {MAX_TRANSFER_BYTES}."
            raise Refused(Problem("invalid_value", message, "bytes"))
        if sent > MAX_TRANSFER_BYTES or (request.content_length is None and request.can_read_body):
            message = f"The body has a Content-Length, and at most {MAX_TRANSFER_BYTES} bytes."
            raise Refused(Problem("message_too_large", message))
        wait_s = self._allowance.take(tenant, wanted + sent, asyncio.get_running_loop().time())
        if wait_s > 0:
            raise Refused(Problem("rate_limit_exceeded", "Enough was measured for now.", retry_after_s=wait_s))
        try:
            async with asyncio.timeout(_TRANSFER_S):
                async for _ in request.content.iter_chunked(_CHUNK_BYTES):
                    pass
        except TimeoutError:
            message = f"The body did not come within {_TRANSFER_S:g} s."
            raise Refused(Problem("request_timeout", message)) from None
        return web.Response(body=os.urandom(wanted), headers={"Cache-Control": "no-store"})

    async def _reachable(self) -> list[dict[str, object]]:
        """Probe the servers, once for all who ask meanwhile or soon after."""
        loop = asyncio.get_running_loop()
        async with self._probing:
            if self._probed_at is None or loop.time() >= self._probed_at + KEEP_S:
                places = asyncio.Semaphore(_AT_ONCE)
                self._results = await asyncio.gather(*(self._probe(server, places) for server in self._servers))
                self._probed_at = loop.time()
            return self._results

    async def _probe(self, server: Target, places: asyncio.Semaphore) -> dict[str, object]:
        async with places:
            began_at, reason = time.perf_counter(), ""  # the clock of the event loop may be coarse
            try:
                await self._egress.probe(server, wait_s=_PROBE_S)
            except EgressError as error:
                reason = str(error)
            time_s = round(time.perf_counter() - began_at, 4)
            return {"target": server.url, "reachable": not reason, "reason": reason, "time_s": time_s}


def _named(target: Target | str) -> str:
    """Name a target without its path, which may hold an account."""
    return target if isinstance(target, str) else f"{target.scheme}://{target.authority.decode('ascii')}"


def _size(text: str) -> int | None:
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(MAX_TRANSFER_BYTES)):
        return None
    size = int(text)
    return size if size <= MAX_TRANSFER_BYTES else None

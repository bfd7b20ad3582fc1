"""What an operator's tools ask: is the process alive, is it ready for turns, what are its metrics."""

from __future__ import annotations

import asyncio

from aiohttp import web

from segue.gateway.admin.metrics import Metrics
from segue.gateway.drain import DrainState
from segue.history.cache import TurnCache
from segue.protocol.codec import encode
from segue.stores.interface import Store, StoreError, StoreSize
from segue.stores.live.interface import Live
from segue.upstreams.router import Router

#: How long the store may take until the gateway is not ready: a disk that hangs fails every stored turn, too.
STORE_S = 2.0


class HealthRoutes:
    """The handlers of `/healthz`, `/readyz` and `/metrics`."""

    def __init__(
        self, *, store: Store, router: Router, cache: TurnCache, metrics: Metrics, drain: DrainState, live: Live | None
    ) -> None:
        self._router = router
        self._store = store
        self._cache = cache
        self._metrics = metrics
        self._drain = drain
        self._live = live

    async def healthz(self, request: web.Request) -> web.Response:
        """Answer: that there is an answer is what was asked. With `?ready`, answer 503 once the gateway will leave.

        A balancer asks that, and needs no key; `/readyz` tells more.
        """
        if "ready" in request.query and self._drain.leaving:
            return _draining()
        return web.Response(body=b'{"status":"ok"}', content_type="application/json")

    async def readyz(self, request: web.Request) -> web.Response:
        """Say whether the gateway takes turns; 503 while it drains. A store that cannot write makes this fail too.

        Upstreams that are out do not: another gateway would not reach them either. Those of groups are named. Neither
        does it when what gateways share is away: that is so for all of them, and plain turns go on.
        """
        del request
        if self._drain.leaving:
            return _draining()
        size = await self._check_store()
        live = {} if self._live is None else {"live": "in use" if self._live.available else "away"}
        upstreams = {name: "in use" if in_use else "out" for name, in_use in self._router.in_use.items()}
        shown = {"status": "ready", "records": size.records, **live}
        body = encode({**shown, "upstreams": upstreams} if upstreams else shown)
        return web.Response(body=body, content_type="application/json")

    async def _check_store(self) -> StoreSize:
        try:
            async with asyncio.timeout(STORE_S):
                await self._store.check_writable()
                return await self._store.size()
        except TimeoutError:
            raise StoreError(f"the store has not written within {STORE_S:g} s") from None

    async def metrics(self, request: web.Request) -> web.Response:
        """Write the metrics in the text format of Prometheus."""
        del request
        body = self._metrics.render(self._cache)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _draining() -> web.Response:
    return web.Response(status=503, body=b'{"status":"draining"}', content_type="application/json")

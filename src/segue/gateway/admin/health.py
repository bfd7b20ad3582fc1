"""What an operator's tools ask: is the process alive, is it ready for turns, what are its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from aiohttp import web

from segue.gateway.admin.metrics import Metrics
from segue.gateway.admin.store_health import StoreCheck, StoreState
from segue.gateway.drain import DrainState
from segue.history.cache import TurnCache
from segue.protocol.codec import encode
from segue.stores.interface import Store
from segue.stores.live.interface import Live
from segue.upstreams.router import Router

#: What a gateway refuses while its store does not take what turns write, and while what gateways share is away.
_STORED = ("stored turns",)
_SHARED = ("idempotency keys", "background turns", "deletions")


class Readiness(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether a gateway is to be sent turns, how its parts are, and what it refuses until they are well again."""

    status: Literal["ready", "unready"]
    records: int | None = None
    store: StoreState
    live: Literal["in use", "away"] | None = None
    upstreams: Mapping[str, Literal["in use", "out"]] = {}
    refuses: Sequence[str] = []


class HealthRoutes:
    """The handlers of `/healthz`, `/readyz` and `/metrics`."""

    def __init__(
        self, *, store: Store, router: Router, cache: TurnCache, metrics: Metrics, drain: DrainState, live: Live | None
    ) -> None:
        self._router = router
        self._store = StoreCheck(store)
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
        """Say whether the gateway takes turns, and what of its parts is ill. 503 while it drains, or stores nothing.

        Upstreams that are out do not make it unready: another gateway would not reach them either. Those of groups are
        named. Neither does what gateways share, when it is away: plain turns go on, and `refuses` names what does not.
        """
        del request
        if self._drain.leaving:
            return _draining()
        found = await self._store.look()
        stores, shares = found.state == "in use", self._live is None or self._live.available
        shown = Readiness(
            status="ready" if stores else "unready",
            records=found.records,
            store=found.state,
            live=None if self._live is None else "in use" if shares else "away",
            upstreams={name: "in use" if in_use else "out" for name, in_use in self._router.in_use.items()},
            refuses=[*(() if stores else _STORED), *(() if shares else _SHARED)],
        )
        return web.Response(status=200 if stores else 503, body=encode(shown), content_type="application/json")

    async def metrics(self, request: web.Request) -> web.Response:
        """Write the metrics in the text format of Prometheus. The store is looked at for them."""
        del request
        found = await self._store.look()
        body = self._metrics.render(self._cache, stores=found.state == "in use")
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _draining() -> web.Response:
    return web.Response(status=503, body=b'{"status":"draining"}', content_type="application/json")

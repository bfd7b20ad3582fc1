"""`GET /segue/usage`: what the caller's key and its tenant have used, and what is left of their limits.

Not here: counting (`quotas`), and the figures of everybody, which operators read from `/metrics`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from segue.config import LimitsConfig
from segue.gateway.principal import Principal
from segue.gateway.quotas.quotas import ModelCounts, Quotas, Scope, UsageCounts
from segue.protocol.codec import encode


class ScopeUsage(msgspec.Struct, frozen=True, kw_only=True):
    """One key or tenant. `remaining`: units of each window that are there now; `running`: turns under way."""

    used: UsageCounts
    running: int
    limits: LimitsConfig
    remaining: dict[str, int]


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller has used since `since`, in unix seconds, when the gateway began; `models`: its key, by model."""

    tenant: str
    key: str | None
    since: float
    of_key: ScopeUsage | None
    of_tenant: ScopeUsage
    models: dict[str, ModelCounts] = {}


class UsageRoutes:
    """The handler of `/segue/usage`."""

    def __init__(self, quotas: Quotas, clock: Callable[[], float], started_at: float) -> None:
        self._quotas = quotas
        self._clock = clock
        self._started_at = started_at

    def report(self, principal: Principal) -> UsageReport:
        """Return what a principal has used."""
        now = self._clock()
        scopes = self._quotas.scopes(principal)
        *of_key, of_tenant = (_usage_of(scope, now) for scope in scopes)
        return UsageReport(
            tenant=principal.tenant,
            key=principal.key,
            since=self._started_at,
            of_key=of_key[0] if of_key else None,
            of_tenant=of_tenant,
            models=scopes[0].models,
        )

    async def show(self, principal: Principal) -> web.Response:
        """Answer with the caller's usage. It is not one of the turns that are counted."""
        headers = {"Cache-Control": "no-store"}
        return web.Response(body=encode(self.report(principal)), content_type="application/json", headers=headers)


def _usage_of(scope: Scope, now: float) -> ScopeUsage:
    remaining = {what.replace("-", "_"): window.remaining(now) for what, window in scope.windows.items()}
    return ScopeUsage(used=scope.counts, running=scope.running, limits=scope.limits, remaining=remaining)

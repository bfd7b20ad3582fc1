"""What the sessions and exchanges of all sidecars share: settings, routes, budgets, and the way out to providers.

Not here: what they do with it (`session`, `exchange`).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from segue.config import TunnelConfig
from segue.egress.client import Egress
from segue.gateway.admin.metrics import TunnelMeter
from segue.gateway.caller_rules import CallerRules
from segue.gateway.principal import Principal
from segue.gateway.tunnel.base_cache import Bases
from segue.gateway.tunnel.exchange_log import ExchangeLog
from segue.gateway.tunnel.uploads import Uploads
from segue.http.routes import SELF, Resolved, RouteRefusal, RouteTable
from segue.stores.live.interface import Exchanges
from segue.tunnel.server import Node
from segue.upstreams.admission import AdmissionQueue
from segue.upstreams.time_slices import TimeAccounts

#: Large bodies that are rebuilt at once, of all tenants and of one.
_REBUILDS, _REBUILDS_OF_ONE = 3, 2


def _rebuilding() -> AdmissionQueue:
    """Nobody is refused here: sidecars and their exchanges are bounded already."""
    return AdmissionQueue(
        "large bodies", limit=_REBUILDS, max_waiting=sys.maxsize, timeout_s=None, most_of_one=_REBUILDS_OF_ONE
    )


class TunnelResources(msgspec.Struct, kw_only=True):
    """The settings, routes and budgets that every session and exchange of the tunnel works with.

    `routes` is replaced when the configuration is read again.
    """

    config: TunnelConfig
    rules: CallerRules
    routes: RouteTable
    egress: Egress
    meter: TunnelMeter
    node: Node
    bases: Bases
    uploads: Uploads
    log: ExchangeLog
    accounts: TimeAccounts
    rebuilding: AdmissionQueue = msgspec.field(default_factory=_rebuilding)
    """Who rebuilds a large body in a thread: however many there are of a tenant, threads are left to others."""
    owners: Exchanges | None = None
    """Which gateway has forwarded which exchange, where there are several."""

    def resolve(self, target: bytes, principal: Principal) -> Resolved | RouteRefusal:
        """Return where a request of this principal's sidecar goes.

        Raises:
            Refused: its key is not valid any more.
        """
        return self.routes.resolve(target, self.rules.renewed(principal).may_reach)

    @asynccontextmanager
    async def counted(self, resolved: Resolved, principal: Principal) -> AsyncIterator[None]:
        """Count a request to a provider around a block; those to the own API are counted there, as turns.

        Raises:
            Refused: the principal is over a limit.
        """
        if resolved.target == SELF:
            yield
            return
        rules = self.rules
        scopes = await rules.limiter.begin(principal)
        try:
            yield
        finally:
            rules.quotas.end(scopes, None, rules.clock())

    def note_body(self, principal: Principal, size: int) -> None:
        """Count a body that was rebuilt."""
        self.meter.rebuilt_bytes.inc(size)
        self.rules.note_upload(principal, size)

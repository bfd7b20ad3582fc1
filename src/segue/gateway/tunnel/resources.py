"""What all sidecars of one gateway share."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from segue.config import TunnelConfig
from segue.egress.client import Egress
from segue.gateway.access import Access
from segue.gateway.admin.metrics import TunnelMeter
from segue.gateway.principal import Principal
from segue.gateway.tunnel.base_cache import Bases
from segue.gateway.tunnel.uploads import Uploads
from segue.http.routes import Resolved, RouteRefusal, RouteTable
from segue.protocol.problems import Problem
from segue.tunnel.server import Node


class TunnelResources(msgspec.Struct, kw_only=True):
    """The settings, routes and budgets that every session and exchange of the tunnel works with.

    `routes` is replaced when the configuration is read again. `clock` gives unix seconds.
    """

    config: TunnelConfig
    access: Access
    clock: Callable[[], float]
    routes: RouteTable
    egress: Egress
    meter: TunnelMeter
    node: Node
    bases: Bases
    uploads: Uploads

    def resolve(self, target: bytes, principal: Principal) -> Resolved | RouteRefusal | Problem:
        """Return where a request of this principal's sidecar goes; a problem if its key is not valid any more."""
        now = self.access.renewed(principal, self.clock())
        return now if isinstance(now, Problem) else self.routes.resolve(target, now.may_reach)

"""What all sidecars of one gateway share."""

from __future__ import annotations

import msgspec

from segue.config import TunnelConfig
from segue.egress.client import Egress
from segue.gateway.admin.metrics import TunnelMeter
from segue.gateway.tunnel.base_cache import Bases
from segue.gateway.tunnel.uploads import Uploads
from segue.http.routes import RouteTable
from segue.tunnel.server import Node


class TunnelResources(msgspec.Struct, frozen=True, kw_only=True):
    """The settings, routes and budgets that every session and exchange of the tunnel works with."""

    config: TunnelConfig
    routes: RouteTable
    egress: Egress
    meter: TunnelMeter
    node: Node
    bases: Bases
    uploads: Uploads

"""`GET /segue/nodes`: which gateways share what is live, for an operator. Not here: leases (`segue.stores.live`)."""

from __future__ import annotations

import msgspec
from aiohttp import web

from segue.protocol.codec import encode
from segue.protocol.problems import Refused, live_away
from segue.stores.live.interface import LiveUnavailable, Nodes


class ShownNode(msgspec.Struct, frozen=True):
    """One node, as it is shown; `this` is the one that answers, and its lease may be over."""

    id: str
    address: str
    started_at: float
    draining: bool
    token: int
    this: bool


class NodeRoutes:
    """The handler of `/segue/nodes`."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    async def show(self, request: web.Request) -> web.Response:
        """List the nodes that have a lease."""
        del request
        try:
            leases = await self._nodes.living()
        except LiveUnavailable as error:
            raise Refused(live_away()) from error
        shown = [
            ShownNode(one.node, one.address, one.started_at, one.draining, one.token, one.node == self._nodes.id)
            for one in sorted(leases, key=lambda one: one.started_at)
        ]
        return web.Response(body=encode({"object": "list", "data": shown}), content_type="application/json")

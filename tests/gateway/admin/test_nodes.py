"""`GET /segue/nodes`: who lives, and which of them answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from segue.gateway.admin.nodes import NodeRoutes
from segue.stores.live.memory import SingleNode
from tests.gateway.parts import metric, parts
from tests.stores.live.live_nodes import live_nodes


async def shown(routes: NodeRoutes) -> list[dict[str, Any]]:
    body = (await routes.show(make_mocked_request("GET", "/segue/nodes"))).body
    assert isinstance(body, bytes)
    listed: list[dict[str, Any]] = json.loads(body)["data"]
    return listed


async def test_a_gateway_alone_is_the_only_node() -> None:
    async with parts() as services:
        (node,) = await shown(NodeRoutes(services.nodes))
        assert node["id"] == services.epoch.hex()
        assert node["this"] is True
        assert metric(services, "segue_node_lease", node=services.nodes.id) == 0, "it has no lease to lose"


async def test_a_node_that_leaves_is_shown_as_such() -> None:
    node = SingleNode(b"e", address="", started_at=0.0)
    await node.drain()
    assert [one["draining"] for one in await shown(NodeRoutes(node))] == [True]


@pytest.mark.redis
async def test_all_nodes_are_listed_and_a_redis_that_is_away_is_said(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b") as (one, two):
        listed = await shown(NodeRoutes(two.nodes))
        assert {node["id"]: (node["address"], node["this"]) for node in listed} == {
            "a": ("http://a", False),
            "b": ("http://b", True),
        }
        await one.live.link.aclose()
        await asyncio.sleep(0)

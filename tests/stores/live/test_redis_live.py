"""What gateways share in one Redis is opened and closed together."""

from __future__ import annotations

import pytest

from tests.stores.live.live_nodes import live_nodes

pytestmark = pytest.mark.redis


async def test_it_is_available_while_the_lease_holds(live_url: str) -> None:
    async with live_nodes(live_url, "a") as (one,):
        assert one.live.available
        await one.nodes.aclose()
        assert not one.live.available

"""A gateway that ends while it runs turns which it has promised: other gateways over the same Redis know their end."""

from __future__ import annotations

import asyncio

import pytest

from segue.upstreams.scripted import Say, ScriptedTurn, ScriptedUpstream, Wait
from tests.faults.test_several_nodes import background, begin, follow, gateways
from tests.gateway.parts import TENANT, response

pytestmark = pytest.mark.redis


async def test_a_background_turn_that_a_shutdown_cuts_off_has_failed_at_every_gateway(live_url: str) -> None:
    running = ScriptedUpstream([ScriptedTurn((Say(("one",)), Wait(asyncio.Event())))])
    async with gateways(live_url, running, ScriptedUpstream()) as (one, two):
        response_id = await begin(one, background())
        following = asyncio.create_task(follow(two, response_id))
        await one.background.aclose()
        latest = await two.background.latest(TENANT, response_id)
        assert latest is not None
        assert (await following)[-1] == latest
        assert response(latest)["status"] == "failed"
        assert response(latest)["error"]["code"] == "server_overloaded"

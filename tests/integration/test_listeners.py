"""Several addresses of one gateway: each has its own profile, and all share the rest."""

from __future__ import annotations

import asyncio
import logging

import pytest

from segue.config import ListenerConfig
from segue.upstreams.scripted import ScriptedUpstream, say
from tests.integration.clients import Http, Socket
from tests.integration.gateway import key, listening

LISTENERS = [ListenerConfig(port=0, profile="serial"), ListenerConfig(port=0, host="localhost")]


async def test_each_address_has_its_profile_and_all_share_the_state(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "segue.gateway")
    upstream = ScriptedUpstream([say("one"), say("two"), say("three")])
    async with listening(upstream, listeners=LISTENERS) as (gateway, url):
        first, serial, third = gateway.urls
        assert (first, len({first, serial, third})) == (url, 3)
        for address, profile in ((first, "openai"), (serial, "serial"), (third, "openai")):
            assert f"action=listen url={address} profile={profile}" in caplog.messages
            async with Http(address) as http:
                assert (await http.request("GET", "/segue/capabilities")).body["profile"] == profile
        parent: str | None = None
        for address, lane in ((first, {"stream_id": "a"}), (serial, {}), (third, {"stream_id": "a"})):
            async with Socket(address, lanes="a") as socket:
                turn = await socket.ask(input="hi", previous_response_id=parent, **lane)
                assert turn.response is not None
                parent = turn.response["id"]
        async with Socket(serial) as socket:
            refused = await socket.ask(input="hi", stream_id="a")
            assert refused.error is not None
            assert refused.error["param"] == "stream_id"
    upstream.assert_done()


async def test_keys_are_asked_for_on_every_address() -> None:
    async with listening(ScriptedUpstream([]), listeners=LISTENERS, keys=[key("alice")]) as (gateway, _):
        for address in gateway.urls:
            async with Http(address) as http:
                assert (await http.create(input="hi")).status == 401


async def test_a_drain_closes_all_addresses() -> None:
    async with listening(ScriptedUpstream([]), listeners=LISTENERS) as (gateway, _):
        async with Socket(gateway.urls[1]) as one, Socket(gateway.urls[2]) as other:
            draining = asyncio.create_task(gateway.drain())
            for socket in (one, other):
                assert (await socket.turn()).error is not None
                assert await socket.closing() == 1012
            await draining
        for address in gateway.urls:
            host, _, port = address.removeprefix("http://").rpartition(":")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(host, int(port))

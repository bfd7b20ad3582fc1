"""A client asks the gateway what it can do, before it does anything."""

from __future__ import annotations

import pytest

from segue.config import ListenerConfig
from segue.upstreams.scripted import ScriptedUpstream
from tests.integration.clients import Http
from tests.integration.gateway import Start, key, listening


@pytest.mark.parametrize(("profile", "lanes"), [("openai", 7), ("serial", 0)])
async def test_the_object_and_the_headers_say_what_is_configured(start: Start, profile: str, lanes: int) -> None:
    gateway = await start(profile=profile, max_lanes=7, max_message_bytes=5000)
    http = await gateway.http()
    reply = await http.request("GET", "/segue/capabilities")
    assert (reply.body["profile"], reply.body["limits"]["lanes"]) == (profile, lanes)
    assert reply.body["limits"]["message_bytes"] == 5000
    assert ("lanes" in reply.body["extensions"]) == bool(lanes)
    header = reply.headers["Segue-Capabilities"]
    assert header.startswith(f'epoch="{reply.body["epoch"]}", profile={profile}, lanes={lanes}, ')
    assert (await http.request("GET", "/v1/models")).headers["Segue-Capabilities"] == header
    socket = await gateway.socket()
    assert socket.connection.response is not None
    assert socket.connection.response.headers["Segue-Capabilities"] == header


async def test_every_run_of_a_gateway_has_an_epoch_of_its_own(start: Start) -> None:
    """All of its addresses have the same: what one keeps, the other finds."""
    epochs = []
    for _ in range(2):
        async with listening(ScriptedUpstream(), listeners=[ListenerConfig(port=0, profile="serial")]) as (
            gateway,
            _url,
        ):
            for address in gateway.urls:
                async with Http(address) as http:
                    epochs.append((await http.request("GET", "/segue/capabilities")).body["epoch"])
    assert epochs[0] == epochs[1] != epochs[2] == epochs[3]


async def test_it_is_for_those_with_a_key(start: Start) -> None:
    gateway = await start(keys=[key("alice")])
    assert (await (await gateway.http()).request("GET", "/segue/capabilities")).status == 401
    assert (await (await gateway.http("sk-alice")).request("GET", "/segue/capabilities")).status == 200

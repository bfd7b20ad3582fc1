"""Quotas, as clients of every transport see them: 429 with the numbers, and a neighbour that feels nothing."""

from __future__ import annotations

from msgspec.structs import replace

from segue.config import Config, LimitsConfig
from segue.upstreams.scripted import say
from tests.integration.gateway import Start, key

SLOW = replace(key("alice"), limits=LimitsConfig(requests_per_minute=2))
NUMBERS = {
    "x-ratelimit-limit-requests": "2",
    "x-ratelimit-remaining-requests": "0",
}


async def test_a_key_over_its_rate_is_refused_with_the_numbers_on_every_transport(start: Start) -> None:
    gateway = await start(*[say("hi")] * 3, keys=[SLOW, key("bob")])
    alice, bob, socket = await gateway.http("sk-alice"), await gateway.http("sk-bob"), await gateway.socket("sk-alice")
    assert (await alice.create(input="one")).status == 200
    assert (await socket.ask(input="two")).error is None
    refused = await alice.create(input="three")
    assert (refused.status, refused.error["code"], refused.error["type"]) == (
        429,
        "rate_limit_exceeded",
        "rate_limit_error",
    )
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert NUMBERS.items() <= {name.lower(): value for name, value in refused.headers.items()}.items()
    turn = await socket.ask(input="three")
    assert turn.error is not None
    assert turn.error["code"] == "rate_limit_exceeded"
    assert NUMBERS.items() <= turn.error["headers"].items()
    assert 1 <= int(turn.error["headers"]["retry-after"]) <= 30
    assert (await bob.create(input="a neighbour")).status == 200


async def test_a_tenant_whose_store_is_full_can_still_take_turns_that_are_not_stored(start: Start) -> None:
    gateway = await start(say("one"), say("three"), keys=[key("alice")])
    gateway.gateway.services.rules.quotas.replace(Config(limits=LimitsConfig(stored_responses=1)))
    http = await gateway.http("sk-alice")
    stored = await http.create(input="one")
    refused = await http.create(input="two")
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false"
    assert (await http.create(input="three", store=False, previous_response_id=stored.body["id"])).status == 200
    assert (await http.request("DELETE", f"/v1/responses/{stored.body['id']}")).status == 200

"""What a key may be used for, and keys that change while somebody is connected: every transport asks at each turn."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec.structs import replace

from segue.upstreams.scripted import say
from tests.integration.gateway import Start, key

BOTH = [key("alice"), replace(key("bob"), models=["gpt-*"])]


async def test_a_model_that_is_not_for_a_key_looks_like_one_that_is_not_there(start: Start) -> None:
    """Over HTTP and WebSocket, and in the list."""
    gateway = await start(say("for alice"), keys=BOTH)
    alice, bob, socket = await gateway.http("sk-alice"), await gateway.http("sk-bob"), await gateway.socket("sk-bob")
    assert (await alice.create(input="hi")).status == 200
    refused, missing = await bob.create(input="hi"), await bob.create(input="hi", model="missing")
    assert (refused.status, refused.error["code"]) == (404, "model_not_found")
    assert refused.error["message"].replace("scripted", "missing") == missing.error["message"]
    counted = await bob.request("POST", "/v1/responses/input_tokens", data={"model": "scripted", "input": "hi"})
    assert counted.status == 404
    turn = await socket.ask(input="hi")
    assert turn.error is not None
    assert turn.error["code"] == "model_not_found"
    lists = [await one.request("GET", "/v1/models") for one in (alice, bob)]
    assert [[model["id"] for model in listed.body["data"]] for listed in lists] == [["scripted"], []]


async def test_a_key_that_is_revoked_or_has_expired_begins_no_turn(start: Start) -> None:
    """Nor does it read one, on a connection that was opened before."""
    gateway = await start(say("before"), keys=BOTH)
    http, socket = await gateway.http("sk-alice"), await gateway.socket("sk-alice")
    before = await socket.ask(input="hi", store=True)
    assert before.response is not None
    past = datetime(2020, 1, 1, tzinfo=UTC)
    for keys in ([key("bob")], [replace(key("alice"), expires_at=past)]):
        gateway.gateway.services.access.replace_keys(keys)
        turn = await socket.ask(input="hi")
        assert turn.error is not None
        assert turn.error["code"] == "invalid_api_key"
        assert (await http.create(input="hi")).status == 401
        assert (await http.request("GET", f"/v1/responses/{before.response['id']}")).status == 401
    gateway.gateway.services.access.replace_keys([key("alice")])
    assert (await http.request("GET", f"/v1/responses/{before.response['id']}")).status == 200

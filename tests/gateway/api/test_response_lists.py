"""`GET /v1/responses`, as a client sees it: lists of what is stored, by page."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

import pytest

from segue.config import KeyConfig
from segue.gateway.api import response_lists
from segue.protocol.ids import ResponseId
from segue.protocol.response_query import ResponseQuery
from segue.stores.interface import QueryTooBroad
from segue.stores.memory import MemoryStore
from segue.testing.protocol_checker import Json, check_response
from segue.testing.store_samples import sample_id
from segue.upstreams.scripted import Fail, ScriptedTurn, ScriptedUpstream, say
from tests.faults.clients import Http, http
from tests.faults.gateways import listening
from tests.gateway.parts import Clock

KEYS = [KeyConfig(name, name, hashlib.sha256(f"sk-{name}".encode()).hexdigest()) for name in ("ann", "bob")]
WEBSOCKET = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}


async def listed(client: Http, **query: object) -> Json:
    text = "&".join(f"{quote(name)}={quote(str(value))}" for name, value in query.items())
    status, body = await client.send("GET", f"/v1/responses?{text}")
    assert status == 200, body
    assert body["object"] == "list"
    idents = [response["id"] for response in body["data"]]
    assert (body["first_id"], body["last_id"]) == ((idents[0], idents[-1]) if idents else (None, None))
    for response in body["data"]:
        check_response(response)
    return body


def ids(page: Json) -> list[str]:
    return [response["id"] for response in page["data"]]


async def test_stored_responses_are_listed_whole() -> None:
    """As each of them is retrieved; not those that are unstored, have failed, or were deleted."""
    script = [say("one"), say("two"), ScriptedTurn((Fail("bored", "No."),)), say("three"), say("four")]
    async with listening(ScriptedUpstream(script)) as local, http(local.url) as client:
        one, two = await client.turn(), await client.turn(metadata={"a": "b"})
        await client.refusal()
        await client.turn(store=False)
        gone = await client.turn()
        await client.send("DELETE", f"/v1/responses/{gone['id']}")
        page = await listed(client)
        assert page["data"] == [two, one]
        assert not page["has_more"]


async def test_a_list_is_filtered_and_paged() -> None:
    clock = Clock()
    async with listening(ScriptedUpstream([say("x")] * 6), clock=clock) as local, http(local.url) as client:
        made = []
        for number in range(6):
            clock.now += 10
            made.append((await client.turn(metadata={"even": str(number % 2 == 0)}))["id"])
        even = {"metadata[even]": "True"}
        first = await listed(client, limit=2, **even)
        assert (ids(first), first["has_more"]) == ([made[4], made[2]], True)
        second = await listed(client, limit=2, after=first["last_id"], **even)
        assert (ids(second), second["has_more"]) == ([made[0]], False)
        back = await listed(client, limit=1, before=second["first_id"], **even)
        assert (ids(back), back["has_more"]) == ([made[2]], True)
        whole = await listed(client, before=made[0], order="desc", model="scripted")
        assert (ids(whole), whole["has_more"]) == (made[:0:-1], False)
        between = await listed(client, created_after=clock.now - 30, created_before=clock.now, order="asc")
        assert ids(between) == made[2:5]
        assert ids(await listed(client, model="other")) == []


async def test_a_page_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends early, but not before its first response; the next one goes on there."""
    async with listening(ScriptedUpstream([say("x" * 100)] * 3)) as local, http(local.url) as client:
        made = [(await client.turn())["id"] for _ in range(3)]
        monkeypatch.setattr(response_lists, "PAGE_BYTES", 10)
        page = await listed(client, order="asc")
        assert (ids(page), page["has_more"]) == (made[:1], True)
        page = await listed(client, order="asc", after=made[1])
        assert (ids(page), page["has_more"]) == (made[2:], False)


async def test_tenants_see_their_own() -> None:
    model = ScriptedUpstream([say("x")] * 2)
    async with (
        listening(model, keys=KEYS) as local,
        http(local.url, key="sk-ann") as ann,
        http(local.url, key="sk-bob") as bob,
    ):
        hers, his = await ann.turn(), await bob.turn()
        assert ids(await listed(ann)) == [hers["id"]]
        assert ids(await listed(bob, model="scripted")) == [his["id"]]
        for name in (hers["id"], sample_id("unknown")):
            status, body = await bob.send("GET", f"/v1/responses?after={name}")
            assert (status, body["error"]["code"], body["error"]["param"]) == (404, "response_not_found", "after")


async def test_what_wants_a_websocket_gets_no_list() -> None:
    """Also where a proxy has dropped the upgrade."""
    async with listening() as local, http(local.url) as client:
        for headers in (WEBSOCKET, {"Upgrade": "h2c", "Connection": "Upgrade"}):
            status, body = await client.send("GET", "/v1/responses", headers=headers)
            assert (status, body["error"]["code"]) == (426, "upgrade_required")


class _Forgetful(MemoryStore):
    """Lists what is deleted before it is read, or finds that a query is too broad."""

    async def list_responses(self, tenant: str, query: ResponseQuery, now: float) -> list[ResponseId] | None:
        if query.labels:
            raise QueryTooBroad("no")
        found = await super().list_responses(tenant, query, now)
        return None if found is None else [sample_id("gone"), *found]


async def test_what_is_deleted_meanwhile_is_left_out() -> None:
    async with listening(ScriptedUpstream([say("x")]), store=_Forgetful()) as local, http(local.url) as client:
        made = await client.turn()
        page = await listed(client)
        assert (ids(page), page["has_more"]) == ([made["id"]], False)


async def test_a_query_that_is_too_broad_is_refused() -> None:
    async with listening(store=_Forgetful()) as local, http(local.url) as client:
        status, body = await client.send("GET", "/v1/responses?model=scripted")
        assert (status, body["error"]["code"], body["error"]["param"]) == (400, "invalid_value", "metadata")

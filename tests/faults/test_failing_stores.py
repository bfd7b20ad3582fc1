"""A store that fails makes turns fail, never lie: nothing is acknowledged that was not kept."""

from __future__ import annotations

import pytest
from aiohttp import ClientPayloadError

from segue.testing.protocol_checker import Json
from tests.faults.clients import http, opened
from tests.faults.doubles import BrokenStore
from tests.faults.gateways import listening, until


async def test_a_turn_that_cannot_be_stored_has_failed() -> None:
    """On a WebSocket and over SSE it ends in response.failed, and its id resolves to nothing."""
    store = BrokenStore("append")
    async with listening(store=store) as local, opened(local.url) as socket, http(local.url) as client:
        answers = [await socket.turn(), (await client.stream()).response]
        store.broken.clear()
        for answer in answers:
            assert answer is not None
            assert (answer["status"], answer["error"]["code"]) == ("failed", "store_error")
            assert await client.status(answer["id"]) == 404
            again = await socket.refusal(previous_response_id=answer["id"])
            assert again["code"] == "previous_response_not_found"


async def test_a_plain_turn_that_cannot_be_stored_is_an_error_that_nobody_repeats() -> None:
    """Without a stream the status can tell. The model has run, and a second run would be paid for, too."""
    store = BrokenStore("append")
    async with listening(store=store) as local, http(local.url) as client:
        assert await client.refusal() == (400, "store_error")
        store.broken.clear()
        assert (await client.turn())["status"] == "completed"


async def test_an_unstored_turn_needs_no_store() -> None:
    """With store=false nothing is asked of a store that is down."""
    store = BrokenStore("append", "chain", "record", "delete", "sweep", "size")
    async with listening(store=store) as local, opened(local.url) as socket:
        first = await socket.turn(store=False)
        second = await socket.turn(store=False, previous_response_id=first["id"])
        assert second["status"] == "completed"


async def test_a_parent_that_cannot_be_read_is_no_unknown_parent() -> None:
    """A client told previous_response_not_found would give up its chain; store_error makes it try again."""
    store = BrokenStore()
    async with listening(store=store, memory_budget_bytes=1) as local, http(local.url) as client:
        parent = await client.turn()
        await client.turn()  # takes the parent's place in memory
        store.broken = {"chain"}
        assert await client.refusal(previous_response_id=parent["id"]) == (503, "store_error")
        async with opened(local.url) as socket:
            assert (await socket.refusal(previous_response_id=parent["id"]))["code"] == "store_error"
            store.broken.clear()
            assert (await socket.turn(previous_response_id=parent["id"]))["status"] == "completed"


@pytest.mark.parametrize("path", ["", "/input_items"])
async def test_a_response_that_cannot_be_read_is_a_503(path: str) -> None:
    """Not a 404: the response is there."""
    store = BrokenStore()
    async with listening(store=store) as local, http(local.url) as client:
        kept = f"/v1/responses/{(await client.turn())['id']}{path}"
        store.broken = {"record", "chain"}
        status, body = await client.send("GET", kept)
        assert (status, body["error"]["code"]) == (503, "store_error")
        store.broken.clear()
        assert (await client.send("GET", kept))[0] == 200


async def test_a_deletion_that_fails_deletes_nothing() -> None:
    """The client hears of it, and the response still resolves everywhere."""
    store = BrokenStore()
    async with listening(store=store) as local, http(local.url) as client:
        kept = (await client.turn())["id"]
        store.broken = {"delete"}
        assert await client.status(kept, "DELETE") == 503
        store.broken.clear()
        assert await client.status(kept) == 200
        assert (await client.turn(previous_response_id=kept))["status"] == "completed"


async def test_readiness_follows_the_store() -> None:
    """A gateway whose store is down is alive but not ready, until the store is back."""
    store = BrokenStore("size")
    async with listening(store=store) as local, http(local.url) as client:
        async with client.session.get("/readyz") as reply:
            unready = {"status": "unready", "store": "away", "refuses": ["stored turns"]}
            assert (reply.status, await reply.json()) == (503, unready)
        assert (await client.send("GET", "/healthz"))[0] == 200
        assert (await client.turn(store=False))["status"] == "completed", "it goes on with what it need not store"
        store.broken.clear()
        assert (await client.send("GET", "/readyz"))[0] == 200


async def test_a_sweep_that_fails_is_tried_again() -> None:
    """The gateway outlives it, and expired responses go later."""
    store = BrokenStore("sweep")
    now = 0.0
    settings: Json = {"store": store, "clock": lambda: now, "retention_s": 10, "sweep_interval_s": 0.001}
    async with listening(**settings) as local, http(local.url) as client:
        await client.turn()
        now = 11.0
        await until(lambda: store.refusals > 1)
        assert (await store.size()).records == 1
        store.broken.clear()
        await until(lambda: store.swept == 1)


async def test_a_bug_in_a_store_cuts_a_stream() -> None:
    """The stream has begun, so it cannot be told in a status; what is cut is never taken for an answer."""
    async with listening(store=BrokenStore("append", error=ZeroDivisionError())) as local, http(local.url) as client:
        body = {"model": "scripted", "input": "hello", "stream": True}
        async with client.session.post("/v1/responses", json=body) as reply:
            await reply.content.readuntil(b"event: response.output_item.done\n")
            with pytest.raises(ClientPayloadError):
                await reply.read()
        assert (await client.send("GET", "/healthz"))[0] == 200


@pytest.mark.parametrize("method", ["append", "chain"])
async def test_a_bug_in_a_store_leaves_nobody_waiting(method: str) -> None:
    """What is no StoreError ends the turn too: HTTP answers with an error, a WebSocket is closed."""
    store = BrokenStore(method, error=ZeroDivisionError())
    async with listening(store=store) as local, http(local.url) as client, opened(local.url) as socket:
        unknown = f"resp_{'0' * 40}"
        parent = {"previous_response_id": unknown} if method == "chain" else {}
        assert await client.refusal(**parent) == (400, "server_error")
        await socket.create(**parent)
        if method == "append":
            await socket.until("response.output_item.done")
        assert await socket.close_code() == 1011

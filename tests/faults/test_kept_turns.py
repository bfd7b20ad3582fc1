"""Kept turns when something goes wrong: stores that fail or are slow, clients that vanish or do not read, floods."""

from __future__ import annotations

import asyncio

import pytest

from segue.gateway.access import LOCAL_TENANT
from segue.protocol.ids import ResponseId
from segue.stores.event_logs import MemoryEventLogs
from segue.testing.protocol_checker import Json
from segue.upstreams.scripted import ScriptedUpstream, say
from tests.faults.clients import Http, begin_post, http, narrow, opened, output_text
from tests.faults.doubles import BrokenStore, Gated, Model, SlowStore, Torrent
from tests.faults.gateways import listening, settled, until

pytestmark = pytest.mark.usefixtures("plain_loop")

RESUMABLE: Json = {"segue": {"resume": True}}
KEYED: Json = {"segue": {"idempotency_key": "k"}}
DELTAS, DELTA_BYTES = 256, 64 * 1024


async def ended(client: Http, ident: str) -> Json:
    """Ask until a background turn has ended, and return its response."""
    while True:
        status, body = await client.send("GET", f"/v1/responses/{ident}")
        assert status == 200
        if body["status"] != "in_progress":
            return body


async def test_a_background_turn_that_cannot_be_stored_has_failed() -> None:
    """Its client can learn it as long as the events are kept; nothing of it is left in memory."""
    store = BrokenStore("append")
    async with listening(store=store) as local, http(local.url) as client:
        made = await client.turn(background=True)
        failed = await ended(client, made["id"])
        assert (failed["status"], failed["error"]["code"]) == ("failed", "store_error")
        assert await client.refusal(previous_response_id=made["id"]) == (400, "previous_response_not_found")
        assert local.gateway.services.cache.size_bytes == 0


class UnknownLogs:
    """Other gateways cannot be told of any log; `asked` is set as soon as that is tried, `gate` ends each attempt."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.gate = asyncio.Event(), asyncio.Event()
        self.response_id = ""

        async def published(_: MemoryEventLogs, _tenant: str, response_id: ResponseId) -> bool:
            self.response_id = response_id
            self.asked.set()
            await self.gate.wait()
            return False

        monkeypatch.setattr(MemoryEventLogs, "published", published)


async def test_a_background_turn_of_which_others_cannot_be_told_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    logs, upstream = UnknownLogs(monkeypatch), ScriptedUpstream([say("one")])
    logs.gate.set()
    async with listening(upstream) as local, http(local.url) as client:
        assert await client.refusal(background=True) == (503, "store_error")
        assert await client.status(logs.response_id) == 404
        assert (local.gateway.services.background.running, upstream.started) == (0, 0)
        assert output_text(await client.turn(**RESUMABLE)) == "one"


async def test_one_that_is_cancelled_before_it_is_known_does_not_begin_either(monkeypatch: pytest.MonkeyPatch) -> None:
    logs, upstream = UnknownLogs(monkeypatch), ScriptedUpstream()
    async with listening(upstream) as local, http(local.url) as client:
        asking = asyncio.create_task(client.refusal(background=True))
        await logs.asked.wait()
        logs.asked.clear()
        cancelling = asyncio.create_task(client.send("POST", f"/v1/responses/{logs.response_id}/cancel"))
        await logs.asked.wait()  # now it is its end that others cannot be told of
        logs.gate.set()
        await cancelling
        assert await asking == (503, "store_error")
        assert (local.gateway.services.background.running, upstream.started) == (0, 0)


async def test_a_cancel_that_comes_while_the_record_is_written_is_too_late() -> None:
    """It waits, and answers what has become of the turn."""
    store = SlowStore("append", works_first=False)
    async with listening(store=store) as local, http(local.url) as client:
        made = await client.turn(background=True)
        await store.reached.wait()
        cancelling = asyncio.create_task(client.send("POST", f"/v1/responses/{made['id']}/cancel"))
        await until(lambda: not cancelling.done())
        store.gate.set()
        assert (await cancelling)[1]["status"] == "completed"
        assert (await ended(client, made["id"]))["status"] == "completed"


async def test_a_deletion_that_comes_while_the_record_is_written_deletes_it() -> None:
    """Nothing comes back from the store afterwards."""
    store = SlowStore("append", works_first=False)
    async with listening(store=store) as local, http(local.url) as client:
        made = await client.turn(background=True)
        await store.reached.wait()
        deleting = asyncio.create_task(client.send("DELETE", f"/v1/responses/{made['id']}"))
        await asyncio.sleep(0)
        store.gate.set()
        assert (await deleting)[0] == 200
        assert await client.status(made["id"]) == 404
        assert (await store.size()).records == 0
        assert local.gateway.services.cache.size_bytes == local.gateway.services.event_logs.size_bytes == 0


@pytest.mark.parametrize("fields", [KEYED, {**KEYED, "background": True}])
async def test_a_client_that_vanishes_before_it_knows_an_id_repeats_its_create(fields: Json) -> None:
    """The first turn was under way; there is no second."""
    upstream = Gated()
    async with listening(upstream) as local, http(local.url) as client:
        _, writer = await begin_post(local.url, **fields)
        await until(lambda: bool(_running(local.gateway.services.background)))
        writer.transport.abort()
        again = asyncio.create_task(client.turn(**fields))
        await asyncio.sleep(0)
        upstream.gate.set()
        made = await again
        assert (await ended(client, made["id"]))["status"] == "completed"
        assert upstream.started == 1


def _running(keeper: object) -> object:
    return vars(keeper)["_running"]


async def test_a_flood_that_nobody_follows_stays_within_its_bound() -> None:
    """The turn is not stopped for it; its oldest events are gone, its response is not."""
    torrent = Torrent(DELTAS, DELTA_BYTES)
    async with listening(Model(torrent.play), event_log_bytes=DELTA_BYTES * 8) as local, http(local.url) as client:
        made = await client.turn(background=True)
        await until(lambda: torrent.stopped)
        assert output_text(await ended(client, made["id"])) == "".join(torrent.pieces)
        assert (await client.send("GET", f"/v1/responses/{made['id']}?stream=true"))[0] == 410
        # What is kept is the end: the whole text is in the last events, three times.
        assert local.gateway.services.event_logs.size_bytes < DELTA_BYTES * (8 + 4 * DELTAS)


async def test_a_follower_that_does_not_read_stops_its_turn_until_it_leaves() -> None:
    """It would lose events otherwise. Others are served meanwhile; without it the turn goes on."""
    torrent = Torrent(DELTAS, DELTA_BYTES)
    async with listening(Model(torrent.play), event_log_bytes=DELTA_BYTES * 8) as local, http(local.url) as client:
        async with opened(local.url, through=narrow(local.url)) as slow:
            await slow.create(**RESUMABLE)
            ident = ResponseId((await slow.until("response.created"))["response"]["id"])
            await settled(lambda: torrent.pulled)
            assert torrent.pulled < DELTAS // 2
            assert (await client.turn(store=False))["status"] == "completed"
            slow.connection.transport.abort()
        await until(lambda: torrent.stopped)
        assert output_text(await ended(client, ident)) == "".join(torrent.pieces)


async def test_a_follower_that_reads_slowly_gets_everything() -> None:
    """However small the log is."""
    torrent = Torrent(DELTAS, DELTA_BYTES)
    async with (
        listening(Model(torrent.play), event_log_bytes=DELTA_BYTES) as local,
        opened(local.url, through=narrow(local.url)) as slow,
    ):
        await slow.create(store=False, **RESUMABLE)
        await settled(lambda: torrent.pulled)
        answer = (await slow.answer()).response
        assert answer is not None
        assert output_text(answer) == "".join(torrent.pieces)
        slow.checker.finish()


async def test_a_shutdown_that_takes_too_long_stops_kept_turns() -> None:
    """And leaves no task behind."""
    upstream = Gated()
    async with listening(upstream, drain_s=0.05) as local, http(local.url) as client:
        made = await client.turn(background=True)
        assert made["status"] == "in_progress"
        await local.gateway.drain()
        await local.gateway.aclose()
        assert not _running(local.gateway.services.background)
        latest = await local.gateway.services.background.latest(LOCAL_TENANT, made["id"])
    assert latest is not None
    assert latest.type == "response.failed", "other gateways may be asked for it"

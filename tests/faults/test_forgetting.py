"""What a model is told of responses that are gone: every end of a response, however it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from segue.config import Config, RouteConfig, ServerConfig
from segue.gateway.app import serving
from segue.protocol.ids import ResponseId
from segue.stores.interface import Store
from segue.testing.protocol_checker import Json, parse_json
from segue.testing.store_conformance import sample_record
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import Say, ScriptedTurn, ScriptedUpstream, Wait, say
from tests.faults.clients import Socket, begin_post, http, opened
from tests.faults.doubles import BrokenStore, SlowStore
from tests.faults.gateways import listening, until
from tests.sidecar.sidecars import running

pytestmark = pytest.mark.usefixtures("plain_loop")

UNSTORED: Json = {"store": False}
RESUMABLE: Json = {"store": False, "segue": {"resume": True}}


class Told(ScriptedUpstream):
    """A model that notes what it was asked, and what it is told to forget."""

    def __init__(self, turns: Sequence[ScriptedTurn] = ()) -> None:
        super().__init__(turns or None)
        self.asked: list[UpstreamRequest] = []
        self.gone: list[str] = []

    def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        self.asked.append(request)
        return super().stream(request)

    def forget(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        self.gone += response_ids


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_a_deleted_response_is_told_and_nothing_else() -> None:
    model = Told()
    async with listening(model) as local, http(local.url) as client:
        parent = await client.turn("1")
        child = await client.turn("2", previous_response_id=parent["id"])
        assert await client.status(f"resp_{'0' * 40}", "DELETE") == 404
        assert model.gone == []
        assert await client.status(parent["id"], "DELETE") == 200
        assert await client.status(parent["id"], "DELETE") == 404
        assert set(model.gone) == {parent["id"]}
        assert await client.status(child["id"], "DELETE") == 200
        assert set(model.gone) == {parent["id"], child["id"]}


@pytest.mark.parametrize("store", ["memory:", "sqlite:///{}/segue.db"])
async def test_expired_responses_are_told_when_they_are_swept(store: str, tmp_path: Path) -> None:
    """All of them, however many there are, and of whatever tenant; living ones are not."""
    clock, model = Clock(), Told()
    settings: Json = {"store": store.format(tmp_path), "clock": clock, "retention_s": 60, "sweep_interval_s": 1e6}
    async with listening(model, **settings) as local, http(local.url) as client:
        old = [await client.turn(str(number)) for number in range(3)]
        await asyncio.gather(*(_append(local.gateway.services.store, number, clock.now + 60) for number in range(300)))
        clock.now += 30
        young = await client.turn("young", previous_response_id=old[0]["id"])
        clock.now += 30
        assert await local.gateway.services.executor.sweep() == 303
        assert {one["id"] for one in old} < set(model.gone)
        assert (len(model.gone), young["id"] in model.gone) == (303, False)
        assert await local.gateway.services.executor.sweep() == 0


async def _append(store: Store, number: int, expires_at: float) -> None:
    await store.append(sample_record(str(number), tenant=str(number % 7), expires_at=expires_at))


async def test_what_a_connection_kept_goes_with_it() -> None:
    """Superseded and cancelled turns too; stored ones stay, also where an unstored one continues them."""
    model = Told([say("1"), say("2"), say("3"), ScriptedTurn((Say(("4",)), Wait(asyncio.Event())))])
    async with listening(model) as local:
        async with opened(local.url) as socket:
            stored = await socket.turn("1")
            first = await socket.turn("2", previous_response_id=stored["id"], **UNSTORED)
            second = await socket.turn("3", previous_response_id=first["id"], **UNSTORED)
            await socket.create("4", previous_response_id=stored["id"], **UNSTORED)
            running = (await socket.until("response.created"))["response"]
            await socket.until("response.output_text.delta")
            assert model.gone == []
        await until(lambda: not local.gateway.services.drain.connections)
        assert sorted(model.gone) == sorted([first["id"], second["id"], running["id"]])
        assert [one.held for one in model.asked] == [True] * 4


async def test_stored_responses_outlive_their_connection() -> None:
    """Also those that there is no room for in memory."""
    model = Told()
    async with listening(model, memory_budget_bytes=1) as local:
        async with opened(local.url) as socket:
            for text in ("1", "2", "3"):
                await socket.turn(text)
        await until(lambda: not local.gateway.services.drain.connections)
        assert model.gone == []


async def test_a_continuation_that_failed_takes_nothing_along_before_the_connection() -> None:
    """Its client sends the history again, and finds what was computed of it."""
    model = Told()
    async with listening(model) as local:
        async with opened(local.url) as socket:
            first = await socket.turn("1", **UNSTORED)
            output = [{"type": "function_call_output", "call_id": "call_none", "output": "?"}]
            refusal = await socket.refusal(output, previous_response_id=first["id"], **UNSTORED)
            assert refusal["code"] == "tool_call_not_found"
            refusal = await socket.refusal("2", previous_response_id=first["id"], **UNSTORED)
            assert refusal["code"] == "previous_response_not_found"
            assert model.gone == []
        await until(lambda: not local.gateway.services.drain.connections)
        assert model.gone == [first["id"]]


async def test_lanes_go_with_their_connection() -> None:
    model = Told()
    async with listening(model) as local:
        async with opened(local.url) as socket:
            made = [await _lane(socket, name) for name in ("a", "b")]
            made.append(await _lane(socket, "b", previous_response_id=made[0]))
            assert model.gone == []
        await until(lambda: not local.gateway.services.drain.connections)
        assert sorted(model.gone) == sorted(made)


async def _lane(socket: Socket, name: str, **fields: object) -> str:
    """Run an unstored turn in a lane and return its id."""
    await socket.create(name, stream_id=name, **UNSTORED, **fields)
    while (frame := parse_json(await socket.connection.recv(decode=True)))["type"] != "response.completed":
        pass
    return str(frame["response"]["id"])


async def test_a_connection_through_a_sidecar_is_one_too() -> None:
    """It ends when the agent leaves, wherever the tunnel goes on."""
    model = Told()
    config = Config(server=ServerConfig(port=0, store="memory:"), route=[RouteConfig(mount="/own", target="self")])
    router = Router([ModelRule(model, ("*",))])
    async with serving(config, router) as (gateway, url), running(url.replace("http", "ws", 1)) as sidecar:
        async with opened(f"{sidecar.sidecar.url}/own") as socket:
            first = await socket.turn("1", **UNSTORED)
            # one that comes in many pieces, which are kept apart here too
            second = await socket.turn("2" * 200_000, previous_response_id=first["id"], **UNSTORED)
            assert model.gone == []
        await until(lambda: not gateway.services.drain.connections)
        assert sorted(model.gone) == sorted([first["id"], second["id"]])


async def test_what_is_parked_goes_when_its_time_has_come() -> None:
    """Another connection can still continue it; what its connection had superseded goes at once."""
    clock, model = Clock(), Told()
    async with listening(model, clock=clock, grace_s=60) as local:
        async with opened(local.url) as socket:
            first = await socket.turn("1", **UNSTORED)
            second = await socket.turn("2", previous_response_id=first["id"], **UNSTORED)
        await until(lambda: not local.gateway.services.drain.connections)
        assert model.gone == [first["id"]]
        async with opened(local.url) as socket:
            third = await socket.turn("3", previous_response_id=second["id"], **UNSTORED)
            clock.now += 60
            local.gateway.services.grace.purge()
            assert model.gone == [first["id"], second["id"]]
        await until(lambda: not local.gateway.services.drain.connections)
        assert model.gone == [first["id"], second["id"]], "it is parked itself"
        clock.now += 60
        local.gateway.services.grace.purge()
        assert model.gone == [first["id"], second["id"], third["id"]]


async def test_what_nobody_holds_is_known_from_the_start() -> None:
    """Over HTTP an unstored response can be continued by nobody, but its client may send everything again."""
    model = Told()
    async with listening(model) as local, http(local.url) as client:
        for fields in (UNSTORED, {}):
            await client.turn("1", **fields)
            await client.stream("2", **fields)
        assert [one.held for one in model.asked] == [False, False, True, True]
        assert model.gone == []


async def test_a_turn_that_could_not_be_stored_is_gone() -> None:
    """The model has made it, and counts on it. It was paid for, so no client may repeat it by itself."""
    model = Told()
    async with listening(model, store=BrokenStore("append")) as local, http(local.url) as client:
        assert await client.refusal() == (400, "store_error")
        assert model.gone == [model.asked[0].response_id]


async def test_a_client_that_leaves_before_its_turn_is_stored_takes_it_along() -> None:
    model, store = Told(), SlowStore("append", works_first=False)
    async with listening(model, store=store) as local:
        _, writer = await begin_post(local.url)
        await store.reached.wait()
        writer.transport.abort()
        await until(lambda: bool(model.gone))
        assert model.gone == [model.asked[0].response_id]


async def test_a_client_that_leaves_earlier_may_come_back_for_it() -> None:
    """Nothing is told of a turn that was broken off: the same request again finds what was read of it."""
    model = Told([ScriptedTurn((Say(("1",)), Wait(asyncio.Event())))] * 2)
    async with listening(model) as local:
        _, writer = await begin_post(local.url)
        await until(lambda: bool(model.asked))
        writer.transport.abort()
        await local.rest()
        async with opened(local.url) as socket:
            await socket.create()
            await socket.until("response.output_text.delta")
        await until(lambda: not local.gateway.services.drain.connections)
        assert model.gone == []


async def test_a_kept_turn_goes_with_its_events() -> None:
    """Not with the connection that it began on, nor before the last of both."""
    clock, model = Clock(), Told()
    async with listening(model, clock=clock, events_s=60) as local:
        async with opened(local.url) as socket:
            kept = await socket.turn("1", **RESUMABLE)
        await until(lambda: not local.gateway.services.drain.connections)
        assert model.gone == []
        async with opened(local.url) as socket:
            child = await socket.turn("2", previous_response_id=kept["id"], **RESUMABLE)
            clock.now += 60
            local.gateway.services.grace.purge()
            assert model.gone == [kept["id"]], "the child is in its lane"
        await until(lambda: not local.gateway.services.drain.connections)
        assert model.gone == [kept["id"], child["id"]]


async def test_a_kept_turn_that_is_deleted_or_given_up_is_gone() -> None:
    waiting = ScriptedTurn((Say(("1",)), Wait(asyncio.Event())))
    model = Told([waiting, say("0"), waiting])
    async with listening(model, resume_s=0.01) as local, http(local.url) as client:
        running = await client.turn(background=True)
        assert await client.status(running["id"], "DELETE") == 200
        assert set(model.gone) == {running["id"]}
        ended = await client.turn("0", **RESUMABLE)
        assert await client.status(ended["id"], "DELETE") == 200
        assert set(model.gone) == {running["id"], ended["id"]}
        async with opened(local.url) as socket:
            await socket.create("2", **RESUMABLE)
            lost = (await socket.until("response.created"))["response"]
            await socket.until("response.output_text.delta")
        await until(lambda: lost["id"] in model.gone)

"""Deleted and expired responses: the id is gone at once, on every level; what descends from it keeps its history, and
a turn that was to continue it is answered, whenever the deletion comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from segue.history.cache import Slot
from segue.history.chains import Turn
from segue.testing.protocol_checker import Json
from segue.upstreams.scripted import Say, ScriptedTurn, ScriptedUpstream, Wait, say
from tests.faults.clients import Http, Socket, http, opened, output_text
from tests.faults.doubles import SlowStore
from tests.faults.gateways import Local, listening

DAY_S = 24 * 3600.0
KEPT: Json = {"segue": {"resume": True}}

#: Parents that can be deleted, and turns that continue them.
PARENTS = pytest.mark.parametrize("parent", [{}, {"store": False, **KEPT}], ids=["stored", "kept"])
CHILDREN = pytest.mark.parametrize("child", [{}, KEPT], ids=["plain", "resumable"])
PLACES = pytest.mark.parametrize("place", ["own lane", "other lane", "elsewhere"])


class Clock:
    """Unix time, as far as a gateway is told."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store, of each kind in turn."""
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path}/segue.db"


async def test_a_deleted_id_is_gone_from_every_level(store: str) -> None:
    """From the connection that holds it, from the process, from the store, and after a restart."""
    async with listening(store=store) as local, http(local.url) as client, opened(local.url) as socket:
        first = await socket.turn("1")
        second = await socket.turn("2", previous_response_id=first["id"])
        assert await client.status(second["id"], "DELETE") == 200
        await _assert_gone(second["id"], socket, client)
        assert await client.status(first["id"]) == 200
    if store != "memory:":
        async with listening(store=store) as local, http(local.url) as client, opened(local.url) as socket:
            await _assert_gone(second["id"], socket, client)


async def test_descendants_of_a_deleted_response_keep_their_history(store: str) -> None:
    """One in the middle and the root go; the leaf goes on, from the connection, the process and the store."""
    script = ScriptedUpstream([say(f"a{n}") for n in range(1, 8)])
    async with listening(script, store=store) as local, http(local.url) as client, opened(local.url) as socket:
        root, middle, leaf = await _chain(socket, 3)
        for gone in (middle, root):
            assert await client.status(gone, "DELETE") == 200
        history = ["1", "a1", "2", "a2", "3", "a3"]
        here = await socket.turn("4", previous_response_id=leaf)
        there = await client.turn("5", previous_response_id=leaf)
        for child, said in ((here, "4"), (there, "5")):
            assert await client.history(child["id"]) == [*history, said]
        await _assert_gone(middle, socket, client)
    if store != "memory:":
        async with listening(script, store=store) as local, http(local.url) as client:
            again = await client.turn("6", previous_response_id=leaf)
            assert await client.history(again["id"]) == [*history, "6"]
            assert [await client.status(gone) for gone in (root, middle)] == [404, 404]


async def test_the_upstream_sees_what_was_deleted_in_the_middle(store: str) -> None:
    """The history of a continuation is the same as before the deletion, byte for byte."""
    script = ScriptedUpstream([say(f"a{n}") for n in range(1, 6)])
    async with listening(script, store=store) as local, http(local.url) as client, opened(local.url) as socket:
        _, middle, leaf = await _chain(socket, 3)
        await client.turn("4", previous_response_id=leaf)
        assert await client.status(middle, "DELETE") == 200
        await client.turn("4", previous_response_id=leaf)
        before, after = script.requests[-2:]
        assert list(before.history.items()) == list(after.history.items())
        script.assert_done()


async def test_an_expired_id_is_gone_from_every_level(store: str) -> None:
    """It goes at its hour, before any sweep; its child lives on with the whole history, also after the sweep."""
    clock = Clock()
    script = ScriptedUpstream([say(f"a{n}") for n in range(1, 8)])
    settings: Json = {"store": store, "clock": clock, "retention_s": 3 * DAY_S, "sweep_interval_s": DAY_S}
    async with listening(script, **settings) as local, http(local.url) as client, opened(local.url) as socket:
        old = await socket.turn("1")
        clock.now += 2 * DAY_S
        young = await client.turn("2", previous_response_id=old["id"])
        clock.now += 1 * DAY_S
        await _assert_gone(old["id"], socket, client)
        child = await socket.turn("3", previous_response_id=young["id"])
        assert await client.history(child["id"]) == ["1", "a1", "2", "a2", "3"]
        assert await local.gateway.services.executor.sweep() == 1
        await _assert_gone(old["id"], socket, client)
        child = await client.turn("4", previous_response_id=young["id"])
        assert await client.history(child["id"]) == ["1", "a1", "2", "a2", "4"]
    if store != "memory:":
        async with listening(script, **settings) as local, http(local.url) as client, opened(local.url) as socket:
            await _assert_gone(old["id"], socket, client)
            child = await client.turn("5", previous_response_id=young["id"])
            assert await client.history(child["id"]) == ["1", "a1", "2", "a2", "5"]


async def test_the_lane_that_holds_it_cannot_continue_an_expired_response(store: str) -> None:
    """Also its own connection's fast path looks at the hour."""
    clock = Clock()
    settings: Json = {"store": store, "clock": clock, "retention_s": DAY_S}
    async with listening(**settings) as local, http(local.url) as client, opened(local.url) as socket:
        latest = await socket.turn()
        clock.now += DAY_S
        await _assert_gone(latest["id"], socket, client)


@pytest.mark.parametrize("fate", ["deleted", "expired and swept"])
async def test_a_parent_that_goes_while_its_child_runs_leaves_its_history(store: str, fate: str) -> None:
    """The child was promised its continuation: it is stored with everything, and read back with everything."""
    clock, gate = Clock(), asyncio.Event()
    slow = ScriptedTurn((Say(("a2",)), Wait(gate)))
    script = ScriptedUpstream([say("a1"), slow, say("a3"), say("a4")])
    settings: Json = {"store": store, "clock": clock, "retention_s": DAY_S}
    async with listening(script, **settings) as local, http(local.url) as client, opened(local.url) as socket:
        parent = await client.turn("1")
        await socket.create("2", previous_response_id=parent["id"])
        await socket.until("response.output_text.delta")
        if fate == "deleted":
            assert await client.status(parent["id"], "DELETE") == 200
        else:
            clock.now += DAY_S
            assert await local.gateway.services.executor.sweep() == 1
        gate.set()
        child = (await socket.answer()).response
        assert child is not None
        assert child["status"] == "completed"
        next_one = await socket.turn("3", previous_response_id=child["id"])
        assert await client.history(next_one["id"]) == ["1", "a1", "2", "a2", "3"]
        await _assert_gone(parent["id"], socket, client)
    if store != "memory:":
        async with listening(script, **settings) as local, http(local.url) as client:
            again = await client.turn("4", previous_response_id=next_one["id"])
            assert await client.history(again["id"]) == ["1", "a1", "2", "a2", "3", "a3", "4"]


async def test_a_chain_that_lost_its_root_is_read_beside_the_one_in_memory(store: str) -> None:
    """The child of a deleted parent is in memory with that parent, and in the store as a root: both are right."""
    gate = asyncio.Event()
    slow = ScriptedTurn((Say(("a2",)), Wait(gate)))
    script = ScriptedUpstream([say("a1"), slow, say("a3"), say("a4"), say("a5")])
    settings: Json = {"store": store, "memory_budget_bytes": 20_000}
    async with listening(script, **settings) as local, http(local.url) as client, opened(local.url) as socket:
        parent = await client.turn("1")
        await socket.create("2", previous_response_id=parent["id"])
        await socket.until("response.output_text.delta")
        assert await client.status(parent["id"], "DELETE") == 200
        gate.set()
        child = (await socket.answer()).response
        assert child is not None
        large = await client.turn("3" * 20_000, previous_response_id=child["id"])
        await client.turn("4")  # takes the place of the large one in memory, the child keeps its own
        await client.turn("5", previous_response_id=large["id"])
        texts = [b"1", b"a1", b"2", b"a2", b"3" * 20_000, b"a3", b"5"]
        seen = list(script.requests[-1].history.items())
        assert [b'"%b"' % text in item for text, item in zip(texts, seen, strict=True)] == [True] * len(texts)


async def test_a_response_deleted_while_it_is_read_does_not_come_back() -> None:
    """A continuation has read its parent's chain; the parent is deleted; what was read does not enter the memory."""
    store = SlowStore("chain", works_first=True)
    async with listening(store=store, memory_budget_bytes=1) as local, http(local.url) as client:
        parent = await client.turn("1")
        await client.turn("2")  # takes the parent's place in memory
        child = asyncio.create_task(client.turn("3", previous_response_id=parent["id"]))
        await store.reached.wait()
        assert await client.status(parent["id"], "DELETE") == 200
        store.gate.set()
        await child
        assert await client.refusal(previous_response_id=parent["id"]) == (400, "previous_response_not_found")


@PARENTS
@CHILDREN
@PLACES
async def test_a_turn_that_waits_while_its_parent_is_deleted_is_refused(parent: Json, child: Json, place: str) -> None:
    """One that forks another lane's response too: what is held for it is deleted with the rest."""
    gate, fields = asyncio.Event(), {**child, "store": parent.get("store", True)}
    script = ScriptedUpstream([say("a1"), ScriptedTurn((Say(("busy",)), Wait(gate))), say("after")])
    async with listening(script) as local, http(local.url) as client, opened(local.url, lanes="ab") as socket:
        made = await _made(place, socket, client, parent)
        await socket.create("2", stream_id="a", store=False)
        await socket.until("response.output_text.delta")
        await socket.create("3", stream_id="a", previous_response_id=made, **fields)
        await _accepted(socket)
        assert await client.status(made, "DELETE") == 200
        gate.set()
        assert (await socket.answer()).response is not None
        await _assert_refused_once(socket)
        script.assert_done()


@PARENTS
@CHILDREN
@PLACES
async def test_a_turn_whose_parent_is_deleted_right_before_the_lookup_is_refused(
    parent: Json, child: Json, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lane has begun it already."""
    fields = {**child, "store": parent.get("store", True)}
    script = ScriptedUpstream([say("a1"), say("after")])
    async with listening(script) as local, http(local.url) as client, opened(local.url, lanes="ab") as socket:
        made = await _made(place, socket, client, parent)
        reached, gate = _hold_lookups(local, monkeypatch, works_first=False)
        await socket.create("2", stream_id="a", previous_response_id=made, **fields)
        await reached.wait()
        assert await client.status(made, "DELETE") == 200
        gate.set()
        await _assert_refused_once(socket)
        script.assert_done()


@PARENTS
@CHILDREN
@PLACES
async def test_a_turn_whose_parent_is_deleted_right_after_the_lookup_goes_on(
    parent: Json, child: Json, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has begun, and keeps its history."""
    fields = {**child, "store": parent.get("store", True)}
    script = ScriptedUpstream([say("a1"), say("a2"), say("a3")])
    async with listening(script) as local, http(local.url) as client, opened(local.url, lanes="ab") as socket:
        made = await _made(place, socket, client, parent)
        reached, gate = _hold_lookups(local, monkeypatch, works_first=True)
        await socket.create("2", stream_id="a", previous_response_id=made, **fields)
        await reached.wait()
        assert await client.status(made, "DELETE") == 200
        gate.set()
        response = (await socket.answer()).response
        assert response is not None
        assert output_text(response) == "a2"
        again = await socket.turn("3", stream_id="a", previous_response_id=response["id"], store=fields["store"])
        assert output_text(again) == "a3"
        said = [item.split(b'"text":"')[1].split(b'"')[0] for item in script.requests[-1].history.items()]
        assert said == [b"1", b"a1", b"2", b"a2", b"3"]


async def test_a_fork_that_waits_keeps_a_parent_that_cannot_be_deleted() -> None:
    """`DELETE` finds what is stored or can be resumed, and nothing else."""
    gate = asyncio.Event()
    script = ScriptedUpstream([say("a1"), ScriptedTurn((Say(("busy",)), Wait(gate))), say("a3")])
    async with listening(script) as local, http(local.url) as client, opened(local.url, lanes="ab") as socket:
        made = await _made("other lane", socket, client, {"store": False})
        await socket.create("2", stream_id="a", store=False)
        await socket.until("response.output_text.delta")
        await socket.create("3", stream_id="a", store=False, previous_response_id=made)
        await _accepted(socket)
        assert await client.status(made, "DELETE") == 404
        gate.set()
        answers = [(await socket.answer()).response or {} for _ in range(2)]
        assert [output_text(answer) for answer in answers] == ["busy", "a3"]


async def _made(place: str, socket: Socket, client: Http, fields: Json) -> str:
    """Make a parent in the lane "a", in another one, or on another connection; return its id."""
    if place == "elsewhere":
        return str((await client.turn("1", **fields))["id"])
    return str((await socket.turn("1", stream_id="a" if place == "own lane" else "b", **fields))["id"])


async def _accepted(socket: Socket) -> None:
    """Return when the gateway has read all that was sent before."""
    assert (await socket.refusal(stream_id="b", input=7))["code"] == "invalid_type"


def _hold_lookups(
    local: Local, monkeypatch: pytest.MonkeyPatch, *, works_first: bool
) -> tuple[asyncio.Event, asyncio.Event]:
    """Stop turns right before or after they look for their parent: they set the first event and await the other."""
    reached, gate = asyncio.Event(), asyncio.Event()
    parents = local.gateway.services.parents
    find = parents.find

    async def wait(tenant: str, wanted: str, places: Sequence[Slot]) -> Turn:
        found = await find(tenant, wanted, places) if works_first else None
        reached.set()
        await gate.wait()
        return found or await find(tenant, wanted, places)

    monkeypatch.setattr(parents, "find", wait)
    return reached, gate


async def _assert_refused_once(socket: Socket) -> None:
    """The lane "a" gets one error, and goes on with the turn after it."""
    error = (await socket.answer()).error
    assert error is not None
    assert error["code"] == "previous_response_not_found"
    assert output_text(await socket.turn("4", stream_id="a")) == "after"


async def _chain(socket: Socket, length: int) -> list[str]:
    """Run turns that each continue the last: "1", "2", …; return their ids."""
    ids: list[str] = []
    for number in range(1, length + 1):
        response = await socket.turn(str(number), previous_response_id=ids[-1] if ids else None)
        ids.append(response["id"])
    return ids


async def _assert_gone(response_id: str, socket: Socket, client: Http) -> None:
    """The id resolves to nothing, whoever asks for whatever."""
    assert await client.status(response_id) == 404
    assert (await client.send("GET", f"/v1/responses/{response_id}/input_items"))[0] == 404
    assert await client.status(response_id, "DELETE") == 404
    assert await client.refusal(previous_response_id=response_id) == (400, "previous_response_not_found")
    refusal = await socket.refusal(previous_response_id=response_id)
    assert refusal["code"] == "previous_response_not_found"

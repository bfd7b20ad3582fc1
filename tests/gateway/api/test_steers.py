"""Steering over a WebSocket: what is accepted, how responses go on, what is given back. Every frame is judged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from segue.gateway.api.steers import MOST_STEER_BYTES
from segue.protocol.problems import Problem
from segue.protocol.steering import MOST_STEERS
from segue.testing.protocol_checker import Json, SocketChecker
from segue.upstreams.scripted import CallTool, EndItem, Fail, Refuse, Say, ScriptedTurn, ScriptedUpstream, Wait, say
from tests.faults.doubles import SlowStore
from tests.faults.gateways import Local, listening, until


class Client:
    """One connection, whose frames are checked."""

    def __init__(self, connection: ClientConnection, lanes: Sequence[str]) -> None:
        self._connection = connection
        self.checker = SocketChecker(lanes)

    async def send(self, **message: object) -> None:
        await self._connection.send(json.dumps(message))

    async def create(self, text: object = "go", **fields: object) -> str:
        """Send a create, and return the id of its response once that has begun."""
        await self.send(type="response.create", model="m", input=text, **fields)
        return str((await self.until("response.created"))["response"]["id"])

    async def steer(self, target: str, text: object = "more") -> Json:
        """Send a steer and return the answer to it."""
        await self.send(type="response.steer", previous_response_id=target, input=text)
        return await self.until("response.steer.accepted", "response.steer.failed")

    async def until(self, *kinds: str) -> Json:
        async with asyncio.timeout(20):
            while True:
                frame: Json = json.loads(await self._connection.recv())
                self.checker.feed(frame)
                if frame["type"] in kinds:
                    return frame


@asynccontextmanager
async def client(local: Local, *lanes: str) -> AsyncIterator[Client]:
    async with connect(local.url.replace("http", "ws", 1) + "/v1/responses", proxy=None, max_size=None) as connection:
        one = Client(connection, lanes)
        yield one
        one.checker.finish()
        await connection.close()


def two_items(gate: asyncio.Event) -> ScriptedTurn:
    """A turn of three messages; it waits behind the first one."""
    return ScriptedTurn((Say(("one",)), EndItem(), Wait(gate), Say(("two",)), EndItem(), Wait(gate), Say(("three",))))


def seen(model: ScriptedUpstream, number: int = -1) -> list[Any]:
    """The texts that the model saw in one of its requests."""
    items = [json.loads(item) for item in model.requests[number].history.items()]
    return [item["content"][0]["text"] if "content" in item else item["type"] for item in items]


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("lane", [None, "a"])
async def test_a_response_stops_between_two_items_and_another_goes_on(*, store: bool, lane: str | None) -> None:
    """With the same settings, and with all steers in their order; then the lane takes the next request."""
    gate = asyncio.Event()
    model = ScriptedUpstream([two_items(gate), say("done"), say("last")])
    named = {} if lane is None else {"stream_id": lane}
    async with listening(model) as local, client(local, *named.values()) as one:
        target = await one.create(store=store, instructions="Be brief.", **named)
        for text in ("first", "second"):
            accepted = await one.steer(target, text)
            assert accepted["type"] == "response.steer.accepted"
            assert accepted.get("stream_id") == lane
        await one.send(type="response.create", model="m", input="queued", **named)
        gate.set()
        stopped = (await one.until("response.incomplete"))["response"]
        assert stopped["incomplete_details"] == {"reason": "steered"}
        assert [item["content"][0]["text"] for item in stopped["output"]] == ["one", "two"]
        created = (await one.until("response.created"))["response"]
        assert (created["previous_response_id"], created["instructions"], created["store"]) == (
            target,
            "Be brief.",
            store,
        )
        await one.until("response.completed")
        assert seen(model, 1) == ["go", "one", "two", "first", "second"]
        await one.until("response.completed")
        assert model.cancelled == 1


async def test_a_steer_is_for_its_response_and_for_no_other_lane() -> None:
    """Whatever else runs on the connection, and whatever lane the message names; another connection has no say."""
    gates = [asyncio.Event(), asyncio.Event()]
    model = ScriptedUpstream([*map(two_items, gates), say("done")])
    async with listening(model) as local, client(local, "a", "b") as one, client(local) as stranger:
        targets = [await one.create(lane, stream_id=lane) for lane in ("a", "b")]
        assert (await stranger.steer(targets[0]))["type"] == "response.steer.failed"
        await one.send(type="response.steer", previous_response_id=targets[0], input="for a", stream_id="b")
        told = await one.until("response.steer.accepted", "response.steer.failed")
        assert (told["type"], told["stream_id"]) == ("response.steer.accepted", "a")
        gates[0].set()
        assert (await one.until("response.incomplete"))["stream_id"] == "a"
        created = await one.until("response.created")
        assert (created["stream_id"], created["response"]["previous_response_id"]) == ("a", targets[0])
        await one.until("response.completed")
        gates[1].set()
        ended = await one.until("response.completed")
        assert (ended["stream_id"], ended["response"]["id"]) == ("b", targets[1])
        assert len(ended["response"]["output"]) == 3
        assert seen(model) == ["a", "one", "two", "for a"]


async def test_one_that_completes_has_a_successor_too() -> None:
    gate = asyncio.Event()
    model = ScriptedUpstream([ScriptedTurn((Say(("one",)), Wait(gate))), say("done")])
    async with listening(model) as local, client(local) as one:
        target = await one.create()
        await one.steer(target)
        gate.set()
        assert (await one.until("response.completed"))["response"]["id"] == target
        assert (await one.until("response.created"))["response"]["previous_response_id"] == target
        await one.until("response.completed")
        assert seen(model) == ["go", "one", "more"]


async def test_what_the_client_has_to_say_first_is_waited_for() -> None:
    """Once for each steer; the create that brings it has the steers before its input, and its own settings."""
    gate = asyncio.Event()
    model = ScriptedUpstream([ScriptedTurn((Wait(gate), CallTool("c1", "f"))), say("done")])
    async with listening(model) as local, client(local) as one:
        target = await one.create()
        ids = [(await one.steer(target, text))["steer"]["id"] for text in ("first", "second")]
        gate.set()
        await one.until("response.completed")
        output = {"type": "function_call_output", "call_id": "c1", "output": "4"}
        for ident in ids:
            pending = await one.until("response.steer.pending")
            assert pending["steer"] == {"id": ident, "previous_response_id": target}
            assert pending["required_input"] == [{"type": "function_call_output", "call_id": "c1", "name": "f"}]
        assert (await one.steer(target))["error"]["code"] == "response_already_completed"
        await one.create([output], previous_response_id=target, instructions="Be kind.")
        await one.until("response.completed")
        assert seen(model) == ["go", "function_call", "first", "second", "function_call_output"]


async def test_steers_that_wait_are_given_back_to_who_goes_another_way() -> None:
    gate = asyncio.Event()
    model = ScriptedUpstream([ScriptedTurn((Wait(gate), CallTool("c1", "f"))), say("done")])
    async with listening(model) as local, client(local) as one:
        target = await one.create()
        await one.steer(target)
        gate.set()
        await one.until("response.steer.pending")
        await one.send(type="response.create", model="m", input="another")
        failed = await one.until("response.steer.failed")
        assert (failed["error"]["code"], failed["steer"]["input"]) == ("response_not_active", "more")
        await one.until("response.completed")


async def test_a_create_that_is_refused_gives_them_back() -> None:
    """The client gets the error of its create, and the steers."""
    gate = asyncio.Event()
    busy = ScriptedTurn((Refuse(Problem("rate_limit_exceeded", "not now")),))
    model = ScriptedUpstream([ScriptedTurn((Wait(gate), CallTool("c1", "f"))), busy])
    async with listening(model) as local, client(local) as one:
        target = await one.create()
        await one.steer(target)
        gate.set()
        await one.until("response.steer.pending")
        output = {"type": "function_call_output", "call_id": "c1", "output": "4"}
        await one.send(type="response.create", model="m", input=[output], previous_response_id=target)
        await one.until("error")
        assert (await one.until("response.steer.failed"))["error"]["code"] == "successor_creation_failed"


@pytest.mark.parametrize(
    "then", [ScriptedTurn((Refuse(Problem("rate_limit_exceeded", "no")),)), ScriptedTurn((Fail(),)), None]
)
async def test_what_cannot_go_on_is_given_back(then: ScriptedTurn | None) -> None:
    """The successor is refused, which is no error of a create; a successor that has begun may fail; or the target."""
    gate = asyncio.Event()
    begun = then is not None and isinstance(then.steps[0], Fail)
    first = ScriptedTurn((Say(("one",)), Wait(gate), Fail())) if then is None else two_items(gate)
    model = ScriptedUpstream([first, *([] if then is None else [then]), say("next")])
    async with listening(model) as local, client(local) as one:
        target = await one.create()
        ident = (await one.steer(target))["steer"]["id"]
        gate.set()
        if begun:
            await one.until("response.failed")
        else:
            failed = await one.until("response.steer.failed")
            assert failed["error"]["code"] == "successor_creation_failed"
            assert failed["steer"] == {"id": ident, "previous_response_id": target, "input": "more"}
        await one.create()
        await one.until("response.completed")


async def test_a_successor_can_be_steered_in_its_turn() -> None:
    gate, second = asyncio.Event(), asyncio.Event()
    model = ScriptedUpstream([two_items(gate), two_items(second), say("done")])
    async with listening(model) as local, client(local) as one:
        target = await one.create()
        await one.steer(target, "first")
        gate.set()
        successor = (await one.until("response.created"))["response"]["id"]
        assert (await one.steer(successor, "second"))["type"] == "response.steer.accepted"
        assert (await one.steer(target))["error"]["code"] == "response_already_completed"
        second.set()
        await one.until("response.incomplete")
        await one.until("response.completed")
        assert seen(model) == ["go", "one", "two", "first", "one", "two", "second"]


async def test_what_cannot_be_steered_is_told() -> None:
    """Unknown and ended responses, those of conversations, kept ones, warm-ups, lean ones, and too much at once."""
    gate = asyncio.Event()
    model = ScriptedUpstream([*[ScriptedTurn((Say(("x",)), Wait(gate)))] * 4])
    async with listening(model) as local, client(local, "a", "b", "c") as one:
        assert (await one.steer("resp_unknown"))["error"]["code"] == "response_not_found"
        talk = await local.gateway.services.executor.conversations.create("local", _nothing())
        for lane, fields in (("a", {"conversation": talk.id}), ("b", {"segue": {"resume": True}})):
            target = await one.create(stream_id=lane, **fields)
            failed = await one.steer(target)
            assert (failed["error"]["code"], failed["stream_id"]) == ("steering_not_supported", lane)
        target = await one.create(stream_id="c")
        assert (await one.steer(target, [{"role": "developer", "content": "x"}]))["error"]["code"] == "invalid_input"
        assert (await one.steer(target, "x" * MOST_STEER_BYTES))["error"]["code"] == "invalid_input"
        half = "x" * (MOST_STEER_BYTES // 2)
        answers = [(await one.steer(target, text)) for text in (half, half, *["x"] * MOST_STEERS)]
        codes = [answer.get("error", {}).get("code") for answer in answers]
        assert codes == [None, "too_many_pending_steers", *[None] * (MOST_STEERS - 1), "too_many_pending_steers"]
        gate.set()
        for _ in range(4):
            await one.until("response.completed")


def _nothing() -> Any:  # noqa: ANN401 - what a conversation begins with
    from segue.protocol.conversations import NewConversation

    return NewConversation()


async def test_a_steer_counts_in_memory_until_it_is_committed() -> None:
    gate, second = asyncio.Event(), asyncio.Event()
    model = ScriptedUpstream([two_items(gate), ScriptedTurn((Say(("x",)), Wait(second)))])
    async with listening(model) as local, client(local) as one:
        memory = local.gateway.services.memory
        target = await one.create()
        before = memory.size_bytes
        assert (await one.steer(target, "x" * 100_000))["type"] == "response.steer.accepted"
        assert memory.size_bytes > before + 100_000
        await one.steer(target, [{"role": "developer", "content": "x" * 100_000}])
        gate.set()
        await one.until("response.created")
        await until(lambda: memory.size_bytes <= before)
        second.set()
        await one.until("response.completed")


async def test_an_upstream_that_cannot_stop_there_is_not_steered() -> None:
    gate = asyncio.Event()
    async with listening(_Unstoppable([ScriptedTurn((Say(("x",)), Wait(gate)))])) as local, client(local) as one:
        target = await one.create()
        assert (await one.steer(target))["error"]["code"] == "steering_not_supported"
        gate.set()
        await one.until("response.completed")


class _Unstoppable(ScriptedUpstream):
    @property
    def stops_between_items(self) -> bool:
        return False


async def test_a_steer_that_comes_with_the_end_is_given_back() -> None:
    """The response is being stored: it takes no more input."""
    store = SlowStore("append", works_first=False)
    async with listening(ScriptedUpstream([say("x")]), store=store) as local, client(local) as one:
        target = await one.create()
        await one.until("response.output_item.done")
        assert (await one.steer(target))["error"]["code"] == "response_not_active"
        store.gate.set()
        await one.until("response.completed")


async def test_a_gateway_that_drains_begins_no_successor() -> None:
    gate = asyncio.Event()
    async with listening(ScriptedUpstream([two_items(gate)])) as local, client(local) as one:
        target = await one.create()
        await one.steer(target)
        draining = asyncio.create_task(local.gateway.drain())
        await until(lambda: local.gateway.services.drain.draining)
        gate.set()
        assert (await one.until("response.steer.failed"))["error"]["code"] == "successor_creation_failed"
        await one.until("error")
        await draining

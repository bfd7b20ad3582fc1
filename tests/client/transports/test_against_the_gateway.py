"""Both transports against a gateway of ours that really listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from segue.client.recovery import TurnFault
from segue.client.settings import ConnectionSettings
from segue.client.transports.connection_pool import WebSocketTransport
from segue.client.transports.http import HttpTransport
from segue.client.transports.interface import EventStream, ResponsesTransport, TransportFault
from segue.upstreams.scripted import MODEL, Fail, Say, ScriptedTurn, Wait, say
from tests.client.transports.streams import drained
from tests.integration.gateway import Running, key, running

KINDS = pytest.mark.parametrize("kind", [HttpTransport, WebSocketTransport])


@asynccontextmanager
async def serving(
    kind: type[HttpTransport | WebSocketTransport],
    *script: ScriptedTurn,
    server: dict[str, object] | None = None,
    keyed: bool = False,
    **changes: Any,  # noqa: ANN401 - fields of the settings
) -> AsyncIterator[tuple[Running, HttpTransport | WebSocketTransport]]:
    async with running(script, keys=[key("alice")] if keyed else (), server=server or {}) as gateway:
        transport = kind(ConnectionSettings(base_url=f"{gateway.url}/v1", **changes))
        try:
            yield gateway, transport
        finally:
            await transport.aclose()


def body(text: str, **more: object) -> bytes:
    return msgspec.json.encode({"model": MODEL, "input": text, "store": False, **more})


async def create(transport: ResponsesTransport, text: str, *, lane: int = 1, **more: object) -> EventStream:
    connected = await transport.connect(lane=lane)
    return await transport.create(body(text, **more), lane=lane, connection=connected.connection)


def shown(events: Sequence[bytes]) -> list[Any]:
    return [msgspec.json.decode(event) for event in events]


async def whole(stream: EventStream) -> list[Any]:
    """Read a stream that must end well."""
    events, fault = await drained(stream)
    assert fault is None
    return shown(events)


def types(events: Sequence[Any]) -> list[str]:
    return [event["type"] for event in events]


def text_of(events: Sequence[Any]) -> str:
    return "".join(part["text"] for item in events[-1]["response"]["output"] for part in item["content"])


async def fault_of(stream: EventStream) -> TurnFault:
    _, fault = await drained(stream)
    assert fault is not None
    return fault


async def test_a_turn_has_the_same_events_over_both_transports() -> None:
    seen: list[list[str]] = []
    for kind in (HttpTransport, WebSocketTransport):
        async with serving(kind, say("hel", "lo")) as (_, transport):
            events = await whole(await create(transport, "hi"))
        assert text_of(events) == "hello"
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        seen.append(types(events))
    assert seen[0] == seen[1]


@KINDS
async def test_it_says_what_it_offers(kind: type[HttpTransport | WebSocketTransport]) -> None:
    async with serving(kind, server={"max_lanes": 5}) as (_, transport):
        offered = (await transport.connect(lane=1)).capabilities
        assert offered.offers("resume")
        assert offered.epoch
        assert offered.lanes.names == 5
        assert (await transport.connect(lane=1, fresh=True)).capabilities == offered


async def test_an_unstored_response_is_continued_on_its_connection_and_on_no_other() -> None:
    async with serving(WebSocketTransport, say("one"), say("two")) as (gateway, transport):
        first = await whole(await create(transport, "1"))
        parent = first[-1]["response"]["id"]
        await whole(await create(transport, "2", previous_response_id=parent))
        assert [len(items) for items in gateway.seen()] == [1, 3]
        other = WebSocketTransport(ConnectionSettings(base_url=f"{gateway.url}/v1"))
        fault = await fault_of(await create(other, "3", previous_response_id=parent))
        assert (fault.kind, fault.code) == ("refused", "previous_response_not_found")
        assert (fault.status, fault.param) == (400, "previous_response_id")
        await other.aclose()


async def test_lanes_run_at_the_same_time_on_one_connection_and_a_fork_finds_its_parent() -> None:
    gates = [asyncio.Event() for _ in range(3)]
    turns = [ScriptedTurn((Say((str(number),)), Wait(gate))) for number, gate in enumerate(gates)]
    async with serving(WebSocketTransport, say("parent"), *turns) as (_, transport):
        parent = (await whole(await create(transport, "0")))[-1]["response"]["id"]
        streams = []
        for lane in (1, 2, 3):
            connected = await transport.connect(lane=lane, near=1)
            assert connected.connection == 1
            stream = await transport.create(
                body("next", previous_response_id=parent), lane=lane, connection=connected.connection
            )
            await anext(aiter(stream))
            streams.append(stream)
        for gate in reversed(gates):
            gate.set()
        answers = await asyncio.gather(*map(whole, streams))
        assert sorted(map(text_of, answers)) == ["0", "1", "2"]
        assert transport.meter.connections == 1


@KINDS
async def test_a_stream_that_broke_is_resumed(kind: type[HttpTransport | WebSocketTransport]) -> None:
    more = asyncio.Event()
    script = ScriptedTurn((Say(("be", "fore ")), Wait(more), Say(("af", "ter"))))
    async with serving(kind, script) as (gateway, transport):
        stream = await create(transport, "hi", segue={"resume": True})
        begun = shown([await anext(aiter(stream)) for _ in range(5)])
        await stream.aclose()
        more.set()
        connected = await transport.connect(lane=1)
        resumed = await transport.resume(
            begun[0]["response"]["id"], begun[-1]["sequence_number"], lane=1, connection=connected.connection
        )
        rest = await whole(resumed)
        assert [event["sequence_number"] for event in begun + rest] == list(range(len(begun + rest)))
        assert text_of(rest) == "before after"
        assert len(gateway.upstream.requests) == 1


@KINDS
async def test_a_stored_response_is_retrieved(kind: type[HttpTransport | WebSocketTransport]) -> None:
    async with serving(kind, say("kept")) as (_, transport):
        made = (await whole(await create(transport, "hi", store=True)))[-1]["response"]
        assert msgspec.json.decode(await transport.retrieve(made["id"]))["output"] == made["output"]
        with pytest.raises(TransportFault) as raised:
            await transport.retrieve(f"resp_{'0' * 40}")
    assert (raised.value.fault.kind, raised.value.fault.status) == ("refused", 404)


@KINDS
async def test_a_model_that_fails_after_it_began_is_told_by_the_last_event(
    kind: type[HttpTransport | WebSocketTransport],
) -> None:
    async with serving(kind, ScriptedTurn((Say(("half",)), Fail("upstream_error", "gone")))) as (_, transport):
        assert types(await whole(await create(transport, "hi")))[-1] == "response.failed"


@KINDS
async def test_a_create_that_is_wrong_is_refused_and_the_next_one_is_not(
    kind: type[HttpTransport | WebSocketTransport],
) -> None:
    async with serving(kind, say("fine")) as (_, transport):
        connected = await transport.connect(lane=1)
        try:
            stream = await transport.create(b'{"model":5}', lane=1, connection=connected.connection)
            fault = await fault_of(stream)
        except TransportFault as raised:
            fault = raised.fault
        assert (fault.kind, fault.status, fault.param) == ("refused", 400, "model")
        assert text_of(await whole(await create(transport, "hi"))) == "fine"
        assert transport.meter.connections == 1


async def test_a_key_that_is_wrong_opens_no_connection() -> None:
    async with serving(WebSocketTransport, say("fine"), keyed=True, api_key="sk-mallory") as (gateway, transport):
        with pytest.raises(TransportFault) as raised:
            await transport.connect(lane=1)
        fault = raised.value.fault
        assert (fault.kind, fault.status, fault.body_kind) == ("upgrade_refused", 401, "json")
        right = WebSocketTransport(ConnectionSettings(base_url=f"{gateway.url}/v1", api_key="sk-alice"))
        assert text_of(await whole(await create(right, "hi"))) == "fine"
        await right.aclose()


async def test_compression_pays_and_changes_nothing() -> None:
    carried: dict[bool, int] = {}
    for deflate in (False, True):
        async with serving(WebSocketTransport, say("hello " * 50), say("bye"), deflate=deflate) as (_, transport):
            first = await whole(await create(transport, "hi " * 1000))
            parent = first[-1]["response"]["id"]
            stream = await create(transport, "again " * 1000, previous_response_id=parent)
            assert text_of(await whole(stream)) == "bye"
            carried[deflate] = stream.wire_sent_bytes + stream.wire_received_bytes
    assert carried[True] < carried[False] / 4


async def test_a_connection_at_its_age_limit_is_left_before_it_ends() -> None:
    async with serving(WebSocketTransport, say("one"), say("two"), server={"max_age_s": 100.0}) as (_, transport):
        await whole(await create(transport, "1"))
        assert isinstance(transport, WebSocketTransport)
        for connection in transport._connections.values():  # noqa: SLF001 - the clock is the event loop's
            connection.opened_at -= 95.0
        assert (await transport.connect(lane=1)).connection == 2
        await whole(await create(transport, "2"))


async def test_a_gateway_that_asks_its_connections_to_end_ends_no_turn() -> None:
    more = asyncio.Event()
    script = ScriptedTurn((Say(("half",)), Wait(more), Say(("rest",))))
    async with serving(WebSocketTransport, script, say("again")) as (gateway, transport):
        stream = await create(transport, "hi")
        await anext(aiter(stream))
        draining = asyncio.create_task(gateway.gateway.services.drain.drain_connections())
        more.set()
        assert types(await whole(stream))[-1] == "response.completed"
        await draining
        assert (await transport.connect(lane=1)).connection == 2
        assert text_of(await whole(await create(transport, "hi"))) == "again"

"""The client library and the gateway, over real sockets: every pair of switches, and connections that break anywhere.

Whatever breaks, a turn has one whole answer, its model runs once, and the next turn finds the whole history.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from segue.client import AsyncClient, Client
from segue.client.errors import ContinuationLostError, CreateRefusedError
from segue.client.stream_events import OutputTextDelta
from segue.client.transports.connection_pool import WebSocketTransport
from segue.client.turn import AsyncTurn
from segue.client.turn_effects import RecoveryStep
from segue.testing.link import EmulatedLink, linked
from segue.upstreams.scripted import MODEL, Say, ScriptedTurn, Wait, call, say
from tests.client.transports.streams import until
from tests.integration.gateway import Running, running

SWITCHES = [
    (transport, store, history)
    for transport in ("http", "websocket", "auto")
    for store in (True, False)
    for history in ("id", "replay", "auto")
    if store or history != "id" or transport == "websocket"
]
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
#: More text than any test lets through before it cuts, however compact its events are.
LONG = tuple(f"word {number} " for number in range(250))


@asynccontextmanager
async def behind_a_link(
    *script: ScriptedTurn,
    **options: Any,  # noqa: ANN401 - settings of connections
) -> AsyncIterator[tuple[Running, EmulatedLink, AsyncClient, list[RecoveryStep]]]:
    """A gateway, a link to it that can break, a client on its other side, and what the client had to do."""
    steps: list[RecoveryStep] = []
    async with running(script) as gateway:
        address = urlsplit(gateway.url)
        assert address.hostname is not None
        assert address.port is not None
        async with (
            linked(address.hostname, address.port) as link,
            AsyncClient(f"{link.url}/v1", on_recovery=steps.append, **options) as client,
        ):
            yield gateway, link, client, steps


async def text_of(turn: AsyncTurn) -> str:
    """Read a turn, and check that what streamed is what the response says."""
    pieces = [event.delta async for event in turn if isinstance(event, OutputTextDelta)]
    response = await turn.response()
    assert "".join(pieces) == response.output_text
    return response.output_text


def actions(steps: Sequence[RecoveryStep]) -> list[str]:
    return [step.decision.action for step in steps]


def roles(items: Sequence[Any]) -> list[str]:
    return [item.get("role", item["type"]) for item in items]


# --- no fault --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("transport", "store", "history"), SWITCHES)
async def test_a_tool_loop_is_the_same_whatever_the_switches(transport: str, store: bool, history: str) -> None:
    script = (call("call_1", "weather"), say("Sunny."), say("Bye."))
    async with behind_a_link(*script) as (gateway, _, client, steps):
        session = client.session(
            MODEL, tools=[WEATHER], transport=transport, store=store, history=history, instructions="Be brief."
        )
        first = await session.send("What is the weather?").response()
        (asked,) = first.function_calls
        assert (asked.call_id, asked.name) == ("call_1", "weather")
        output = {"type": "function_call_output", "call_id": asked.call_id, "output": "sun"}
        assert await text_of(session.send(output)) == "Sunny."
        assert await text_of(session.send("Thanks.")) == "Bye."
        assert steps == []
        seen = gateway.seen()
        history_items = [msgspec.json.decode(item) for item in session.history]
    assert [len(items) for items in seen] == [1, 3, 5]
    assert roles(seen[2]) == ["user", "function_call", "function_call_output", "assistant", "user"]
    assert roles(history_items) == [*roles(seen[2]), "assistant"]


async def test_only_what_is_new_is_sent_where_that_is_possible() -> None:
    carried: dict[str, int] = {}
    for history in ("replay", "auto"):
        async with behind_a_link(*(say("ok") for _ in range(4))) as (_, _, client, _):
            session = client.session(MODEL, history=history)
            for _ in range(4):
                await session.send("x" * 5000).response()
            carried[history] = session.meters.bytes_up_payload
    assert carried["auto"] < 22_000
    assert carried["replay"] > 50_000


async def test_the_bytes_on_the_wire_are_those_of_the_link() -> None:
    async with behind_a_link(say("one"), say("two")) as (_, link, client, _):
        session = client.session(MODEL, transport="websocket")
        for _ in range(2):
            await session.send("hi").response()
        assert session.meters.bytes_up_wire == link.up_bytes
        assert session.meters.bytes_down_wire == link.down_bytes


async def test_forks_run_side_by_side_on_one_connection() -> None:
    gate = asyncio.Event()
    branches = (ScriptedTurn((Say(("branch",)), Wait(gate))) for _ in range(3))
    async with behind_a_link(say("root"), *branches) as (gateway, link, client, steps):
        session = client.session(MODEL)
        await session.send("root?").response()
        forks = [session.fork() for _ in range(2)]
        turns = [one.send("branch?") for one in (session, *forks)]
        reading = [asyncio.create_task(text_of(turn)) for turn in turns]
        while len(gateway.upstream.requests) < 4:  # noqa: ASYNC110 - the model tells nobody
            await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(*reading) == ["branch"] * 3
        assert len(link.connections) == 1
        assert steps == []
        assert [len(items) for items in gateway.seen()] == [1, 3, 3, 3]


async def test_without_await_it_is_the_same() -> None:
    async with running([say("hel", "lo"), say("again")]) as gateway:

        def talk() -> list[str]:
            with Client(f"{gateway.url}/v1") as client:
                session = client.session(MODEL)
                pieces = [event.delta for event in session.send("hi") if isinstance(event, OutputTextDelta)]
                return ["".join(pieces), session.send("more").response().output_text]

        assert await asyncio.to_thread(talk) == ["hello", "again"]


@pytest.mark.parametrize("lean", [True, False])
async def test_over_http_turns_in_a_row_share_a_connection(lean: bool) -> None:
    """The end of a reply comes with its last event, so that the next turn need not make another connection."""
    async with behind_a_link(*[say("one")] * 5) as (_, link, client, _):
        session = client.session(MODEL, transport="http", lean=lean)
        for _ in range(5):
            await session.send("more").response()
        assert len(link.connections) == 1


async def cut_and_noticed(link: EmulatedLink, client: AsyncClient) -> None:
    """Cut the client's WebSocket, and wait until the client knows."""
    pool = client._host.links.websocket  # noqa: SLF001 - nothing else shows it
    assert isinstance(pool, WebSocketTransport)
    (connection,) = pool._connections.values()  # noqa: SLF001 - as above
    link.cut()
    await until(lambda: connection.closed)


# --- connections that break ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("down_bytes", [0, 1, 100, 300, 700, 1500])
@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("transport", ["http", "websocket"])
async def test_an_answer_that_is_cut_anywhere_goes_on_and_is_paid_once(
    transport: str, store: bool, down_bytes: int
) -> None:
    async with behind_a_link(say("one"), say(*LONG), say("three")) as (gateway, link, client, steps):
        session = client.session(MODEL, transport=transport, store=store)
        await session.send("1").response()
        cut = link.cut_after(down_bytes=down_bytes)
        assert await text_of(session.send("2")) == "".join(LONG)
        await cut.wait()
        assert await text_of(session.send("3")) == "three"
        assert [len(items) for items in gateway.seen()] == [1, 3, 5], "each turn ran once, with the whole history"
        assert len(steps) >= 1


@pytest.mark.parametrize("up_bytes", [0, 1, 50, 200])
@pytest.mark.parametrize("transport", ["http", "websocket"])
async def test_a_create_that_is_cut_anywhere_is_run_once(transport: str, up_bytes: int) -> None:
    async with behind_a_link(say("one"), say("two")) as (gateway, link, client, _):
        session = client.session(MODEL, transport=transport, store=False)
        await session.send("1").response()
        cut = link.cut_after(up_bytes=up_bytes)
        assert await text_of(session.send("2" * 500)) == "two"
        await cut.wait()
        assert [len(items) for items in gateway.seen()] == [1, 3]


async def test_a_line_that_goes_silent_is_noticed_and_the_turn_goes_on() -> None:
    gate = asyncio.Event()
    script = ScriptedTurn((Say(("be", "fore ")), Wait(gate), Say(("af", "ter"))))
    async with behind_a_link(script, heartbeat_s=0.2) as (gateway, link, client, steps):
        turn = client.session(MODEL, transport="websocket").send("hi")
        async for event in turn:
            if isinstance(event, OutputTextDelta):
                break
        link.blackhole()
        reading = asyncio.create_task(turn.response())
        while not steps:  # noqa: ASYNC110 - the observer is no event
            await asyncio.sleep(0.01)
        link.cut()
        link.restore()
        gate.set()
        assert (await reading).output_text == "before after"
        assert len(gateway.upstream.requests) == 1


@pytest.mark.parametrize(("store", "replays"), [(True, False), (False, True)])
async def test_between_turns_a_lost_connection_costs_an_unstored_session_a_replay(store: bool, replays: bool) -> None:
    async with behind_a_link(say("one"), say("two"), say("three")) as (gateway, link, client, _):
        session = client.session(MODEL, transport="websocket", store=store)
        await session.send("1" * 5000).response()
        await cut_and_noticed(link, client)
        before = session.meters.bytes_up_payload
        assert await text_of(session.send("2")) == "two"
        assert (session.meters.bytes_up_payload - before > 5000) is replays
        assert await text_of(session.send("3")) == "three"
        assert session.meters.reconnects == 1
        assert [len(items) for items in gateway.seen()] == [1, 3, 5]


async def test_an_id_that_may_not_be_replaced_by_a_replay_is_lost_with_its_connection() -> None:
    async with behind_a_link(say("one")) as (gateway, link, client, _):
        session = client.session(MODEL, transport="websocket", store=False, history="id")
        await session.send("1").response()
        await cut_and_noticed(link, client)
        with pytest.raises(ContinuationLostError):
            await session.send("2").response()
        assert len(gateway.upstream.requests) == 1
        assert len(session.history) == 2


# --- refusals, cancels, and what outlives a process ------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["http", "websocket"])
async def test_a_create_that_is_wrong_is_refused_and_changes_nothing(transport: str) -> None:
    async with behind_a_link(say("fine")) as (gateway, _, client, _):
        session = client.session(MODEL, transport=transport)
        with pytest.raises(CreateRefusedError) as raised:
            await session.send("hi", temperature="hot").response()
        assert (raised.value.status, raised.value.param) == (400, "temperature")
        assert session.history == ()
        assert await text_of(session.send("hi")) == "fine"
        assert len(gateway.upstream.requests) == 1


@pytest.mark.parametrize("transport", ["http", "websocket"])
async def test_a_turn_that_is_cancelled_leaves_the_history_and_the_session_goes_on(transport: str) -> None:
    held = ScriptedTurn((Say(("half",)), Wait(asyncio.Event())))
    async with behind_a_link(say("one"), held, say("three")) as (gateway, _, client, _):
        session = client.session(MODEL, transport=transport)
        await session.send("1").response()
        async with session.send("2") as turn:
            async for event in turn:
                if isinstance(event, OutputTextDelta):
                    break
        assert gateway.upstream.cancelled == 1, "the model is stopped, though a turn with a key is kept"
        assert len(session.history) == 2
        assert await text_of(session.send("3")) == "three"
        assert [len(items) for items in gateway.seen()] == [1, 3, 3]


@pytest.mark.parametrize("store", [True, False])
async def test_a_session_that_was_saved_in_the_middle_of_a_turn_goes_on_in_another_client(
    store: bool, tmp_path: Path
) -> None:
    gate = asyncio.Event()
    held = ScriptedTurn((Say(("be", "fore ")), Wait(gate), Say(("af", "ter"))))
    async with behind_a_link(say("one"), held, say("three")) as (gateway, link, client, _):
        session = client.session(MODEL, store=store)
        await session.send("1").response()
        session.save(tmp_path / "session.json")
        turn = session.send("2")
        async for event in turn:
            if isinstance(event, OutputTextDelta):
                break
        link.cut()  # the process is gone, and its turn with it
        gate.set()
        async with AsyncClient(f"{link.url}/v1") as other:
            loaded = other.load(tmp_path / "session.json")
            pending = loaded.pending_turn
            assert pending is not None
            assert (await pending.response()).output_text == "before after"
            assert await text_of(loaded.send("3")) == "three"
        assert [len(items) for items in gateway.seen()] == [1, 3, 5]

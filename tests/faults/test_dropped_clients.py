"""Clients that go away in the middle: their turns are cancelled at once, and nothing of them is left."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from segue.upstreams.scripted import Say, ScriptedTurn, ScriptedUpstream, Wait
from tests.faults.clients import Socket, address_of, begin_post, http, narrow, opened, output_text, reset
from tests.faults.doubles import Gated, Model, SlowStore, Torrent
from tests.faults.gateways import listening, settled, until

Leave = Callable[[Socket], Awaitable[None]]


async def closes(socket: Socket) -> None:
    await socket.connection.close()


async def vanishes(socket: Socket) -> None:
    socket.connection.transport.abort()


async def resets(socket: Socket) -> None:
    reset(socket.connection.transport)


async def breaks_the_protocol(socket: Socket) -> None:
    socket.connection.transport.write(b"\xff" * 64)  # a frame that no client may send
    await socket.connection.wait_closed()


def speaks_then_waits(gate: asyncio.Event) -> ScriptedUpstream:
    """Script one turn that is half told until the gate opens."""
    return ScriptedUpstream([ScriptedTurn((Say(("half",)), Wait(gate), Say(("whole",))))])


@pytest.fixture(autouse=True)
def _no_errors_logged(caplog: pytest.LogCaptureFixture) -> object:
    """A client that leaves is no error of the gateway's."""
    yield
    records = caplog.get_records("call")
    assert [record.getMessage() for record in records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("leave", [closes, vanishes, resets, breaks_the_protocol])
async def test_a_socket_that_goes_cancels_its_turn(leave: Leave, *, store: bool) -> None:
    """In the middle of the answer: the upstream is stopped, the lane's memory freed, and nothing is stored."""
    upstream = speaks_then_waits(asyncio.Event())
    async with listening(upstream) as local:
        async with opened(local.url) as socket:
            await socket.create(store=store)
            created = await socket.until("response.created")
            await socket.until("response.output_text.delta")
            await leave(socket)
            await until(lambda: upstream.cancelled == 1)
        await local.rest()
        async with http(local.url) as client:
            assert await client.status(created["response"]["id"]) == 404


@pytest.mark.parametrize("leave", [closes, vanishes, resets])
async def test_a_socket_that_goes_takes_what_only_it_held(leave: Leave) -> None:
    """A store=false response lives in its connection: with it goes every byte."""
    async with listening() as local:
        async with opened(local.url) as socket:
            await socket.turn("x" * 100_000, store=False)
            assert local.gateway.services.cache.size_bytes > 100_000
            await leave(socket)
        await local.rest()


async def test_a_stored_turn_outlives_its_socket() -> None:
    """What was completed stays, and can be continued from another connection."""
    async with listening() as local:
        async with opened(local.url) as socket:
            kept = await socket.turn("1")
            await resets(socket)
        async with opened(local.url) as socket, http(local.url) as client:
            child = await socket.turn("2", previous_response_id=kept["id"])
            assert await client.history(child["id"]) == ["1", output_text(kept), "2"]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_http_client_that_goes_cancels_its_turn(*, stream: bool) -> None:
    """While it reads the stream, or while it waits for the whole answer."""
    upstream = speaks_then_waits(asyncio.Event())
    async with listening(upstream) as local:
        reader, writer = await begin_post(local.url, stream=stream)
        if stream:
            await reader.readuntil(b"event: response.output_text.delta\n")
        else:
            await until(lambda: upstream.started == 1)
        reset(writer.transport)
        await until(lambda: upstream.cancelled == 1)
        await local.rest()
        async with http(local.url) as client:
            _, ready = await client.send("GET", "/readyz")
            assert ready["records"] == 0


async def test_an_http_client_that_closes_politely_cancels_its_turn() -> None:
    """The end of its sending is the end of its interest too."""
    upstream = speaks_then_waits(asyncio.Event())
    async with listening(upstream) as local:
        reader, writer = await begin_post(local.url, stream=True)
        await reader.readuntil(b"event: response.output_text.delta\n")
        writer.close()
        await writer.wait_closed()
        await until(lambda: upstream.cancelled == 1)
        await local.rest()


async def test_an_http_client_that_goes_before_its_body_is_there_starts_nothing() -> None:
    """Half a request is no request."""
    upstream = ScriptedUpstream([])
    async with listening(upstream) as local:
        _, writer = await begin_post(local.url, "x" * 10)
        writer.write(b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        await writer.drain()
        reset(writer.transport)
        await local.rest()
        assert upstream.started == 0


@pytest.mark.parametrize("works_first", [True, False])
async def test_a_turn_cut_while_it_is_stored_is_stored_whole_or_not_at_all(*, works_first: bool) -> None:
    """The client never saw its terminal event, so both are right; half of it would not be."""
    store = SlowStore("append", works_first=works_first)
    async with listening(store=store) as local:
        async with opened(local.url) as socket:
            await socket.create("1")
            created = await socket.until("response.created")
            await store.reached.wait()
            await resets(socket)
        await local.rest()
        store.gate.set()
        response_id = created["response"]["id"]
        async with http(local.url) as client:
            if works_first:
                assert await client.status(response_id) == 200
                child = await client.turn("2", previous_response_id=response_id)
                assert (await client.history(child["id"]))[::2] == ["1", "2"]
            else:
                assert await client.status(response_id) == 404


async def test_many_turns_cut_at_random_leave_a_sound_store(tmp_path: Path) -> None:
    """Clients leave while their records are being committed: each id resolves in full, or not at all."""
    async with listening(store=f"sqlite:///{tmp_path}/segue.db") as local:
        ids = [await _cut_before_its_end(local.url) for _ in range(20)]
        await until(lambda: not local.gateway.services.drain.connections)
        async with http(local.url) as client:
            for response_id in ids:
                if await client.status(response_id) == 200:
                    assert await client.history(response_id) == ["cut"]


async def test_what_waits_in_the_queue_never_starts() -> None:
    """A client that leaves takes its queued requests along."""
    upstream = speaks_then_waits(asyncio.Event())
    async with listening(upstream) as local:
        async with opened(local.url) as socket:
            for _ in range(10):
                await socket.create(store=False)
            await socket.until("response.output_text.delta")
            await vanishes(socket)
        await local.rest()
        assert (upstream.started, upstream.cancelled) == (1, 1)


@pytest.mark.parametrize("leave", [vanishes, resets])
async def test_a_client_that_does_not_read_and_goes_leaves_nothing(leave: Leave) -> None:
    """Its turn is stuck in a full socket, which must not keep it."""
    torrent = Torrent(deltas=400, delta_bytes=64 * 1024)
    async with listening(Model(torrent.play)) as local:
        async with opened(local.url, through=narrow(local.url)) as socket:
            await socket.create(store=False)
            await socket.until("response.output_text.delta")
            await leave(socket)
        await local.rest()
        assert torrent.stopped


async def test_a_client_that_fills_its_queue_and_goes_leaves_nothing() -> None:
    """The gateway has stopped reading, and must notice all the same."""
    upstream = speaks_then_waits(asyncio.Event())
    async with listening(upstream, max_queued=4) as local:
        async with opened(local.url) as socket:
            for _ in range(20):
                await socket.create("x" * 1000)
            await socket.until("response.output_text.delta")
            await vanishes(socket)
        await local.rest()
        assert upstream.cancelled == 1


@pytest.mark.parametrize("leave", [vanishes, resets])
async def test_a_client_that_filled_its_queue_and_goes_is_noticed(
    leave: Leave, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So full that the gateway does not even look at the socket, and its turn says nothing: it is asked for life."""
    monkeypatch.setattr("segue.gateway.api.websocket._PROBE_S", 0.01)
    upstream = Gated()
    async with listening(upstream, max_queued=4) as local:
        async with opened(local.url, through=narrow(local.url)) as socket:
            sending = asyncio.create_task(_send_many(socket, 400))
            await settled(local.received_bytes)
            assert not sending.done()
            await leave(socket)
            await asyncio.gather(sending, return_exceptions=True)
        await local.rest()


async def test_a_client_that_is_refused_again_and_again_and_goes_is_no_error() -> None:
    """The gateway is writing refusals when the client resets the connection."""
    async with listening() as local:
        async with opened(local.url, through=narrow(local.url)) as socket:
            for _ in range(20):
                await socket.connection.send('{"type": "nonsense"}' * 1000)
            await socket.frame()
            await resets(socket)
        await local.rest()


async def test_a_client_that_goes_while_its_queue_is_refused_is_no_error() -> None:
    """Its turn is over and its socket full; the refusals that wait for it are dropped without a word."""
    upstream = Gated(deltas=10, delta_bytes=25_000)
    async with listening(upstream, max_queued=20_000) as local:
        async with opened(local.url, through=narrow(local.url)) as socket:
            await socket.create(store=False)
            for _ in range(12_000):
                await socket.connection.send(json.dumps({"type": "x" * 80}))
            await settled(local.received_bytes)
            upstream.gate.set()
            await settled(socket.unread_bytes)
            await resets(socket)
        await local.rest()
        gc.collect()  # a task whose exception nobody asked for tells it when it is freed


async def test_a_deletion_happens_everywhere_although_its_client_is_gone() -> None:
    """The store deletes, the client leaves: memory must not keep what the store has lost."""
    store = SlowStore("delete", works_first=True)
    async with listening(store=store) as local, http(local.url) as client, opened(local.url) as socket:
        kept = await socket.turn("1")
        head = f"DELETE /v1/responses/{kept['id']} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        staying = _count_handlers()
        _, writer = await asyncio.open_connection(*address_of(local.url))
        writer.write(head.encode())
        await store.reached.wait()
        reset(writer.transport)
        await until(lambda: _count_handlers() == staying)
        store.gate.set()
        assert await client.status(kept["id"]) == 404
        assert await client.refusal(previous_response_id=kept["id"]) == (400, "previous_response_not_found")
        refusal = await socket.refusal(previous_response_id=kept["id"])
        assert refusal["code"] == "previous_response_not_found"


async def test_others_do_not_notice() -> None:
    """A turn of another connection runs on to its end."""
    gate = asyncio.Event()
    turn = ScriptedTurn((Say(("half",)), Wait(gate), Say((" and half",))))
    upstream = ScriptedUpstream([turn, turn])
    async with listening(upstream) as local, opened(local.url) as staying:
        await staying.create()
        await staying.until("response.output_text.delta")
        async with opened(local.url) as leaving:
            await leaving.create()
            await leaving.until("response.output_text.delta")
            await resets(leaving)
        await until(lambda: upstream.cancelled == 1)
        gate.set()
        answer = (await staying.answer()).response
        assert answer is not None
        assert output_text(answer) == "half and half"


def _count_handlers() -> int:
    """Return how many HTTP connections the gateway of this process serves."""
    return sum("RequestHandler.start" in repr(task.get_coro()) for task in asyncio.all_tasks())


async def _send_many(socket: Socket, count: int) -> None:
    for _ in range(count):
        await socket.create("x" * 90_000)


async def _cut_before_its_end(url: str) -> str:
    async with opened(url) as socket:
        await socket.create("cut")
        created = await socket.until("response.created")
        await socket.until("response.output_item.done")
        await resets(socket)
        return str(created["response"]["id"])

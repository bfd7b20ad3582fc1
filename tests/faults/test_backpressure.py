"""Slow clients slow their own upstream and nobody else: what waits is bounded, and nothing is lost or reordered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable

import pytest

from segue.testing.protocol_checker import check_sse
from tests.faults.clients import Socket, begin_post, http, narrow, opened, output_text, read_body
from tests.faults.doubles import Gated, Model, Torrent
from tests.faults.gateways import listening, settled, until

pytestmark = pytest.mark.usefixtures("plain_loop")

DELTAS, DELTA_BYTES = 256, 64 * 1024

#: What the kernel, the gateway and the client's library may hold together: far less than the whole answer.
BOUND = DELTAS // 2


async def test_a_socket_that_is_not_read_stops_its_own_upstream() -> None:
    """The model is not asked for more, others are served, and later everything arrives, in order."""
    torrent = Torrent(DELTAS, DELTA_BYTES)
    async with listening(Model(torrent.play)) as local:
        async with opened(local.url, through=narrow(local.url)) as slow, opened(local.url) as other:
            await slow.create(store=False)
            await settled(lambda: torrent.pulled)
            for _ in range(3):
                assert (await other.turn(store=False))["status"] == "completed"
            assert torrent.pulled < BOUND
            answer = (await slow.answer()).response
            assert answer is not None
            assert output_text(answer) == "".join(torrent.pieces)
            slow.checker.finish()
        await local.rest()


async def test_a_stream_that_is_not_read_stops_its_own_upstream() -> None:
    """The same over SSE."""
    torrent = Torrent(DELTAS, DELTA_BYTES)
    async with listening(Model(torrent.play)) as local:
        reader, writer = await begin_post(local.url, through=narrow(local.url), stream=True, store=False)
        await settled(lambda: torrent.pulled)
        async with opened(local.url) as other:
            assert (await other.turn(store=False))["status"] == "completed"
        assert torrent.pulled < BOUND
        answer = check_sse(await read_body(reader)).response
        assert answer is not None
        assert output_text(answer) == "".join(torrent.pieces)
        writer.close()
        await writer.wait_closed()
        await local.rest()


async def test_a_client_that_pipelines_without_reading_is_stalled() -> None:
    """Thousands of requests, every third one wrong: the gateway reads what its queue holds, then TCP stalls them."""
    upstream = Gated()
    wrong = [number % 3 == 2 for number in range(2000)]
    # Only the first one asks the model for anything: the others make few events, which are quickly checked.
    requests = [_request(number, refused=wrong[number], generate=number == 0) for number in range(2000)]
    async with listening(upstream, max_queued=16) as local:
        async with opened(local.url, through=narrow(local.url)) as socket:
            sending = asyncio.create_task(_send_all(socket, requests))
            await settled(local.received_bytes)
            assert local.received_bytes() == sum(map(len, requests[:17]))  # one runs, 16 wait
            assert not sending.done()
            upstream.gate.set()
            answers = [await socket.answer() for _ in requests]
            await sending
        numbers = [int(turn.response["metadata"]["n"]) if turn.response else None for turn in answers]
        assert numbers == [None if wrong[number] else number for number in range(2000)]
        await local.rest()


async def test_a_queue_is_bounded_in_bytes() -> None:
    """A few large messages fill it as many small ones do."""
    upstream = Gated()
    requests = [_request(number, 90_000) for number in range(200)]
    async with listening(upstream, max_message_bytes=100_000) as local, opened(local.url) as socket:
        sending = asyncio.create_task(_send_all(socket, requests))
        await settled(local.received_bytes)
        assert local.received_bytes() == sum(map(len, requests[:3]))  # one runs, one waits, one was too many
        assert not sending.done()
        upstream.gate.set()
        for number in range(200):
            answer = (await socket.answer()).response
            assert answer is not None
            assert answer["metadata"] == {"n": str(number)}
        await sending


async def test_refusals_that_nobody_reads_are_bounded() -> None:
    """Wrong messages are answered at once; when the answers are not read, reading stops as well."""
    async with listening() as local, opened(local.url, through=narrow(local.url)) as socket:
        message = json.dumps({"type": "x" * 80})
        sending = asyncio.create_task(_send_all(socket, [message] * 200_000))
        await settled(local.received_bytes)
        assert local.received_bytes() < len(message) * 100_000
        assert not sending.done()
        socket.connection.transport.abort()
        await asyncio.gather(sending, return_exceptions=True)


async def test_answers_keep_their_order_when_the_socket_is_full() -> None:
    """Refusals are still being written when the next request is read: it waits for its place."""
    upstream, count = Gated(deltas=10, delta_bytes=100_000), 10_000
    messages = [_request(0), *[json.dumps({"type": "x" * 80})] * count, _request(1)]
    async with listening(upstream, max_queued=count) as local, opened(local.url, through=narrow(local.url)) as socket:
        sending = asyncio.create_task(_send_all(socket, messages))
        await until(lambda: local.received_bytes() == sum(map(len, messages[:-1])))
        upstream.gate.set()
        await settled(socket.unread_bytes)
        turns = [await socket.answer() for _ in messages]
        await sending
    numbers = [turn.response and turn.response["metadata"]["n"] for turn in turns]
    assert numbers == ["0", *[None] * count, "1"]


async def test_requests_beyond_the_memory_of_their_tenant_wait_for_its_own() -> None:
    """Over any transport, and in the order in which they came; nothing is refused, and nothing stays counted."""
    upstream = Gated()
    async with listening(upstream, requests_bytes=10_000) as local:
        async with opened(local.url) as one, opened(local.url) as other, http(local.url) as client:
            memory = local.gateway.services.memory
            await one.connection.send(_request(0, 9000))
            await until(lambda: memory.size_bytes > 0)
            posted = asyncio.create_task(client.turn("x" * 9000, store=False))
            await until(lambda: len(memory.waiting("local")) == 1)
            await other.connection.send(_request(1, 9000))
            await until(lambda: len(memory.waiting("local")) == 2)
            assert not posted.done()
            upstream.gate.set()
            assert (await posted)["status"] == "completed"
            for socket, number in ((one, "0"), (other, "1")):
                answer = (await socket.answer()).response
                assert answer is not None
                assert answer["metadata"] == {"n": number}
        await local.rest()


async def _send_all(socket: Socket, messages: Iterable[str]) -> None:
    for message in messages:
        await socket.connection.send(message)


def _request(number: int, size: int = 4000, *, refused: bool = False, generate: bool = True) -> str:
    """Write a request that can be told from the others by its number."""
    body = {"type": "response.create", "model": "scripted", "input": "x" * size, "store": False}
    return json.dumps({**body, "generate": generate, "background": refused, "metadata": {"n": str(number)}})

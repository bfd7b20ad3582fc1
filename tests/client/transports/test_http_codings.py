"""Streams over HTTP in a content coding: who is asked for it, and what becomes of one that breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from segue.client.recovery import FaultKind
from segue.http.event_coding import EventEncoder
from segue.http.heads import Line
from segue.testing.provider import Answer, ReceivedRequest, gzipped
from tests.client.transports.streams import JSON, SSE, create, drained, event, response, serving, streamed

EVENTS = response()
STARTED = EVENTS[:2]


def lean(answer: Answer, *more: str) -> Callable[[ReceivedRequest], Answer]:
    """A gateway that offers lean streams, and answers with this."""
    offered = msgspec.json.encode({"object": "segue.capabilities", "extensions": ["lean", *more]})
    return lambda request: Answer(lines=JSON, pieces=(offered,)) if b"capabilities" in request.target else answer


async def test_a_gateway_with_lean_streams_is_asked_for_compressed_ones() -> None:
    events = (
        EVENTS[0],
        *(event("response.output_text.delta", n, delta="the same words") for n in range(1, 99)),
        EVENTS[2],
    )
    async with serving(lean(gzipped(streamed(*events))), deflate=True) as (provider, transport):
        await transport.connect(lane=1)
        stream = await create(transport)
        assert await drained(stream) == (list(events), None)
        resumed = await transport.resume("resp_1", 3, lane=1, connection=0, lean=True)
        assert await drained(resumed) == (list(events), None)
        assert [b"Accept-Encoding: gzip" in request.raw_head for request in provider.requests] == [False, True, True]
        assert stream.wire_received_bytes < sum(map(len, events)) / 2


def preset(answer: Answer) -> Answer:
    """Encode an answer as a gateway does for a client that names the coding."""
    encoder = EventEncoder("segue-1")
    packed = [encoder.feed(piece) + encoder.flush() for piece in answer.pieces]
    encoded = Line(b"Content-Encoding", b"segue-1")
    return msgspec.structs.replace(answer, lines=(*answer.lines, encoded), pieces=(*packed, encoder.end()))


@pytest.mark.parametrize("encode", [preset, gzipped, lambda answer: answer])
async def test_a_gateway_with_compact_events_is_asked_for_its_own_coding(encode: Callable[[Answer], Answer]) -> None:
    """It may be one that has only gzip; and a proxy may take out what it does not know."""
    gate = asyncio.Event()
    answer = msgspec.structs.replace(encode(streamed(*EVENTS)), gates={2: gate})
    async with serving(lean(answer, "compact"), deflate=True) as (provider, transport):
        await transport.connect(lane=1)
        stream = await create(transport)
        assert b"Accept-Encoding: segue-1, gzip\r\n" in provider.requests[-1].raw_head
        assert [await anext(stream), await anext(stream)] == list(STARTED)
        gate.set()
        assert await drained(stream) == ([EVENTS[2]], None)


async def test_compact_events_are_yielded_as_what_they_stand_for() -> None:
    arrays = (b'[0,0,"resp_1",7]', b'[4,1,0,0,0,"m",0,"a"]', b"[3,3,2,null]")
    async with serving(streamed(*arrays)) as (_, transport):
        events, fault = await drained(await create(transport))
    assert fault is None
    assert [msgspec.json.decode(one)["type"] for one in events] == [
        "response.created", "response.output_text.delta", "response.completed",
    ]  # fmt: skip
    async with serving(streamed(arrays[0], b"[1,9,0]")) as (_, transport):
        events, fault = await drained(await create(transport))
    assert (len(events), fault and fault.kind) == (1, "unreadable")


@pytest.mark.parametrize(("deflate", "known"), [(None, True), (False, True), (True, False)])
async def test_other_servers_are_not_asked_for_compression(deflate: bool | None, known: bool) -> None:
    """Servers on this machine gain nothing by it, and others may hold events back to compress them."""
    async with serving(lean(streamed(*EVENTS)), deflate=deflate) as (provider, transport):
        if known:
            await transport.connect(lane=1)
        await drained(await create(transport))
        assert b"Accept-Encoding: identity" in provider.requests[-1].raw_head


async def test_compressed_events_are_yielded_as_they_come() -> None:
    gate = asyncio.Event()
    answer = gzipped(streamed(*EVENTS))
    async with serving(lean(msgspec.structs.replace(answer, gates={2: gate})), deflate=True) as (_, transport):
        await transport.connect(lane=1)
        stream = await create(transport)
        assert [await anext(stream), await anext(stream)] == list(STARTED)
        gate.set()
        assert await drained(stream) == ([EVENTS[2]], None)


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        (gzipped(streamed(*STARTED)).pieces, "stream_ended"),
        (gzipped(streamed(*STARTED)).pieces[:-1], "stream_ended"),
        ((*gzipped(streamed(*STARTED)).pieces[:-1], b"\xff" * 50), "unreadable"),
        (gzipped(streamed(*STARTED, b"[" + b" " * 5_000_000)).pieces, "unreadable"),
        (preset(streamed(*STARTED)).pieces, "stream_ended"),
        (preset(streamed(*STARTED)).pieces[:-1], "stream_ended"),
        ((*preset(streamed(*STARTED)).pieces[:-1], b"\xff" * 50), "unreadable"),
        (preset(streamed(*STARTED, b"[" + b" " * 5_000_000)).pieces, "unreadable"),
    ],
)
async def test_a_compressed_stream_that_breaks_or_grows_without_bound_is_a_fault(
    pieces: tuple[bytes, ...], kind: FaultKind
) -> None:
    coding = b"gzip" if pieces[0].startswith(b"\x1f\x8b") else b"segue-1"
    answer = Answer(lines=(*SSE, Line(b"Content-Encoding", coding)), pieces=pieces)
    async with serving(lean(answer, "compact"), deflate=True, max_message_bytes=100_000) as (_, transport):
        await transport.connect(lane=1)
        events, fault = await drained(await create(transport))
    assert events == list(STARTED)[: len(events)], "broken data takes with it what came in the same piece"
    assert fault is not None
    assert fault.kind == kind

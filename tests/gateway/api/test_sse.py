"""The one writer of event streams: what a client reads, and what becomes of a stream that breaks."""

from __future__ import annotations

import asyncio
import socket
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from segue.gateway.admin.metrics import Metrics, TransportMeter
from segue.gateway.api.keep_alive import COMMENT
from segue.gateway.api.sse import DONE, send_events, send_in_form
from segue.http.blocks import BLOCK_BYTES
from segue.http.event_coding import StreamCoding, preset_decoder
from segue.http.sse import SseReader
from segue.protocol.events import Event
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import StreamForm
from tests.faults.gateways import settled
from tests.gateway.parts import nothing

Events = AsyncGenerator[Sequence[Event], None]
Send = Callable[[web.Request, Events, TransportMeter], Awaitable[web.StreamResponse]]


def event(number: int) -> Event:
    return Event("response.x", b'{"n":%d}' % number, number)


def frame(number: int) -> bytes:
    return b'event: response.x\ndata: {"n":%d}\n\n' % number


DELTA = (
    b"event: response.output_text.delta\n"
    b'data: {"type":"response.output_text.delta","item_id":"m","output_index":0,"content_index":0,"delta":"x",'
    b'"logprobs":[],"sequence_number":4}\n\n'
)
COMPACT = b'data: [4,1,0,0,0,"m",0,"x"]\n\n'


@asynccontextmanager
async def streaming(
    events: Callable[[], Events], metrics: Metrics | None = None, *, send: Send = send_events
) -> AsyncIterator[str]:
    meter = (metrics or Metrics()).by_transport["sse"]

    async def handle(request: web.Request) -> web.StreamResponse:
        return await send(request, events(), meter)

    application = web.Application()
    application.add_routes([web.get("/", handle), web.post("/", handle)])
    async with TestServer(application) as server:
        yield str(server.make_url("/"))


async def read(url: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as client, client.get(url) as reply:
        return reply.status, await reply.read()


async def test_events_are_blocks_and_the_end_is_marked() -> None:
    async def events() -> Events:
        yield [event(0), event(1)]
        yield [event(2)]

    metrics = Metrics()
    async with streaming(events, metrics) as url:
        assert await read(url) == (200, frame(0) + frame(1) + frame(2) + DONE)
    sample = metrics.registry.get_sample_value
    assert sample("segue_events_total", {"transport": "sse"}) == 3
    assert sample("segue_sent_bytes_total", {"transport": "sse"}) == 3 * len(frame(0))


async def test_a_batch_leaves_before_the_next_one_is_there() -> None:
    gate = asyncio.Event()

    async def events() -> Events:
        yield [event(0)]
        await gate.wait()
        yield [event(1)]

    async with streaming(events) as url, aiohttp.ClientSession() as client, client.get(url) as reply:
        assert await reply.content.readexactly(len(frame(0))) == frame(0)
        gate.set()
        assert await reply.content.read() == frame(1) + DONE
        named = ("Content-Type", "Cache-Control", "X-Accel-Buffering")
        assert [reply.headers[name] for name in named] == ["text/event-stream", "no-cache", "no"]


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br", "gzip"),
        ("br;q=1.0, GZIP; q=0.5", "gzip"),
        ("identity", None),
        ("gzip;q=0", None),
        ("br, gzip; q=0.0", None),
        ("*", None),
    ],
)
async def test_a_lean_stream_is_compressed_if_its_client_accepts_that(accepted: str, coding: str | None) -> None:
    """Each batch can be read as soon as it was sent."""
    gate = asyncio.Event()

    async def events() -> Events:
        yield [event(0)]
        await gate.wait()
        yield [event(1)]

    headers = {"Accept-Encoding": accepted}
    async with (
        streaming(events, send=lambda *turn: send_in_form(*turn, form="lean")) as url,
        aiohttp.ClientSession() as client,
        client.get(url, headers=headers) as reply,
    ):
        assert reply.headers.get("Content-Encoding") == coding
        assert await reply.content.readexactly(len(frame(0))) == frame(0)
        gate.set()
        assert await reply.content.read() == frame(1) + DONE


@pytest.mark.parametrize(("form", "sent"), [("whole", DELTA), ("lean", DELTA), ("compact", COMPACT)])
async def test_a_reader_gets_the_form_that_it_asks_for(form: StreamForm, sent: bytes) -> None:
    """The lines of compact events do not say their types once more."""

    async def events() -> Events:
        yield [Event("response.output_text.delta", DELTA.splitlines()[1][6:], 4)]

    async with streaming(events, send=lambda *turn: send_in_form(*turn, form=form)) as url:
        assert await read(url) == (200, sent + DONE)


LARGE = Event("response.x", b'{"n":"%b",' % (b"x" * 200_000), 0, echo=b'{"m":"%b"}' % (b"y" * 300_000))


def slow_reader(url: str) -> socket.socket:
    """Connect a socket whose kernel buffers hold little."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect((URL(url).host, URL(url).port))
    return made


@pytest.mark.parametrize("coding", [None, "gzip"])
async def test_a_large_event_leaves_in_blocks(coding: StreamCoding | None) -> None:
    """Between them others have their turn, and it is the same event."""
    steps = 0

    async def events() -> Events:
        yield [event(0), LARGE, event(1)]

    async def others() -> None:
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    async def send(request: web.Request, batches: Events, meter: TransportMeter) -> web.StreamResponse:
        beside = asyncio.create_task(others())
        try:
            return await send_events(request, batches, meter, coding=coding)
        finally:
            beside.cancel()

    async with streaming(events, send=send) as url:
        large = b"event: response.x\ndata: " + LARGE.whole() + b"\n\n"
        assert await read(url) == (200, frame(0) + large + frame(1) + DONE)
    assert steps >= 7


async def test_a_slow_reader_of_a_large_event_makes_no_copy_of_it() -> None:
    """The server buffers some blocks."""
    taken: list[asyncio.Transport] = []

    async def events() -> Events:
        yield [LARGE, LARGE, LARGE]

    async def send(request: web.Request, batches: Events, meter: TransportMeter) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        taken.append(request.transport)
        return await send_events(request, batches, meter)

    async with streaming(events, send=send) as url:
        with slow_reader(url) as reader:
            reader.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await settled(lambda: taken[0].get_write_buffer_size() if taken else 0)
            assert taken[0].get_write_buffer_size() <= 3 * BLOCK_BYTES


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("form", "coding"), [("lean", "gzip"), ("compact", "segue-1")])
async def test_the_head_of_a_compact_stream_says_only_what_is_needed(
    form: StreamForm, coding: str, method: str
) -> None:
    """A cache may keep the answer to a GET, unless it is told not to; that to a POST it may not (RFC 9111, 3)."""

    async def events() -> Events:
        yield [Event("response.output_text.delta", DELTA.splitlines()[1][6:], 4)]

    async with (
        streaming(events, send=lambda *turn: send_in_form(*turn, form=form)) as url,
        aiohttp.ClientSession(auto_decompress=False) as client,
        client.request(method, url, headers={"Accept-Encoding": "segue-1, gzip"}) as reply,
    ):
        assert reply.headers["Content-Encoding"] == coding
        for_caches = {"Cache-Control", "Vary"} if (form, method) != ("compact", "POST") else set()
        own = {"Content-Type", "X-Accel-Buffering", "Content-Encoding", *for_caches}
        assert set(reply.headers) == {*own, "Transfer-Encoding", "Date", "Server"}  # the last is aiohttp's own
        data = await reply.read()
    if coding == "segue-1":
        decoder = preset_decoder()
        decoder.feed(data)
        assert decoder.read() == COMPACT + DONE
        decoder.finish()


async def test_a_whole_stream_is_never_compressed() -> None:
    async def events() -> Events:
        yield [event(0)]

    async with (
        streaming(events) as url,
        aiohttp.ClientSession() as client,
        client.get(url, headers={"Accept-Encoding": "gzip"}) as reply,
    ):
        assert "Content-Encoding" not in reply.headers


async def test_a_stream_without_events_is_a_reply_all_the_same() -> None:
    """A client that resumes after the last event."""

    async with streaming(nothing) as url:
        assert await read(url) == (200, DONE)


async def test_what_is_refused_before_the_first_event_has_no_stream() -> None:
    raised: list[Exception] = []
    refusal = Refused(Problem("server_overloaded", "Later."))

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await send_events(request, nothing(refusal), Metrics().by_transport["sse"])
        except Refused as error:
            raised.append(error)
            return web.Response(status=418)

    application = web.Application()
    application.add_routes([web.get("/", handle)])
    async with TestServer(application) as server:
        assert await read(str(server.make_url("/"))) == (418, b"")
    assert raised == [refusal]


@pytest.mark.parametrize(
    ("error", "logged"), [(ValueError("secret"), True), (Refused(Problem("server_error", "x")), False)]
)
async def test_a_stream_that_breaks_is_cut_off_and_does_not_look_whole(
    error: Exception, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def events() -> Events:
        yield [event(0)]
        raise error

    async with streaming(events) as url:
        with pytest.raises(aiohttp.ClientError):
            await read(url)
    assert ("action=stream error=ValueError" in caplog.text) is logged
    assert "secret" not in caplog.text


async def test_a_client_that_goes_away_closes_the_source_of_events() -> None:
    closed, begun = asyncio.Event(), asyncio.Event()

    async def events() -> Events:
        try:
            while True:
                yield [event(0)]
                begun.set()
                await asyncio.sleep(0)
        finally:
            closed.set()

    async with streaming(events) as url:
        async with aiohttp.ClientSession() as client, client.get(url):
            await begun.wait()
        async with asyncio.timeout(20):
            await closed.wait()


@pytest.mark.parametrize(("form", "coding"), [("whole", None), ("lean", "gzip"), ("compact", "segue-1")])
async def test_a_silence_has_comments_once_the_stream_has_begun(form: StreamForm, coding: str | None) -> None:
    """In the coding of the stream, and no reader of events sees them."""
    begin, go_on = asyncio.Event(), asyncio.Event()

    async def events() -> Events:
        await begin.wait()
        yield [Event("response.output_text.delta", DELTA.splitlines()[1][6:], 4)]
        await go_on.wait()

    async def send(request: web.Request, batches: Events, meter: TransportMeter) -> web.StreamResponse:
        asyncio.get_running_loop().call_later(0.01, begin.set)  # several silences that nobody hears
        return await send_in_form(request, batches, meter, form=form, keep_alive_s=0.001)

    async with (
        streaming(events, send=send) as url,
        aiohttp.ClientSession(auto_decompress=False) as client,
        client.get(url, headers={"Accept-Encoding": "segue-1, gzip"}) as reply,
    ):
        assert reply.headers.get("Content-Encoding") == coding
        decode = decoder_of(coding)
        text = b""
        while text.count(COMMENT) < 3:
            text += decode(await reply.content.readany())
        go_on.set()
        text += decode(await reply.content.read())
    sent = COMPACT if form == "compact" else DELTA
    assert text.startswith(sent + COMMENT)
    assert text.replace(COMMENT, b"") == sent + DONE
    assert [one.data for one in SseReader().feed(text)][1:] == [b"[DONE]"]


def decoder_of(coding: str | None) -> Callable[[bytes], bytes]:
    match coding:
        case None:
            return bytes
        case "gzip":
            return zlib.decompressobj(wbits=31).decompress
        case _:
            decoder = preset_decoder()

            def decode(data: bytes) -> bytes:
                decoder.feed(data)
                return decoder.read()

            return decode


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
async def test_the_mark_leaves_with_the_last_event(end: str) -> None:
    last = Event(f"response.{end}", b"{}", 2)

    async def events() -> Events:
        yield [event(1)]
        yield [last]

    async with streaming(events) as url, aiohttp.ClientSession() as client, client.get(url) as reply:
        chunks = [chunk async for chunk, ended in reply.content.iter_chunks() if ended]
    assert chunks == [frame(1), b"event: response.%b\ndata: {}\n\n" % end.encode() + DONE]

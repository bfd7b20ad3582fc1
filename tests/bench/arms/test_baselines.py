"""Computed costs are those of real sockets where they can be compared, and those of real decoders where not."""

from __future__ import annotations

import gzip
import zlib

import aiohttp
import pytest
from aiohttp import web

from segue.bench.arms.baselines import cost, frame_bytes
from segue.bench.arms.player import play
from segue.bench.meters.tcp import WireBytes, metered
from segue.bench.workloads.clients import AgentKind
from segue.bench.workloads.sessions import make_session
from segue.testing.provider import provided, replying, replying_to_messages


@pytest.mark.parametrize("kind", ["codex", "codex-ws", "claude-code", "gemini-cli", "openai-agents", "mini-swe-agent"])
async def test_raw_is_what_a_socket_carries(kind: AgentKind) -> None:
    session = make_session(kind, turns=4)
    carried: list[WireBytes] = []
    async with (
        provided(replying(session), replying_to_messages(session)) as provider,
        metered(provider.host, provider.port) as meter,
    ):

        async def count(*_: object) -> None:
            carried.append(meter.take())

        played = await play(session, meter.url_host, meter.port, on_turn=count)
        assert carried == cost("raw", session, f"{meter.url_host}:{meter.port}".encode())
        assert all(0 < turn.ttft_s <= turn.time_s for turn in played)
        if session.transport == "http":
            assert [request.body for request in provider.requests] == [turn.body for turn in session.turns]
            for request, turn in zip(provider.requests, session.turns, strict=True):
                assert request.target == turn.head.target
                assert request.lines[1:-1] == turn.head.lines


def test_each_compression_needs_less_than_the_one_before() -> None:
    session = make_session("claude-code", turns=11)
    up = {
        name: sum(carried.up_bytes for carried in cost(name, session))
        for name in ("raw", "gzip", "zstd", "permessage-deflate")
    }
    assert up["raw"] > 2 * up["gzip"]
    assert up["gzip"] > up["permessage-deflate"]
    assert up["permessage-deflate"] > 3 * session.bound


def test_gzip_is_the_size_of_what_unpacks_to_the_body() -> None:
    session = make_session("openai-agents", turns=1)
    (raw,), (packed,) = cost("raw", session), cost("gzip", session)
    body = session.turns[0].body
    encoded = gzip.compress(body, 6)
    head = raw.up_bytes - len(body) + len(b"Content-Encoding: gzip\r\n")
    digits = len(str(len(body))) - len(str(len(encoded)))
    assert abs(packed.up_bytes - (head - digits + len(encoded))) <= 2
    assert gzip.decompress(encoded) == body


async def test_deflate_is_no_weaker_than_that_of_a_real_socket() -> None:
    """aiohttp has the whole window and one context too, but compresses at the fastest level."""
    session = make_session("codex-ws", turns=3)
    carried: list[int] = []

    async def echo(request: web.Request) -> web.WebSocketResponse:
        opened = web.WebSocketResponse(compress=True)
        await opened.prepare(request)
        async for _ in opened:
            await opened.send_str("ok")
        return opened

    app = web.Application()
    app.add_routes([web.get("/", echo)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    async with (
        metered(host, port) as meter,
        aiohttp.ClientSession() as client,
        client.ws_connect(meter.url, compress=15) as opened,
    ):
        meter.take()
        for turn in session.turns:
            await opened.send_str(turn.body.decode())
            await opened.receive_str()
            carried.append(meter.take().up_bytes)
    await runner.cleanup()
    computed = [turn.up_bytes for turn in cost("permessage-deflate", session)]
    assert all(ours <= theirs < 2 * ours for ours, theirs in zip(computed[1:], carried[1:], strict=True))


@pytest.mark.parametrize(("size", "bytes_"), [(0, 2), (125, 127), (126, 130), (65535, 65539), (65536, 65546)])
def test_frames(size: int, bytes_: int) -> None:
    assert frame_bytes(size, masked=False) == bytes_
    assert frame_bytes(size, masked=True) == bytes_ + 4


def test_events_can_be_read_as_they_come() -> None:
    packer, unpacker = zlib.compressobj(6, wbits=-15), zlib.decompressobj(-15)
    session = make_session("pi", turns=1)
    for event in session.turns[0].reply.messages:
        packed = (packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        assert unpacker.decompress(packed + b"\x00\x00\xff\xff") == event

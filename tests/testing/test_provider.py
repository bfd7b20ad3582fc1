"""The provider says what its script tells it and keeps what it got to the byte."""

from __future__ import annotations

import asyncio
import json
import zlib

import aiohttp
import pytest
from msgspec.structs import replace

from segue.bench.workloads.sessions import make_session
from segue.cli.loop import run
from segue.testing.provider import (
    ACCEPTED,
    Answer,
    ReceivedRequest,
    ScriptedProvider,
    SocketAnswer,
    SocketMessage,
    UnexpectedError,
    answer_with,
    gzipped,
    in_order,
    provided,
    replying,
    replying_to_messages,
)
from segue.testing.recorded_session import RecordedTurn

CODEX = make_session("codex", turns=3)
AGENTS = make_session("openai-agents", turns=2)
HEAD = b"POST /v1/%7Ex?a=1&a=2 HTTP/1.1\r\nHost: h\r\nX-Twice: 1\r\nx-twice:  2 \r\nContent-Length: 5\r\n\r\n"


def request_bytes(turn: RecordedTurn) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % line for line in turn.head.lines)
    start = b"%b %b HTTP/1.1\r\nHost: h\r\n" % (turn.head.method, turn.head.target)
    return start + lines + b"Content-Length: %d\r\n\r\n" % len(turn.body) + turn.body


async def read_reply(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read a head and a body, chunked or with a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" not in head:
        size = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        return head, await reader.readexactly(size)
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    assert await reader.readexactly(2) == b"\r\n"
    return head, body


async def read_to_reset(reader: asyncio.StreamReader) -> bytes:
    got = bytearray()
    try:
        while data := await reader.read(65536):
            got += data
    except ConnectionError:
        return bytes(got)
    raise AssertionError("it ended in order")


def ok(_: ReceivedRequest) -> Answer:
    return Answer(pieces=(b"one", b"two", b"three"))


async def test_keeps_a_request_to_the_byte() -> None:
    async with provided(ok) as provider:
        reader, writer = await asyncio.open_connection(provider.host, provider.port)
        for _ in range(2):
            writer.write(HEAD + b"abcde")
            assert (await read_reply(reader))[1] == b"onetwothree"
        one, two = provider.requests
        assert (one.raw_head, one.raw_body, one.body) == (HEAD, b"abcde", b"abcde")
        assert (one.method, one.target) == (b"POST", b"/v1/%7Ex?a=1&a=2")
        assert [line for line in one.lines if line.name.lower() == b"x-twice"] == [
            (b"X-Twice", b"1"),
            (b"x-twice", b"2"),
        ]
        assert (one.number, two.number, one.connection, two.connection) == (0, 1, 0, 0)
        assert provider.answered == {0, 1}
        writer.close()


async def test_keeps_the_chunks_of_a_request() -> None:
    async with provided(ok) as provider:
        reader, writer = await asyncio.open_connection(provider.host, provider.port)
        raw = b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + raw)
        await read_reply(reader)
        assert (provider.requests[0].raw_body, provider.requests[0].body) == (raw, b"abcde")
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        await read_reply(reader)
        assert provider.requests[1].body is None
        assert await reader.read() == b""
        writer.close()


async def session_through(provider: ScriptedProvider) -> None:
    reader, writer = await asyncio.open_connection(provider.host, provider.port)
    for turn in CODEX.turns:
        writer.write(request_bytes(turn))
        head, body = await read_reply(reader)
        assert b"text/event-stream" in head
        assert body == b"".join(turn.reply.events)
    for turn in AGENTS.turns:
        writer.write(request_bytes(turn))
        head, body = await read_reply(reader)
        assert b"application/json" in head
        assert body == turn.reply.whole
    writer.write(HEAD + b"other")
    assert (await read_reply(reader))[0].startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_answers_sessions_by_their_requests() -> None:
    async with provided(replying(CODEX, AGENTS)) as provider:
        await session_through(provider)


def test_answers_on_uvloop_too() -> None:
    async def case() -> None:
        async with provided(replying(CODEX, AGENTS)) as provider:
            await session_through(provider)

    pytest.importorskip("uvloop")
    run(case())


async def test_answers_in_order_and_tells_of_one_too_many() -> None:
    replies = [turn.reply for turn in CODEX.turns[:1]]

    async def case() -> None:
        async with provided(in_order(replies, streamed=False)) as provider:
            reader, writer = await asyncio.open_connection(provider.host, provider.port)
            writer.write(HEAD + b"first")
            assert (await read_reply(reader))[1] == replies[0].whole
            writer.write(HEAD + b"again")
            assert await reader.read() == b""
            writer.close()

    with pytest.raises(UnexpectedError, match="one too many"):
        await case()


@pytest.mark.parametrize("cut", [0, 1, 3, 5, 11])
async def test_cuts_after_so_many_bytes(cut: int) -> None:
    async with provided(lambda request: replace(ok(request), framing="close", cut_after=cut)) as provider:
        reader, writer = await asyncio.open_connection(provider.host, provider.port)
        writer.write(HEAD + b"abcde")
        head, _, body = (await read_to_reset(reader)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert body == b"onetwothree"[:cut]
        writer.close()


async def test_cuts_before_the_head() -> None:
    async with provided(lambda _: Answer(cut_before_head=True)) as provider:
        reader, writer = await asyncio.open_connection(provider.host, provider.port)
        writer.write(HEAD + b"abcde")
        assert await read_to_reset(reader) == b""
        writer.close()


async def test_hangs_at_a_gate_and_notices_a_client_that_goes() -> None:
    before, gate = asyncio.Event(), asyncio.Event()
    gated = replace(Answer(pieces=(b"one", b"two", b"three")), framing="close", before=before, gates={1: gate})
    async with provided(lambda _: gated) as provider:
        reader, writer = await asyncio.open_connection(provider.host, provider.port)
        writer.write(HEAD + b"abcde")
        await provider.seen(1)
        before.set()
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(3) == b"one"
        writer.close()
        await provider.abandoned(0)
        assert provider.answered == set()

        gate.set()
        reader, writer = await asyncio.open_connection(provider.host, provider.port)
        writer.write(HEAD + b"abcde")
        assert (await reader.read()).endswith(b"onetwothree")
        assert provider.answered == {1}
        writer.close()


@pytest.mark.parametrize("pace_s", [0.0, 0.001])
async def test_says_when_only_the_end_of_an_answer_is_left(pace_s: float) -> None:
    last, end = asyncio.Event(), asyncio.Event()
    answer = Answer(pieces=(b"one", b"two"), pace_s=pace_s, gates={1: last, 2: end})
    async with provided(lambda _: answer) as provider:
        reader, writer = await asyncio.open_connection(provider.host, provider.port)
        writer.write(HEAD + b"12345")
        await reader.readuntil(b"one\r\n")
        assert (provider.spoken, provider.answered) == (set(), set())
        last.set()
        await reader.readuntil(b"two\r\n")
        assert (provider.spoken, provider.answered) == ({0}, set())
        end.set()
        await reader.readuntil(b"0\r\n\r\n")
        writer.close()


async def test_replies_with_gzip() -> None:
    turn = CODEX.turns[0]
    async with provided(lambda _: gzipped(answer_with(turn.reply, streamed=True))) as provider:
        reader, writer = await asyncio.open_connection(provider.host, provider.port)
        writer.write(request_bytes(turn))
        head, body = await read_reply(reader)
        assert b"Content-Encoding: gzip" in head
        assert zlib.decompress(body, wbits=31) == b"".join(turn.reply.events)
        writer.close()


async def test_speaks_websocket_mode() -> None:
    session = make_session("codex-ws", turns=3)
    async with provided(replying(), replying_to_messages(session)) as provider, aiohttp.ClientSession() as client:
        async with client.ws_connect(f"{provider.url}/v1/responses", headers={"X-Key": "k"}) as opened:
            for turn in session.turns:
                await opened.send_str(turn.body.decode())
                got = [await opened.receive_str() for _ in turn.reply.messages]
                assert [one.encode() for one in got] == list(turn.reply.messages)
                assert json.loads(got[-1])["type"] == "response.completed"
        assert [message.data for message in provider.messages] == [turn.body for turn in session.turns]
        assert provider.requests[0].upgrades


async def test_refuses_upgrades_with_a_body() -> None:
    refusal = Answer(status=426, reason=b"Upgrade Required", pieces=(b'{"error":"no"}',), framing="length")
    async with provided(lambda _: refusal) as provider, aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(provider.url)
        assert refused.value.status == 426


async def test_closes_and_cuts_a_socket_as_told() -> None:
    def messages(message: SocketMessage) -> SocketAnswer:
        if message.data == b"close":
            return SocketAnswer(messages=(b"bye",), close_code=1012, close_reason="restart")
        return SocketAnswer(messages=(b"1", b"2", b"3"), cut_after=2)

    async with provided(lambda _: ACCEPTED, messages) as provider, aiohttp.ClientSession() as client:
        opened = await client.ws_connect(provider.url)
        await opened.send_str("close")
        assert await opened.receive_str() == "bye"
        assert (await opened.receive()).data == 1012
        await opened.close()
        opened = await client.ws_connect(provider.url)
        await opened.send_str("cut")
        assert [await opened.receive_str() for _ in range(2)] == ["1", "2"]
        assert (await opened.receive()).type in {aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSED}
        await opened.close()

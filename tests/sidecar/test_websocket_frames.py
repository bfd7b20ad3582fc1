"""WebSockets of agents: frames as messages, and a real client against the listener."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

from segue.http.heads import Line, ReplyHead
from segue.http.websocket import WebSocketClose, WebSocketMessage
from segue.sidecar.agent_request import AgentRequest
from segue.sidecar.agent_transport import AgentGone
from segue.sidecar.listener import ListenerLimits
from segue.sidecar.websocket_frames import MessageFrames
from tests.sidecar.agents import RawAgent, listening
from tests.strategies import examples

SWITCH = ReplyHead(101, b"Switching Protocols", ())
UPGRADE = (
    b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    """A client's frame, masked always in the same way."""
    head, mask = Frame(opcode, data, fin).serialize(mask=False), b"mask"
    start = len(head) - len(data)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
    return head[:1] + bytes([head[1] | 0x80]) + head[2:start] + mask + masked


async def echo(request: AgentRequest) -> None:
    """Accept, return each message, and answer the close."""
    await request.accept(SWITCH)
    while True:
        message = await request.receive()
        if isinstance(message, WebSocketClose):
            await request.close(message.code, message.reason)
            return
        await request.send(message)


# --------------------------------------------------------------------------------------------------------------- frames


@settings(max_examples=examples(200))
@given(
    st.lists(st.tuples(st.sampled_from(["text", "binary"]), st.text(max_size=200), st.integers(1, 4)), max_size=6),
    st.lists(st.integers(0, 2000), max_size=12),
)
def test_any_fragments_and_any_cuts_give_the_same_messages(sent: list[tuple[str, str, int]], cuts: list[int]) -> None:
    data = b""
    expected: list[WebSocketMessage | WebSocketClose] = []
    for opcode, text, pieces in sent:
        body = text.encode()
        size = len(body) // pieces + 1
        parts = [body[at : at + size] for at in range(0, max(1, len(body)), size)]
        for number, part in enumerate(parts):
            first = Opcode.TEXT if opcode == "text" else Opcode.BINARY
            data += frame(Opcode.CONT if number else first, part, fin=number == len(parts) - 1)
            data += frame(Opcode.PING, b"p") if number % 2 else b""
        expected.append(WebSocketMessage("text" if opcode == "text" else "binary", body))
    data += frame(Opcode.CLOSE, b"\x03\xe8bye") + frame(Opcode.TEXT, b"after")
    frames = MessageFrames(max_message=10_000)
    found: list[WebSocketMessage | WebSocketClose] = []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        arrived = frames.receive(data[start:end])
        assert not arrived.broken
        found += arrived.messages
    assert found == [*expected, WebSocketClose(1000, b"bye")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x02hi", 1002),  # not masked
        (b"\xc1\x80abcd", 1002),  # a reserved bit: an extension that was not agreed on
        (frame(Opcode.CONT, b"x"), 1002),
        (frame(Opcode.TEXT, b"\xff"), 1007),
        (frame(Opcode.BINARY, b"x" * 101), 1009),
        (frame(Opcode.BINARY, b"x" * 60, fin=False) + frame(Opcode.CONT, b"x" * 60), 1009),
        (frame(Opcode.CLOSE, b"\x03"), 1002),
    ],
)
def test_what_breaks_the_rules_is_answered_by_its_code(data: bytes, code: int) -> None:
    arrived = MessageFrames(max_message=100).receive(data)
    assert arrived.broken
    assert arrived.messages == []
    assert arrived.answer[:1] == b"\x88"
    assert int.from_bytes(arrived.answer[2:4], "big") == code


@settings(max_examples=examples(300))
@given(
    st.lists(
        st.one_of(st.binary(max_size=8), st.sampled_from(list(Opcode)).map(lambda o: frame(o, b"\x03\xe8"))), max_size=5
    )
)
def test_nothing_that_an_agent_sends_is_an_error_of_the_frames(pieces: list[bytes]) -> None:
    frames = MessageFrames(max_message=100)
    for piece in pieces:
        if frames.receive(piece).broken:
            break


def test_closing_from_either_end() -> None:
    ours = MessageFrames(max_message=100)
    assert ours.encode_close(WebSocketClose(1001, b"bye")) == b"\x88\x05\x03\xe9bye"
    assert ours.encode_close(WebSocketClose(1001, b"bye")) == b""
    assert ours.encode(WebSocketMessage("text", b"late")) == b""
    assert ours.receive(frame(Opcode.PING, b"x") + frame(Opcode.CLOSE, b"\x03\xe9")).messages == [
        WebSocketClose(1001, b"")
    ]
    assert ours.closed
    theirs = MessageFrames(max_message=100)
    assert theirs.receive(frame(Opcode.CLOSE, b"")).messages == [WebSocketClose(1005, b"")]
    assert theirs.encode(WebSocketMessage("binary", b"under way")) == b"\x82\x09under way"
    assert theirs.encode_close(WebSocketClose(1005, b"")) == b"\x88\x00"
    assert theirs.closed


def test_codes_that_cannot_be_sent_become_an_internal_error() -> None:
    assert MessageFrames(max_message=1).encode_close(WebSocketClose(1006, b"")) == b"\x88\x02\x03\xf3"


# --------------------------------------------------------------------------------------------------------- the listener


async def test_a_real_client_exchanges_messages_of_both_kinds_and_all_sizes() -> None:
    heads: list[tuple[str, bytes, tuple[Line, ...]]] = []

    async def handler(request: AgentRequest) -> None:
        heads.append((request.kind, request.head.target, request.head.lines))
        await echo(request)

    async with listening(handler) as server:
        url = server.url.replace("http", "ws") + "/v1/responses?a=%7e"
        async with connect(url, additional_headers=[("x-B", "1"), ("X-a", "2")], max_size=None) as client:
            messages: list[str | bytes] = [
                "",
                "héllo",
                b"\x00\xff",
                "x" * 125,
                "x" * 126,
                b"y" * 70_000,
                "z" * 5_000_000,
            ]
            for message in messages:
                await client.send(message)
                assert await client.recv() == message
            await client.send(["frag", "ment", "ed"])
            assert await client.recv() == "fragmented"
            await (await client.ping(b"are you there"))
            assert client.protocol.extensions == []
        assert (client.close_code, client.close_reason) == (1000, "")
    kind, target, lines = heads[0]
    assert (kind, target) == ("websocket", b"/v1/responses?a=%7e")
    assert [line for line in lines if line.name in {b"x-B", b"X-a"}] == [Line(b"x-B", b"1"), Line(b"X-a", b"2")]
    assert not [line for line in lines if line.name.lower().startswith(b"sec-websocket-")]


async def test_the_upstreams_subprotocol_and_lines_are_passed_on() -> None:
    head = ReplyHead(
        101,
        b"Switching Protocols",
        (
            Line(b"upgrade", b"websocket"),
            Line(b"connection", b"Upgrade"),
            Line(b"Sec-WebSocket-Accept", b"the upstream's own"),
            Line(b"sec-websocket-protocol", b"b"),
            Line(b"Sec-WebSocket-Extensions", b"permessage-deflate"),
            Line(b"X-Request-ID", b"1"),
        ),
    )

    async def handler(request: AgentRequest) -> None:
        assert Line(b"Sec-WebSocket-Protocol", b"a, b") in request.head.lines
        await request.accept(head)
        await request.close(1000, b"done")

    async with listening(handler) as server:
        wanted = [Subprotocol("a"), Subprotocol("b")]
        async with connect(server.url.replace("http", "ws"), subprotocols=wanted) as client:
            assert client.subprotocol == "b"
            assert client.response is not None
            assert client.response.headers["X-Request-ID"] == "1"
            await client.wait_closed()
        assert (client.close_code, client.close_reason) == (1000, "done")
        agent = await server.connect()
        await agent.send(UPGRADE.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: a, b\r\n\r\n"))
        assert await agent.head() == (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
            b"sec-websocket-protocol: b\r\nX-Request-ID: 1\r\n\r\n"
        )


async def test_a_refusal_keeps_its_status_lines_and_body_and_the_connection() -> None:
    async def handler(request: AgentRequest) -> None:
        body = b'{"error":{"message":"no"}}'
        await request.start(ReplyHead(401, b"No", (Line(b"X-Why", b"key"), Line(b"Content-Length", b"%d" % len(body)))))
        await request.send(body)
        await request.end()

    async with listening(handler) as server:
        with pytest.raises(InvalidStatus) as refused:
            await connect(server.url.replace("http", "ws"))
        assert refused.value.response.status_code == 401
        assert refused.value.response.headers["X-Why"] == "key"
        assert refused.value.response.body == b'{"error":{"message":"no"}}'
        agent = await server.connect()
        for _ in range(2):
            await agent.send(UPGRADE)
            assert (await agent.until(b"}}")).startswith(b"HTTP/1.1 401 No\r\nX-Why: key\r\nContent-Length: 26\r\n\r\n")


async def test_messages_that_come_with_the_upgrade_are_not_lost() -> None:
    async with listening(echo) as server:
        agent = await server.connect()
        await agent.send(UPGRADE + frame(Opcode.TEXT, b"early") + frame(Opcode.CLOSE, b"\x03\xe8"))
        await agent.head()
        assert await agent.rest() == b"\x81\x05early\x88\x02\x03\xe8"


async def test_a_close_from_upstream_waits_for_the_agents() -> None:
    async def handler(request: AgentRequest) -> None:
        await request.accept(SWITCH)
        await request.close(4000, "grün".encode())
        await request.close(4001)
        with pytest.raises(AgentGone):
            await request.receive()

    async with listening(handler, limits=ListenerLimits(linger_s=30)) as server:
        async with connect(server.url.replace("http", "ws")) as client:
            with pytest.raises(ConnectionClosedError):
                await client.recv()
        assert (client.close_code, client.close_reason) == (4000, "grün")
        agent = await server.connect()
        await agent.send(UPGRADE)
        await agent.head()
        assert await agent.exactly(9) == b"\x88\x07\x0f\xa0gr\xc3\xbcn"
        await agent.send(frame(Opcode.TEXT, b"crossed") + frame(Opcode.CLOSE, b"\x0f\xa0"))
        assert await agent.rest() == b""


@pytest.mark.parametrize("leave", [RawAgent.hang_up, RawAgent.reset], ids=["hang up", "reset"])
async def test_a_socket_that_is_cut_is_told_from_one_that_was_closed(leave: Callable[[RawAgent], None]) -> None:
    cut = asyncio.Event()

    async def handler(request: AgentRequest) -> None:
        await request.accept(SWITCH)
        assert await request.receive() == WebSocketMessage("text", b"hi")
        with pytest.raises(AgentGone):
            await request.receive()
        assert request.gone.is_set()
        with pytest.raises(AgentGone):
            await request.send(WebSocketMessage("text", b"late"))
        cut.set()
        request.abort()

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(UPGRADE + frame(Opcode.TEXT, b"hi"))
        await agent.head()
        leave(agent)
        await cut.wait()


@pytest.mark.parametrize("end", ["abort", "return", "raise"])
async def test_a_socket_that_is_not_closed_in_good_order_is_cut(end: str, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: AgentRequest) -> None:
        await request.accept(SWITCH)
        await request.send(WebSocketMessage("text", b"part"))
        if end == "abort":
            request.abort()
        if end == "raise":
            raise LookupError

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(UPGRADE)
        await agent.head()
        assert await agent.rest() == b"\x81\x04part"


async def test_a_handler_may_cut_a_socket_that_its_agent_has_cut(caplog: pytest.LogCaptureFixture) -> None:
    """What the tunnel does when an agent vanishes: nothing is left to wait for, and nothing to complain about."""
    done = asyncio.Event()

    async def handle(request: AgentRequest) -> None:
        await request.accept(SWITCH)
        with pytest.raises(AgentGone):
            await request.receive()
        request.abort()
        done.set()

    async with listening(handle) as listener:
        agent = await listener.connect()
        await agent.send(UPGRADE)
        await agent.head()
        agent.reset()
        await asyncio.wait_for(done.wait(), 20)
    assert caplog.text == ""


async def test_a_broken_frame_ends_the_socket_with_its_code() -> None:
    gone = asyncio.Event()
    received: list[WebSocketMessage | WebSocketClose] = []

    async def handler(request: AgentRequest) -> None:
        await request.accept(SWITCH)
        try:
            while True:
                received.append(await request.receive())
        except AgentGone:
            gone.set()
            raise

    async with listening(handler, limits=ListenerLimits(max_message_bytes=10)) as server:
        agent = await server.connect()
        await agent.send(UPGRADE + frame(Opcode.TEXT, b"whole") + b"\x81\x02hi")
        await agent.head()
        assert (await agent.rest())[2:4] == b"\x03\xea"
        await gone.wait()
        assert received == [WebSocketMessage("text", b"whole")]
        gone.clear()
        async with connect(server.url.replace("http", "ws")) as client:
            await client.send("more than ten bytes")
            with pytest.raises(ConnectionClosedError):
                await client.recv()
        assert client.close_code == 1009


async def test_a_slow_reader_of_messages_holds_back_its_sender() -> None:
    sent = 0
    stalled = asyncio.Event()

    async def handler(request: AgentRequest) -> None:
        nonlocal sent
        await request.accept(SWITCH)
        for _ in range(500):
            task = asyncio.ensure_future(request.send(WebSocketMessage("binary", b"x" * 65536)))
            done, _ = await asyncio.wait([task], timeout=0.2)
            if not done:
                stalled.set()
            await task
            sent += 1
        await request.close(1000)

    async with listening(handler) as server:
        agent = await server.connect(receive_buffer=4096)
        await agent.send(UPGRADE)
        await stalled.wait()
        assert sent < 250
        agent.reset()


async def test_a_handler_that_does_not_receive_holds_back_the_agent() -> None:
    gate = asyncio.Event()
    received: list[int] = []

    async def handler(request: AgentRequest) -> None:
        await request.accept(SWITCH)
        await gate.wait()
        while isinstance(message := await request.receive(), WebSocketMessage):
            received.append(len(message.data))
        await request.close(message.code)

    async with listening(handler) as server, connect(server.url.replace("http", "ws")) as client:
        sending = asyncio.ensure_future(send_all(client, 300))
        done, _ = await asyncio.wait([sending], timeout=0.2)
        assert not done
        gate.set()
        await sending
    assert received == [65536] * 300


async def send_all(client: ClientConnection, count: int) -> None:
    for _ in range(count):
        await client.send(b"x" * 65536)


@pytest.mark.parametrize("wrong", ["end", "start", "send"])
async def test_a_socket_is_not_answered_like_http(wrong: str) -> None:
    async def handler(request: AgentRequest) -> None:
        await request.accept(SWITCH)
        calls: dict[str, Awaitable[None]] = {
            "end": request.end(),
            "start": request.start(replace(SWITCH, status=200)),
            "send": request.send(b"bytes"),
        }
        for name, call in calls.items():
            if name == wrong:
                with pytest.raises(RuntimeError):
                    await call
            else:
                assert asyncio.iscoroutine(call)
                call.close()
        await request.close(1000)

    async with listening(handler) as server:
        async with connect(server.url.replace("http", "ws")) as client:
            await client.wait_closed()
        assert client.close_code == 1000

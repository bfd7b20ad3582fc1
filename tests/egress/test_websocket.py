"""WebSockets to a provider: the handshake on its socket, messages whole and unchanged, every way to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.egress.client import Egress
from segue.egress.errors import EgressError
from segue.egress.limits import EgressLimits
from segue.egress.reply import StreamedReply
from segue.egress.websocket import OutboundWebSocket
from segue.http.heads import Line, ReplyHead, RequestHead
from segue.http.routes import Resolved, parse_target
from segue.http.websocket import WebSocketClose, WebSocketMessage
from tests.egress.provider import (
    CLOSE,
    HANG,
    RESET,
    Answer,
    Connection,
    Frame,
    Play,
    Provider,
    Request,
    Step,
    answer,
    frame,
    read_frame,
    upgrade,
)
from tests.strategies import examples

KEY = b"AAECAwQFBgcICQoLDA0ODw=="
LINES = [(b"Authorization", b"Bearer k"), (b"OpenAI-Beta", b"x"), (b"Sec-WebSocket-Protocol", b"a, b")]


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    async with Egress(limits=EgressLimits(connect_s=5.0), entropy=lambda count: bytes(range(count))) as egress:
        yield egress


async def ask(
    egress: Egress, provider: Provider, lines: Iterable[tuple[bytes, bytes]] = LINES
) -> OutboundWebSocket | StreamedReply:
    asked = RequestHead(b"GET", b"/v1/responses", tuple(Line(*line) for line in lines))
    return await egress.connect(Resolved(target=parse_target(provider.url), path=b"/v1/responses?x=%7e"), asked)


async def open_socket(egress: Egress, provider: Provider) -> OutboundWebSocket:
    socket = await ask(egress, provider)
    assert isinstance(socket, OutboundWebSocket)
    return socket


def accepting(*steps: Play) -> Callable[[Request], Answer]:
    """A provider that accepts, and then does what is said."""
    return lambda request: [upgrade(request), *steps]


# ----------------------------------------------------------------------------------------------------------- handshake


async def test_the_handshake_is_of_this_hop_and_the_rest_is_passed_on(egress: Egress) -> None:
    """No extension is offered; the subprotocol stays."""
    lines = [
        *LINES,
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"websocket"),
        (b"Sec-WebSocket-Key", b"another"),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Extensions", b"permessage-deflate"),
        (b"x-last", b"1"),
    ]
    got = [b"X-Server: y", b"Sec-WebSocket-Protocol: b"]
    async with Provider(lambda request: [upgrade(request, got), HANG]) as provider:
        socket = await ask(egress, provider, lines)
        assert isinstance(socket, OutboundWebSocket)
        assert provider.requests[0].head == (
            b"GET /v1/responses?x=%%7e HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer k\r\nOpenAI-Beta: x\r\n"
            b"Sec-WebSocket-Protocol: a, b\r\nx-last: 1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n" % (provider.port, KEY)
        )
        assert socket.head == ReplyHead(
            101, b"Switching Protocols", (Line(b"X-Server", b"y"), Line(b"Sec-WebSocket-Protocol", b"b"))
        )
        await socket.abort()
        await provider.connections[0].closed.wait()


@pytest.mark.parametrize("status", [200, 401, 426, 500])
async def test_a_refusal_comes_back_with_its_body(egress: Egress, status: int) -> None:
    """And its connection serves the next request."""
    refusal = answer(b'{"error": 1}', status=status, lines=[b"WWW-Authenticate: x", b"Upgrade: h2c"], reason=b"No")
    async with Provider([refusal, answer(b"next")]) as provider:
        reply = await ask(egress, provider)
        assert isinstance(reply, StreamedReply)
        assert reply.head == ReplyHead(status, b"No", (Line(b"WWW-Authenticate", b"x"),))
        assert b"".join([piece async for piece in reply.chunks()]) == b'{"error": 1}'
        assert isinstance(await ask(egress, provider), StreamedReply)
        assert len(provider.connections) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw.replace(b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x"),
        lambda raw: raw.replace(b"Sec-WebSocket-Accept", b"X"),
        lambda raw: raw.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        lambda raw: raw.replace(b"Upgrade: websocket\r\n", b""),
        lambda raw: raw.replace(b"Connection: Upgrade", b"Connection: close"),
        lambda raw: raw.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
    ],
)
async def test_a_101_to_something_else_is_an_error(egress: Egress, spoil: Callable[[bytes], bytes]) -> None:
    """RFC 6455, 4.1."""
    async with Provider(lambda request: [spoil(upgrade(request)), HANG]) as provider:
        with pytest.raises(EgressError) as caught:
            await ask(egress, provider)
        assert (caught.value.code, caught.value.sent) == ("upstream_protocol_error", True)
        await provider.connections[0].closed.wait()


async def test_no_answer_to_the_handshake_is_an_error(egress: Egress) -> None:
    """As for any request."""
    async with Provider([[CLOSE]]) as provider:
        with pytest.raises(EgressError) as caught:
            await ask(egress, provider)
        assert (caught.value.code, caught.value.sent) == ("upstream_closed", True)


# ------------------------------------------------------------------------------------------------------------ messages

MESSAGES = [
    WebSocketMessage("text", b""),
    WebSocketMessage("text", "\N{SNOWMAN} und \U0001f600".encode()),
    WebSocketMessage("binary", b"\xff\x00"),
    WebSocketMessage("text", b"x" * 125),
    WebSocketMessage("binary", b"y" * 126),
    WebSocketMessage("text", b"z" * 65_535),
    WebSocketMessage("binary", bytes(range(256)) * 257),
    WebSocketMessage("text", "\N{EURO SIGN}".encode() * 700_000),
]


async def echo(connection: Connection) -> None:
    """Send back every frame, until a close frame."""
    while True:
        got = await read_frame(connection)
        await connection.write(frame(got.opcode, got.data, is_last=got.is_last))
        if got.opcode == 8:
            connection.closed.set()
            connection.writer.close()
            return


async def test_messages_arrive_whole_and_unchanged(egress: Egress) -> None:
    """Both ways, of any size."""
    async with Provider(accepting(echo)) as provider:
        socket = await open_socket(egress, provider)
        for message in MESSAGES:
            await socket.send(message)
            assert await socket.receive() == message
        await socket.close(1000, b"bye")
        assert await socket.receive() == WebSocketClose(1000, b"bye")
        assert await socket.receive() == WebSocketClose(1000, b"bye")
        await provider.connections[0].closed.wait()


@settings(max_examples=examples(50))
@given(
    messages=st.lists(
        st.builds(WebSocketMessage, st.just("text"), st.text(max_size=300).map(str.encode))
        | st.builds(WebSocketMessage, st.just("binary"), st.binary(max_size=300)),
        max_size=8,
    ),
    size=st.integers(1, 100),
    step=st.integers(1, 80),
)
async def test_any_fragments_in_any_pieces_are_one_message(
    messages: list[WebSocketMessage], size: int, step: int
) -> None:
    """Also with pings between the fragments."""
    raw = b""
    for message in messages:
        opcode = 1 if message.opcode == "text" else 2
        parts = [message.data[at : at + size] for at in range(0, len(message.data), size)] or [b""]
        for number, part in enumerate(parts):
            raw += frame(0 if number else opcode, part, is_last=number == len(parts) - 1) + frame(9, b"p") + frame(10)
    raw += frame(8, b"\x03\xe8end")
    pieces = [raw[at : at + step] for at in range(0, len(raw), step)]
    async with Egress() as egress, Provider(accepting(*pieces, HANG)) as provider:
        socket = await open_socket(egress, provider)
        got: list[WebSocketMessage | WebSocketClose] = []
        while not (got and isinstance(got[-1], WebSocketClose)):
            got.append(await socket.receive())
        assert got == [*messages, WebSocketClose(1000, b"end")]


async def test_what_came_with_the_101_is_not_lost(egress: Egress) -> None:
    """Frames may be in the same packet."""
    async with Provider(lambda request: [upgrade(request) + frame(1, b"first") + frame(1, b"sec"), HANG]) as provider:
        socket = await open_socket(egress, provider)
        assert await socket.receive() == WebSocketMessage("text", b"first")
        assert await socket.receive() == WebSocketMessage("text", b"sec")
        await socket.abort()


async def test_a_ping_is_answered(egress: Egress) -> None:
    """With its own payload."""
    got: list[Frame] = []

    async def ping(connection: Connection) -> None:
        await connection.write(frame(9, b"are you there"))
        got.append(await read_frame(connection))
        await connection.write(frame(1, b"good"))

    async with Provider(accepting(ping, HANG)) as provider:
        socket = await open_socket(egress, provider)
        assert await socket.receive() == WebSocketMessage("text", b"good")
        assert got == [Frame(10, b"are you there", is_last=True)]
        await socket.abort()


async def test_a_ping_behind_a_long_message_stops_nobody(egress: Egress) -> None:
    """The provider reads nothing until it was read from: waiting for the pong to be written would be a deadlock."""
    big = WebSocketMessage("binary", b"x" * 30_000_000)
    frames: list[Frame] = []

    async def stubborn(connection: Connection) -> None:
        await connection.write(frame(9, b"1") + frame(2, big.data) + frame(9, b"2") + frame(1, b"done"))
        frames.extend([await read_frame(connection), await read_frame(connection)])
        await connection.write(frame(1, b"read"))

    async with Provider(accepting(stubborn, HANG)) as provider:
        socket = await open_socket(egress, provider)
        sending = asyncio.ensure_future(socket.send(big))
        await asyncio.sleep(0)
        assert await socket.receive() == big
        assert await socket.receive() == WebSocketMessage("text", b"done")
        assert await socket.receive() == WebSocketMessage("text", b"read")
        await sending
        assert [(got.opcode, len(got.data)) for got in frames] == [(2, len(big.data)), (10, 1)]
        assert frames[1].data == b"2"
        await socket.abort()


async def test_senders_wait_for_each_other(egress: Egress) -> None:
    """No frame is inside another."""
    async with Provider(accepting(echo)) as provider:
        socket = await open_socket(egress, provider)
        messages = [WebSocketMessage("binary", bytes([number]) * 500_000) for number in range(5)]
        sending = asyncio.gather(*(socket.send(message) for message in messages))
        assert [await socket.receive() for _ in messages] == messages
        await sending
        await socket.abort()


async def test_a_provider_that_reads_nothing_stops_the_sender(egress: Egress) -> None:
    """And a receiver that receives nothing stops the provider."""
    async with Provider(accepting(asyncio.Event())) as provider:
        socket = await open_socket(egress, provider)
        sending = asyncio.ensure_future(send_for_ever(socket))
        for _ in range(300):
            await asyncio.sleep(0)
        assert not sending.done()
        await socket.abort()
        with pytest.raises(EgressError):
            await sending


async def send_for_ever(socket: OutboundWebSocket) -> None:
    for _ in range(1000):
        await socket.send(WebSocketMessage("binary", b"x" * 1_000_000))


async def test_a_receiver_that_does_not_receive_stops_the_provider(egress: Egress) -> None:
    """Nothing is read ahead beyond what the sockets hold."""
    size = 60_000_000
    async with Provider(accepting(frame(2, b"x" * size), HANG)) as provider:
        socket = await open_socket(egress, provider)
        for _ in range(300):
            await asyncio.sleep(0)
        assert provider.connections[0].sent_bytes < size // 2
        assert await socket.receive() == WebSocketMessage("binary", b"x" * size)
        await socket.abort()


async def test_text_that_is_no_text_is_not_sent(egress: Egress) -> None:
    """The provider would close the connection."""
    async with Provider(accepting(echo)) as provider:
        socket = await open_socket(egress, provider)
        with pytest.raises(EgressError) as caught:
            await socket.send(WebSocketMessage("text", b"\xff"))
        assert (caught.value.code, caught.value.sent) == ("invalid_request", False)
        await socket.send(WebSocketMessage("text", b"ok"))
        assert await socket.receive() == WebSocketMessage("text", b"ok")
        await socket.abort()


@pytest.mark.parametrize("kind", ["text", "binary"])
@pytest.mark.parametrize("parts", [1, 3])
async def test_a_message_above_the_limit_ends_it(kind: Literal["text", "binary"], parts: int) -> None:
    """One of exactly the limit passes."""
    opcode = 1 if kind == "text" else 2
    limits = EgressLimits(message_bytes=3000)
    got: list[Frame] = []

    def fragments(size: int) -> bytes:
        sizes = [size // parts] * (parts - 1) + [size - size // parts * (parts - 1)]
        return b"".join(
            frame(0 if number else opcode, b"x" * part, is_last=number == parts - 1)
            for number, part in enumerate(sizes)
        )

    async with (
        Egress(limits=limits) as egress,
        Provider(accepting(fragments(3000), fragments(3000), fragments(3001), reading(got), HANG)) as provider,
    ):
        socket = await open_socket(egress, provider)
        assert await socket.receive() == WebSocketMessage(kind, b"x" * 3000)
        assert await socket.receive() == WebSocketMessage(kind, b"x" * 3000)
        close = await socket.receive()
        assert isinstance(close, WebSocketClose)
        assert close.code == 1009
        await provider.connections[0].closed.wait()
        assert (got[0].opcode, got[0].data[:2]) == (8, (1009).to_bytes(2, "big"))


# ----------------------------------------------------------------------------------------------------------------- ends


def reading(got: list[Frame], reply: bytes = b"") -> Callable[[Connection], Awaitable[None]]:
    """A step of a provider that reads one frame, and answers it."""

    async def read(connection: Connection) -> None:
        got.append(await read_frame(connection))
        await connection.write(reply)

    return read


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", WebSocketClose(1005, b"")),
        (b"\x03\xe8", WebSocketClose(1000, b"")),
        (b"\x03\xf4restart", WebSocketClose(1012, b"restart")),
        (b"\x0f\xa0\xc3\xa4", WebSocketClose(4000, "\N{LATIN SMALL LETTER A WITH DIAERESIS}".encode())),
        (b"\x0b\xb8" + b"r" * 123, WebSocketClose(3000, b"r" * 123)),
    ],
)
async def test_the_providers_close_is_passed_on_and_answered(
    egress: Egress, payload: bytes, expected: WebSocketClose
) -> None:
    """With its own code and reason."""
    got: list[Frame] = []
    async with Provider(accepting(frame(1, b"last"), frame(8, payload), reading(got), HANG)) as provider:
        socket = await open_socket(egress, provider)
        assert await socket.receive() == WebSocketMessage("text", b"last")
        assert await socket.receive() == expected
        await provider.connections[0].closed.wait()
        assert got == [Frame(8, payload, is_last=True)]
        with pytest.raises(EgressError) as caught:
            await socket.send(WebSocketMessage("text", b"too late"))
        assert (caught.value.code, caught.value.sent) == ("upstream_closed", False)
        await socket.close(1000)


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        (1000, b"", b"\x03\xe8"),
        (1001, b"going", b"\x03\xe9going"),
        (1005, b"", b""),
        (4999, b"x" * 123, b"\x13\x87" + b"x" * 123),
        (4000, "\N{EURO SIGN}".encode() * 60, b"\x0f\xa0" + "\N{EURO SIGN}".encode() * 41),
    ],
)
async def test_the_agents_close_is_passed_on(egress: Egress, code: int, reason: bytes, payload: bytes) -> None:
    """What the provider still says comes first, then its answer."""
    got: list[Frame] = []
    answering = reading(got, frame(1, b"still") + frame(8, payload))
    async with Provider(accepting(answering, HANG)) as provider:
        socket = await open_socket(egress, provider)
        await socket.close(code, reason)
        await socket.close(1000)
        assert await socket.receive() == WebSocketMessage("text", b"still")
        assert await socket.receive() == WebSocketClose(code, payload[2:])
        assert got == [Frame(8, payload, is_last=True)]
        await provider.connections[0].closed.wait()


@pytest.mark.parametrize("code", [0, 999, 1006, 1015, 5000, 70_000, -1])
async def test_a_code_that_no_frame_carries_cuts_the_connection(egress: Egress, code: int) -> None:
    """As the agent's was cut."""
    async with Provider(accepting(HANG)) as provider:
        socket = await open_socket(egress, provider)
        await socket.close(code)
        assert await socket.receive() == WebSocketClose(1006, b"")
        await provider.connections[0].closed.wait()
        assert provider.connections[0].received == provider.requests[0].head


@pytest.mark.parametrize("first", [True, False])
async def test_a_provider_that_does_not_answer_a_close_is_left(first: bool) -> None:
    """After a while, also if somebody was receiving already."""
    got: list[Frame] = []
    async with Egress(limits=EgressLimits(close_s=0.05)) as egress, Provider(accepting(reading(got), HANG)) as provider:
        socket = await open_socket(egress, provider)
        if first:
            await socket.close(1000)
        receiving = asyncio.ensure_future(socket.receive())
        await asyncio.sleep(0)
        if not first:
            await socket.close(1000)
        assert await receiving == WebSocketClose(1006, b"")
        await provider.connections[0].closed.wait()
        assert len(got) == 1


async def test_closing_does_not_wait_for_a_provider_that_reads_nothing() -> None:
    """Behind a message that never gets out."""
    async with Egress(limits=EgressLimits(close_s=0.05)) as egress, Provider(accepting(asyncio.Event())) as provider:
        socket = await open_socket(egress, provider)
        sending = asyncio.ensure_future(send_for_ever(socket))
        for _ in range(100):
            await asyncio.sleep(0)
        await socket.close(1000)
        assert await socket.receive() == WebSocketClose(1006, b"")
        with pytest.raises(EgressError):
            await sending


@pytest.mark.parametrize("how", [CLOSE, RESET])
@pytest.mark.parametrize("raw", [b"", frame(1, b"half")[:3], frame(1, b"a", is_last=False)])
async def test_a_connection_that_is_cut_is_1006(egress: Egress, raw: bytes, how: Step) -> None:
    """Nothing of half a message is given out."""
    async with Provider(accepting(raw, how)) as provider:
        socket = await open_socket(egress, provider)
        assert await socket.receive() == WebSocketClose(1006, b"")
        with pytest.raises(EgressError):
            await send_for_ever(socket)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\xf1\x00", 1002),  # reserved bits
        (b"\x83\x00", 1002),  # no such opcode
        (b"\x81\x81abcdx", 1002),  # masked
        (frame(0, b"x"), 1002),  # continues nothing
        (frame(1, b"x", is_last=False) + frame(1, b"y"), 1002),
        (frame(9, b"x", is_last=False), 1002),
        (frame(8, b"\x03"), 1002),
        (frame(8, b"\x03\xee"), 1002),  # 1006 is never sent
        (frame(1, b"\xff"), 1007),
        (frame(8, b"\x03\xe8\xff"), 1007),
    ],
)
async def test_frames_that_are_none_end_it(egress: Egress, raw: bytes, code: int) -> None:
    """With the code that RFC 6455, 7.4.1 has for it, to both sides."""
    got: list[Frame] = []
    async with Provider(accepting(raw, reading(got), HANG)) as provider:
        socket = await open_socket(egress, provider)
        close = await socket.receive()
        assert isinstance(close, WebSocketClose)
        assert close.code == code
        await provider.connections[0].closed.wait()
        assert (got[0].opcode, got[0].data[:2]) == (8, code.to_bytes(2, "big"))


async def test_a_sender_that_is_cancelled_in_a_frame_ends_it(egress: Egress) -> None:
    """What followed would be taken for the rest of that frame."""
    async with Provider(accepting(asyncio.Event())) as provider:
        socket = await open_socket(egress, provider)
        sending = asyncio.ensure_future(send_for_ever(socket))
        for _ in range(100):
            await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await socket.receive() == WebSocketClose(1006, b"")
        with pytest.raises(EgressError):
            await socket.send(WebSocketMessage("text", b"x"))


async def test_aborting_wakes_who_receives(egress: Egress) -> None:
    """And frees the place for the next."""
    async with Provider(accepting(HANG)) as provider:
        socket = await open_socket(egress, provider)
        receiving = asyncio.ensure_future(socket.receive())
        await asyncio.sleep(0)
        await socket.abort()
        await socket.abort()
        assert await receiving == WebSocketClose(1006, b"")
        await provider.connections[0].closed.wait()

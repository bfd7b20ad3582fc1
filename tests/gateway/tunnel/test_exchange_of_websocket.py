"""WebSockets of agents at the gateway: first messages as documents, records both ways, and how they end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from segue.gateway.access import LOCAL_TENANT
from segue.gateway.app import Gateway
from segue.http.heads import Line, RequestHead
from segue.http.websocket import ABNORMAL_CLOSURE, WebSocketClose, WebSocketMessage
from segue.testing.provider import (
    ACCEPTED,
    Answer,
    MessageScript,
    Script,
    SocketAnswer,
    SocketMessage,
)
from segue.tunnel.client import TunnelRequest
from segue.tunnel.documents import Base, encode_document
from segue.tunnel.socket_opening import END_OF_OPENINGS, encode_opening, stream_prefix
from segue.tunnel.stream_compression import SOCKET_WINDOW_LOG, StreamDecoder, StreamEncoder
from segue.tunnel.websocket_records import Record, RecordError, RecordReader, encode_record
from tests.faults.gateways import until
from tests.gateway.peer import Peer
from tests.gateway.tunnel.forwarding import running

UPGRADE = RequestHead(b"GET", b"/v1/responses", (Line(b"Authorization", b"Bearer k"),))


class AgentSocket:
    """A WebSocket of an agent, as a sidecar carries it."""

    def __init__(self, peer: Peer, socket: aiohttp.ClientWebSocketResponse, gateway: Gateway) -> None:
        self.gateway = gateway
        self._peer = peer
        self._socket = socket
        self._encoder = StreamEncoder(SOCKET_WINDOW_LOG)
        self._opening = END_OF_OPENINGS
        self._records = RecordReader(1 << 20)
        self._read = 0
        self._came = deque[Record]()
        self.answer = peer.open(TunnelRequest(UPGRADE, None, "websocket"))
        self.answer.decoder = StreamDecoder(SOCKET_WINDOW_LOG)

    async def accepted(self) -> int:
        """Wait for the answer to the upgrade and return its status."""
        await self._peer.pump(self._socket)
        await asyncio.wait_for(self.answer.started.wait(), 20)
        assert self.answer.head is not None
        return self.answer.head.status

    async def send(self, record: Record) -> None:
        opening, self._opening = self._opening, b""
        await self.send_bytes(opening + self._encoder.feed(encode_record(record)) + self._encoder.flush())

    async def send_bytes(self, data: bytes) -> None:
        self._peer.end.send(1, data)
        await self._peer.pump(self._socket)

    async def receive(self) -> Record:
        """Wait for one message."""
        async with asyncio.timeout(20):
            while not self._came:
                self.answer.grew.clear()
                data, self._read = self.answer.body[self._read :], len(self.answer.body)
                records = self._records.feed(data)
                assert not isinstance(records, RecordError)
                self._came.extend(records)
                if not records:
                    await self.answer.grew.wait()
            return self._came.popleft()

    async def cut(self) -> None:
        """Say that nothing more comes, without a close."""
        self._peer.end.finish(1)
        await self._peer.pump(self._socket)


@asynccontextmanager
async def talking(messages: MessageScript, script: Script = lambda _: ACCEPTED) -> AsyncIterator[AgentSocket]:
    async with running(script, messages=messages) as (gateway, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            yield AgentSocket(peer, socket, gateway)


def echo(message: SocketMessage) -> SocketAnswer:
    return SocketAnswer(messages=(b"echo " + message.data,))


async def test_messages_go_both_ways_and_the_close_of_the_agent_ends_the_exchange() -> None:
    async with talking(echo) as agent:
        assert await agent.accepted() == 101
        for text in (b"one", b"two" * 10_000):
            await agent.send(WebSocketMessage("text", text))
            assert await agent.receive() == WebSocketMessage("text", b"echo " + text)
        await agent.send(WebSocketClose(1000, b"done"))
        assert await agent.receive() == WebSocketClose(1000, b"done")
        await asyncio.wait_for(agent.answer.ended.wait(), 20)
        assert agent.answer.reset is None


async def test_the_close_of_the_provider_reaches_the_agent() -> None:
    def bye(_: SocketMessage) -> SocketAnswer:
        return SocketAnswer(messages=(b"last",), close_code=4001, close_reason="enough")

    async with talking(bye) as agent:
        assert await agent.accepted() == 101
        await agent.send(WebSocketMessage("text", b"x"))
        assert await agent.receive() == WebSocketMessage("text", b"last")
        assert await agent.receive() == WebSocketClose(4001, b"enough")
        await asyncio.wait_for(agent.answer.ended.wait(), 20)


async def test_a_provider_that_cuts_its_socket_has_failed() -> None:
    def cuts(_: SocketMessage) -> SocketAnswer:
        return SocketAnswer(messages=(b"first", b"second"), cut_after=1)

    async with talking(cuts) as agent:
        assert await agent.accepted() == 101
        await agent.send(WebSocketMessage("text", b"x"))
        assert await agent.receive() == WebSocketMessage("text", b"first")
        assert await agent.receive() == WebSocketClose(ABNORMAL_CLOSURE, b"")
        await asyncio.wait_for(agent.answer.ended.wait(), 20)
        await until(lambda: not agent.gateway.tunnel.exchanges)
        sample = agent.gateway.services.metrics.registry.get_sample_value
        assert sample("segue_tunnel_exchanges_total", {"outcome": "failed"}) == 1
        assert sample("segue_tunnel_exchanges_total", {"outcome": "completed"}) == 0


async def test_a_refused_upgrade_comes_back_as_it_is() -> None:
    def refuse(_: object) -> Answer:
        return Answer(status=401, reason=b"Unauthorized", pieces=(b"who are you?",))

    async with talking(echo, refuse) as agent:
        assert await agent.accepted() == 401
        await asyncio.wait_for(agent.answer.ended.wait(), 20)
        assert agent.answer.body == b"who are you?"


async def test_an_agent_that_is_cut_off_cuts_the_socket_of_the_provider() -> None:
    async with talking(echo) as agent:
        assert await agent.accepted() == 101
        await agent.cut()
        await asyncio.wait_for(agent.answer.ended.wait(), 20)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 100,
        END_OF_OPENINGS + b"\xff" * 100,
        encode_opening("text", b"no document"),
    ],
)
async def test_bytes_that_are_no_stream_end_the_exchange(data: bytes) -> None:
    async with talking(echo) as agent:
        assert await agent.accepted() == 101
        await agent.send_bytes(data)
        await asyncio.wait_for(agent.answer.ended.wait(), 20)


async def test_a_text_that_is_not_in_utf_8_ends_the_exchange() -> None:
    async with talking(echo) as agent:
        assert await agent.accepted() == 101
        await agent.send(WebSocketMessage("text", b"\xff"))
        assert await agent.receive() == WebSocketClose(ABNORMAL_CLOSURE, b"")
        await asyncio.wait_for(agent.answer.ended.wait(), 20)


async def test_a_stream_that_holds_no_records_ends_the_exchange() -> None:
    encoder = StreamEncoder(SOCKET_WINDOW_LOG)
    async with talking(echo) as agent:
        assert await agent.accepted() == 101
        await agent.send_bytes(END_OF_OPENINGS + encoder.feed(b"\x63nonsense") + encoder.flush())
        await asyncio.wait_for(agent.answer.ended.wait(), 20)


FIRST = b'{"input":["begin"],"tools":"' + b"a tool " * 300 + b'"}'
LATER = b'{"input":["go on"],"tools":"' + b"a tool " * 300 + b'"}'


async def opened_with(agent: AgentSocket, document: bytes, first: bytes) -> None:
    """Send a first message by its document, and one behind it."""
    assert await agent.accepted() == 101
    await agent.send_bytes(encode_opening("text", document))
    assert await agent.receive() == WebSocketMessage("text", b"echo " + first)
    encoder = StreamEncoder(SOCKET_WINDOW_LOG, prefix=stream_prefix(first))
    record = encode_record(WebSocketMessage("text", b"more"))
    await agent.send_bytes(END_OF_OPENINGS + encoder.feed(record) + encoder.flush())
    assert await agent.receive() == WebSocketMessage("text", b"echo more")
    close = encode_record(WebSocketClose(1000, b""))
    await agent.send_bytes(encoder.feed(close) + encoder.finish())
    assert await agent.receive() == WebSocketClose(1000, b"")
    await asyncio.wait_for(agent.answer.ended.wait(), 20)
    await until(lambda: not agent.gateway.tunnel.exchanges)


async def test_a_first_message_comes_as_a_document_and_the_socket_becomes_a_base() -> None:
    async with talking(echo) as agent:
        await opened_with(agent, encode_document(FIRST), FIRST)
        bases = agent.gateway.tunnel.resources.bases
        assert bases.get(LOCAL_TENANT, Base(FIRST).id) is not None
        socket = bases.get(LOCAL_TENANT, Base(FIRST + b"\nmore").id)
        assert socket is not None
        assert socket.reply == b"echo " + FIRST + b"\necho more\n"


async def test_a_first_message_against_a_base_is_told_to_be_taken() -> None:
    async with talking(echo) as agent:
        agent.gateway.tunnel.resources.bases.add(LOCAL_TENANT, Base(FIRST))
        await opened_with(agent, encode_document(LATER, Base(FIRST)), LATER)
        assert (agent.answer.taken, agent.answer.misses) == (1, 0)


async def test_a_first_message_whose_base_is_not_here_is_sent_again_without() -> None:
    async with talking(echo) as agent:
        assert await agent.accepted() == 101
        await agent.send_bytes(encode_opening("text", encode_document(LATER, Base(FIRST))))
        await until(lambda: agent.answer.misses == 1)
        await opened_with(agent, encode_document(LATER), LATER)


async def test_small_messages_before_the_first_large_one_are_not_sent_again_when_that_is_missed() -> None:
    async with talking(echo) as agent:
        assert await agent.accepted() == 101
        await agent.send_bytes(encode_opening("text", encode_document(b"warm up")))
        await agent.send_bytes(encode_opening("text", encode_document(LATER, Base(FIRST))))
        assert await agent.receive() == WebSocketMessage("text", b"echo warm up")
        await until(lambda: agent.answer.misses == 1)
        await opened_with(agent, encode_document(LATER), LATER)


async def test_a_first_message_that_is_missed_twice_ends_the_exchange() -> None:
    async with talking(echo) as agent:
        assert await agent.accepted() == 101
        await agent.send_bytes(encode_opening("text", encode_document(LATER, Base(FIRST))))
        await until(lambda: agent.answer.misses == 1)
        await agent.send_bytes(encode_opening("text", encode_document(LATER, Base(FIRST))))
        await asyncio.wait_for(agent.answer.ended.wait(), 20)

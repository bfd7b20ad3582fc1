"""WebSockets of agents at the gateway: first messages as documents, records both ways, and how they end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from segue.egress.websocket import OutboundWebSocket
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
from segue.tunnel.socket_opening import END_OF_OPENINGS, encode_opening
from segue.tunnel.socket_upload import SocketUploadWriter
from segue.tunnel.stream_compression import SOCKET_WINDOW_LOG, StreamDecoder, StreamEncoder
from segue.tunnel.websocket_records import Record, RecordError, RecordReader, encode_record
from tests.faults.gateways import until
from tests.gateway.peer import Peer
from tests.gateway.tunnel.forwarding import running
from tests.tunnel.checkers import new_checker

UPGRADE = RequestHead(b"GET", b"/v1/responses", (Line(b"Authorization", b"Bearer k"),))


class AgentSocket:
    """A WebSocket of an agent, as a sidecar carries it."""

    def __init__(
        self, peer: Peer, socket: aiohttp.ClientWebSocketResponse, gateway: Gateway, head: RequestHead = UPGRADE
    ) -> None:
        self.gateway = gateway
        self._peer = peer
        self._socket = socket
        self._writer = SocketUploadWriter()
        self._records = RecordReader(1 << 20)
        self._read = 0
        self._came = deque[Record]()
        self.answer = peer.open(TunnelRequest(head, None, "websocket"))
        self.answer.decoder = StreamDecoder(SOCKET_WINDOW_LOG)

    async def accepted(self) -> int:
        """Wait for the answer to the upgrade and return its status."""
        await self._peer.pump(self._socket)
        await asyncio.wait_for(self.answer.started.wait(), 20)
        assert self.answer.head is not None
        return self.answer.head.status

    async def send(self, record: Record) -> None:
        written = self._writer.close(record) if isinstance(record, WebSocketClose) else self._writer.record(record)
        await self.send_bytes(written)

    async def send_document(self, data: bytes, base: Base | None = None, *, again: bool = False) -> None:
        """Send a text as a document; `again`: the last one was missed."""
        message, document = WebSocketMessage("text", data), encode_document(data, base)
        write = self._writer.document_again if again else self._writer.document
        await self.send_bytes(write(message, document), asks=base is not None)

    async def send_bytes(self, data: bytes, *, asks: bool = False) -> None:
        self._peer.end.send(1, data, asks=asks)
        await self._peer.pump(self._socket)

    def misbehave(self) -> None:
        """Let nobody check what is sent from now on."""
        self._peer.checker = new_checker()

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


async def test_a_fault_of_ours_on_the_way_up_ends_the_exchange_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def send(_socket: OutboundWebSocket, _message: WebSocketMessage) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(OutboundWebSocket, "send", send)
    async with talking(echo) as agent:
        assert await agent.accepted() == 101
        await agent.send(WebSocketMessage("text", b"x"))
        await asyncio.wait_for(agent.answer.ended.wait(), 20)
        assert agent.answer.reset is not None
        sample = agent.gateway.services.metrics.registry.get_sample_value
        assert sample("segue_tunnel_exchanges_total", {"outcome": "failed"}) == 1
        assert "action=exchange" in caplog.text
        assert "RuntimeError" in caplog.text


FIRST = b'{"input":["begin"],"tools":"' + b"a tool " * 300 + b'"}'
LATER = b'{"input":["go on"],"tools":"' + b"a tool " * 300 + b'"}'


async def end(agent: AgentSocket) -> None:
    """Send a message behind the documents, and close."""
    await agent.send(WebSocketMessage("text", b"more"))
    assert await agent.receive() == WebSocketMessage("text", b"echo more")
    await agent.send(WebSocketClose(1000, b""))
    assert await agent.receive() == WebSocketClose(1000, b"")
    await asyncio.wait_for(agent.answer.ended.wait(), 20)
    await until(lambda: not agent.gateway.tunnel.exchanges)


async def has_missed(agent: AgentSocket, count: int) -> None:
    await until(lambda: agent.answer.misses == count)


async def test_a_message_comes_as_a_document_and_the_socket_becomes_a_base() -> None:
    async with talking(echo) as agent:
        assert await agent.accepted() == 101
        await agent.send_document(FIRST)
        assert await agent.receive() == WebSocketMessage("text", b"echo " + FIRST)
        await end(agent)
        bases = agent.gateway.tunnel.resources.bases
        assert bases.get(LOCAL_TENANT, Base(FIRST).id) is not None
        socket = bases.get(LOCAL_TENANT, Base(FIRST + b"\nmore").id)
        assert socket is not None
        assert socket.reply == b"echo " + FIRST + b"\necho more\n"


@pytest.mark.parametrize("misses", [(), (0,), (1,), (0, 1, 2)])
async def test_each_message_against_a_base_is_taken_or_missed(misses: tuple[int, ...]) -> None:
    """Two before the stream, with a small one that is never sent again, and one in its midst."""
    async with talking(echo) as agent:
        assert await agent.accepted() == 101
        await agent.send_document(b"warm up")
        assert await agent.receive() == WebSocketMessage("text", b"echo warm up")
        bases = agent.gateway.tunnel.resources.bases
        for number, text in enumerate((FIRST, LATER, LATER + b" ")):
            known, unknown = Base(b"%d" % number + LATER), Base(b"%d" % number + FIRST)
            bases.add(LOCAL_TENANT, known)
            if number == 2:
                await agent.send(WebSocketMessage("text", b"between"))
                assert await agent.receive() == WebSocketMessage("text", b"echo between")
            before = agent.answer.misses
            await agent.send_document(text, unknown if number in misses else known)
            if number in misses:
                await has_missed(agent, before + 1)
                await agent.send_document(text, again=True)
            assert await agent.receive() == WebSocketMessage("text", b"echo " + text)
        await end(agent)
        assert (agent.answer.taken, agent.answer.misses) == (3 - len(misses), len(misses))


async def test_a_message_that_needs_a_base_though_it_was_missed_ends_the_exchange() -> None:
    for known in (False, True):
        async with talking(echo) as agent:
            assert await agent.accepted() == 101
            agent.gateway.tunnel.resources.bases.add(LOCAL_TENANT, Base(FIRST))
            await agent.send_document(LATER, Base(b"unknown" + FIRST))
            await has_missed(agent, 1)
            encoded = encode_opening("text", encode_document(LATER, Base(FIRST) if known else Base(FIRST + b"unknown")))
            agent.misbehave()
            await agent.send_bytes(encoded, asks=True)
            await asyncio.wait_for(agent.answer.ended.wait(), 20)


async def test_many_messages_in_a_few_bytes_leave_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of 4 KB can be millions of empty messages, which a provider takes as fast as they come."""
    messages, at_once, sent = 1000, [0], OutboundWebSocket.send

    async def counted(socket: OutboundWebSocket, message: WebSocketMessage) -> None:
        at_once[-1] += 1
        await sent(socket, message)

    monkeypatch.setattr(OutboundWebSocket, "send", counted)
    async with talking(lambda _: SocketAnswer(messages=())) as agent:
        assert await agent.accepted() == 101
        stream = StreamEncoder(SOCKET_WINDOW_LOG)
        records = encode_record(WebSocketMessage("text", b"")) * messages
        await agent.send_bytes(END_OF_OPENINGS + stream.feed(records) + stream.flush())
        async with asyncio.timeout(20):
            while sum(at_once) < messages:
                at_once.append(0)
                await asyncio.sleep(0)
        await agent.cut()
        await asyncio.wait_for(agent.answer.ended.wait(), 20)
    assert max(at_once) <= 16


async def test_many_messages_of_a_provider_leave_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, receive = [0], OutboundWebSocket.receive

    async def counted(socket: OutboundWebSocket) -> WebSocketMessage | WebSocketClose:
        message = await receive(socket)
        at_once[-1] += 1
        return message

    monkeypatch.setattr(OutboundWebSocket, "receive", counted)
    async with talking(lambda _: SocketAnswer(messages=(b"",) * 1000)) as agent:
        assert await agent.accepted() == 101
        await agent.send(WebSocketMessage("text", b"x"))
        async with asyncio.timeout(20):
            while sum(at_once) < 1000:
                at_once.append(0)
                await asyncio.sleep(0)
        await agent.cut()
        await asyncio.wait_for(agent.answer.ended.wait(), 20)
    assert max(at_once) <= 17


async def test_a_websocket_that_a_tunnel_took_is_told_by_a_draining_gateway_to_connect_again() -> None:
    """Not refused: its agent would fall back to HTTP."""
    async with running(lambda _: ACCEPTED) as (gateway, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            gateway.services.drain.draining = True
            agent = AgentSocket(peer, socket, gateway, RequestHead(b"GET", b"/own/v1/responses", UPGRADE.lines))
            assert await agent.accepted() == 101
            told = await agent.receive()
    assert isinstance(told, WebSocketMessage)
    assert b"websocket_connection_limit_reached" in told.data

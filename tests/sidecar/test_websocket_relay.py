"""A real WebSocket client, while the test decides what comes back of the exchange."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from segue.http.heads import ReplyHead
from segue.http.websocket import ABNORMAL_CLOSURE, WebSocketClose, WebSocketMessage
from segue.sidecar.agent_request import AgentRequest
from segue.sidecar.agent_transport import AgentGone
from segue.sidecar.arriving_reply import Ending
from segue.sidecar.base_cache import BaseCache
from segue.sidecar.body_encoder import BodyEncoder, EncodedBody
from segue.sidecar.session import AgentExchange
from segue.sidecar.stats import Outcome, Stats, reply_bytes
from segue.sidecar.websocket_relay import WebSocketRelay
from segue.tunnel.client import TunnelRequest
from segue.tunnel.documents import Base
from segue.tunnel.events import ExchangeReset, OutcomeUnknown, ReplyEnded
from segue.tunnel.stream_compression import SOCKET_WINDOW_LOG, StreamEncoder
from segue.tunnel.websocket_records import Record, encode_record
from tests.sidecar.agents import listening
from tests.sidecar.exchanges import ScriptedSession, post, receive, scripted_exchange, upload_of

SWITCH = ReplyHead(101, b"Switching Protocols", ())


class Relaying:
    """One open WebSocket."""

    def __init__(self, exchange: AgentExchange) -> None:
        self.exchange = exchange
        self.stats = Stats()
        self.cache = BaseCache(None)
        self.bodies = BodyEncoder(self.cache, self.stats)
        self.relay: WebSocketRelay | None = None
        self.result: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._encoder = StreamEncoder(SOCKET_WINDOW_LOG)

    @property
    def session(self) -> ScriptedSession:
        assert isinstance(self.exchange.session, ScriptedSession)
        return self.exchange.session

    async def outcome(self) -> Outcome:
        return await asyncio.wait_for(self.result, 20)

    def receive(self, record: WebSocketMessage | WebSocketClose) -> None:
        """Let a message come back from the provider."""
        self.receive_many(record, 1)

    def receive_many(self, record: WebSocketMessage | WebSocketClose, count: int) -> None:
        """Let the same message come back so many times at once."""
        receive(self.exchange, None, self._encoder.feed(encode_record(record) * count) + self._encoder.flush())


@asynccontextmanager
async def relaying(
    *, max_message_bytes: int = 2**20, target: str = ""
) -> AsyncIterator[tuple[Relaying, ClientConnection]]:
    way = Relaying(scripted_exchange(TunnelRequest(post(), None, "websocket")))
    way.exchange.head = SWITCH

    async def handler(request: AgentRequest) -> None:
        way.relay = WebSocketRelay(
            request, way.exchange, way.bodies, stats=way.stats, max_message_bytes=max_message_bytes
        )
        try:
            way.result.set_result(await way.relay.run(SWITCH))
        except Exception as error:
            way.result.set_exception(error)
            raise

    async with listening(handler) as listener, connect(listener.url.replace("http", "ws") + target) as socket:
        yield way, socket


async def test_messages_of_the_provider_arrive_with_their_payloads_and_are_counted() -> None:
    async with relaying() as (way, socket):
        way.receive(WebSocketMessage("text", "é".encode()))
        way.receive(WebSocketMessage("binary", b"\x00\xff"))
        assert [await socket.recv(), await socket.recv()] == ["é", b"\x00\xff"]
        way.receive(WebSocketClose(4000, b"done"))
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (4000, "done")
        assert await way.outcome() == "completed"
        assert way.relay is not None
        assert (way.relay.sent_bytes, way.relay.received_bytes) == (4, 0)
        assert way.stats.agent_bytes_out == reply_bytes(SWITCH) + 4
        assert isinstance(way.exchange.ending, ExchangeReset)  # nothing more is wanted of it


async def test_many_messages_in_a_few_bytes_leave_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, send = [0], AgentRequest.send

    async def counted(request: AgentRequest, message: WebSocketMessage) -> None:
        at_once[-1] += 1
        await send(request, message)

    monkeypatch.setattr(AgentRequest, "send", counted)
    async with relaying() as (way, socket):
        way.receive_many(WebSocketMessage("text", b"x"), 1000)
        async with asyncio.timeout(20):
            while sum(at_once) < 1000:
                at_once.append(0)
                await asyncio.sleep(0)
        assert max(at_once) <= 16
        way.receive(WebSocketClose(1000, b""))
        assert [message async for message in socket] == ["x"] * 1000
        assert await way.outcome() == "completed"


async def test_messages_of_the_agent_are_sent_and_its_close_waits_for_the_answer() -> None:
    async with relaying() as (way, socket):
        await socket.send("hello")
        closing = asyncio.create_task(socket.close(4001, "bye"))
        await asyncio.wait_for(way.session.finished.wait(), 20)
        way.receive(WebSocketClose(4001, b"bye"))
        await closing
        assert await way.outcome() == "completed"
        assert way.relay is not None
        assert (way.stats.agent_bytes_in, way.relay.received_bytes) == (5, 5)
        assert records_of(way) == [WebSocketMessage("text", b"hello"), WebSocketClose(4001, b"bye")]


async def test_a_full_buffer_holds_the_agent_back_until_there_is_room() -> None:
    async with relaying() as (way, socket):
        way.session.room = False
        await socket.send("first")  # the relay has waited for this one since there was room
        await asyncio.wait_for(way.session.was_sent.wait(), 20)
        way.session.was_sent.clear()
        await socket.send("second")
        way.receive(WebSocketMessage("text", b"down"))
        assert await socket.recv() == "down"  # the other direction goes on
        assert way.stats.agent_bytes_in == len("first")
        way.session.room = True
        way.exchange.writable.set()
        await asyncio.wait_for(way.session.was_sent.wait(), 20)
        assert way.stats.agent_bytes_in == len("first") + len("second")
        way.receive(WebSocketClose(1000, b""))  # or the client would wait for the answer to its own


async def test_nothing_is_sent_once_the_exchange_has_ended() -> None:
    async with relaying() as (way, socket):
        way.session.room = False
        await socket.send("first")
        await asyncio.wait_for(way.session.was_sent.wait(), 20)
        sent = way.session.sent
        await socket.send("second")
        way.exchange.end(OutcomeUnknown(way.exchange.handle))
        assert await way.outcome() == "cut"
    assert way.session.sent == sent


@pytest.mark.parametrize(
    ("ending", "code"),
    [(OutcomeUnknown(1), 1012), (ExchangeReset(1, "aborted", b"the provider cut it"), ABNORMAL_CLOSURE)],
)
async def test_an_exchange_that_ends_without_a_close_is_a_restart_or_a_cut(ending: Ending, code: int) -> None:
    async with relaying() as (way, socket):
        way.exchange.end(ending)
        with pytest.raises(ConnectionClosedError):
            await socket.recv()
        assert await way.outcome() == "cut"
    assert socket.close_code == code


@pytest.mark.parametrize(
    ("ended", "taken_bytes", "target", "told"),
    [
        ([False], None, "/v1/responses", True),
        ([False], 1000, "/v1/responses", True),
        ([False], 3, "/v1/responses", False),
        ([False], 1000, "/v1/realtime", False),
        ([], None, "/v1/responses", False),
        ([True], None, "/v1/responses", False),
        ([True, False], None, "/v1/responses", True),
    ],
)
async def test_a_turn_that_may_have_run_is_told_before_the_socket_is_closed(
    ended: list[bool], taken_bytes: int | None, target: str, told: bool
) -> None:
    """Agents ask again after a restart: they must not if the gateway may have forwarded the turn."""
    async with relaying(target=target) as (way, socket):
        for has_ended in ended:
            await socket.send('{"type":"response.create"}')
            await asyncio.wait_for(way.session.was_sent.wait(), 20)
            way.session.was_sent.clear()
            if has_ended:
                way.receive(COMPLETED)
                await socket.recv()
        way.exchange.end(OutcomeUnknown(way.exchange.handle, taken_bytes))
        if told:
            assert json.loads(await socket.recv())["error"]["code"] == "segue_outcome_unknown"
        with pytest.raises(ConnectionClosedError):
            await socket.recv()
        assert await way.outcome() == "cut"
    assert socket.close_code == 1012


@pytest.mark.parametrize("why", ["cut", "too large", "no stream"])
async def test_what_cannot_be_passed_on_cuts_the_agents_socket(why: str) -> None:
    async with relaying(max_message_bytes=100) as (way, socket):
        match why:
            case "cut":
                way.receive(WebSocketClose(ABNORMAL_CLOSURE, b""))
            case "too large":
                way.receive(WebSocketMessage("binary", bytes(101)))
            case _:
                receive(way.exchange, None, b"these bytes are no zstd frame")
        with pytest.raises(ConnectionClosedError):
            await socket.recv()
        assert await way.outcome() == "cut"
    assert socket.close_code == ABNORMAL_CLOSURE


COMPLETED = WebSocketMessage("text", b'{"type":"response.completed","response":{}}')


def records_of(way: Relaying, *bases: Base) -> list[Record]:
    """What the provider was sent by a gateway that has these bases."""
    return upload_of(way.session.sent, *bases)[0]


@pytest.mark.parametrize(
    "last", [COMPLETED, WebSocketMessage("text", b'{ "type" : "error", "error": {}}')], ids=["completed", "error"]
)
async def test_an_agent_that_leaves_after_its_turn_is_no_failure_and_the_provider_is_told(
    last: WebSocketMessage,
) -> None:
    async with relaying() as (way, socket):
        await socket.send('{"type":"response.create"}')
        await asyncio.wait_for(way.session.was_sent.wait(), 20)
        way.session.was_sent.clear()
        way.receive(last)
        await socket.recv()
        await socket.send('{"type":"response.processed"}')
        await asyncio.wait_for(way.session.was_sent.wait(), 20)
        socket.transport.abort()
        await asyncio.wait_for(way.session.finished.wait(), 20)
        assert records_of(way)[-1] == WebSocketClose(1001, b"")
        way.receive(WebSocketClose(1001, b""))  # nobody reads it any more
        way.exchange.end(ReplyEnded(way.exchange.handle))
        assert await way.outcome() == "completed"
    assert isinstance(way.exchange.ending, ReplyEnded)


async def test_an_agent_that_leaves_in_its_next_turn_gives_it_up() -> None:
    async with relaying() as (way, socket):
        way.receive(COMPLETED)
        await socket.recv()
        await socket.send('{"type":"response.create"}')
        await asyncio.wait_for(way.session.was_sent.wait(), 20)
        socket.transport.abort()
        with pytest.raises(AgentGone):
            await way.outcome()
    assert not way.session.finished.is_set()


async def test_a_provider_that_does_not_answer_the_close_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.sidecar.websocket_relay._LEAVE_S", 0.0)
    async with relaying() as (way, socket):
        way.receive(COMPLETED)
        await socket.recv()
        socket.transport.abort()
        assert await way.outcome() == "completed"
    assert isinstance(way.exchange.ending, ExchangeReset)


async def test_an_agent_that_is_cut_gives_the_exchange_up() -> None:
    async with relaying() as (way, socket):
        socket.transport.abort()
        with pytest.raises(AgentGone):
            await way.outcome()
    assert way.exchange.ending == ExchangeReset(way.exchange.handle, "cancelled", b"nobody waits for it")


TOOLS = '"tools":"' + "a tool " * 700 + '"}'
BASE = Base(f'{{"input":["begin"],{TOOLS}'.encode())


async def test_the_first_message_is_a_delta_and_nothing_follows_before_the_gateway_has_it() -> None:
    async with relaying() as (way, socket):
        way.cache.add(BASE)
        await socket.send(f'{{"input":["resume"],{TOOLS}')
        await socket.send("second")
        await asyncio.wait_for(way.session.was_sent.wait(), 20)
        assert len(way.session.sent) < 80
        way.session.was_sent.clear()
        way.receive(WebSocketMessage("text", b"down"))
        assert await socket.recv() == "down"
        assert not way.session.was_sent.is_set()
        way.exchange.answered.set()
        await asyncio.wait_for(way.session.was_sent.wait(), 20)
        assert records_of(way, BASE) == [
            WebSocketMessage("text", f'{{"input":["resume"],{TOOLS}'.encode()),
            WebSocketMessage("text", b"second"),
        ]
        way.exchange.end(ReplyEnded(way.exchange.handle))
        await way.outcome()
    assert (way.stats.base_hits, way.stats.without_base) == (1, 0)
    kept = way.cache.choose(f'{{"input":["again"],{TOOLS}'.encode()).base
    assert kept is not None
    assert (kept.body, kept.reply) == (f'{{"input":["resume"],{TOOLS}'.encode() + b"\nsecond", b"down\n")


async def test_an_agent_that_leaves_before_its_first_message_was_taken_gives_it_up() -> None:
    async with relaying() as (way, socket):
        way.cache.add(BASE)
        way.receive(COMPLETED)
        await socket.recv()
        await socket.send('{"type":"response.processed","tools":"' + "a tool " * 700 + '"}')
        await asyncio.wait_for(way.session.was_sent.wait(), 20)
        socket.transport.abort()
        assert await way.outcome() == "completed"
    assert not way.session.finished.is_set()
    assert isinstance(way.exchange.ending, ExchangeReset)


async def test_a_message_that_cannot_be_sent_again_fails_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    async def encode(_bodies: BodyEncoder, _body: EncodedBody, _epoch: bytes) -> bytes:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(BodyEncoder, "encode_without_base", encode)
    async with relaying() as (way, socket):
        way.cache.add(BASE)
        await socket.send(f'{{"input":["resume"],{TOOLS}')
        await asyncio.wait_for(way.session.was_sent.wait(), 20)
        way.exchange.base_missed = True
        way.exchange.answered.set()
        with pytest.raises(RuntimeError):
            await way.outcome()

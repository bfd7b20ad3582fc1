"""Which messages of an agent go as documents, and what waits for what, in a session whose answers the test gives."""

from __future__ import annotations

import asyncio
import random

import pytest

from segue.http.heads import ReplyHead
from segue.http.websocket import WebSocketClose, WebSocketMessage
from segue.sidecar.base_cache import BaseCache
from segue.sidecar.body_encoder import BodyEncoder
from segue.sidecar.message_sender import MessageSender
from segue.sidecar.stats import Stats
from segue.tunnel.client import TunnelRequest
from segue.tunnel.documents import Base
from segue.tunnel.events import ReplyEnded
from segue.tunnel.socket_transcript import MAX_TRANSCRIPT_BYTES
from segue.tunnel.websocket_records import Record
from tests.sidecar.exchanges import ScriptedSession, post, scripted_exchange, upload_of

TOOLS = b'"tools":["' + b"a tool " * 700 + b'"]}'
CLOSE = WebSocketClose(1000, b"")


def items(seed: int, count: int) -> list[bytes]:
    """Items of 500 bytes that resemble no others."""
    chance = random.Random(seed)
    return [b'{"text":"%s"}' % chance.randbytes(245).hex().encode() for _ in range(count)]


def message(*conversation: bytes) -> WebSocketMessage:
    return WebSocketMessage("text", b'{"input":[' + b",".join(conversation) + b"]," + TOOLS)


FIRST, EARLIER = message(b'{"text":"begin"}'), Base(message(*items(1, 12)).data)
RESUMED = message(*items(1, 12)[2:], b'{"text":"go on"}')
NEW = message(*items(2, 12))
SMALL = WebSocketMessage("text", b"small")


class Sending:
    """One WebSocket; the gateway's answers are the test's."""

    def __init__(self, *bases: Base) -> None:
        self.exchange = scripted_exchange(TunnelRequest(post(), None, "websocket"))
        self.exchange.head = ReplyHead(101, b"Switching Protocols", ())
        self.stats = Stats()
        self.cache = BaseCache(None)
        for base in bases:
            self.cache.add(base)
        self.sender = MessageSender(self.exchange, BodyEncoder(self.cache, self.stats))

    @property
    def sent(self) -> bytes:
        assert isinstance(self.exchange.session, ScriptedSession)
        return self.exchange.session.sent

    async def send(self, *messages: WebSocketMessage) -> list[int]:
        """Send messages, each of which is taken if it asks; return how many bytes each took."""
        sizes = []
        for one in messages:
            before = len(self.sent)
            await self.sender.send(one)
            sizes.append(len(self.sent) - before)
            self.answer()
            await self.sender.ready()
        return sizes

    def answer(self, *, missed: bool = False) -> None:
        self.exchange.base_missed = missed
        self.exchange.answered.set()

    def read(self, *bases: Base) -> tuple[list[Record], list[bool]]:
        return upload_of(self.sent, *bases)


async def test_each_message_that_repeats_another_socket_goes_as_a_document_with_a_base() -> None:
    sending = Sending(EARLIER)
    first, resumed, new, again = await sending.send(FIRST, RESUMED, NEW, NEW)
    assert (first < 200, resumed < 300, again < 100) == (True, True, True)
    assert new > 3000
    assert sending.read(EARLIER) == ([FIRST, RESUMED, NEW, NEW], [True, True])


async def test_a_message_in_the_midst_of_a_stream_may_be_a_document() -> None:
    sending = Sending(EARLIER)
    sizes = await sending.send(FIRST, NEW, SMALL, RESUMED, SMALL, NEW)
    assert sizes[3] < 300
    assert sizes[5] < 150, "the next stream builds on all that was sent"
    sending.sender.close(CLOSE)
    assert sending.read(EARLIER) == ([FIRST, NEW, SMALL, RESUMED, SMALL, NEW, CLOSE], [True, True])


async def test_what_the_stream_has_goes_into_the_stream_though_it_is_in_a_base_too() -> None:
    sending = Sending(EARLIER)
    await sending.send(FIRST, RESUMED, SMALL)
    (again,) = await sending.send(WebSocketMessage("text", RESUMED.data + b" "))
    assert again < 100
    assert sending.read(EARLIER)[1] == [True, True]


async def test_what_is_new_in_a_message_decides_and_not_what_it_repeats_of_the_one_before() -> None:
    sending = Sending(EARLIER)
    await sending.send(FIRST, message(*items(1, 12)[:6]), message(*items(3, 7), *items(1, 12)[:6]))
    assert sending.read(EARLIER)[1] == [True], "the others have too little that is new, or too little of a base"


async def test_what_is_in_no_base_that_the_gateway_may_use_is_no_document() -> None:
    sending = Sending(Base(FIRST.data, b",".join(items(1, 12))))
    sending.exchange.session.folds_alike = False
    await sending.send(FIRST, RESUMED)
    assert sending.read(Base(FIRST.data))[1] == [True]


async def test_a_large_message_is_weighed_in_a_thread() -> None:
    long = Base(message(*items(4, 200)).data)
    sending = Sending(long)
    _, size = await sending.send(FIRST, message(*items(4, 200)[2:]))
    assert size < 300
    assert sending.read(long)[1] == [True, True]


async def test_nothing_is_searched_for_behind_what_is_too_much_for_a_base() -> None:
    sending = Sending(EARLIER)
    await sending.send(FIRST, WebSocketMessage("binary", bytes(MAX_TRANSCRIPT_BYTES)), RESUMED)
    assert sending.read(EARLIER)[1] == [True]


async def test_nothing_follows_a_message_before_it_was_answered_and_then_it_is_a_base() -> None:
    sending = Sending(EARLIER)
    await sending.send(FIRST)
    await sending.sender.send(RESUMED)
    assert sending.sender.is_waiting()
    before = len(sending.cache)
    sending.sender.note_received(WebSocketMessage("text", b"of the first one"))
    assert len(sending.cache) == before
    ready = asyncio.create_task(sending.sender.ready())
    await asyncio.sleep(0)
    assert not ready.done()
    sending.answer()
    await ready
    assert not sending.sender.is_waiting()
    sending.sender.note_received(WebSocketMessage("text", b"answer"))
    assert sending.cache.get(Base(RESUMED.data).id) is not None
    assert sending.cache.get(Base(FIRST.data).id) is not None
    assert (sending.stats.base_hits, sending.stats.without_base) == (2, 0)
    sending.exchange.end(ReplyEnded(sending.exchange.handle))
    await sending.sender.aclose()
    assert (
        sending.cache.get(Base(FIRST.data + b"\n" + RESUMED.data[len(b'{"input":') : -len(b"," + TOOLS)]).id)
        is not None
    )


@pytest.mark.parametrize("before", [[], [FIRST], [FIRST, SMALL]])
async def test_a_message_that_is_missed_is_sent_again_without_its_base(before: list[WebSocketMessage]) -> None:
    sending = Sending(EARLIER)
    await sending.send(*before)
    await sending.sender.send(RESUMED)
    sending.answer(missed=True)
    await sending.sender.ready()
    await sending.send(SMALL)
    records, asked = upload_of(sending.sent, EARLIER, misses=bool(before))
    assert records == [*before, RESUMED, SMALL]
    assert asked == [*[True] * bool(before), True, False]
    assert sending.cache.get(EARLIER.id) is None


async def test_a_message_that_waits_when_the_exchange_ends_is_not_sent_again() -> None:
    sending = Sending(EARLIER)
    await sending.sender.send(RESUMED)
    before = sending.sent
    sending.exchange.base_missed = True
    sending.exchange.end(ReplyEnded(sending.exchange.handle))
    await sending.sender.ready()
    assert sending.sent == before


async def test_small_messages_before_the_first_large_one_are_sent_by_themselves_and_at_once() -> None:
    sending = Sending(EARLIER)
    await sending.send(SMALL, RESUMED, SMALL)
    assert sending.read(EARLIER) == ([SMALL, RESUMED, SMALL], [False, True])


async def test_a_stream_begins_after_some_small_messages() -> None:
    sending = Sending()
    messages = [WebSocketMessage("text", b"message %d" % number) for number in range(7)]
    await sending.send(*messages)
    assert sending.read() == (list(messages), [False] * 5)

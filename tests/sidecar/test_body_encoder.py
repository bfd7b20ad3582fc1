"""Bodies as documents that a gateway can rebuild, and what becomes a base."""

from __future__ import annotations

import asyncio
import gzip
import random
from collections.abc import Callable
from typing import cast

import pytest

from segue.http.heads import Line, RequestHead
from segue.sidecar.base_cache import BaseCache
from segue.sidecar.body_encoder import BodyEncoder, EncodedBody
from segue.sidecar.session import AgentExchange, GatewaySession
from segue.sidecar.stats import Stats
from segue.tunnel.client import TunnelRequest
from segue.tunnel.documents import Base, Body, decode_document
from tests.sidecar.exchanges import STREAM, post, receive, waiting_exchange
from tests.sidecar.sidecars import conversation

GZIP = Line(b"Content-Encoding", b"gzip")
EPOCH = b"12345678"


class Encoding:
    """An encoder, and a gateway that knows the same bases."""

    def __init__(self) -> None:
        self.cache = BaseCache(None)
        self.stats = Stats()
        self.encoder = BodyEncoder(self.cache, self.stats)

    async def encode(self, body: bytes, head: RequestHead | None = None) -> EncodedBody:
        encoded = await self.encoder.encode(head or post(), body)
        assert encoded is not None
        return encoded

    def rebuilt(self, document: bytes) -> bytes:
        body = decode_document(document, self.cache.get)
        assert isinstance(body, Body), body
        return body.sent


async def test_a_request_without_a_body_has_no_document() -> None:
    assert await Encoding().encoder.encode(post(GZIP), None) is None


async def test_an_empty_body_is_a_body() -> None:
    gateway = Encoding()
    encoded = await gateway.encode(b"", post(GZIP))
    assert (encoded.plain, encoded.base, gateway.rebuilt(encoded.document)) == (b"", None, b"")


@pytest.mark.parametrize("size", [4_000, 100_000], ids=["beside the loop", "in a thread"])
async def test_a_body_is_a_delta_against_the_best_base(size: int) -> None:
    gateway = Encoding()
    first, second = conversation(4, size), conversation(5, size)
    gateway.cache.add(Base(first, b"reply"))
    gateway.cache.add(Base(random.Random(1).randbytes(len(first))))
    encoded = await gateway.encode(second)
    assert encoded.base is gateway.cache.get(Base(first).id)
    assert gateway.rebuilt(encoded.document) == second
    assert len(encoded.document) < size


@pytest.mark.parametrize("size", [4_000, 100_000], ids=["beside the loop", "in a thread"])
async def test_nothing_of_a_reply_is_covered_that_the_other_end_folds_otherwise(size: int) -> None:
    gateway = Encoding()
    body, reply = conversation(4, size), random.Random(1).randbytes(500)
    gateway.cache.add(Base(body, reply))
    encoded = await gateway.encoder.encode(post(), body + reply, folds_alike=False)
    assert encoded is not None
    assert encoded.base is not None
    rebuilt = decode_document(encoded.document, lambda _: Base(body, b"another fold"))
    assert isinstance(rebuilt, Body)
    assert rebuilt.sent == body + reply
    message = await gateway.encoder.encode_message(body + reply, folds_alike=False)
    assert message.base is not None
    assert isinstance(decode_document(message.document, lambda _: Base(body, b"another fold")), Body)


async def test_what_was_learned_of_a_body_is_used_when_it_becomes_a_base(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Encoding()
    plain = await gateway.encode(conversation(4))
    wrapped = await gateway.encode(gzip.compress(conversation(9), 6, mtime=1), post(GZIP))
    assert (plain.plain_id, wrapped.plain_id) == (Base(plain.plain).id, None)
    exchange = waiting_exchange()
    receive(exchange, STREAM)
    monkeypatch.delattr("segue.sidecar.base_matcher.BaseMatcher.match")
    monkeypatch.delattr("segue.sidecar.base_matcher._weights")
    for encoded in (plain, wrapped):
        gateway.encoder.record(exchange, encoded, b"folded")
        assert gateway.cache.get(Base(encoded.plain).id) is not None


class CompleteSession:
    """A session of which a test says what has left."""

    epoch = EPOCH
    has_left = False

    def is_complete(self, _: AgentExchange) -> bool:
        return self.has_left


def exchange_of(session: CompleteSession) -> AgentExchange:
    return AgentExchange(cast("GatewaySession", session), TunnelRequest(post(), b"document"), keep_bytes=0)


async def test_a_body_is_a_base_as_soon_as_it_has_left() -> None:
    gateway, session = Encoding(), CompleteSession()
    first, second = conversation(8), conversation(9)
    gateway.encoder.note_opened(exchange_of(session), await gateway.encode(first))
    assert (await gateway.encode(second)).base is None
    session.has_left = True
    encoded = await gateway.encode(second)
    assert encoded.base is gateway.cache.get(Base(first).id)
    assert gateway.rebuilt(encoded.document) == second
    assert not gateway.cache.needs_flush


async def test_a_body_that_has_left_does_not_take_the_place_of_one_that_was_answered() -> None:
    gateway, session = Encoding(), CompleteSession()
    session.has_left = True
    answered = Base(conversation(8), b"folded")
    gateway.cache.add(answered)
    gateway.encoder.note_opened(exchange_of(session), await gateway.encode(answered.body))
    assert (await gateway.encode(conversation(9))).base is answered


async def test_an_exchange_that_ended_before_its_body_had_left_is_no_base() -> None:
    gateway, session = Encoding(), CompleteSession()
    encoded = await gateway.encode(conversation(8))
    exchange = exchange_of(session)
    gateway.encoder.note_opened(exchange, encoded)
    gateway.encoder.record(exchange, encoded, b"")
    session.has_left = True
    assert (await gateway.encode(conversation(9))).base is None


@pytest.mark.parametrize(
    ("size", "with_base", "threads"),
    [(12_000, False, 0), (40_000, False, 1), (120_000, True, 0), (150_000, True, 0), (220_000, True, 1)],
)
async def test_what_takes_long_does_not_hold_the_event_loop(
    size: int, with_base: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, body, handed = Encoding(), conversation(1, size), list[object]()

    async def to_thread(work: Callable[..., object], *given: object, **named: object) -> object:
        handed.append(work)
        return work(*given, **named)

    if with_base:
        gateway.cache.add(Base(body[:-20], b"reply"))
    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    encoded = await gateway.encode(body)
    assert (encoded.base is not None, len(handed)) == (with_base, threads)
    assert gateway.rebuilt(encoded.document) == body


async def test_a_small_body_against_a_large_base_is_a_delta_too() -> None:
    gateway = Encoding()
    large = conversation(60, 6_000)
    gateway.cache.add(Base(large))
    encoded = await gateway.encode(large[:100_000])
    assert encoded.base is gateway.cache.get(Base(large).id)
    assert gateway.rebuilt(encoded.document) == large[:100_000]


async def test_a_content_coding_is_removed_where_the_gateway_can_apply_it_again() -> None:
    gateway = Encoding()
    gateway.cache.add(Base(conversation(8)))
    sent = gzip.compress(conversation(9), 6, mtime=1)
    encoded = await gateway.encode(sent, post(GZIP))
    assert encoded.plain == conversation(9)
    assert gateway.rebuilt(encoded.document) == sent
    assert len(encoded.document) < 4_000


async def test_a_content_coding_that_cannot_be_applied_again_stays() -> None:
    gateway = Encoding()
    encoded = await gateway.encode(b"not gzip at all", post(GZIP))
    assert (encoded.plain, encoded.sent) == (b"not gzip at all", b"not gzip at all")


async def test_a_missed_base_is_dropped_and_the_body_goes_as_it_was_sent() -> None:
    gateway = Encoding()
    base = Base(conversation(8))
    gateway.cache.add(base)
    sent = gzip.compress(conversation(9), 6, mtime=1)
    encoded = await gateway.encode(sent, post(GZIP))
    document = await gateway.encoder.encode_without_base(encoded, EPOCH)
    assert gateway.cache.get(base.id) is None
    assert decode_document(document, lambda _: None) == Body(sent, sent, Base(sent).id)


async def test_a_body_without_base_that_was_missed_drops_nothing() -> None:
    gateway = Encoding()
    encoded = await gateway.encode(b"{}")
    other = Base(b"another")
    gateway.cache.add(other)
    document = await gateway.encoder.encode_without_base(encoded, b"")
    assert gateway.rebuilt(document) == b"{}"
    assert gateway.cache.get(other.id) is other


@pytest.mark.parametrize(
    ("base", "missed", "counted"),
    [(None, False, (0, 1)), (Base(b"base"), False, (1, 0)), (Base(b"base"), True, (0, 1))],
)
async def test_an_exchange_with_a_head_becomes_a_base_and_is_counted(
    base: Base | None, counted: tuple[int, int], *, missed: bool
) -> None:
    gateway = Encoding()
    exchange = waiting_exchange()
    exchange.base_missed = missed
    receive(exchange, STREAM)
    gateway.encoder.record(exchange, EncodedBody(b"{}", b"{}", b"document", base), b"folded")
    assert (gateway.stats.base_hits, gateway.stats.without_base) == counted
    kept = gateway.cache.get(Base(b"{}").id)
    assert kept is not None
    assert kept.reply == b"folded"


async def test_an_exchange_without_a_head_or_a_body_does_not() -> None:
    gateway = Encoding()
    exchange = waiting_exchange()
    gateway.encoder.record(exchange, EncodedBody(b"{}", b"{}", b"document", None), b"")
    receive(exchange, STREAM)
    gateway.encoder.record(exchange, None, b"folded")
    assert (len(gateway.cache), gateway.stats) == (0, Stats())


async def test_the_next_body_waits_for_a_large_base_that_is_being_added() -> None:
    gateway = Encoding()
    exchange = waiting_exchange()
    receive(exchange, STREAM)
    large = conversation(4, 100_000)
    gateway.encoder.record(exchange, EncodedBody(large, large, b"document", None), b"")
    encoded = await gateway.encode(conversation(5, 100_000))
    assert encoded.base is not None
    assert encoded.base.body == large
    await gateway.encoder.aclose()

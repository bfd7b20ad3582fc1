"""Exchanges without an agent: which request gets the reply of which, and which are given up."""

from __future__ import annotations

import asyncio

import pytest

from segue.http.heads import Line, RequestHead
from segue.sidecar.base_cache import BaseCache
from segue.sidecar.body_encoder import BodyEncoder, EncodedBody
from segue.sidecar.link_status import LinkUnavailable
from segue.sidecar.orphaned_exchanges import OrphanedExchanges, OrphanLimits
from segue.sidecar.session import AgentExchange
from segue.sidecar.stats import Stats
from segue.tunnel.client import TunnelRequest
from segue.tunnel.documents import Base
from segue.tunnel.events import ExchangeReset, ReplyEnded
from tests.sidecar.exchanges import STREAM, post, receive, waiting_exchange

KEY = Line(b"X-Api-Key", b"alice")


class Orphanage:
    """Orphans over a cache that is really there."""

    def __init__(self, limits: OrphanLimits | None = None) -> None:
        self.cache = BaseCache(None)
        self.stats = Stats()
        self.orphans = OrphanedExchanges(BodyEncoder(self.cache, self.stats), limits)

    def add(
        self, head: RequestHead, sent: bytes | None, *, folded: bytes = b"", keep_bytes: int = 1024
    ) -> AgentExchange:
        body = None if sent is None else EncodedBody(sent, sent, b"document", None)
        exchange = waiting_exchange(TunnelRequest(head, None if sent is None else b"document"), keep_bytes=keep_bytes)
        self.orphans.add(exchange, sent, body=body, folded=folded)
        return exchange

    def found(self, head: RequestHead, sent: bytes | None) -> AgentExchange | None:
        taken = self.orphans.take(head, sent)
        return None if taken is None else taken[0]


def is_cancelled(exchange: AgentExchange) -> bool:
    return isinstance(exchange.ending, ExchangeReset) and exchange.ending.code == "cancelled"


async def test_the_same_request_takes_the_exchange_once_with_its_body() -> None:
    place = Orphanage()
    exchange = place.add(post(KEY), b"{}")
    assert (exchange.orphaned, len(place.orphans)) == (True, 1)
    taken = place.orphans.take(post(KEY, Line(b"X-Retry", b"1")), b"{}")
    assert taken == (exchange, EncodedBody(b"{}", b"{}", b"document", None))
    assert (exchange.orphaned, exchange.ending, len(place.orphans)) == (False, None, 0)
    assert place.orphans.take(post(KEY), b"{}") is None


@pytest.mark.parametrize("name", [b"Authorization", b"X-Api-Key", b"x-goog-api-key", b"Api-Key", b"Cookie"])
async def test_another_credential_does_not_get_the_reply(name: bytes) -> None:
    place = Orphanage()
    exchange = place.add(post(Line(name, b"alice")), b"{}")
    assert place.found(post(Line(name, b"bob")), b"{}") is None
    assert place.found(post(), b"{}") is None
    assert place.found(post(Line(name, b"alice"), Line(name, b"bob")), b"{}") is None
    assert place.found(post(Line(name.swapcase(), b"alice")), b"{}") is exchange


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (RequestHead(b"PUT", b"/v1/messages", (KEY,)), b""),
        (RequestHead(b"POST", b"/v1/messages?beta", (KEY,)), b""),
        (post(KEY), b"{}"),
        (post(KEY), None),
        (post(Line(b"Authorization", b"alice")), b""),
    ],
)
async def test_another_request_does_not_get_the_reply(head: RequestHead, sent: bytes | None) -> None:
    place = Orphanage()
    exchange = place.add(post(KEY), b"")
    assert place.found(head, sent) is None
    assert place.found(post(KEY), b"") is exchange


async def test_of_two_orphans_the_older_is_taken_first() -> None:
    place = Orphanage()
    first, second = place.add(post(KEY), b"{}"), place.add(post(KEY), b"{}")
    assert [place.found(post(KEY), b"{}") for _ in range(3)] == [first, second, None]


async def test_an_orphan_that_cannot_be_answered_from_its_beginning_is_given_up() -> None:
    place = Orphanage()
    too_long = place.add(post(KEY), b"{}", keep_bytes=10)
    receive(too_long, STREAM, b"x" * 11)
    never_sent = place.add(post(KEY), b"{}")
    never_sent.end(LinkUnavailable("segue_gateway_unreachable", "it is away"))
    ended = place.add(post(KEY), b"{}")
    ended.end(ReplyEnded(ended.handle))
    assert place.found(post(KEY), b"{}") is ended
    assert is_cancelled(too_long)
    assert len(place.orphans) == 0


async def test_an_orphan_that_nobody_comes_for_is_cancelled_and_becomes_a_base() -> None:
    place = Orphanage(OrphanLimits(keep_s=0.01))
    exchange = place.add(post(KEY), b"{}", folded=b"hello")
    receive(exchange, STREAM)
    while exchange.ending is None:
        exchange.changed.clear()
        await asyncio.wait_for(exchange.changed.wait(), 20)
    assert is_cancelled(exchange)
    assert (len(place.orphans), place.stats.without_base) == (0, 1)
    kept = place.cache.get(Base(b"{}").id)
    assert kept is not None
    assert (kept.body, kept.reply) == (b"{}", b"hello")


async def test_no_more_are_kept_than_the_limits_allow() -> None:
    by_number, by_bytes = OrphanLimits(max_exchanges=2), OrphanLimits(max_body_bytes=7)
    for limits in (by_number, by_bytes):
        place = Orphanage(limits)
        first, second, third = (place.add(post(KEY), b"%d..." % number) for number in range(3))
        if limits is by_number:
            assert [is_cancelled(one) for one in (first, second, third)] == [True, False, False]
        else:
            assert [is_cancelled(one) for one in (first, second, third)] == [True, True, False]
        assert place.found(post(KEY), b"2...") is third


async def test_clearing_gives_all_of_them_up() -> None:
    place = Orphanage()
    orphans = [place.add(post(KEY), b"%d" % number) for number in range(3)]
    place.orphans.clear()
    assert [is_cancelled(one) for one in orphans] == [True] * 3
    assert len(place.orphans) == 0

"""The bound of a session is what its news cost when each thing is sent once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from segue.http.heads import RequestHead
from segue.testing.recorded_session import RecordedSession, RecordedTurn, compressed
from segue.testing.replies import ProviderReply
from tests.strategies import examples

HEAD = RequestHead(b"POST", b"/v1/messages", ())
REPLY = ProviderReply(lines=(), events=(), whole=b"{}")


def session(*turns: tuple[bytes, bytes]) -> RecordedSession:
    made = tuple(RecordedTurn(head=HEAD, body=body, reply=REPLY, news=news) for body, news in turns)
    return RecordedSession(kind="any", api="messages", streamed=True, transport="http", turns=made)


def test_a_session_of_one_turn_is_bound_by_its_body() -> None:
    assert session((b"x" * 1000, b"x" * 1000)).bound == compressed(b"x" * 1000) < 50


def test_later_bodies_count_with_their_news_only() -> None:
    later = [(b"first and more" * size, b"news %d " % size) for size in (100, 10_000)]
    assert session((b"first", b"first"), *later).bound == compressed(b"first") + compressed(b"news 100 news 10000 ")


def test_nothing_compresses_to_nothing() -> None:
    assert compressed(b"") == 0
    assert session((b"first", b"first"), (b"first", b"")).bound == compressed(b"first")


@settings(max_examples=examples(50))
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_the_bound_grows_with_news_and_not_with_their_number_of_turns(news: list[bytes]) -> None:
    split = session((b"first", b"first"), *((b"body", one) for one in news))
    joined = session((b"first", b"first"), (b"body", b"".join(news)))
    assert split.bound == joined.bound >= compressed(b"first")

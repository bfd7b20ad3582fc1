"""Finding the session that a request continues."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from segue.client.adapters.history_digest import EMPTY, extend_digest
from segue.client.adapters.session_index import HeldHistory, SessionIndex


def user(text: str) -> bytes:
    return json.dumps({"role": "user", "content": text}).encode()


def digest_of(*texts: str) -> bytes:
    return [EMPTY, *extend_digest(EMPTY, map(user, texts))][-1]


def held(response_id: str, *texts: str) -> HeldHistory:
    return HeldHistory(digest_of(*texts), response_id)


def test_the_longest_beginning_wins() -> None:
    index: SessionIndex[str] = SessionIndex()
    index.put("short", held("resp_1", "a"))
    index.put("long", held("resp_2", "a", "b"))
    assert index.take_by_history([user("a"), user("b"), user("c")]) == ("long", 2, digest_of("a", "b", "c"))
    assert index.take_by_history([user("a"), user("b"), user("c")]) == ("short", 1, digest_of("a", "b", "c"))
    assert index.take_by_history([user("a"), user("b"), user("c")]) == (None, 0, digest_of("a", "b", "c"))


def test_a_history_that_differs_is_not_continued() -> None:
    index: SessionIndex[str] = SessionIndex()
    index.put("one", held("resp_1", "a", "b"))
    assert index.take_by_history([user("a")]).session is None
    assert index.take_by_history([user("b"), user("a"), user("b")]).session is None
    assert index.take_by_history([]) == (None, 0, EMPTY)


def test_a_session_is_found_by_the_response_that_it_ends_with() -> None:
    index: SessionIndex[str] = SessionIndex()
    index.put("one", held("resp_1", "a"))
    assert index.take_by_response("resp_2", [user("b")]) is None
    assert index.take_by_response("resp_1", [user("b")]) == ("one", 0, digest_of("a", "b"))
    assert index.take_by_response("resp_1", [user("b")]) is None
    assert index.take_by_history([user("a"), user("b")]).session is None


def test_two_equal_conversations_have_a_session_each() -> None:
    index: SessionIndex[str] = SessionIndex()
    index.put("one", held("resp_1", "a"))
    index.put("other", held("resp_2", "a"))
    taken = {index.take_by_history([user("a")]).session for _ in range(2)}
    assert taken == {"one", "other"}
    assert len(index) == 0


def test_the_sessions_unused_for_longest_are_given_up() -> None:
    index: SessionIndex[str] = SessionIndex(2)
    assert index.put("one", held("resp_1", "a")) == []
    assert index.put("two", held("resp_2", "b")) == []
    assert index.put("three", held("resp_3", "c")) == ["one"]
    assert index.clear() == ["two", "three"]
    assert len(index) == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.sampled_from("ab"), min_size=1, max_size=4)), max_size=30))
def test_each_session_is_in_one_place(puts: list[tuple[int, list[str]]]) -> None:
    index: SessionIndex[int] = SessionIndex(8)
    alive: set[int] = set()
    for number, (name, texts) in enumerate(puts):
        gone = index.put(number, held(f"resp_{name}", *texts))
        alive = (alive | {number}) - set(gone)
        taken = index.take_by_history([user(text) for text in texts[::-1]]).session
        if taken is not None:
            assert taken in alive
            alive.remove(taken)
    assert len(index) == len(alive)
    assert set(index.clear()) == alive

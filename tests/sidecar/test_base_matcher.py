"""Choosing bases, with sessions of the shapes that agents have."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.sidecar.base_matcher import BaseMatch, BaseMatcher, SampledBody
from tests.strategies import examples

K = TypeVar("K")

_WORDS = ("the", "model", "reads", "file", "edits", "tests", "run", "green", "line", "path", "error", "import")


def prose(seed: int, words: int) -> str:
    rng = random.Random(seed)
    return " ".join(f"{rng.choice(_WORDS)}{rng.randrange(100)}" for _ in range(words))


def match(matcher: BaseMatcher[K], body: bytes) -> BaseMatch[K] | None:
    return matcher.match(SampledBody(body))


def best(matcher: BaseMatcher[K], body: bytes) -> K | None:
    found = match(matcher, body)
    return None if found is None else found.key


def add(matcher: BaseMatcher[K], key: K, body: bytes, reply: bytes) -> None:
    matcher.add(key, SampledBody(body), reply)


class Session:
    """A session of Messages shape: the same system prompt for all of an agent, and messages of its own."""

    def __init__(self, seed: int, *, agent: int = 0, separators: tuple[str, str] = (",", ":")) -> None:
        self.seed = seed
        self.agent = agent
        self.separators = separators
        self.messages: list[object] = []
        self.early: dict[str, object] = {}

    def turn(self) -> bytes:
        seed = 1000 * self.seed + len(self.messages)
        self.messages.append({"role": "user", "content": [{"type": "text", "text": prose(seed, 60)}]})
        self.messages.append({"role": "assistant", "content": prose(seed + 500, 60)})
        return self.body()

    def body(self) -> bytes:
        tools = [{"name": f"tool{n}", "description": prose(10**6 + self.agent * 100 + n, 30)} for n in range(12)]
        document = {**self.early, "system": prose(self.agent + 77, 200), "tools": tools, "messages": self.messages}
        return json.dumps(document, separators=self.separators).encode()


def test_the_newest_of_a_growing_session_is_chosen() -> None:
    matcher: BaseMatcher[int] = BaseMatcher()
    session = Session(1)
    for number in range(20):
        body = session.turn()
        assert best(matcher, body) == (number - 1 if number else None)
        add(matcher, number, body, b"")


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["compact", "spaced"])
@pytest.mark.parametrize("changes_early", [False, True])
def test_interleaved_sessions_of_one_agent_each_get_their_own_newest(
    separators: tuple[str, str], changes_early: bool
) -> None:
    rng = random.Random(7)
    matcher: BaseMatcher[tuple[int, int]] = BaseMatcher()
    sessions = [Session(seed, separators=separators) for seed in range(5)]
    turns = [0] * len(sessions)
    for step in range(60):
        which = rng.randrange(len(sessions))
        session = sessions[which]
        if changes_early:
            session.early = {"metadata": {"turn_started_at": f"{step * 977:012}"}}
        body = session.turn()
        found = best(matcher, body)
        if turns[which]:
            assert found == (which, turns[which] - 1)
        turns[which] += 1
        add(matcher, (which, turns[which] - 1), body, b"")


def test_another_agent_with_nothing_in_common_gets_no_base() -> None:
    matcher: BaseMatcher[str] = BaseMatcher()
    add(matcher, "one", Session(1, agent=1).turn(), b"")
    assert best(matcher, json.dumps({"input": prose(99, 2000)}).encode()) is None
    assert best(matcher, b"{}") is None
    assert best(matcher, b"") is None


def test_what_is_unlike_only_at_markers_and_forms_is_still_found() -> None:
    matcher: BaseMatcher[str] = BaseMatcher()
    session = Session(3)
    for _ in range(6):
        session.turn()
    marked = json.loads(session.body())
    marked["messages"][-2]["content"][0]["cache_control"] = {"type": "ephemeral"}
    add(matcher, "marked", json.dumps(marked, separators=(",", ":")).encode(), b"")
    add(matcher, "other", Session(4).turn(), b"")
    flipped = json.loads(session.turn())
    flipped["model"] = "another"
    for message in flipped["messages"]:
        if isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]
    body = json.dumps({"first": 1, **flipped}, separators=(",", ":")).encode()
    found = match(matcher, body)
    assert found is not None
    assert found.key == "marked"
    assert found.shared_bytes > 0.8 * len(body)


def test_a_compacted_session_takes_the_newest_that_shares_its_prompt() -> None:
    matcher: BaseMatcher[int] = BaseMatcher()
    session = Session(5)
    for number in range(8):
        add(matcher, number, session.turn(), b"")
    session.messages = [{"role": "user", "content": "This session is continued. " + prose(123456, 150)}]
    assert best(matcher, session.body()) == 7


def test_an_edited_history_takes_the_turn_before_the_edit() -> None:
    matcher: BaseMatcher[int] = BaseMatcher()
    session = Session(6)
    for number in range(8):
        add(matcher, number, session.turn(), b"")
    session.messages = session.messages[:8]
    session.seed = 60
    kept = best(matcher, session.turn())
    assert kept is not None
    assert 3 <= kept <= 7  # all of them begin with what was kept
    found = match(matcher, session.body())
    assert found is not None
    assert found.key == 7  # and of equals the newest


def test_of_two_equal_bodies_the_one_whose_reply_is_repeated_is_chosen() -> None:
    session = Session(8)
    first = session.turn()
    replies = [prose(900 + n, 30) for n in range(2)]
    for repeated in range(2):
        matcher: BaseMatcher[int] = BaseMatcher()
        for number, reply in enumerate(replies):
            add(matcher, number, first, reply.encode())
        document = json.loads(first)
        document["messages"].append({"role": "assistant", "content": replies[repeated]})
        body = json.dumps({"n": 1, **document}, separators=(",", ":")).encode()
        assert best(matcher, body) == repeated


def test_a_repeated_reply_counts_for_more_than_an_older_session_that_saw_the_same_output() -> None:
    """The second turn of a warm start: the earlier session has the tool's output, and our own has what was said."""
    prompt, output, said, other = ({"role": "user", "content": prose(seed, 200)} for seed in range(4))
    earlier = json.dumps({"messages": [prompt, other, output]}, separators=(",", ":")).encode()
    first = json.dumps({"messages": [prompt]}, separators=(",", ":")).encode()
    reply = json.dumps(said, separators=(",", ":")).encode()
    short = {"role": "user", "content": output["content"][:300]}
    body = json.dumps({"messages": [prompt, said, short]}, separators=(",", ":")).encode()
    matcher: BaseMatcher[str] = BaseMatcher()
    add(matcher, "ours", first, reply)
    add(matcher, "earlier", earlier, b"")
    assert best(matcher, body) == "ours"


def test_a_large_body_finds_bases_of_other_sizes() -> None:
    text = {"role": "user", "content": prose(5, 40_000)}
    session = Session(9)
    session.messages.append(text)
    sizes = []
    matcher: BaseMatcher[int] = BaseMatcher()
    for number in range(12):
        body = session.turn()
        sizes.append(len(body))
        add(matcher, number, body, b"")
        session.messages += [{"role": "user", "content": prose(5000 + number * 100 + n, 3000)} for n in range(number)]
        session.early = {"nonce": f"{number:08}"}
        found = match(matcher, session.turn())
        assert found is not None
        assert found.key == number
    assert sizes[0] < 512 * 1024 < 1024 * 1024 < sizes[-1]
    session.messages = session.messages[:3]
    assert best(matcher, session.body()) is not None  # compaction: the bases are of a coarser scale


def test_a_body_of_strings_only_has_a_bounded_number_of_places() -> None:
    strings = [b'"":"%08x"' % number for number in range(200_000)]
    matcher: BaseMatcher[int] = BaseMatcher()
    add(matcher, 1, b",".join(strings), b"")
    body = b",".join(b'"":""' if number % 100 == 0 else string for number, string in enumerate(strings))
    found = match(matcher, body)
    assert found is not None
    assert found.shared_bytes > 0.15 * len(body)
    assert 10_000 < sum(map(len, vars(matcher)["_indexed"].values())) < 40_000


def test_a_body_that_repeats_the_reply_needs_no_fingerprints_and_stands_in_for_its_base() -> None:
    matcher: BaseMatcher[int] = BaseMatcher()
    session = Session(12)
    session.turn()
    body = b""
    for number in range(12):
        session.early = {"nonce": f"{number:08}"}
        body = session.body()
        found = match(matcher, body)
        assert found is None if number == 0 else found is not None
        if found is not None:
            assert (found.key, found.continued) == (number - 1, True)
            assert len(body) - 1000 < found.shared_bytes < len(body)
        said = {"role": "assistant", "content": prose(7000 + number, 30)}
        matcher.add(number, SampledBody(body), json.dumps(said, separators=(",", ":")).encode(), found)
        session.messages += [said, {"role": "user", "content": "Go on."}]
    assert not vars(matcher)["_indexed"]
    assert matcher.unindexed_bytes == len(body)
    matcher.remove(11)
    compacted = Session(12)
    compacted.early = {"nonce": "again"}
    assert best(matcher, compacted.turn()) == 10  # the newest that is left, which nothing stands in for any more
    assert list(vars(matcher)["_indexed"]) == [vars(matcher)["_slots"][10]]
    assert matcher.unindexed_bytes == 0


def test_bases_of_many_sessions_do_not_wait_for_a_search() -> None:
    matcher: BaseMatcher[int] = BaseMatcher()
    bodies = [Session(seed).turn() for seed in range(20)]
    for number, body in enumerate(bodies):
        add(matcher, number, body, b"")
    assert matcher.unindexed_bytes <= 4 * max(map(len, bodies))
    assert all(best(matcher, body) == number for number, body in enumerate(bodies))
    matcher.index()
    assert matcher.unindexed_bytes == 0


def test_removed_bases_leave_nothing_behind() -> None:
    matcher: BaseMatcher[int] = BaseMatcher()
    session = Session(10)
    bodies = [session.turn() for _ in range(6)]
    for number, body in enumerate(bodies):
        add(matcher, number, body, b"")
        add(matcher, number, body, b"again")
    assert len(matcher) == 6
    assert best(matcher, bodies[-1]) == 5
    for number in [5, 0, 3, 3, 1, 2, 4]:
        matcher.remove(number)
    assert len(matcher) == 0
    assert best(matcher, bodies[-1]) is None
    assert vars(matcher) == vars(BaseMatcher())


@settings(max_examples=examples(150))
@given(st.binary(max_size=3000), st.binary(max_size=3000), st.binary(max_size=100))
def test_any_bytes_are_taken(body: bytes, other: bytes, reply: bytes) -> None:
    matcher: BaseMatcher[str] = BaseMatcher()
    add(matcher, "body", body, reply)
    found = match(matcher, other)
    assert found is None or 0 < found.shared_bytes <= len(other)
    again = match(matcher, body)
    if len(body) >= 512:
        assert again is not None
        assert again.shared_bytes >= len(body) - 256


def test_the_choice_is_the_same_in_every_process() -> None:
    program = (
        "from tests.sidecar.test_base_matcher import Session, add, match\n"
        "from segue.sidecar.base_matcher import BaseMatcher\n"
        "matcher = BaseMatcher()\nsession = Session(11)\n"
        "for number in range(4):\n    add(matcher, number, session.turn(), b'')\n"
        "session.early = {'x': 1}\nprint(match(matcher, session.turn()))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert "key=3" in outputs.pop()

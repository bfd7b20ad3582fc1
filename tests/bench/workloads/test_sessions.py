"""Generated sessions have the sizes of real ones, grow as they do, and say what is new in each turn."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.bench.workloads.clients import AgentKind
from segue.bench.workloads.sessions import ITEMS, KINDS, make_session
from segue.testing.recorded_session import compressed
from tests.strategies import examples

# first body, and bytes of all bodies of 11 turns, measured with the agents themselves
SIZES: dict[AgentKind, tuple[int, int]] = {
    "codex": (38_315, 631_370),
    "claude-code": (53_992, 787_049),
    "pi": (5_685, 250_566),
    "qwen-code": (79_111, 960_575),
    "gemini-cli": (49_175, 731_339),
    "openai-agents": (1_591, 218_716),
    "mini-swe-agent": (3_434, 128_232),
}


@pytest.mark.untraced
@pytest.mark.parametrize("kind", SIZES)
def test_sizes_are_those_of_the_real_agent(kind: AgentKind) -> None:
    first, total = SIZES[kind]
    for seed in range(3):
        session = make_session(kind, turns=11, seed=seed)
        sizes = [len(turn.body) for turn in session.turns]
        assert 0.85 * first < sizes[0] < 1.15 * first + 300  # the smallest has one task of any length
        assert 0.8 * total < sum(sizes) < 1.25 * total


def test_compresses_like_the_real_agent() -> None:
    ratios: dict[AgentKind, float] = {"codex": 2.24, "pi": 1.95, "qwen-code": 2.89, "mini-swe-agent": 3.11}
    for kind, real in ratios.items():
        session = make_session(kind, turns=11)
        ratio = sum(len(turn.body) for turn in session.turns) / sum(compressed(turn.body) for turn in session.turns)
        assert 0.85 * real < ratio < 1.15 * real


@settings(max_examples=examples(20))
@given(st.sampled_from(KINDS), st.integers(1, 12), st.integers(0, 1000))
def test_the_same_seed_makes_the_same_session(kind: AgentKind, turns: int, seed: int) -> None:
    one = make_session(kind, turns=turns, seed=seed)
    assert len(one.turns) == turns
    assert one == make_session(kind, turns=turns, seed=seed)
    assert one != make_session(kind, turns=turns, seed=seed + 1)


def test_a_session_may_begin_late() -> None:
    whole = make_session("pi", turns=9)
    late = make_session("pi", turns=2, after_bytes=12_000)
    bodies = [turn.body for turn in whole.turns]
    first = next(number for number, body in enumerate(bodies) if len(body) >= 12_000)
    assert 0 < first < 7
    assert [turn.body for turn in late.turns] == bodies[first : first + 2]
    assert late.turns[0].news == late.turns[0].body


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "codex-ws"])
def test_each_request_repeats_the_one_before_and_the_reply(kind: AgentKind) -> None:
    session = make_session(kind, turns=6)
    before: list[object] = []
    for turn in session.turns:
        body = json.loads(turn.body)
        items = [_plain(item) for item in body[ITEMS[session.api]]]
        assert items[: len(before)] == before
        before = items
    assert all(turn.news for turn in session.turns[1:])
    assert all(turn.news in turn.body or len(turn.news) < len(turn.body) for turn in session.turns)


def _plain(item: object) -> object:
    """Without the marker that moves, and with content in its long form."""
    text = json.dumps(item).replace(', "cache_control": {"type": "ephemeral"}', "")
    plain = json.loads(text)
    if isinstance(plain.get("content"), str) and plain.get("role") == "user":
        plain["content"] = [{"type": "text", "text": plain["content"]}]
    return plain


def test_the_cache_marker_is_on_the_newest_message() -> None:
    for turn in make_session("claude-code", turns=4).turns:
        messages = json.loads(turn.body)["messages"]
        marked = [index for index, message in enumerate(messages) if "cache_control" in json.dumps(message)]
        assert marked == [len(messages) - 1]


def test_news_are_what_the_agent_adds_by_itself() -> None:
    session = make_session("codex", turns=3)
    assert session.turns[0].news == session.turns[0].body
    (item,) = json.loads(session.turns[1].news)
    assert item["type"] == "function_call_output"
    assert session.bound < compressed(session.turns[0].body) + sum(compressed(turn.news) for turn in session.turns[1:])


def test_a_socket_session_sends_only_what_is_new() -> None:
    session = make_session("codex-ws", turns=5)
    assert session.transport == "websocket"
    bodies = [json.loads(turn.body) for turn in session.turns]
    assert "previous_response_id" not in bodies[0]
    for body, turn in zip(bodies[1:], session.turns, strict=False):
        assert body["type"] == "response.create"
        assert [item["type"] for item in body["input"]] == ["function_call_output"]
        assert body["previous_response_id"] == json.loads(turn.reply.whole)["id"]


def test_credentials_are_in_the_head_and_nowhere_else() -> None:
    for kind in KINDS:
        session = make_session(kind, turns=2)
        names = {b"authorization", b"x-api-key", b"x-goog-api-key"}
        (key,) = {line.value for line in session.turns[0].head.lines if line.name in names}
        assert len(key) > 40
        assert all(key not in turn.body for turn in session.turns)


@pytest.mark.parametrize("kind", KINDS)
def test_another_task_of_the_same_agent_has_the_same_prompts_and_tools(kind: AgentKind) -> None:
    one, two = [make_session(kind, turns=2, task=task) for task in (0, 1)]
    ours, theirs = [json.loads(session.turns[0].body) for session in (one, two)]
    assert ours.get("tools") == theirs.get("tools")
    assert ours.get("system") == theirs.get("system")
    assert ours != theirs
    assert one.turns[1].news != two.turns[1].news

"""Delta and replay are the same, in every dialect: what the upstream gets is a function of the items in their order."""

from __future__ import annotations

import json
from collections.abc import Callable
from unittest.mock import MagicMock, patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.chat.request import ChatDialect
from segue.dialects.incremental import MAX_WARNINGS, RenderedTurn, render_history, render_turn
from segue.dialects.interface import Dialect
from segue.dialects.messages.request import MessagesDialect
from segue.dialects.provider_families import FAMILIES
from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.request import ResponsesDialect
from segue.history.chains import History
from segue.protocol.problems import Problem, unreadable_compaction
from segue.protocol.requests import Settings, json_text
from segue.testing.protocol_checker import parse_json
from tests.dialects.conversations import CHAT, DIALECTS, Request, encode_items, grow, render, replay, thought, turns
from tests.strategies import examples

Turns = list[tuple[list[bytes], list[bytes]]]

INSTRUCTED = Settings(model="m", instructions=json_text("Be brief."), tools=[{"type": "function", "name": "look"}])
#: Those of every API, and one for a server that takes less than others.
RENDERERS = DIALECTS | {"mistral": ChatDialect(CHAT, profile=FAMILIES["mistral"].profile)}
every_dialect = pytest.mark.parametrize("dialect", RENDERERS.values(), ids=RENDERERS)


@pytest.mark.untraced
@every_dialect
@given(conversation=turns, budget=st.sampled_from([0, 2000, 1 << 24]), instructed=st.booleans())
@settings(max_examples=examples(300))
def test_delta_and_replay_get_the_same_body(
    dialect: Dialect, conversation: Turns, budget: int, instructed: bool
) -> None:
    """Whatever was kept of earlier turns, and however small the room to keep it in."""
    wanted = INSTRUCTED if instructed else Settings(model="m")
    kept = RenderCache(budget)
    parent, seen = None, []
    for given_items, made in conversation:
        seen += given_items
        delta = render(dialect, History(parent, tuple(given_items)), wanted, kept)
        whole = render(dialect, replay(seen), wanted)
        assert delta.body == whole.body
        assert delta.warnings == whole.warnings
        assert len(set(delta.warnings)) == len(delta.warnings)
        parse_json(delta.body.decode())
        parent = grow(parent, given_items, made)
        seen += made
    assert kept.size_bytes <= budget


@pytest.mark.untraced
@every_dialect
@given(conversation=turns, other=turns)
@settings(max_examples=examples(100))
def test_forks_share_what_was_rendered_and_do_not_disturb_each_other(
    dialect: Dialect, conversation: Turns, other: Turns
) -> None:
    kept = RenderCache(1 << 24)
    root = None
    for given_items, made in conversation:
        root = grow(root, given_items, made)
    seen = [item for given_items, made in conversation for item in (*given_items, *made)]
    for given_items, _ in (*other, *other):
        assert render(dialect, History(root, tuple(given_items)), keep=kept).body == (
            render(dialect, replay([*seen, *given_items])).body
        )


@every_dialect
def test_an_item_written_with_other_spaces_and_escapes_is_the_same_item(dialect: Dialect) -> None:
    items = [
        {"type": "message", "role": "user", "content": "é"},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "ok"},
    ]
    one = render(dialect, replay(encode_items(items))).body
    two = render(dialect, replay([json.dumps(item, indent=1, ensure_ascii=False).encode() for item in items])).body
    assert parse_json(one.decode()) | {"prompt_cache_key": ""} == parse_json(two.decode()) | {"prompt_cache_key": ""}


@every_dialect
def test_a_turn_is_rendered_once(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = RenderCache(1 << 24)
    parent = None
    for index in range(50):
        asked = encode_items([{"type": "message", "role": "user", "content": f"q{index}"}])
        said = encode_items([{"type": "message", "role": "assistant", "content": f"a{index}"}])
        render(dialect, History(parent, asked), keep=kept)
        parent = grow(parent, asked, said)
    assert isinstance(dialect, ChatDialect | MessagesDialect | ResponsesDialect)
    renderer = MagicMock(side_effect=dialect.renderer)
    monkeypatch.setattr(dialect, "renderer", renderer)
    render(dialect, History(parent, encode_items([{"role": "user", "content": "last"}])), keep=kept)
    assert renderer.call_count == 2, "the turn before and the new input"


@pytest.mark.parametrize("budget", [0, 1 << 24])
def test_a_turn_alone_is_rendered_as_in_the_whole_history(budget: int) -> None:
    """What is kept rendered is not rendered again, and nothing is walked twice."""
    dialect, parent = MessagesDialect("m"), grow(None, [])
    kept = RenderCache(budget).view("m", RenderedTurn)
    for index in range(19):
        asked = encode_items([{"type": "message", "role": "user", "content": f"q{index}"}])
        parent = grow(parent, asked, encode_items([{"type": "message", "role": "assistant", "content": f"a{index}"}]))
        whole = render_history(History(parent, ()), dialect, RenderCache(1 << 24).view("m", RenderedTurn))
        assert render_turn(parent, dialect, kept) == whole[-2]
    renderer = MagicMock(side_effect=dialect.renderer)
    with patch.object(dialect, "renderer", renderer):
        render_turn(parent, dialect, kept)
    assert renderer.call_count == (0 if budget else 20)


@pytest.mark.parametrize("make", [ChatDialect, MessagesDialect, ResponsesDialect])
def test_providers_do_not_share_what_was_rendered(make: Callable[[str], Dialect]) -> None:
    """Reasoning goes back to the provider that sealed it, and to no other."""
    one, other = make("one.example"), make("other.example")
    inner = {"field": "reasoning_content", "signature": "c2ln"}
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
    parent = grow(
        None, encode_items([{"role": "user", "content": "q"}]), encode_items([thought("one.example", inner), call])
    )
    history = History(parent, encode_items([{"type": "function_call_output", "call_id": "c", "output": "ok"}]))
    kept = RenderCache(1 << 24)
    bodies = [render(dialect, history, keep=kept).body for dialect in (one, other)]
    assert bodies == [render(dialect, history).body for dialect in (one, other)]
    assert bodies[0] != bodies[1]


@pytest.mark.untraced
@every_dialect
def test_the_upstream_sees_every_item_of_a_long_chain(dialect: Dialect) -> None:
    kept = RenderCache(1 << 24)
    parent = None
    for index in range(600):
        asked = encode_items([{"type": "message", "role": "user", "content": f"<q{index}>"}])
        parent = grow(parent, asked, encode_items([{"type": "message", "role": "assistant", "content": f"<a{index}>"}]))
    text = render(dialect, History(parent, ()), keep=kept).body.decode()
    places = [text.index(f"<{who}{index}>") for index in range(600) for who in "qa"]
    assert places == sorted(places)


@every_dialect
def test_what_was_sent_once_stays_where_it_is(dialect: Dialect) -> None:
    """But for the marks of Anthropic's cache: up to the newest message, the next body begins as the last one did."""
    kept = RenderCache(1 << 24)
    parent = None
    before = b""
    for index in range(5):
        asked = encode_items([{"type": "message", "role": "user", "content": f"q{index}"}])
        marked = render(dialect, History(parent, asked), INSTRUCTED, kept).body
        now = marked.replace(b',"cache_control":{"type":"ephemeral"}', b"")
        assert now.startswith(before.removesuffix(b"]}"))
        before = now
        parent = grow(parent, asked, encode_items([{"type": "message", "role": "assistant", "content": f"a{index}"}]))


@every_dialect
def test_an_odd_history_cannot_make_warnings_without_end(dialect: Dialect) -> None:
    odd = encode_items({"type": f"odd_{index}"} for index in range(MAX_WARNINGS * 2))
    told = render(dialect, replay(odd)).warnings
    assert len(told) <= MAX_WARNINGS
    assert not told or told[-1] == "More was left out of the history than is named here."


@pytest.mark.parametrize("name", ["chat", "messages"])
def test_a_compacted_history_is_refused_where_it_cannot_be_read(name: str) -> None:
    items = encode_items([{"type": "compaction", "encrypted_content": "x"}, {"role": "user", "content": "go on"}])
    kept = RenderCache(1 << 20)
    for history in (replay(items), History(grow(None, items), ())):
        assert DIALECTS[name].render(Request(history), kept) == unreadable_compaction()


def test_a_chain_has_one_cache_key_and_tenants_have_their_own() -> None:
    dialect = DIALECTS["responses"]
    first = encode_items([{"role": "developer", "content": "d"}, {"role": "user", "content": "q"}])
    later = History(grow(None, first, encode_items([{"role": "assistant", "content": "a"}])), first)

    def key(history: History, tenant: str = "t") -> str:
        rendered = dialect.render(Request(history, tenant=tenant), RenderCache(0))
        assert not isinstance(rendered, Problem)
        return str(json.loads(rendered.body)["prompt_cache_key"])

    assert key(replay(first)) == key(later)
    assert key(replay(first)) != key(replay(first), "u")
    assert key(replay(first)) != key(replay(first[1:]))
    assert len(key(later)) <= 64

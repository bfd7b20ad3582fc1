"""A conversation is continued by a server's own id only where the server holds what a replay would send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.refused_fields import SEALED_REASONING
from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.held_context import HeldContext, RenderedCreate
from segue.dialects.responses.request import ResponsesDialect
from segue.dialects.sealed_reasoning import unseal
from segue.history.chains import History, Turn
from segue.protocol.problems import Problem
from segue.protocol.requests import Settings, json_text
from segue.testing.protocol_checker import parse_json
from tests.dialects.conversations import RESPONSES, Request, encode_items, grow, render, replay, thought, turns
from tests.strategies import examples

Json = dict[str, Any]
Turns = list[tuple[list[bytes], list[bytes]]]

DIALECT = ResponsesDialect(RESPONSES)
USER: Json = {"type": "message", "role": "user", "content": "go"}
SAID: Json = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "went"}]}
CALL: Json = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
OUTPUT: Json = {"type": "function_call_output", "call_id": "c1", "output": "seen"}


def created(
    history: History,
    held: HeldContext | None,
    cache: RenderCache | None = None,
    *,
    asked: Settings | None = None,
    without: frozenset[str] = frozenset(),
    dialect: ResponsesDialect = DIALECT,
) -> RenderedCreate:
    request = Request(history, asked or Settings(model="m"))
    message = dialect.render_create(request, cache or RenderCache(1 << 24), held, without=without)
    assert not isinstance(message, Problem)
    return message


def body_of(message: RenderedCreate) -> Json:
    body = parse_json(message.rendered.body.decode())
    assert isinstance(body, dict)
    return body


def as_written(item: bytes) -> Json:
    """An item of an answer as the server has it: reasoning of its own without our mark."""
    value: Json = json.loads(item)
    if value.get("type") != "reasoning" or not value.get("encrypted_content"):
        return value
    sealed = unseal(value["encrypted_content"])
    return value | {"encrypted_content": sealed.content} if sealed.provider == RESPONSES else value


class Server:
    """What a server holds on one connection, in plain values."""

    def __init__(self) -> None:
        self.context: list[Json] = []
        self.count = 0

    def take(self, body: Json) -> None:
        before = self.context if "previous_response_id" in body else []
        assert body.get("previous_response_id") in {None, f"up_{self.count}"}
        self.context = [*before, *body["input"]]

    def answer(self, output: list[bytes]) -> str:
        self.context += map(as_written, output)
        self.count += 1
        return f"up_{self.count}"


@pytest.mark.untraced
@given(conversation=turns, budget=st.sampled_from([0, 2000, 1 << 24]))
@settings(max_examples=examples(400))
def test_a_server_that_is_sent_what_is_new_holds_what_a_replay_says(conversation: Turns, budget: int) -> None:
    """Whatever clients and the model say, also what is repaired or left out on the way."""
    cache, server = RenderCache(budget), Server()
    parent: Turn | None = None
    held: HeldContext | None = None
    seen: list[bytes] = []
    for given_items, made in conversation:
        seen += given_items
        message = created(History(parent, tuple(given_items)), held, cache)
        server.take(body_of(message))
        whole = render(DIALECT, replay(seen))
        assert server.context == json.loads(whole.body)["input"]
        assert message.rendered.warnings == whole.warnings
        parent = grow(parent, given_items, made)
        seen += made
        held = message.sent.answered(server.answer(made))


def test_an_ordinary_conversation_is_continued_with_what_is_new() -> None:
    """Tools, instructions and settings are sent each time."""
    asked = Settings(model="m", instructions=json_text("Be brief."), tools=[{"type": "function", "name": "look"}])
    cache = RenderCache(1 << 24)
    own = thought(RESPONSES, {"a": 1})
    first = created(History(None, encode_items([USER])), None, cache, asked=asked)
    parent = grow(None, encode_items([USER]), encode_items([own, CALL]))
    held = first.sent.answered("up_1")
    second = created(History(parent, encode_items([OUTPUT])), held, cache, asked=asked)
    whole, new = body_of(first), body_of(second)
    assert list(whole)[:2] == ["type", "model"]
    assert (whole["type"], whole["store"]) == ("response.create", False)
    assert not {"stream", "previous_response_id"} & set(whole)
    assert (first.continues, first.saved_bytes) == (False, 0)
    assert new == whole | {"input": [OUTPUT], "previous_response_id": "up_1"}
    assert second.continues
    first_input = len(json.dumps(USER, separators=(",", ":"))) + 1
    assert second.saved_bytes > first_input
    third_parent = grow(parent, encode_items([OUTPUT]), encode_items([SAID]))
    third = created(History(third_parent, encode_items([USER])), second.sent.answered("up_2"), cache, asked=asked)
    assert third.continues
    assert third.saved_bytes > second.saved_bytes + len(json.dumps(OUTPUT, separators=(",", ":")))


@pytest.mark.parametrize(
    ("before", "answer", "then"),
    [
        ([USER], [CALL | {"arguments": "{broken"}], [OUTPUT]),
        ([USER, CALL, OUTPUT], [CALL | {"name": "again"}], [OUTPUT]),
        ([USER], [SAID, thought("other.example", {})], [USER]),
        ([USER], [SAID, thought(RESPONSES, {})], [USER]),
        ([USER, thought(RESPONSES, {})], [SAID], [USER]),
        ([CALL, USER], [], [USER]),
    ],
    ids=[
        "arguments were repaired",
        "an id of a call was used twice",
        "reasoning of another provider",
        "reasoning led to nothing",
        "reasoning was left out of the input",
        "a note stands for an output",
    ],
)
def test_a_history_that_is_sent_otherwise_than_the_server_has_it_is_sent_whole(
    before: list[Json], answer: list[Json], then: list[Json]
) -> None:
    first = created(History(None, encode_items(before)), None)
    parent = grow(None, encode_items(before), encode_items(answer))
    second = created(History(parent, encode_items(then)), first.sent.answered("up_1"))
    assert not second.continues
    assert "previous_response_id" not in body_of(second)


def test_another_turn_than_the_held_one_is_sent_whole() -> None:
    first = created(History(None, encode_items([USER])), None)
    held = first.sent.answered("up_1")
    for parent in (
        None,
        grow(None, encode_items([USER | {"content": "stop"}]), encode_items([SAID])),
        grow(grow(None, [], []), encode_items([USER]), encode_items([SAID])),
    ):
        assert not created(History(parent, encode_items([USER])), held).continues


def test_a_history_without_its_reasoning_is_not_one_with_it() -> None:
    """A model that refuses sealed reasoning is sent none; a server that was sent it holds more."""
    own = thought(RESPONSES, {})
    first = created(History(None, encode_items([USER])), None)
    parent = grow(None, encode_items([USER]), encode_items([own, SAID]))
    history, held = History(parent, encode_items([USER])), first.sent.answered("up_1")
    assert created(history, held).continues
    assert not created(history, held, without=frozenset({SEALED_REASONING})).continues
    unread = created(History(None, encode_items([USER])), None, without=frozenset({SEALED_REASONING}))
    again = created(history, unread.sent.answered("up_1"), without=frozenset({SEALED_REASONING}))
    assert not again.continues, "the server has its own reasoning, a replay would not"


def test_what_cannot_be_said_over_a_socket_is_left_out() -> None:
    asked = Settings(model="m", extra={"stream_options": b'{"include_obfuscation":false}'})  # type: ignore[dict-item] # bytes stand for Raw
    assert not {"stream", "stream_options"} & set(
        body_of(created(History(None, encode_items([USER])), None, asked=asked))
    )


def test_what_a_dialect_refuses_is_refused() -> None:
    request = Request(History(None, (b"[1]",)), Settings(model="m"))
    assert isinstance(DIALECT.render_create(request, RenderCache(0), None), Problem)


def test_continuing_costs_what_is_new() -> None:
    """In a conversation of a hundred turns each message has the same size."""
    cache = RenderCache(1 << 24)
    parent: Turn | None = None
    held: HeldContext | None = None
    sizes = []
    for _ in range(100):
        message = created(History(parent, encode_items([USER])), held, cache)
        sizes.append(len(message.rendered.body))
        assert len(message.rendered.pieces) <= 3
        parent = grow(parent, encode_items([USER]), encode_items([SAID]))
        held = message.sent.answered("up_1")
    assert len(set(sizes[1:])) == 1

"""The calls among items are found, and of a history those that nothing answers yet."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from segue.client.function_calls import FunctionCall, is_unreadable_call, read_call, unanswered_calls
from tests.strategies import hostile_bytes


def call(call_id: str, **members: object) -> bytes:
    return json.dumps({"type": "function_call", "call_id": call_id, "name": "n", "arguments": "{}"} | members).encode()


def output(call_id: object, **members: object) -> bytes:
    return json.dumps({"type": "function_call_output", "call_id": call_id, "output": "x"} | members).encode()


@pytest.mark.parametrize(
    ("item", "read", "unreadable"),
    [
        (call("a"), FunctionCall("a", "n", "{}"), False),
        (call("a", name=None), None, True),
        (output("a"), None, False),
        (b'{"type":"message","content":"function_call"}', None, False),
        (b'{"type":["function_call"]}', None, False),
    ],
)
def test_a_call_is_read_or_told_apart(item: bytes, read: FunctionCall | None, unreadable: bool) -> None:
    assert read_call(item) == read
    assert is_unreadable_call(item) is unreadable


def test_an_answer_is_an_item() -> None:
    answer = FunctionCall("a", "n", "{}").answer("done")
    assert answer == {"type": "function_call_output", "call_id": "a", "output": "done"}


def test_the_calls_that_are_still_to_be_answered() -> None:
    """A model may use an id again in another turn: an answer counts for what stands before it."""
    history = [b'{"role":"user","content":"hi"}', call("a"), call("b"), output("a", name=None), output(3), call("a")]
    assert [one.call_id for one in unanswered_calls(history)] == ["b", "a"]
    assert unanswered_calls([*history, output("b"), output("a")]) == []


@given(item=hostile_bytes)
def test_nothing_that_a_history_holds_raises(item: bytes) -> None:
    for one in (item, call("a") + item, b"function_call_output" + item):
        assert read_call(one) is None or not is_unreadable_call(one)
        unanswered_calls([one])

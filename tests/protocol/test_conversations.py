"""Requests of the Conversations API: what they may say, and what is refused."""

from __future__ import annotations

import json

import pytest

from segue.protocol.conversations import (
    MOST_ADDED,
    NewConversation,
    conversation_object,
    deleted_object,
    parse_added,
    parse_change,
    parse_new,
)
from segue.protocol.ids import new_conversation_id
from segue.protocol.items import Input
from segue.protocol.problems import Problem
from segue.protocol.request_size import DEFAULT_LIMITS, RequestLimits

ITEM = {"role": "user", "content": "hi"}
IDENT = new_conversation_id(bytes(20))


@pytest.mark.parametrize("body", [b"", b"{}", b'{"items":null,"metadata":null}', b'{"items":[],"other":1}'])
def test_a_conversation_may_begin_with_nothing(body: bytes) -> None:
    assert parse_new(body, DEFAULT_LIMITS) == NewConversation()


def test_a_conversation_may_begin_with_items_and_metadata() -> None:
    new = parse_new(json.dumps({"items": [ITEM], "metadata": {"a": "b"}}).encode(), DEFAULT_LIMITS)
    assert isinstance(new, NewConversation)
    assert [json.loads(item) for item in new.items.items] == [ITEM]
    assert new.metadata == b'{"a":"b"}'


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"[]", "invalid_json", None),
        (b'{"items":"hi"}', "invalid_json", "items"),
        (b'{"items":[{"role":"user"}]}', "missing_required_parameter", "items[0].content"),
        (b'{"items":[1]}', "invalid_type", "items[0]"),
        (json.dumps({"items": [ITEM] * (MOST_ADDED + 1)}).encode(), "invalid_value", "items"),
        (b'{"items":[{"type":"compaction_trigger"}]}', "invalid_value", "items[0].type"),
        (b'{"metadata":{"a":1}}', "invalid_type", None),
        (json.dumps({"metadata": {"k" * 65: "v"}}).encode(), "invalid_value", None),
        (json.dumps({"metadata": {"k": "v" * 513}}).encode(), "invalid_value", None),
        (json.dumps({"metadata": {str(n): "" for n in range(17)}}).encode(), "invalid_value", None),
    ],
)
def test_what_is_no_new_conversation_is_refused(body: bytes, code: str, param: str | None) -> None:
    problem = parse_new(body, DEFAULT_LIMITS)
    assert isinstance(problem, Problem)
    assert problem.code == code
    assert param is None or problem.param == param


def test_what_is_too_large_is_refused_before_it_is_read() -> None:
    for parse in (parse_new, parse_added, parse_change):
        assert isinstance(parse(b"[" * 100, RequestLimits(items=10, values=10)), Problem)


def test_twenty_items_may_be_added_and_not_none() -> None:
    added = parse_added(json.dumps({"items": [ITEM] * MOST_ADDED}).encode(), DEFAULT_LIMITS)
    assert isinstance(added, Input)
    assert len(added.items) == MOST_ADDED
    for body in (b"{}", b'{"items":[]}'):
        problem = parse_added(body, DEFAULT_LIMITS)
        assert isinstance(problem, Problem)
        assert problem.code == "missing_required_parameter"
    assert isinstance(parse_added(b"1", DEFAULT_LIMITS), Problem)
    assert isinstance(parse_added(b'{"items":[{}]}', DEFAULT_LIMITS), Problem)


def test_an_update_says_all_the_metadata() -> None:
    assert parse_change(b'{"metadata":{"a":"b"}}', DEFAULT_LIMITS) == b'{"a":"b"}'
    for body in (b"{}", b'{"metadata":null}', b"x"):
        assert isinstance(parse_change(body, DEFAULT_LIMITS), Problem)


def test_objects_are_those_of_the_api() -> None:
    assert json.loads(conversation_object(IDENT, 1.9, b'{"a":"b"}')) == {
        "id": IDENT,
        "object": "conversation",
        "created_at": 1,
        "metadata": {"a": "b"},
    }
    assert json.loads(deleted_object(IDENT)) == {"id": IDENT, "object": "conversation.deleted", "deleted": True}

"""The conversation that a create names: how it may be written, and what it excludes."""

from __future__ import annotations

import json

import msgspec
import pytest

from segue.protocol.problems import Problem
from segue.protocol.requests import Create, parse_create

CONVERSATION = "conv_" + "0a" * 20


def read(**fields: object) -> Create | Problem:
    return parse_create(json.dumps({"model": "m", "input": "hi", **fields}).encode(), "http")


@pytest.mark.parametrize("conversation", [CONVERSATION, {"id": CONVERSATION}])
def test_a_request_may_belong_to_a_conversation(conversation: object) -> None:
    """Then its input may be empty. Two requests of two conversations are not the same."""
    created = read(input=[], conversation=conversation)
    assert isinstance(created, Create)
    assert created.conversation == CONVERSATION
    other = msgspec.structs.replace(created, conversation=None)
    assert created.digest() != other.digest()


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"conversation": "conv_1"}, "conversation_not_found", "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation_not_found", "conversation"),
        ({"conversation": {"id": 1}}, "invalid_type", "conversation.id"),
        ({"conversation": {}}, "missing_required_parameter", "conversation.id"),
        ({"conversation": CONVERSATION, "previous_response_id": "resp_1"}, "invalid_value", "conversation"),
        ({"conversation": {"id": CONVERSATION}, "store": False}, "store_mismatch", "store"),
    ],
)
def test_a_conversation_that_cannot_be_continued_is_refused(fields: dict[str, object], code: str, param: str) -> None:
    problem = read(**fields)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.param) == (code, param)


def test_null_is_no_conversation() -> None:
    created = read(conversation=None)
    assert isinstance(created, Create)
    assert created.conversation is None

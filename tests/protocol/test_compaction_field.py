"""What a create wants compacted."""

from __future__ import annotations

import json

import pytest

from segue.protocol.codec import MAX_DEPTH
from segue.protocol.compaction_field import CompactionRequest
from segue.protocol.problems import Problem, misplaced_trigger
from segue.protocol.requests import Create, parse_create

TRIGGER = {"type": "compaction_trigger"}


def parse(**fields: object) -> Create | Problem:
    return parse_create(json.dumps({"model": "m", "input": "hi", **fields}), "websocket")


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, None),
        ({"context_management": None}, None),
        ({"context_management": []}, None),
        ({"context_management": [{"type": "later", "x": 1}]}, None),
        ({"context_management": [{"type": "compaction"}]}, CompactionRequest()),
        ({"context_management": [{"type": "compaction", "compact_threshold": None}]}, CompactionRequest()),
        (
            {"context_management": [{"type": "later"}, {"type": "compaction", "compact_threshold": 1000, "x": 1}]},
            CompactionRequest(1000),
        ),
        ({"input": [{"role": "user", "content": "x"}, TRIGGER]}, CompactionRequest(only=True)),
        ({"input": [TRIGGER], "context_management": [{"type": "compaction"}]}, CompactionRequest(only=True)),
    ],
)
def test_a_request_says_what_it_wants_compacted(fields: dict[str, object], wanted: CompactionRequest | None) -> None:
    made = parse(**fields)
    assert isinstance(made, Create)
    assert made.compaction == wanted
    kept = fields.get("context_management")
    given = made.settings.extra.get("context_management")
    assert (None if given is None else json.loads(bytes(given))) == kept


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"context_management": {}}, "context_management"),
        ({"context_management": [{}]}, "context_management[0].type"),
        ({"context_management": [{"type": "compaction", "compact_threshold": 999}]}, "context_management[0].compact_"),
        ({"context_management": [{"type": "compaction", "compact_threshold": "9"}]}, "context_management[0].compact_"),
        ({"input": [TRIGGER, {"role": "user", "content": "x"}]}, "input[0].type"),
    ],
)
def test_what_it_cannot_want_is_named(fields: dict[str, object], param: str) -> None:
    problem = parse(**fields)
    assert isinstance(problem, Problem)
    assert (problem.param or "").startswith(param)


def test_a_value_that_is_nested_too_deeply_is_refused() -> None:
    nested: object = []
    for _ in range(MAX_DEPTH + 2):
        nested = [nested]
    problem = parse(context_management=[{"type": "later", "x": nested}])
    assert isinstance(problem, Problem)
    assert problem.code == "invalid_json"
    assert parse(input=[TRIGGER, TRIGGER]) == misplaced_trigger(0)

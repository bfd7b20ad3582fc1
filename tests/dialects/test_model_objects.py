"""Lists of models, as both APIs have them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.model_list import read_model_names
from segue.dialects.model_objects import anthropic_model, anthropic_page, openai_list, openai_model
from segue.protocol.problems import Problem
from tests.strategies import examples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Json = dict[str, Any]
NAMES = [f"m{number}" for number in range(25)]


def page(query: Mapping[str, str], names: Sequence[str] = NAMES) -> Json:
    written = anthropic_page(names, 0.5, query)
    assert isinstance(written, bytes), written
    found: Json = json.loads(written)
    return found


def test_one_model_in_the_words_of_each_api() -> None:
    assert json.loads(openai_model("m", 7.9)) == {"id": "m", "created": 7, "object": "model", "owned_by": "segue"}
    assert json.loads(anthropic_model("m", 86_400.9)) == {
        "type": "model",
        "id": "m",
        "display_name": "m",
        "created_at": "1970-01-02T00:00:00Z",
        "lifecycle": "active",
    }


def test_all_models_in_the_words_of_openai() -> None:
    written = openai_list(["a", "b"], 1)
    assert json.loads(written)["object"] == "list"
    assert read_model_names(written) == ("a", "b")


@pytest.mark.parametrize(
    ("query", "first", "last", "more"),
    [
        ({}, "m0", "m19", True),
        ({"limit": "1000"}, "m0", "m24", False),
        ({"limit": "25"}, "m0", "m24", False),
        ({"after_id": "m19"}, "m20", "m24", False),
        ({"after_id": "m24"}, None, None, False),
        ({"before_id": "m3", "limit": "2"}, "m1", "m2", True),
        ({"before_id": "m2", "limit": "2"}, "m0", "m1", False),
        ({"before_id": "m0"}, None, None, False),
    ],
)
def test_a_page(query: Mapping[str, str], first: str | None, last: str | None, more: bool) -> None:
    found = page(query)
    assert (found["first_id"], found["last_id"], found["has_more"]) == (first, last, more)
    ids = [model["id"] for model in found["data"]]
    assert ids[:1] == [first] * bool(first)
    assert ids[-1:] == [last] * bool(last)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"after_id": "none"}, "after_id"),
        ({"before_id": "none"}, "before_id"),
    ],
)
def test_a_page_that_cannot_be_is_refused(query: Mapping[str, str], param: str) -> None:
    problem = anthropic_page(NAMES, 0, query)
    assert isinstance(problem, Problem)
    assert problem.param == param


@given(count=st.integers(0, 12), limit=st.integers(1, 5))
@settings(max_examples=examples(100))
def test_the_pages_together_are_the_list_in_both_directions(count: int, limit: int) -> None:
    names = NAMES[:count]
    for cursor, position in (("after_id", "last_id"), ("before_id", "first_id")):
        query = {"limit": str(limit)}
        if cursor == "before_id" and names:
            query["before_id"] = names[-1]
        seen: list[str] = []
        while True:
            found = page(query, names)
            ids = [model["id"] for model in found["data"]]
            seen = [*seen, *ids] if cursor == "after_id" else [*ids, *seen]
            if not found["has_more"]:
                break
            query[cursor] = found[position]
        assert seen == (names if cursor == "after_id" else names[:-1])

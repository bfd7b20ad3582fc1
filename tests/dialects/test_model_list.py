"""Lists of models, in the shapes of many providers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.model_list import MAX_MODELS, MAX_NAME_CHARS, read_model_names
from tests.strategies import examples, hostile_bytes


def read(value: object) -> tuple[str, ...] | None:
    return read_model_names(json.dumps(value).encode())


def model(name: str, **more: object) -> dict[str, Any]:
    return {"id": name, "object": "model", **more}


@pytest.mark.parametrize(
    "answered",
    [
        {"object": "list", "data": [model("a", owned_by="x"), model("b")]},
        {"data": [{"type": "model", "id": "a"}, {"type": "model", "id": "b"}], "has_more": False, "first_id": "a"},
        {"models": [{"name": "a.gguf"}], "object": "list", "data": [model("a", meta={"n_ctx": 1}), model("b")]},
        [model("a", pricing={"input": 0}), model("b")],
        {"data": [model("a"), model("a"), model("b")]},
        {"data": [7, None, {"name": "x"}, {"id": 7}, model(""), model("a"), model("new\nline"), model("b")]},
        {"data": [model("n" * (MAX_NAME_CHARS + 1)), model("a"), model("b")]},
    ],
)
def test_each_name_is_read_once(answered: object) -> None:
    assert read(answered) == ("a", "b")


def test_an_empty_list_is_a_list() -> None:
    assert read({"data": []}) == read([]) == ()


@pytest.mark.parametrize("answered", [{}, {"data": None}, {"data": {"id": "a"}}, {"error": "no"}, "a", 7, None])
def test_what_is_no_list_is_none(answered: object) -> None:
    assert read(answered) is None


def test_no_more_than_so_many_are_read() -> None:
    names = read([model(f"m{number}") for number in range(MAX_MODELS + 5)])
    assert names is not None
    assert (len(names), names[-1]) == (MAX_MODELS, f"m{MAX_MODELS - 1}")
    assert read([model("n" * MAX_NAME_CHARS)]) == ("n" * MAX_NAME_CHARS,)


@given(
    answered=hostile_bytes | st.lists(st.dictionaries(st.just("id"), st.text())).map(lambda v: json.dumps(v).encode())
)
@settings(max_examples=examples(100))
def test_whatever_is_answered_is_read(answered: bytes) -> None:
    names = read_model_names(answered)
    assert names is None or all(name and name.isprintable() for name in names)

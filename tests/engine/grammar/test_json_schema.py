"""What keywords say: references, schemas that must hold together, counts and names, and what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest

from segue.engine.grammar.json_schema import (
    MOST_CHOICES,
    GrammarError,
    counts,
    finite,
    kinds,
    merged,
    named,
    options,
    required,
    resolve,
    rest,
)


def merge(*parts: Any, document: Any = True) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return merged(parts, document, lambda _: None)


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("#", {"a": {"b/c": {"~": [True, {}]}}}),
        ("#/a", {"b/c": {"~": [True, {}]}}),
        ("#/a/b~1c/~0/1", {}),
        ("#/a/b~1c/~0/0", True),
    ],
)
def test_references(reference: str, found: object) -> None:
    assert resolve(reference, {"a": {"b/c": {"~": [True, {}]}}}) == found


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("a", "leaves the schema"),
        ("#a", "no path"),
        ("#/b", "leads nowhere"),
        ("#/a/2", "leads nowhere"),
        ("#/a/x", "leads nowhere"),
        ("#/a/0/x", "leads nowhere"),
        ("#/a/1", "no schema"),
    ],
)
def test_references_to_nothing(reference: str, why: str) -> None:
    with pytest.raises(GrammarError, match=why):
        resolve(reference, {"a": [True, 1]})


@pytest.mark.parametrize(
    ("parts", "made"),
    [
        ([], {}),
        ([True, {"type": "null"}], {"type": "null"}),
        ([{"minimum": 1, "maxLength": 3}, {"minimum": 2, "maxLength": 4}], {"minimum": 2, "maxLength": 3}),
        ([{"pattern": "a"}, {"pattern": "b"}, {"pattern": "c"}], {"pattern": ("a", "b", "c")}),
        ([{"pattern": "a"}, {"pattern": "a"}], {"pattern": "a"}),
        ([{"required": ["a", "b"]}, {"required": ["b", "c"]}], {"required": ["a", "b", "c"]}),
        ([{"enum": [1, True, "a"]}, {"enum": [True, "a"]}], {"enum": [True, "a"]}),
        ([{"type": ["string", "number"]}, {"type": ["integer", "null"]}], {"type": ["integer"]}),
        ([{"items": {"type": "null"}}, {"items": {"type": "null"}}], {"items": {"type": "null"}}),
        (
            [{"items": {"type": "null"}}, {"items": {"minimum": 1}}],
            {"items": {"allOf": [{"type": "null"}, {"minimum": 1}]}},
        ),
        (
            [{"properties": {"a": {"minimum": 1}, "b": True}}, {"properties": {"a": {"maximum": 2}}}],
            {"properties": {"a": {"allOf": [{"minimum": 1}, {"maximum": 2}]}, "b": True}},
        ),
        (
            [{"anyOf": [{"minimum": 1}, {"minimum": 2}]}, {"anyOf": [{"maximum": 3}]}],
            {"anyOf": [{"allOf": [{"minimum": 1}, {"maximum": 3}]}, {"allOf": [{"minimum": 2}, {"maximum": 3}]}]},
        ),
        ([{"format": "date"}, {"format": "time"}], {"format": "time"}),
        ([{"allOf": [{"type": "null"}], "title": "t"}], {"type": "null"}),
        (
            [{"items": {"title": "t", "allOf": [{"$ref": "#"}]}}, {"items": {"$ref": "#"}}],
            {"items": {"title": "t", "allOf": [{"$ref": "#"}]}},
        ),
    ],
)
def test_what_several_schemas_mean_together(parts: list[Any], made: dict[str, Any]) -> None:
    assert merge(*parts) == made


def test_what_is_merged_is_paid_for() -> None:
    spent: list[int] = []
    merged([{"enum": [1, 2]}, {"enum": [2, 3]}], True, spent.append)
    assert sum(spent) == 8


def test_references_in_what_is_merged() -> None:
    document = {"$defs": {"a": {"type": "integer"}}, "$ref": "#/$defs/a", "minimum": 1}
    assert merge(document, document=document) == {"type": "integer", "minimum": 1}
    circle = {"allOf": [{"$ref": "#"}]}
    with pytest.raises(GrammarError, match="refers to itself"):
        merge(circle, document=circle)
    with pytest.raises(GrammarError, match="allows nothing"):
        merge({}, False)


def test_notes_say_nothing() -> None:
    schema = {"title": "t", "$defs": {}, "default": 1, "$ref": "#", "type": "null"}
    assert rest(schema, "$ref") == {"type": "null"}


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        ({}, (0, None)),
        ({"minItems": 1, "maxItems": 2}, (1, 2)),
        ({"minItems": 1.0, "maxItems": 2.0}, (1, 2)),
        ({"maxItems": 1001}, (0, None)),
    ],
)
def test_counts(schema: dict[str, Any], found: tuple[int, int | None]) -> None:
    assert counts(schema, "minItems", "maxItems") == found


@pytest.mark.parametrize(
    "schema",
    [{"minItems": -1}, {"minItems": 1001}, {"minItems": 2, "maxItems": 1}, {"maxItems": 1.5}, {"maxItems": True}],
)
def test_counts_that_are_none(schema: dict[str, Any]) -> None:
    with pytest.raises(GrammarError, match="whole number"):
        counts(schema, "minItems", "maxItems")


def test_lists_and_objects_are_bounded() -> None:
    assert options({"anyOf": [True]}, "anyOf") == [True]
    assert named({}, "properties") == {}
    assert named({"properties": {"a": True}}, "properties") == {"a": True}
    assert required({"required": ["a", "a"]}) == {"a"}
    assert required({}) == frozenset()
    names = [str(number) for number in range(MOST_CHOICES + 1)]
    for call in (
        lambda: options({"anyOf": names}, "anyOf"),
        lambda: options({"anyOf": {}}, "anyOf"),
        lambda: named({"properties": dict.fromkeys(names)}, "properties"),
        lambda: named({"properties": []}, "properties"),
        lambda: required({"required": names}),
        lambda: required({"required": [1]}),
        lambda: kinds([*"abcdefghijk"]),
        lambda: kinds([1]),
    ):
        with pytest.raises(GrammarError):
            call()
    assert kinds(["null", "string", "null"]) == ["null", "string"]


def test_numbers_are_finite() -> None:
    assert finite({"minimum": 1.5}, "minimum") == 1.5
    for value in (True, "1", float("nan"), float("-inf")):
        with pytest.raises(GrammarError, match="minimum is a"):
            finite({"minimum": value}, "minimum")

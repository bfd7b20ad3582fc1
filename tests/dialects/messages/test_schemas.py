"""Schemas become what Anthropic can enforce; what it cannot is told to the model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.messages.schemas import (
    STRICT_TOOLS,
    ClosedSchema,
    StrictBudget,
    close_schema,
    input_schema,
    strict_schema,
)
from tests.strategies import examples

Json = dict[str, Any]
TEXT = {"type": "string"}


def obj(**fields: Json) -> Json:
    return {"type": "object", "properties": fields}


def closed(**fields: Json) -> Json:
    return obj(**fields) | {"additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "sent", "unenforced"),
    [
        (obj(a=TEXT), closed(a=TEXT), ()),
        (obj(a=obj(b=TEXT)), closed(a=closed(b=TEXT)), ()),
        ({"properties": {"a": TEXT}}, closed(a=TEXT), ()),
        (
            {"type": ["object", "null"], "properties": {"a": TEXT}},
            closed(a=TEXT) | {"type": ["object", "null"]},
            (),
        ),
        (
            {"type": "array", "items": obj(a=TEXT), "minItems": 1},
            {"type": "array", "items": closed(a=TEXT), "minItems": 1},
            (),
        ),
        ({"anyOf": [obj(a=TEXT), TEXT]}, {"anyOf": [closed(a=TEXT), TEXT]}, ()),
        ({"oneOf": [obj(a=TEXT), TEXT]}, {"anyOf": [closed(a=TEXT), TEXT]}, ()),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": obj(b=TEXT)}, "$schema": "x", "$comment": "y"},
            {"$ref": "#/$defs/a", "$defs": {"a": closed(b=TEXT)}},
            (),
        ),
        (TEXT | {"format": "date", "enum": ["a"]}, TEXT | {"format": "date", "enum": ["a"]}, ()),
        (obj(properties=TEXT, items=TEXT), closed(properties=TEXT, items=TEXT), ()),
        ({"items": True}, {"items": True}, ()),
    ],
)
def test_what_can_be_enforced_is_sent(schema: Json, sent: Json, unenforced: tuple[str, ...]) -> None:
    before = json.dumps(schema)
    assert close_schema(schema) == ClosedSchema(sent, unenforced)
    assert json.dumps(schema) == before, "it belongs to the request"


@pytest.mark.parametrize(
    ("schema", "sent", "unenforced"),
    [
        ({"type": "integer", "minimum": 1}, {"type": "integer", "description": '{"minimum":1}'}, ("minimum",)),
        (
            TEXT | {"pattern": "a+", "description": "Some."},
            TEXT | {"description": 'Some.\n\n{"pattern":"a+"}'},
            ("pattern",),
        ),
        (TEXT | {"format": "phone"}, TEXT | {"description": '{"format":"phone"}'}, ("format",)),
        (TEXT | {"examples": ["a"]}, TEXT | {"description": '{"examples":["a"]}'}, ()),
        (
            {"type": "array", "items": TEXT, "minItems": 2},
            {"type": "array", "items": TEXT, "description": '{"minItems":2}'},
            ("minItems",),
        ),
        (
            {"type": "object", "additionalProperties": TEXT},
            {
                "type": "object",
                "additionalProperties": False,
                "description": '{"additionalProperties":{"type":"string"}}',
            },
            ("additionalProperties",),
        ),
        (
            {"type": "object"},
            {"type": "object", "additionalProperties": False, "description": '{"additionalProperties":true}'},
            ("additionalProperties",),
        ),
        (
            {"anyOf": [TEXT], "oneOf": [TEXT]},
            {"anyOf": [TEXT], "description": '{"oneOf":[{"type":"string"}]}'},
            ("oneOf",),
        ),
    ],
)
def test_what_cannot_be_enforced_is_told(schema: Json, sent: Json, unenforced: tuple[str, ...]) -> None:
    assert close_schema(schema) == ClosedSchema(sent, unenforced)


_leaves = st.sampled_from([TEXT, {"type": "integer", "maximum": 3}, {"type": "object"}, True, {}])
_schemas = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {"properties": st.dictionaries(st.sampled_from(["a", "items"]), inner)},
            optional={"type": st.just("object"), "additionalProperties": inner, "required": st.just(["a"])},
        ),
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, max_size=2)}, optional={"minLength": st.just(1)}),
    ),
    max_leaves=6,
)


def _objects(schema: object, *, named: bool = False) -> list[Json]:
    if isinstance(schema, list):
        return [found for member in schema for found in _objects(member)]
    if not isinstance(schema, dict):
        return []
    if named:
        return [found for member in schema.values() for found in _objects(member)]
    inner = [found for word, value in schema.items() for found in _objects(value, named=word == "properties")]
    return [*inner, schema] if schema.get("type") == "object" else inner


@given(schema=st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from(["a", "b"]), _schemas)}))
@settings(max_examples=examples(150))
def test_every_object_is_closed_and_closing_again_changes_nothing(schema: Json) -> None:
    sent = close_schema(schema).schema
    assert all(found["additionalProperties"] is False for found in _objects(sent))
    assert close_schema(sent) == ClosedSchema(sent, ())


@pytest.mark.parametrize(
    ("parameters", "sent", "told"),
    [
        (obj(a=TEXT), obj(a=TEXT), ()),
        ({"properties": {"a": TEXT}}, obj(a=TEXT), ()),
        ({}, {"type": "object"}, ()),
        ({"type": ["object", "null"]}, {"type": "object"}, ()),
        ({"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a", "type": "object"}, ()),
    ],
)
def test_parameters_are_an_object(parameters: Json, sent: Json, told: tuple[str, ...]) -> None:
    assert input_schema(parameters) == ClosedSchema(sent, told)


def test_alternatives_of_a_whole_tool_become_fields_and_words() -> None:
    parameters = {
        "anyOf": [obj(a=TEXT), {"required": ["b"]}],
        "properties": {"b": TEXT},
        "allOf": 7,
        "description": "D",
    }
    schema, told = input_schema(parameters)
    assert told == ("anyOf", "allOf")
    assert schema["properties"] == {"a": TEXT, "b": TEXT}
    assert schema["description"].startswith('D\n\n{"anyOf":')
    assert schema.keys() == {"type", "properties", "description"}


def test_a_tool_that_takes_any_fields_cannot_be_strict() -> None:
    assert strict_schema(obj(a={"type": "object"})) is None
    assert strict_schema({"type": "object", "additionalProperties": True}) is None
    assert strict_schema({"type": "object"}) == ClosedSchema({"type": "object", "additionalProperties": False}, ())
    assert strict_schema(obj(a=TEXT)) == ClosedSchema(closed(a=TEXT), ())


def test_the_first_tools_are_strict() -> None:
    budget = StrictBudget(STRICT_TOOLS)
    assert [budget.take(obj()) for _ in range(25)] == [True] * 20 + [False] * 5


def test_strict_tools_share_optional_fields_and_unions() -> None:
    budget = StrictBudget(STRICT_TOOLS)
    many = obj(**{f"f{n}": TEXT for n in range(20)})
    assert [budget.take(many), budget.take(many)] == [True, False]
    assert budget.take(many | {"required": list(many["properties"])})
    unions = obj(**{f"f{n}": {"type": ["string", "null"]} for n in range(9)}) | {
        "required": [f"f{n}" for n in range(9)],
    }
    budget = StrictBudget(STRICT_TOOLS)
    assert [budget.take(unions), budget.take(unions), budget.take(obj())] == [True, False, True]
    assert budget.take(obj(a={"anyOf": [TEXT, {"enum": [{"properties": {"x": 1}}]}]}))


@pytest.mark.parametrize(
    ("schema", "recursive"),
    [
        ({"$defs": {"a": obj(b={"$ref": "#/$defs/a"})}}, True),
        ({"$defs": {"a": obj(b={"$ref": "#/$defs/c"}), "c": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, True),
        (obj(a={"$ref": "#"}), True),
        ({"$defs": {"a": obj(b={"$ref": "#/definitions/c"})}, "definitions": {"c": TEXT}}, False),
        ({"$defs": 7, "$ref": 7}, False),
    ],
)
def test_a_schema_that_refers_to_itself_is_not_strict(schema: Json, recursive: bool) -> None:
    assert StrictBudget(STRICT_TOOLS).take(schema) is not recursive


def test_fields_of_branches_are_fields_of_the_input_though_it_names_none_itself() -> None:
    assert input_schema({"anyOf": [obj(a=TEXT), {"required": ["a"]}]}).schema["properties"] == {"a": TEXT}

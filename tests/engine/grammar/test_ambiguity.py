"""Which schemas are refused because an answer could be read in too many ways at once."""

from __future__ import annotations

from time import thread_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.engine.grammar.json_schema import GrammarError
from segue.engine.grammar.schema_normalizer import SchemaNormalizer
from tests.engine.grammar.byte_grammars import grammar_of
from tests.engine.grammar.hostile_schemas import within
from tests.strategies import examples

pytestmark = pytest.mark.local_engine

Schema = dict[str, Any]
INNER: Schema = {"$ref": "#/$defs/a"}


def array(inner: Schema, least: int, most: int) -> Schema:
    return {"type": "array", "items": inner, "minItems": least, "maxItems": most}


def record(**properties: Any) -> Schema:  # noqa: ANN401 - any JSON schema
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def endless(*options: Schema) -> Schema:
    """A choice, with itself in the place of INNER."""
    return {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": list(options)}}}


def union(count: int) -> Schema:
    """What tools look like as one schema: a name, and arguments that have the same names."""
    plain: Schema = {"properties": {"path": {"type": "string"}, "lines": array({"type": "integer"}, 0, 2)}}
    return {"anyOf": [record(name={"const": f"tool {n}"}, arguments={**plain}) for n in range(count)]}


AMBIGUOUS: dict[str, Schema] = {
    "arrays within each other": endless(*(array(INNER, 1, 3 + n) for n in range(9))),
    "many arrays within each other": endless(*(array(INNER, 1, 3 + n) for n in range(490))),
    "two arrays of nine": endless(*(array(INNER, n, 9 + n % 2) for n in range(9))),
    "arrays in a row of definitions": {
        "$ref": "#/$defs/x0",
        "$defs": {
            **{
                f"x{d}": {"anyOf": [array({"$ref": f"#/$defs/x{d + 1}"}, 1, 3 + n) for n in range(9)]} for d in range(9)
            },
            "x9": {"type": "integer"},
        },
    },
    "tuples that differ late": endless(*({"prefixItems": [INNER, {"const": n}], "items": False} for n in range(9))),
    "objects that differ late": endless(*(record(k=INNER, z={"const": n}) for n in range(65))),
    "open objects": endless(*({"properties": {"k": INNER}, "required": [f"x{n}"]} for n in range(65))),
    "names of one pattern": endless(*({"patternProperties": {"^k": INNER, f"^x{n}": {}}} for n in range(65))),
    "hundreds of arrays": {"anyOf": [array({"type": "integer"}, n, n + 1) for n in range(129)]},
    "constants that anything else may replace": endless(
        *(record(t={"anyOf": [{"const": n}, True]}, k=INNER) for n in range(65))
    ),
    "arrays in objects in arrays": endless(
        *(array({"anyOf": [array(record(k=INNER), 0, 9 + n) for n in range(9)]}, 1, 3 + n) for n in range(2))
    ),
}
FINE: dict[str, Schema] = {
    "a union": union(300),
    "a list of a union": array(union(150), 0, 100),
    "a tree of a union": endless(
        *(record(type={"enum": [f"t{n}", n]}, children=array(INNER, 0, 9)) for n in range(90))
    ),
    "a flat choice of objects": {"anyOf": [record(k={"type": "string"}, z={"const": n}) for n in range(300)]},
    "a few arrays": endless({"type": "integer"}, *(array(INNER, 0, n) for n in range(8))),
    "any JSON": {"anyOf": [True, {"type": "object"}, {"type": "array", "items": True}]},
    "a record of itself": endless({"type": "null"}, {"properties": {f"p{n}": INNER for n in range(300)}}),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_is_within_each_other_and_begins_alike_is_refused(name: str) -> None:
    with pytest.raises(GrammarError, match="too many ways at once"):
        SchemaNormalizer().normalize(AMBIGUOUS[name])


@pytest.mark.parametrize("name", FINE)
def test_what_is_told_apart_soon_is_not(name: str) -> None:
    grammar_of(FINE[name])


def test_looking_comes_to_an_end() -> None:
    """Where each of many states has another set of alternatives."""
    options = [record(**{f"p{n}": INNER, f"p{n * 7 % 61}": {"type": "integer"}}) for n in range(61)]
    with pytest.raises(GrammarError, match="too many ways at once"):
        SchemaNormalizer().normalize(
            {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"properties": one["properties"]} for one in options]}}}
        )


def schemas() -> st.SearchStrategy[Schema]:
    """Definitions that refer to each other at random, most of them in choices of arrays and objects."""
    leaf = st.sampled_from([{"type": "integer"}, {"type": "string"}, True, {"const": 1}])
    name = st.integers(0, 5).map(lambda n: {"$ref": f"#/$defs/d{n}"})
    inner = st.recursive(
        name | leaf,
        lambda part: st.one_of(
            st.lists(part, min_size=1, max_size=6).map(lambda parts: {"anyOf": parts}),
            st.builds(lambda one, low, more: array(one, low, low + more), part, st.integers(0, 2), st.integers(1, 900)),
            st.dictionaries(st.sampled_from("abc"), part, min_size=1).map(lambda parts: record(**parts)),
            st.dictionaries(st.sampled_from("abc"), part).map(lambda parts: {"properties": parts}),
        ),
        max_leaves=20,
    )
    definitions = st.lists(inner, min_size=6, max_size=6)
    return definitions.map(
        lambda made: {"$ref": "#/$defs/d0", "$defs": {f"d{number}": one for number, one in enumerate(made)}}
    )


@settings(max_examples=examples(400))
@given(schemas(), st.randoms(use_true_random=False))
def test_whatever_is_not_refused_is_read_quickly(schema: Schema, random: Any) -> None:  # noqa: ANN401 - hypothesis makes it
    """In processor time for each token, along any way; where the library gives up, it does so as soon."""
    try:
        matcher = grammar_of(schema).begin()
        for _ in range(60):
            before = thread_time()
            allowed = matcher.allowed()
            token = random.choice([token for token, is_one in enumerate(allowed) if is_one])
            matcher.accept(token)
            assert thread_time() - before < 0.3
    except GrammarError:
        pass


def test_deep_choices_of_arrays_cost_no_more_the_deeper_they_are() -> None:
    deep = within(30, lambda part, _: {"anyOf": [array(part, 0, most) for most in (3, 4, 5)]}, {"type": "integer"})
    matcher = grammar_of(deep).begin()
    spent = []
    for _ in range(30):
        before = thread_time()
        matcher.allowed()
        assert matcher.accept(ord("["))
        spent.append(thread_time() - before)
    assert max(spent) < 0.2

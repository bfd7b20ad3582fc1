"""What is made of a schema, judged by the jsonschema package, and tried on a model that knows nothing.

Such a model takes whatever the grammar leaves open.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from ipaddress import IPv4Address
from random import Random
from time import thread_time
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # the package ships no types

from segue.engine.grammar import schema_normalizer
from segue.engine.grammar.json_schema import GrammarError, Schema
from segue.engine.grammar.lark import LarkGrammar
from segue.engine.grammar.schema_normalizer import SchemaNormalizer
from segue.engine.model import BatchEntry, LoadedModel, ModelFile
from segue.protocol.requests import Settings
from segue.testing.tiny_model import write_tiny_model
from tests.engine.grammar.byte_grammars import compile_grammar, grammar_of, is_allowed, write
from tests.engine.grammar.hostile_schemas import HOSTILE, within
from tests.strategies import examples

#: All of it asks the library, which comes with the local engine.
pytestmark = pytest.mark.local_engine


def to_json(value: Any) -> str:  # noqa: ANN401 - any JSON
    return json.dumps(value, ensure_ascii=False)


def allows(schema: Schema, *texts: str) -> list[bool]:
    grammar = grammar_of(schema)
    return [is_allowed(grammar, text) for text in texts]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    file = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(file)
    loaded = LoadedModel(ModelFile(file, context=1024, threads=1, kv_bytes=1, slots=1))
    yield loaded
    loaded.close()


def written(model: LoadedModel, schema: Schema, seed: int, most: int = 600) -> str | None:
    """What the model writes at random under the grammar of a schema; None if it comes to no end."""
    made = LarkGrammar()
    grammar = model.compile_grammar(made.text(made.add_schema(schema))).begin()
    sampler = model.sampler(Settings(model="m", temperature=1.5), seed, grammar)
    model.clear_all()
    (end,) = model.compute([BatchEntry(0, [5], 0, sampled=True)])
    data = b""
    for position in range(1, most):
        token = sampler.sample(end)
        if model.is_end_of_answer(token):
            return data.decode()
        data += model.piece(token)
        (end,) = model.compute([BatchEntry(0, [token], position, sampled=True)])
    return None


def follows(text: str, schema: Schema) -> bool:
    """Tell whether a text is JSON of a schema."""
    judge = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return bool(judge.is_valid(json.loads(text)))


# ---------------------------------------------------------------------------------- schemas, and values that are theirs

NAMES = ["a", "b", 'quo"te', "lïne\nbreak", "back\\slash"]
#: Of those that Python and JSON schemas read alike.
PATTERNS = ["^[a-c]{1,3}$", "^(?:foo|ba[rz])", r"\d{2}", '^[^"]*$', r"^a\\b\.", "^.{2,4}$", "a|^b"]

leaves = st.one_of(
    st.sampled_from(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"type": "integer"},
            {"const": 'x"\n'},
            {"enum": [1, "é", "éa", None, {"k": [1]}]},
            {"type": ["boolean", "null"]},
            {"type": "integer", "minimum": -30, "multipleOf": 7},
            {"type": "string", "format": "date"},
            {"type": "string", "format": "uuid"},
            {"type": "string", "format": "ipv4"},
        ]
    ),
    st.builds(
        lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    st.builds(
        lambda pattern, most: {"type": "string", "pattern": pattern, "maxLength": most},
        st.sampled_from(PATTERNS),
        st.integers(5, 9),
    ),
    st.builds(
        lambda kind, low, high, first, more: {"type": kind, low: first, high: first + more},
        st.sampled_from(["integer", "number"]),
        st.sampled_from(["minimum", "exclusiveMinimum"]),
        st.sampled_from(["maximum", "exclusiveMaximum"]),
        st.integers(-2000, 1000) | st.sampled_from([-0.5, 0.25, 99.75]),
        st.integers(2, 3000),
    ),
    st.builds(
        lambda kind, end, bound: {"type": kind, end: bound},
        st.sampled_from(["integer", "number"]),
        st.sampled_from(["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"]),
        st.integers(-2000, 2000) | st.sampled_from([-1.5, 0.001, 1e6]),
    ),
)


def objects(made: dict[str, Any], others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with these properties, some of them required, and perhaps members of other names."""
    return st.builds(
        lambda required, more: {"type": "object", "properties": made, "required": required, **more},
        st.lists(st.sampled_from(sorted(made)), unique=True) if made else st.just([]),
        others,
    )


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    others = st.one_of(
        st.just({"additionalProperties": False}),
        inner.map(lambda schema: {"additionalProperties": schema}),
        inner.map(lambda schema: {"patternProperties": {"^x[0-9]": schema, "^y": {"type": "null"}}}),
    )
    arrays = st.builds(
        lambda item, least, more: {"type": "array", "items": item, "minItems": least, "maxItems": least + more},
        inner,
        st.integers(0, 2),
        st.integers(0, 2),
    )
    tuples = st.builds(
        lambda places, rest, least: {
            "type": "array",
            "prefixItems": places,
            "items": rest,
            "minItems": min(least, len(places)),
            "maxItems": 3,
        },
        st.lists(inner, min_size=1, max_size=2),
        st.just(value=False) | inner,
        st.integers(0, 2),
    )
    choices = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.dictionaries(st.sampled_from(NAMES), inner, max_size=3).flatmap(lambda made: objects(made, others)),
        arrays,
        tuples,
        choices.map(lambda options: {"anyOf": options}),
        inner.map(lambda schema: {"allOf": [{"description": "one"}, schema]}),
    )


schemas = st.recursive(leaves, containers, max_leaves=6)


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a schema, whose members are in the order of the properties."""
    if "anyOf" in schema:
        return st.one_of([values(option) for option in schema["anyOf"]])
    if "allOf" in schema:
        return values(schema["allOf"][1])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    simple: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "boolean": st.booleans,
        "null": st.none,
        "string": lambda: _strings(schema),
        "integer": lambda: _numbers(schema, st.integers(-(10**9), 10**9)),
        "number": lambda: _numbers(schema, st.integers(-(10**9), 10**9).map(lambda number: number / 1000)),
        "array": lambda: _arrays(schema),
        "object": lambda: _objects(schema),
    }
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of([simple[kind]() for kind in kinds])


def _strings(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "pattern" in schema:
        found = st.from_regex(re.compile(schema["pattern"].replace("$", r"\Z"), re.ASCII))
        return found.filter(lambda text: len(text) <= schema["maxLength"] and not set("\r\u2028\u2029") & set(text))
    if "format" in schema:
        dates = st.dates(min_value=date(1000, 1, 1))
        return {"date": dates, "uuid": st.uuids(), "ipv4": st.ip_addresses(v=4)}[schema["format"]].map(str)
    return st.text(min_size=schema["minLength"], max_size=schema["maxLength"])


def _numbers(schema: dict[str, Any], any_of_them: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    ends = [schema[end] for end in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum") if end in schema]
    near = st.sampled_from([round(end) + step for end in ends or [0] for step in range(-8, 9)])
    return (near | any_of_them).filter(Draft202012Validator(schema).is_valid)


def _arrays(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    places, rest = schema.get("prefixItems", []), schema["items"]
    longest = min(schema["maxItems"], len(places)) if rest is False else schema["maxItems"]
    return st.integers(schema["minItems"], longest).flatmap(
        lambda length: st.tuples(*[values(places[n] if n < len(places) else rest) for n in range(length)]).map(list)
    )


def _objects(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    properties, required = schema["properties"], schema["required"]
    order = list(properties)
    made = st.fixed_dictionaries(
        {name: values(properties[name]) for name in required},
        optional={name: values(value) for name, value in properties.items() if name not in required},
    ).map(lambda found: dict(sorted(found.items(), key=lambda item: order.index(item[0]))))
    if "patternProperties" in schema:
        others = st.dictionaries(st.sampled_from(["x1", "x23"]), values(schema["patternProperties"]["^x[0-9]"]))
    elif schema["additionalProperties"]:
        others = st.dictionaries(st.sampled_from(["x", "ab", ""]), values(schema["additionalProperties"]), max_size=2)
    else:
        return made
    return st.builds(lambda first, second: {**first, **second}, made, others)


with_values = schemas.flatmap(lambda schema: st.tuples(st.just(schema), values(schema)))


@settings(max_examples=examples(60))
@given(pair=with_values)
def test_what_is_of_the_schema_is_allowed(pair: tuple[dict[str, Any], Any]) -> None:
    """However the values were made: written without needless escapes or blanks, and with members in order."""
    schema, value = pair
    text = to_json(value)
    assert is_allowed(grammar_of(schema), text), text


@settings(max_examples=examples(60))
@given(schema=schemas, random=st.randoms(use_true_random=False))
def test_what_is_allowed_is_of_the_schema(schema: dict[str, Any], random: Random) -> None:
    text = write(grammar_of(schema), random)
    assert text is None or follows(text, schema), text


class TestWritten:
    @settings(max_examples=examples(120))
    @given(schema=schemas, seed=st.integers(1, 1000))
    def test_whatever_is_written_is_of_the_schema(self, model: LoadedModel, schema: dict[str, Any], seed: int) -> None:
        """For any schema and any dice: JSON that parses, and follows it."""
        text = written(model, schema, seed)
        assert text is None or follows(text, schema), text

    @pytest.mark.parametrize(
        "schema",
        [
            {"type": "object"},
            {"type": "object", "additionalProperties": {"type": "integer"}},
            {"type": "array"},
            {"type": "number"},
            {"type": "string"},
            {},
            {"properties": {"a": True}, "required": ["a", "unknown"]},
            {
                "allOf": [{"properties": {"a": {"type": "null"}}, "required": ["a"]}, {"$ref": "#/$defs/b"}],
                "$defs": {"b": {"type": "object", "properties": {"b": {"type": "null"}}}},
            },
        ],
    )
    def test_open_schemas_give_json(self, model: LoadedModel, schema: dict[str, Any]) -> None:
        texts = [written(model, schema, seed) for seed in range(1, 9)]
        ended = [text for text in texts if text is not None]
        assert ended
        for text in ended:
            json.loads(text)

    def test_a_schema_may_refer_to_itself(self, model: LoadedModel) -> None:
        node = {
            "type": "object",
            "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
            "required": ["next"],
        }
        text = written(model, {"$ref": "#/$defs/node", "$defs": {"node": node}}, 3)
        assert text is not None
        assert json.loads(text).keys() == {"next"}


# -------------------------------------------------------------------------------------------------------------- formats


def _is_uri(text: str) -> bool:
    parts = urlsplit(text)
    _ = parts.port  # raises if it is no number that a port can be
    return bool(parts.scheme) and text.isascii() and not re.search(r'[\s<>"{}|\\^`]|%(?![0-9A-Fa-f]{2})', text)


@pytest.mark.untraced
@pytest.mark.parametrize(
    ("form", "judge", "right", "wrong"),
    [
        (
            "date",
            date.fromisoformat,
            ["2024-02-29", "2000-02-29"],
            ["2023-02-29", "1900-02-29", "2024-13-01", "24-1-1"],
        ),
        ("time", time.fromisoformat, ["23:59:59Z", "00:00:00.125+05:30"], ["24:00:00Z", "12:00:00", "12:00Z"]),
        ("date-time", datetime.fromisoformat, ["2024-02-29T12:00:00Z"], ["2024-02-29", "2023-02-29T12:00:00Z"]),
        ("uuid", UUID, ["00000000-0000-0000-0000-00000000000f"], ["0000000000000000000000000000000f", ""]),
        ("ipv4", IPv4Address, ["127.0.0.1", "255.255.255.255"], ["256.0.0.1", "1.2.3", "01.2.3.4"]),
        ("email", lambda text: text.split("@")[1], ["a.b+c@d-e.example"], ["a@b", ".a@b.c", "a b@c.d", "a@-b.c"]),
        ("uri", _is_uri, ["https://a.b:80/c?d=e#f", "mailto:a@b", "urn:x:%20"], ["/a", "http://a b", "x:%2", ""]),
    ],
)
def test_formats(form: str, judge: Callable[[str], object], right: list[str], wrong: list[str]) -> None:
    schema = {"type": "string", "format": form}
    assert allows(schema, *map(to_json, right)) == [True] * len(right)
    assert allows(schema, *map(to_json, wrong)) == [False] * len(wrong)
    grammar, random = grammar_of(schema), Random(1)
    for text in filter(None, (write(grammar, random) for _ in range(30))):
        try:
            assert judge(json.loads(text)), text
        except ValueError as error:  # a URI may have a port that no machine has
            assert "Port" in str(error), text  # noqa: PT017 - the only error that may be


# ------------------------------------------------------------------------------------------------------ single keywords


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        # several demands at once
        ({"type": "string", "pattern": "^a*$", "minLength": 2, "maxLength": 3}, ['"aa"'], ['"a"', '"aaaa"']),
        ({"pattern": "b"}, ['"abc"', '"b"'], ['"a"', "1"]),
        ({"type": "string", "format": "date", "pattern": "^2024"}, ['"2024-01-01"'], ['"2023-01-01"']),
        ({"allOf": [{"type": "string", "pattern": "a"}, {"pattern": "b"}]}, ['"ab"', '"ba"'], ['"a"', '"b"']),
        ({"allOf": [{"type": "integer", "minimum": 2}, {"minimum": 1, "maximum": 3}]}, ["2"], ["1", "4"]),
        ({"allOf": [{"enum": ["a", "b"]}, {"enum": ["b", "c"]}]}, ['"b"'], ['"a"', '"c"']),
        ({"allOf": [{"type": ["number", "null"]}, {"type": "integer"}]}, ["1"], ["null", "1.5"]),
        ({"allOf": [{"items": {"minimum": 1}}, {"items": {"type": "integer"}}]}, ["[1]"], ["[0]", "[1.5]"]),
        (
            {"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"a": {"minimum": 5}}}]},
            ['{"a": 5}'],
            ['{"a": 4}', '{"a": 5.5}'],
        ),
        ({"type": "string", "anyOf": [{"maxLength": 1}, {"const": "long"}]}, ['"a"', '"long"'], ['"ab"', "1"]),
        ({"$ref": "#/$defs/a", "maximum": 5, "$defs": {"a": {"type": "integer"}}}, ["5"], ["6"]),
        # what is not understood leaves the rest as it is
        ({"type": "string", "pattern": "(?=a)", "maxLength": 1}, ['"b"'], ['"bb"']),
        ({"type": "string", "pattern": "^(a|b)*a(a|b){20}$"}, [f'"{"a" * 21}"'], ['"c"', '""']),
        ({"type": "string", "pattern": "^([a-z]{2}|[0-9]{3})*$", "maxLength": 999}, ['"ab"', '"123"'], ['"a"']),
        ({"type": "string", "format": "iri"}, ['"?"'], ["1"]),
        ({"type": "number", "multipleOf": 1e-30}, ["1"], ['"1"']),
        ({"type": "integer", "minimum": 10**40}, ["1"], ["1.5"]),
        ({"not": {"type": "string"}}, ['"a"'], ["a"]),
        # numbers
        ({"type": "number", "multipleOf": 0.01, "minimum": 0}, ["1.25", "1", "0.5"], ["1.255", "-1"]),
        ({"type": "number", "multipleOf": 5}, ["10", "-5"], ["7", "2.5"]),
        ({"type": "integer", "multipleOf": 1.5}, ["3", "0"], ["4"]),
        ({"type": "integer", "minimum": 5, "exclusiveMinimum": True}, ["6"], ["5"]),
        ({"minimum": 5}, ["5", "5.5"], ["4", '"a"']),
        ({"type": "integer", "minimum": 10**17}, [str(10**17)], ["1"]),
        ({"type": "integer", "maximum": 10**40, "minimum": 7}, ["7"], ["6"]),
        # objects: names that are known are not written again as others
        (
            {"properties": {"a": {"type": "null"}}, "additionalProperties": True},
            ['{"a": null, "ab": 1}', '{"b": 1}'],
            ['{"a": 1}', '{"a": null, "a": 1}'],
        ),
        ({"required": ["a"], "additionalProperties": {"type": "integer"}}, ['{"a": 1}'], ['{"a": null}', "{}"]),
        ({"properties": {"a": False, "b": {"type": "null"}}}, ['{"b": null}', "{}"], ['{"a": 1}']),
        (
            {"patternProperties": {"^x": {"type": "null"}, "y$": {"type": "integer"}}},
            ['{"xa": null, "by": 1}'],
            ['{"xa": "a"}', '{"z": 1}'],  # either value, since a name may follow both
        ),
        ({"patternProperties": {"^x": {"type": "null"}, "^y": {"type": "integer"}}}, ['{"y": 1}'], ['{"x": 1}']),
        ({"patternProperties": {"(?=x)": {"type": "null"}}}, ['{"xa": 1}'], ["1"]),
        # arrays with places
        ({"prefixItems": [{"type": "null"}, {"type": "integer"}], "minItems": 1}, ['[null, 1, "a"]'], ["[]", "[1]"]),
        ({"items": [{"type": "null"}], "additionalItems": False}, ["[null]", "[]"], ["[1]", "[null, null]"]),
        ({"type": "array", "items": False}, ["[]"], ["[1]"]),
        ({"type": "array", "minItems": 1.0, "maxItems": 1.0}, ["[1]"], ["[]", "[1, 2]"]),
        # references
        ({"properties": {"a": {"type": "null"}, "b": {"$ref": "#/properties/a"}}}, ['{"b": null}'], ['{"b": 1}']),
        ({"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#/anyOf/0"}}]}, ["[null]"], ["[[]]"]),
        (
            {
                "$ref": "#/definitions/N",
                "definitions": {"N": {"properties": {"n": {"title": "t", "allOf": [{"$ref": "#/definitions/N"}]}}}},
            },
            ['{"n": {"n": {}}}'],
            ['{"n": 1}'],
        ),
    ],
)
def test_what_a_schema_means(schema: Schema, right: list[str], wrong: list[str]) -> None:
    assert allows(schema, *right) == [True] * len(right)
    assert allows(schema, *wrong) == [False] * len(wrong)


def test_schemas_of_one_grammar_keep_their_own_references() -> None:
    """Also when they are gone, and another one has their place in memory."""
    made = LarkGrammar()
    names = [
        made.add_schema({"type": "array", "items": {"$ref": "#/$defs/x"}, "$defs": {"x": {"const": number}}})
        for number in range(30)
    ]
    for number, name in enumerate(names):
        grammar = compile_grammar(made.text(name))
        assert is_allowed(grammar, f"[{number}]")
        assert not is_allowed(grammar, f"[{number + 1}]")


def test_types_may_refer_to_each_other_in_a_long_row() -> None:
    """Nesting is bounded, references are not nesting."""
    rows = {f"t{n}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/t{(n + 1) % 200}"}}} for n in range(200)}
    assert allows({"$ref": "#/$defs/t0", "$defs": rows}, '{"a": {"a": {}}}', '{"b": {}}') == [True, False]


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (False, "allows nothing"),
        ({"type": "date"}, "unknown type"),
        ({"type": ["null", 1]}, "name of a type"),
        ({"enum": []}, "something in it"),
        ({"anyOf": []}, "nothing"),
        ({"anyOf": 1}, "is a list"),
        ({"allOf": 1}, "is a list"),
        ({"allOf": [{"type": "null"}, False]}, "allows nothing"),
        ({"allOf": [{"type": "null"}, {"type": "string"}]}, "nothing"),
        ({"allOf": [{"$ref": "#"}]}, "refers to itself"),
        ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "refers to itself"),
        ({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"oneOf": [{"$ref": "#"}]}}}, "refers to itself"),
        ({"type": "object", "properties": 1}, "is an object"),
        ({"type": "object", "required": "a"}, "list of names"),
        ({"type": "object", "required": [1]}, "list of names"),
        ({"$ref": "#/nowhere"}, "leads nowhere"),
        ({"$ref": "#/enum/1", "enum": [1]}, "leads nowhere"),
        ({"$ref": "#anchor"}, "no path"),
        ({"$ref": "http://example.com/x"}, "leaves the schema"),
        ({"$ref": "#/a", "a": 1}, "no schema"),
        ({"properties": {"x": {"$ref": "#/a"}}, "a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}}, "refers to itself"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "in order"),
        ({"type": "array", "minItems": "1"}, "whole number"),
        ({"type": "array", "prefixItems": [True], "items": False, "minItems": 2}, "more items"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no number"),
        ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, "no number"),
        ({"type": "integer", "minimum": 1, "maximum": 4, "multipleOf": 5}, "no number"),
        ({"type": "number", "minimum": 0.5, "exclusiveMaximum": 0.5}, "no number"),
        ({"type": "number", "minimum": "0"}, "is a number"),
        ({"type": "number", "multipleOf": 0}, "more than 0"),
        ({"type": "number", "maximum": float("inf")}, "finite"),
        ({"type": "string", "pattern": "^a$", "minLength": 2}, "no string"),
        ({"type": "string", "pattern": 1}, "is a string"),
        ({"anyOf": [{"const": number} for number in range(501)]}, "at most 500"),
    ],
)
def test_what_cannot_be_followed_is_an_error(schema: Schema, why: str) -> None:
    with pytest.raises(GrammarError, match=why):
        grammar_of(schema)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (within(61, lambda part, _: {"anyOf": [part]}, {}), "nested more than 60 deep"),
        ({"const": within(5000, lambda part, _: [part], 1)}, "nested too deeply"),
        ({"const": 10**5000}, "cannot be written"),
        ({"type": "string", "pattern": "\ud800"}, "cannot be written"),
        ({"const": within(500, lambda part, _: [part], 1)}, "nested too deeply"),
        ({"prefixItems": [{"properties": {f"{a}-{b}": {} for b in range(500)}} for a in range(30)]}, None),
        ({"type": "object", "anyOf": [{"required": ["a"]}] * 400, **{f"x-{n}": 1 for n in range(5000)}}, None),
    ],
)
def test_what_is_too_large_is_an_error(schema: Schema, why: str | None) -> None:
    with pytest.raises(GrammarError, match=why or "too large, all together"):
        grammar_of(schema)


# ------------------------------------------------------------------------------------------------------ hostile schemas


@pytest.mark.untraced
@pytest.mark.untraced
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_costs_little(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in calls of functions, which every loop that matters makes; the largest take half a second."""
    calls = 0

    def count(_frame: object, event: str, _value: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    made: object = {}
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        made = SchemaNormalizer().normalize(HOSTILE[name])
    except GrammarError:
        pass
    finally:
        sys.setprofile(before)
    assert calls < 4_000_000
    assert len(to_json(made)) < 2_000_000


@pytest.mark.untraced
@pytest.mark.parametrize("name", HOSTILE)
def test_the_library_reads_what_comes_of_it(name: str) -> None:
    """In little processor time for each token; it takes the process with it if it cannot."""
    try:
        grammar = grammar_of(HOSTILE[name])
    except GrammarError:
        return
    for text in ('{"a": ["aaaaaaaaaaaaaaaaaaaaaaaa', "[" * 60, '"' + "ab" * 60, '{"k":' * 60):
        matcher = grammar.begin()
        with contextlib.suppress(GrammarError):
            for token in text.encode():
                before = thread_time()
                matcher.allowed()
                accepted = matcher.accept(token)
                assert thread_time() - before < 0.5
                if not accepted:
                    break


def test_schemas_share_one_limit() -> None:
    normalizer = SchemaNormalizer()
    large = {"properties": {f"p{number}": {"enum": [f"{number} {n}" for n in range(400)]} for number in range(60)}}
    normalizer.normalize(large)
    normalizer.normalize(large)
    with pytest.raises(GrammarError, match="all together"):  # noqa: PT012 - any of them
        for _ in range(9):
            normalizer.normalize(large)


def test_what_is_made_is_flat() -> None:
    """Each schema is a definition, whatever stands within what, and however often it is referred to."""
    tree = {"type": "object", "properties": {"sub": {"$ref": "#"}, "name": {"type": "string", "title": "N"}}}
    assert SchemaNormalizer().normalize(tree) == {
        "$ref": "#/$defs/s0",
        "$defs": {
            "s0": {
                "type": "object",
                "properties": {"sub": {"$ref": "#/$defs/s0"}, "name": {"$ref": "#/$defs/s1"}},
                "required": [],
                "additionalProperties": False,
            },
            "s1": {"type": "string"},
        },
    }


def test_names_that_are_too_many_are_not_written_to_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """That alone would hold up other turns."""
    names = [f"{number:050}" for number in range(20_000)]

    def write(value: object) -> str:
        raise AssertionError(f"{value!r} is written")

    monkeypatch.setattr(schema_normalizer, "to_json", write)
    with pytest.raises(GrammarError, match="too large, all together"):
        SchemaNormalizer().normalize({"enum": names})
    monkeypatch.undo()
    assert SchemaNormalizer().normalize({"enum": names[:1] * 30_000})


def test_large_schemas_are_read_with_pauses() -> None:
    paused: list[None] = []
    normalizer = SchemaNormalizer(lambda: paused.append(None))
    normalizer.normalize({"enum": [str(number) for number in range(1000)]})
    assert len(paused) > 1000 / 100
    paused.clear()
    normalizer.normalize({"anyOf": [{"type": "object", "properties": {f"p{n}": True}} for n in range(200)]})
    assert len(paused) > 200

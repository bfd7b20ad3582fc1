"""Grammars from schemas, tried by the engine's own reader of grammars, on a model that knows nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.bench.tiny_model import write_tiny_model
from segue.protocol.requests import Settings
from segue.upstreams.local.grammar import Grammar, GrammarError, Schema, literal
from segue.upstreams.local.model import LoadedModel, ModelFile, Part


def grammar_of(schema: Schema) -> str:
    made = Grammar()
    return made.text(made.add_schema(schema))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    file = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(file)
    loaded = LoadedModel(ModelFile(file, context=1024, threads=1, kv_bytes=1, slots=1))
    yield loaded
    loaded.close()


def written(model: LoadedModel, schema: Schema, seed: int, most: int = 600) -> str | None:
    """What the model writes at random under the grammar of a schema; None if it comes to no end."""
    sampler = model.sampler(Settings(model="m", temperature=1.5), seed, grammar_of(schema))
    model.clear_all()
    (end,) = model.compute([Part(0, [5], 0, answers=True)])
    data = b""
    for position in range(1, most):
        token = sampler.choose(end)
        if model.ends_answer(token):
            return data.decode(errors="replace")  # as answers are; this model writes any bytes
        data += model.piece(token)
        (end,) = model.compute([Part(0, [token], position, answers=True)])
    return None


names = st.sampled_from(["a", "b", 'quo"te', "lïne\nbreak", "back\\slash"])
leaves = st.one_of(
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {"type": "integer"}, {"const": 'x"\n'}, {"enum": [1, "é", None]}]
    ),
    st.builds(
        lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    st.just({"type": ["boolean", "null"]}),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.dictionaries(names, inner, max_size=3).flatmap(
        lambda made: (
            st.lists(st.sampled_from(sorted(made)), unique=True).map(
                lambda required: {
                    "type": "object",
                    "properties": made,
                    "required": required,
                    "additionalProperties": False,
                }
            )
            if made
            else st.just({"type": "object", "properties": {}, "additionalProperties": False})
        )
    )
    arrays = st.builds(
        lambda item, least, more: {"type": "array", "items": item, "minItems": least, "maxItems": least + more},
        inner,
        st.integers(0, 2),
        st.integers(0, 2),
    )
    return st.one_of(objects, arrays, st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}))


schemas = st.recursive(leaves, containers, max_leaves=6)


def follows(value: Any, schema: dict[str, Any]) -> bool:  # noqa: ANN401, C901, PLR0911 - any JSON, a line a kind
    """Tell whether a value is of a schema, as far as the tests use schemas."""
    if "anyOf" in schema:
        return any(follows(value, option) for option in schema["anyOf"])
    if "const" in schema:
        return bool(value == schema["const"])
    if "enum" in schema:
        return value in schema["enum"]
    match schema["type"]:
        case ["boolean", "null"]:
            return value is None or isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "string":
            whole = "\ufffd" not in str(value)  # what was no character was not counted as one
            return isinstance(value, str) and (not whole or schema["minLength"] <= len(value) <= schema["maxLength"])
        case "array":
            right = isinstance(value, list) and all(follows(item, schema["items"]) for item in value)
            return right and schema["minItems"] <= len(value) <= schema["maxItems"]
        case _:
            if not isinstance(value, dict):
                return False
            known = schema["properties"]
            right = all(name in known and follows(item, known[name]) for name, item in value.items())
            return right and set(schema.get("required", ())) <= set(value)


@pytest.mark.local_engine
class TestWritten:
    @settings(max_examples=150)
    @given(schema=schemas, seed=st.integers(1, 1000))
    def test_whatever_is_written_is_of_the_schema(self, model: LoadedModel, schema: dict[str, Any], seed: int) -> None:
        """For any schema and any dice: JSON that parses, and follows it."""
        text = written(model, schema, seed)
        assert text is not None
        assert follows(json.loads(text), schema), text

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


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (False, "allows nothing"),
        ({"type": "date"}, "unknown type"),
        ({"enum": []}, "something in it"),
        ({"anyOf": []}, "nothing"),
        ({"anyOf": 1}, "is a list"),
        ({"allOf": 1}, "is a list"),
        ({"type": "object", "properties": 1}, "is an object"),
        ({"$ref": "#/nowhere"}, "leads nowhere"),
        ({"$ref": "http://example.com/x"}, "leaves the schema"),
        ({"$ref": "#/a", "a": 1}, "no schema"),
        ({"$ref": "#/a", "a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}}, "refers to itself"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "in order"),
        ({"type": "array", "minItems": "1"}, "whole numbers"),
    ],
)
def test_what_cannot_be_followed_is_an_error(schema: Schema, why: str) -> None:
    with pytest.raises(GrammarError, match=why):
        grammar_of(schema)


def test_a_literal_is_quoted() -> None:
    assert literal('a"\\\n\x00é') == r'"a\"\\\n\U00000000é"'

"""Grammars (GBNF, as llama.cpp reads them) from JSON schemas: pure.

What a model writes under such a grammar is JSON of the schema's structure: types, properties and their order, required
ones, items and their number, enum and const, anyOf, oneOf, allOf of objects, `$ref` within the document (recursive ones
too), and the length of strings. What else a schema may say (pattern, format, ranges of numbers, uniqueness) is not
enforced; then the JSON is well-formed and may still break the rule. A schema that allows nothing is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any] | bool

_BASIC = {
    "ws": '" "?',
    "digit": "[0-9]",
    "integer": '"-"? ("0" | [1-9] digit{0,15})',
    "number": 'integer ("." digit{1,16})? ([eE] [-+]? digit{1,3})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "hex": "[0-9a-fA-F]",
    # no lone surrogates: what is written must be text
    "char": r'[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" ([0-9a-cA-CeEfF] hex{3} | [dD] [0-7] hex{2}))',
    "string": r'"\"" char* "\""',
    "value": "object | array | string | number | boolean | null",
    "pair": 'string ":" ws value',
    "object": '"{" ws (pair ("," ws pair)*)? ws "}"',
    "array": '"[" ws (value ("," ws value)*)? ws "]"',
}
_NEEDS = {
    "integer": ("digit",),
    "number": ("integer", "digit"),
    "string": ("char",),
    "char": ("hex",),
    "value": ("object", "array", "string", "number", "boolean", "null"),
    "pair": ("string", "ws", "value"),
    "object": ("ws", "pair"),
    "array": ("ws", "value"),
}
_SIMPLE = ("string", "number", "integer", "boolean", "null")
_MOST = 1000  # of a repetition that is written out


class GrammarError(ValueError):
    """No grammar can be made of this schema; the message says why."""


class Grammar:
    """Rules under construction. `add_schema` returns the name of a rule; `text` is the grammar with `root` on top."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}
        self._known: dict[tuple[int, str], str] = {}
        self._count = 0

    def add_schema(self, schema: Schema, document: Schema | None = None) -> str:
        """Add what a schema allows; `document` is what its references start from, by itself the schema."""
        return self._schema(schema, schema if document is None else document, ())

    def add_rule(self, body: str) -> str:
        """Add a rule of one's own."""
        self._count += 1
        name = f"r{self._count}"
        self._rules[name] = body
        return name

    def text(self, root: str) -> str:
        """Write the grammar; `root` is the body of its first rule."""
        return "\n".join([f"root ::= {root}", *(f"{name} ::= {body}" for name, body in self._rules.items())]) + "\n"

    # --- private -----------------------------------------------------------------------------------------------------

    def _basic(self, name: str) -> str:
        if name not in self._rules:
            self._rules[name] = _BASIC[name]
            for needed in _NEEDS.get(name, ()):
                self._basic(needed)
        return name

    def _schema(self, schema: Schema, document: Schema, seen: tuple[str, ...]) -> str:
        if schema is True:
            return self._basic("value")
        if not isinstance(schema, Mapping):
            raise GrammarError("a schema is an object, and 'false' allows nothing")
        kinds = schema.get("type")
        if "$ref" in schema:
            made = self._reference(str(schema["$ref"]), document, seen)
        elif "const" in schema or "enum" in schema:
            made = self._choice([schema["const"]] if "const" in schema else schema["enum"])
        elif "anyOf" in schema or "oneOf" in schema:
            made = self._any_of(schema, "anyOf" if "anyOf" in schema else "oneOf", document, seen)
        elif "allOf" in schema:
            made = self._schema(_joined(schema, document), document, seen)
        elif isinstance(kinds, list):
            alternatives = [self._typed({**schema, "type": kind}, kind, document, seen) for kind in kinds]
            made = self.add_rule(" | ".join(_checked(alternatives)))
        else:
            made = self._typed(schema, kinds, document, seen)
        return made

    def _typed(self, schema: Mapping[str, Any], kind: object, document: Schema, seen: tuple[str, ...]) -> str:
        if kind is None:
            kind = "object" if "properties" in schema else "array" if "items" in schema else "value"
        match kind:
            case "object":
                return self._object(schema, document, seen)
            case "array":
                return self._array(schema, document, seen)
            case "string" if "minLength" in schema or "maxLength" in schema:
                least, most = _bounds(schema, "minLength", "maxLength")
                return self.add_rule(rf'"\"" {self._basic("char")}{_times(least, most)} "\""')
            case "value":
                return self._basic("value")
            case str() if kind in _SIMPLE:
                return self._basic(kind)
            case _:
                raise GrammarError(f"the schema has an unknown type {json.dumps(kind)}")

    def _reference(self, reference: str, document: Schema, seen: tuple[str, ...]) -> str:
        key = (id(document), reference)
        if key in self._known:
            return self._known[key]
        if reference in seen:
            raise GrammarError(f"the reference {reference} refers to itself and nothing else")
        target = resolve(reference, document)
        if isinstance(target, Mapping) and "$ref" in target:
            return self._schema(target, document, (*seen, reference))
        self._count += 1
        name = self._known[key] = f"r{self._count}"
        self._rules[name] = self._schema(target, document, (*seen, reference))
        return name

    def _choice(self, values: object) -> str:
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise GrammarError("an enum is a list with something in it")
        return self.add_rule(" | ".join(literal(to_json(value)) for value in values))

    def _any_of(self, schema: Mapping[str, Any], name: str, document: Schema, seen: tuple[str, ...]) -> str:
        rest = {
            key: value for key, value in schema.items() if key != name and key in {"type", "properties", "required"}
        }
        options = schema[name]
        if not isinstance(options, list):
            raise GrammarError(f"{name} is a list")
        merged = [_join([rest, option], document) if rest and "$ref" not in option else option for option in options]
        return self.add_rule(" | ".join(_checked([self._schema(option, document, seen) for option in merged])))

    def _object(self, schema: Mapping[str, Any], document: Schema, seen: tuple[str, ...]) -> str:
        properties = schema.get("properties") or {}
        required = set(schema.get("required") or ())
        more = schema.get("additionalProperties", not properties)
        if not isinstance(properties, Mapping):
            raise GrammarError("properties is an object")
        ws = self._basic("ws")
        named = {**properties, **dict.fromkeys(sorted(required - set(properties)), True)}
        pairs = [
            (self._pair(literal(to_json(name)), value, document, seen), name in required)
            for name, value in named.items()
        ]
        tail = None
        if more is not False:
            tail = self._pair(self._basic("string"), True if more is True else more, document, seen)
        return self.add_rule(f'"{{" {ws} {self._members(pairs, tail)} {ws} "}}"')

    def _pair(self, name: str, schema: Schema, document: Schema, seen: tuple[str, ...]) -> str:
        return self.add_rule(f'{name} ":" {self._basic("ws")} {self._schema(schema, document, seen)}')

    def _members(self, pairs: Sequence[tuple[str, bool]], tail: str | None) -> str:
        """Write members in their order, each optional one or not, with commas between those that are there."""
        comma = f'"," {self._basic("ws")}'
        # `first`: nothing was written yet; `later`: something was, so that a comma comes first
        first, later = ("", "") if tail is None else (f"({tail} ({comma} {tail})*)?", f"({comma} {tail})*")
        for pair, needed in reversed(pairs):
            behind = self.add_rule(later) if later else ""
            here = f"{pair} {behind}".strip()
            # optional, and nothing before it: either it is the first, or what follows is
            first = here if needed else f"({here} | {self.add_rule(first)})" if first else f"({here})?"
            later = f"{comma} {here}" if needed else f"({comma} {pair})? {behind}".strip()
        return first

    def _array(self, schema: Mapping[str, Any], document: Schema, seen: tuple[str, ...]) -> str:
        item = self._schema(schema.get("items", True), document, seen)
        least, most = _bounds(schema, "minItems", "maxItems")
        ws = self._basic("ws")
        if most == 0:
            return self.add_rule('"[" "]"')
        more = _times(max(0, least - 1), None if most is None else most - 1)
        some = f'{item} ("," {ws} {item}){more}'
        return self.add_rule(f'"[" {ws} ' + (some if least else f"({some})?") + f' {ws} "]"')


def resolve(reference: str, document: Schema) -> Schema:
    """Find what a reference within the document means."""
    found: Any = document
    if not reference.startswith("#"):
        raise GrammarError(f"the reference {reference} leaves the schema")
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or name not in found:
            raise GrammarError(f"the reference {reference} leads nowhere")
        found = found[name]
    if not isinstance(found, Mapping | bool):
        raise GrammarError(f"the reference {reference} leads to what is no schema")
    return found


def literal(text: str) -> str:
    """Write a text as a terminal of the grammar."""
    return '"' + "".join(_escaped(char) for char in text) + '"'


def to_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Write a value as the grammars here space it: only between the members of what holds others."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char == "\n":
        return "\\n"
    return char if char.isprintable() else f"\\U{ord(char):08X}"


def _checked(alternatives: list[str]) -> list[str]:
    if not alternatives:
        raise GrammarError("a choice between nothing")
    return alternatives


def _bounds(schema: Mapping[str, Any], low: str, high: str) -> tuple[int, int | None]:
    least, most = schema.get(low, 0), schema.get(high)
    whole = isinstance(least, int) and (most is None or isinstance(most, int))
    if not whole or least < 0 or least > _MOST or (most is not None and most < least):
        raise GrammarError(f"{low} and {high} must be whole numbers in order, at most {_MOST}")
    return least, None if most is None or most > _MOST else most


def _times(least: int, most: int | None) -> str:
    if most is None:
        return {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    return f"{{{least},{most}}}"


def _joined(schema: Mapping[str, Any], document: Schema) -> dict[str, Any]:
    """Return one schema for all that must hold; of objects, which is what allOf is used for."""
    rest = {key: value for key, value in schema.items() if key != "allOf"}
    parts = schema["allOf"]
    if not isinstance(parts, list):
        raise GrammarError("allOf is a list")
    return _join([*parts, rest], document)


def _join(parts: Sequence[Any], document: Schema) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for part in parts:
        if not isinstance(part, Mapping):
            continue
        one = resolve(str(part["$ref"]), document) if "$ref" in part else part
        if not isinstance(one, Mapping):
            continue
        properties = {**joined.get("properties", {}), **(one.get("properties") or {})}
        required = [*joined.get("required", ()), *(one.get("required") or ())]
        joined = {**joined, **one}
        if properties:
            joined["properties"] = properties
        if required:
            joined["required"] = list(dict.fromkeys(required))
    return joined

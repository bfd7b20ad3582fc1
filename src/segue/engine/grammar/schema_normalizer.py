"""From any client's JSON schema to one that the grammar library compiles in bounded time and memory.

The library (llguidance) reads JSON Schema well, but a client's schema can be made to exhaust it: nested `anyOf` with
keywords beside it makes it copy until memory is gone, and 100,000 properties overflow its stack; either ends the
process. So the schema is written anew, out of the keywords that the library enforces and within limits: what must hold
together (`allOf`, and keywords beside `$ref`, `anyOf` or `oneOf`) is merged here, and every schema within another
becomes a definition of its own, so that nothing is deep and nothing is written twice.

Not enforced, and left out: not, if, contains, uniqueItems, dependentRequired, minProperties and the like, and a pattern
or a number that the library cannot read. Then the JSON is well-formed and may still break the rule. `oneOf` is read as
`anyOf`. A schema without a type means the type that its keywords are about. A schema that allows nothing is an error.
Not here: how a single keyword is read (`json_schema`), and the grammar (`lark`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

from segue.engine.grammar.ambiguity import refuse_ambiguous
from segue.engine.grammar.json_schema import (
    GrammarError,
    Schema,
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
from segue.protocol.request_size import go_on

_NUMBER_KEYWORDS = ("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
#: Without a type: the one that these keywords are about.
_ABOUT = {
    "object": ("properties", "required", "additionalProperties", "patternProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength"),
    "number": _NUMBER_KEYWORDS,
}
_MOST_TEXT = 1_000_000  # of all schemas, in characters as they are written anew
_SCHEMA = 100  # what one costs, in characters
_LEAF = 400  # what the trial of a string's or number's keywords costs beside that
_LONGEST_PATTERN = 10_000  # a longer one is not enforced
_VALUES_AT_ONCE = 64  # of an enum, between two pauses
_DEEPEST = 60  # of alternatives within each other
_LARGEST = 10**18  # of a bound of a number; a larger one is not enforced
_DATE = (
    "[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    "|(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)-02-29"
)
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_LABEL = "[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
_MAILBOX = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
#: Formats that the library takes too widely: a 31st in each month, a mailbox of a host without a domain.
_FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"(?:{_DATE})T{_TIME}",
    "email": rf"{_MAILBOX}(?:\.{_MAILBOX})*@{_LABEL}(?:\.{_LABEL})+",
}
#: Steps that one string or number may take to compile. Those that real schemas have take some hundreds.
_LEAF_FUEL = 50_000
_SHORT = 500  # what is kept of the last trials is bounded
_UNSATISFIABLE = "Unsatisfiable schema"

_Key = tuple[int, int]
_write = json.JSONEncoder(ensure_ascii=False).encode


class SchemaNormalizer:
    """Writes schemas anew; the limits are for all of them together.

    `pause` is called again and again: whoever calls this can let others work there.
    """

    def __init__(self, pause: Callable[[], None] = go_on) -> None:
        self._left = _MOST_TEXT
        self.pause = pause

    def normalize(self, schema: Schema) -> dict[str, Any]:
        """Return a schema that allows the same as `schema`, or more where that cannot be enforced."""
        try:
            return _Definitions(self).of(schema)
        except GrammarError:
            raise
        except ValueError:  # a number of thousands of digits, half of a surrogate pair
            raise GrammarError("something in the schema cannot be written as JSON") from None
        except RecursionError:  # of values: schemas within each other are counted
            raise GrammarError("something in the schema is nested too deeply") from None

    def spend(self, size: int) -> None:
        """Count the characters of what is written."""
        self._left -= size
        if self._left < 0:
            raise GrammarError("the schemas are too large, all together")
        self.pause()


class _Definitions:
    """The definitions of one document under construction; a schema is known by the identity of its object."""

    def __init__(self, budget: SchemaNormalizer) -> None:
        self._spend = budget.spend
        self._pause = budget.pause
        self._names: dict[_Key, str] = {}
        self._waiting: dict[_Key, tuple[Mapping[str, Any], Schema]] = {}
        self._building: set[_Key] = set()
        self._kept: list[Schema] = []  # so that no other object gets the identity of one of these
        self._made: dict[str, Any] = {}

    def of(self, document: Schema) -> dict[str, Any]:
        root = self._reference(document, document)
        while self._waiting:
            self._build(next(iter(self._waiting)))
        refuse_ambiguous(root, self._made, self._pause)
        return {"$defs": self._made} if root is True else {**root, "$defs": self._made}

    def _reference(self, schema: Schema, document: Schema, *, now: bool = False) -> Any:  # noqa: ANN401 - a schema is an object or true
        """Return a reference to what becomes of a schema.

        `now`: it stands at the place of the schema that is being built, so it must not be that schema again.
        """
        schema = self._target(schema, document)
        if schema is True:
            return True
        assert isinstance(schema, Mapping), "a target is not False"
        key = (id(schema), id(document))
        if key not in self._names:
            self._names[key] = f"s{len(self._names)}"
            self._kept += (schema, document)
            self._waiting[key] = (schema, document)
        if now:
            self._build(key)
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def _target(self, schema: Schema, document: Schema) -> Schema:
        """Follow what is nothing but a reference."""
        seen = set()
        while isinstance(schema, Mapping) and "$ref" in schema and not rest(schema, "$ref"):
            self._spend(_SCHEMA)
            if id(schema) in seen:
                raise GrammarError("a schema refers to itself and nothing else")
            seen.add(id(schema))
            schema = resolve(str(schema["$ref"]), document)
        if schema is not True and not isinstance(schema, Mapping):
            raise GrammarError("a schema is an object, and 'false' allows nothing")
        return schema

    def _build(self, key: _Key) -> None:
        if key in self._building:
            raise GrammarError("a schema refers to itself and nothing else")
        if key not in self._waiting:
            return
        schema, document = self._waiting.pop(key)
        self._spend(_SCHEMA + len(schema))
        if len(self._building) == _DEEPEST:
            raise GrammarError(f"schemas are nested more than {_DEEPEST} deep")
        self._building.add(key)
        self._made[self._names[key]] = self._schema(schema, document)
        self._building.discard(key)

    def _schema(self, schema: Mapping[str, Any], document: Schema) -> Any:  # noqa: ANN401 - a schema is an object or true
        kind = schema.get("type")
        if "$ref" in schema or "allOf" in schema:
            return self._reference(merged([schema], document, self._spend), document, now=True)
        if "const" in schema:
            return self._enum([schema["const"]])
        if "enum" in schema:
            return self._enum(schema["enum"])
        for name in ("anyOf", "oneOf"):
            if name in schema:
                return self._any_of(options(schema, name), rest(schema, name), document)
        if isinstance(kind, list):
            return self._any_of([{"type": one} for one in kinds(kind)], rest(schema, "type"), document)
        return self._typed(schema, kind, document)

    def _typed(self, schema: Mapping[str, Any], kind: object, document: Schema) -> Any:  # noqa: ANN401 - a schema is an object or true
        if kind is None:
            kind = next((kind for kind, about in _ABOUT.items() if not schema.keys().isdisjoint(about)), None)
        match kind:
            case "object":
                return self._object(schema, document)
            case "array":
                return self._array(schema, document)
            case "string":
                return self._string(schema)
            case "number" | "integer":
                return self._number(schema, kind)
            case "boolean" | "null":
                return {"type": kind}
            case None:
                return True
            case _:
                raise GrammarError(f"the schema has an unknown type {to_json(kind)}")

    def _enum(self, values: object) -> dict[str, Any]:
        if not isinstance(values, list) or not values:
            raise GrammarError("an enum is a list with something in it")
        if _is_deep(values):
            raise GrammarError("something in the schema is nested too deeply")
        texts = sum(len(text) + len('""') for text in {value for value in values if isinstance(value, str)})
        self._spend(texts)  # before they are written: thousands of them take long
        different: dict[str, Any] = {}
        for place, value in enumerate(values):
            if place % _VALUES_AT_ONCE == 0:
                self._pause()
            different[to_json(value)] = value
        self._spend(sum(map(len, different)) - texts)
        return {"enum": list(different.values())}

    def _any_of(self, found: list[Any], besides: Schema, document: Schema) -> dict[str, Any]:
        if not found:
            raise GrammarError("a choice between nothing")
        if besides:
            found = [merged([besides, option], document, self._spend) for option in found]
        self._spend(_SCHEMA * len(found))
        return {"anyOf": [self._reference(option, document, now=True) for option in found]}

    # --- private: strings and numbers --------------------------------------------------------------------------------

    def _string(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {"type": "string"}
        least, most = counts(schema, "minLength", "maxLength")
        made |= {} if most is None else {"maxLength": most}
        made |= {"minLength": least} if least else {}
        patterns = schema.get("pattern", ())
        patterns = patterns if isinstance(patterns, tuple) else (patterns,)  # several, where schemas were merged
        if not all(isinstance(pattern, str) for pattern in patterns):
            raise GrammarError("pattern is a string")
        form = schema.get("format")
        if isinstance(form, str) and form in _FORMATS:
            patterns = (*patterns, f"^(?:{_FORMATS[form]})$")
        elif isinstance(form, str):
            made["format"] = form
        self._spend(_LEAF * (len(made) > 1) + sum(_LEAF + len(pattern) for pattern in patterns))
        parts = [{"type": "string", "pattern": one} for one in patterns if len(one) <= _LONGEST_PATTERN]
        parts = [part for part in parts if not _why_not(part)]
        made |= {"allOf": parts} if parts else {}
        nothing = "no string is of this pattern and length"
        return _enforceable(made, ("format",), ("allOf", "format"), nothing=nothing)

    def _number(self, schema: Mapping[str, Any], kind: str) -> dict[str, Any]:
        made: dict[str, Any] = {"type": kind}
        for name in _NUMBER_KEYWORDS:
            value = schema.get(name)
            if value is None or isinstance(value, bool):
                continue
            value = finite(schema, name)
            if abs(value) <= _LARGEST:
                made[name] = value
        for name in ("minimum", "maximum"):  # in early drafts of the standard, a flag beside the bound excludes it
            strict = "exclusive" + name.capitalize()
            if schema.get(strict) is True and name in made:
                made[strict] = made.pop(name)
        if made.get("multipleOf", 1) <= 0:
            raise GrammarError("multipleOf is more than 0")
        self._spend(_LEAF * (len(made) > 1))
        return _enforceable(made, ("multipleOf",), _NUMBER_KEYWORDS, nothing="no number is in this range")

    # --- private: objects and arrays ---------------------------------------------------------------------------------

    def _object(self, schema: Mapping[str, Any], document: Schema) -> dict[str, Any]:
        properties, needed = named(schema, "properties"), required(schema)
        patterns = named(schema, "patternProperties")
        more = schema.get("additionalProperties", not properties and not patterns)
        unnamed = True if isinstance(more, bool) else more
        members = {**properties, **dict.fromkeys(sorted(needed - set(properties)), unnamed)}
        self._spend(sum(map(len, members)) + sum(_LEAF + len(pattern) for pattern in patterns))
        made: dict[str, Any] = {
            "type": "object",
            "properties": {
                name: self._reference(value, document)
                for name, value in members.items()
                if value is not False or name in needed
            },
            "required": [name for name in members if name in needed],
            "additionalProperties": False if more is False else self._reference(more, document),
        }
        if patterns:
            made |= self._patterns(patterns, document)
        return made

    def _patterns(self, patterns: Mapping[str, Any], document: Schema) -> dict[str, Any]:
        """Return the members whose names follow patterns; any name and value, if a pattern cannot be read.

        The library takes several patterns only if no name follows two of them; else any value of theirs will do.
        """
        found = {pattern: value for pattern, value in patterns.items() if value is not False}
        if not found:
            return {}
        made = {pattern: self._reference(value, document) for pattern, value in found.items()}
        if not _why_not({"type": "object", "patternProperties": dict.fromkeys(found, True)}):
            return {"patternProperties": made}
        joined = "|".join(f"(?:{pattern})" for pattern in found)
        if not _why_not({"type": "object", "patternProperties": {joined: True}}):
            return {"patternProperties": {joined: {"anyOf": list(made.values())}}}
        return {"additionalProperties": True}

    def _array(self, schema: Mapping[str, Any], document: Schema) -> dict[str, Any]:
        least, most = counts(schema, "minItems", "maxItems")
        places, others = schema.get("prefixItems"), schema.get("items", True)
        if isinstance(others, list):  # as in earlier drafts of the standard
            places, others = others, schema.get("additionalItems", True)
        places = list(options({"prefixItems": places}, "prefixItems")) if places is not None else []
        if others is False:
            most = len(places) if most is None else min(most, len(places))
            if least > most:
                raise GrammarError("there must be more items than are allowed")
        self._spend(_SCHEMA * len(places) + (most or least))
        made: dict[str, Any] = {"type": "array", "minItems": least}
        if places:
            made["prefixItems"] = [self._reference(one, document) for one in places[:most]]
        if most is not None:
            made["maxItems"] = most
        made["items"] = False if others is False else self._reference(others, document)
        return made


def to_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Write a value as JSON."""
    return _write(value)


def _is_deep(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Say if there is more within each other than the library reads."""
    level = [value]
    for _ in range(_DEEPEST):
        inner: list[Any] = []
        for one in level:
            inner += one.values() if isinstance(one, Mapping) else one if isinstance(one, list) else ()
        level = inner
    return bool(level)


def _enforceable(schema: dict[str, Any], *doubtful: Sequence[str], nothing: str) -> dict[str, Any]:
    """Return the schema of a string or number without those doubtful keywords that the library cannot enforce.

    `nothing` says what is wrong if it allows nothing.
    """
    reason = ""
    if len(schema) == 1:
        return schema
    for names in ((), *doubtful):
        made = {name: value for name, value in schema.items() if name not in names}
        reason = _why_not(made)
        if not reason:
            return made
        if reason.startswith(_UNSATISFIABLE):
            raise GrammarError(nothing)
    raise GrammarError(reason)


def _why_not(schema: dict[str, Any]) -> str:
    """Return why the library cannot compile this small schema, in one line; empty if it can."""
    text = json.dumps(schema)
    return _probe(text) if len(text) <= _SHORT else _probe.__wrapped__(text)


@lru_cache(maxsize=512)
def _probe(schema: str) -> str:
    library: Any = import_module("llguidance")  # only there with the extra `local`
    limits = library.LLParserLimits(initial_lexer_fuel=_LEAF_FUEL, verbose_errors=False)
    grammar = library.LLMatcher.grammar_from_json_schema(schema, overrides={"lenient": True})
    failed, messages = library.LLMatcher.validate_grammar_with_warnings(grammar, limits=limits)
    return str(messages[0]).partition("\n")[0][:200] if failed else ""

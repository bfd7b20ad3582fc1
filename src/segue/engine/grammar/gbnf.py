"""Grammars (GBNF, as llama.cpp reads them) from JSON schemas: pure.

What a model writes under such a grammar is JSON of the schema's structure: types, properties and their order, required
ones, items and their number, enum and const, anyOf, allOf, `$ref` within the document (recursive ones too), the names
of other members (additionalProperties, patternProperties), the length, pattern and format of strings, and the range of
numbers. oneOf is read as anyOf. Members that a schema with properties does not name are only written if it says that
there may be some. What else a schema may say (not, if, contains, uniqueItems, dependentRequired and the like) is not
enforced; then the JSON is well-formed and may still break the rule. So it is with a pattern that cannot be read, or
whose automaton would be too large. A schema that allows nothing is an error.

Schemas come from clients, and the engine takes the process down with it when it cannot read a grammar, or when a
grammar leads to where no token is allowed. So grammars are bounded in size, in depth and in the alternatives at one
place, no rule begins with itself, and nothing is written that a parser of GBNF could refuse.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from segue.engine.grammar.automaton import Automaton, Budget
from segue.engine.grammar.json_schema import (
    GrammarError,
    Schema,
    counts,
    kinds,
    merged,
    named,
    options,
    required,
    resolve,
    rest,
)
from segue.engine.grammar.regex import ALL, Ranges, common, joined, without
from segue.engine.grammar.string_constraints import OF_NUMBERS, OF_STRINGS, member, numeral, string

__all__ = ["Grammar", "GrammarError", "Schema", "literal", "to_json"]

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
    "control": r'"\\" ([bfnrt] | "u00" ("0" [0-7bBeEfF] | "1" hex | "7" [fF]))',
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
    "control": ("hex",),
    "value": ("object", "array", "string", "number", "boolean", "null"),
    "pair": ("string", "ws", "value"),
    "object": ("ws", "pair"),
    "array": ("ws", "value"),
}
#: Without a type: the one that these keywords are about.
_ABOUT = {
    "object": ("properties", "required", "additionalProperties", "patternProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength"),
    "number": OF_NUMBERS,
}
_MOST_AT_ONCE = 1000  # alternatives: each takes time whenever a token is chosen
_MOST_TEXT = 1_000_000  # of a grammar, in characters; a repetition counts as what the engine makes of it
_MOST_AUTOMATA = 500_000  # of all its automata, in characters, beside that
_MOST_STEPS = 200_000  # to make them
_SCHEMA = 100  # what one costs, in characters
_DEEPEST = 60  # of schemas within each other

_CONTROLS: Ranges = ((0, 0x1F), (0x7F, 0x7F))
_ESCAPES = {0x22: r"\"", 0x5C: r"\\", 8: "b", 9: "t", 10: "n", 12: "f", 13: "r"}
_PLAIN = without(joined((*_CONTROLS, *((char, char) for char in _ESCAPES))))


class Grammar:
    """Rules under construction. `add_schema` returns the name of a rule; `text` is the grammar with `root` on top."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}
        self._names: dict[str, str] = {}  # of rules, by their bodies
        self._wide: dict[str, int] = {}  # of rules: the alternatives at their start, also behind a bracket or quote
        # By identity, of a schema and its document, which are kept so that theirs remain their own. What is None is
        # being made; whoever refers to it meanwhile gives it a name.
        self._made: dict[tuple[int, int], str | None] = {}
        self._kept: list[Schema] = []
        self._later: dict[tuple[int, int], tuple[Schema, Schema]] = {}  # which were promised and are not being made
        self._texts: dict[str, str] = {}
        self._budget = Budget(_MOST_STEPS)
        self._room = _MOST_AUTOMATA
        self._left = _MOST_TEXT
        self._depth = 0
        self._count = 0

    def add_schema(self, schema: Schema, document: Schema | None = None) -> str:
        """Add what a schema allows; `document` is what its references start from, by itself the schema."""
        try:
            made = self._schema(schema, schema if document is None else document, frozenset())
            while self._later:
                self._schema(*next(iter(self._later.values())), frozenset())
            return made
        except RecursionError:  # of values: schemas within each other are counted
            raise GrammarError("something in the schema is nested too deeply") from None

    def add_rule(self, body: str) -> str:
        """Add a rule of one's own."""
        if body not in self._names:
            self._names[body] = name = self._name()
            self._set(name, body)
        return self._names[body]

    def text(self, root: str) -> str:
        """Write the grammar; `root` is the body of its first rule."""
        return "\n".join([f"root ::= {root}", *(f"{name} ::= {body}" for name, body in self._rules.items())]) + "\n"

    # --- private: rules ----------------------------------------------------------------------------------------------

    def _name(self) -> str:
        self._count += 1
        return f"r{self._count}"

    def _set(self, name: str, body: str) -> None:
        self._spend(len(body))
        self._rules[name] = body

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise GrammarError("the schemas are too large, all together")

    def _basic(self, name: str) -> str:
        if name not in self._rules:
            self._rules[name] = _BASIC[name]
            for needed in _NEEDS.get(name, ()):
                self._basic(needed)
        return name

    def _choice(self, names: Iterable[str]) -> str:
        """Add a rule for one of several."""
        names = list(dict.fromkeys(names))
        if not names:
            raise GrammarError("a choice between nothing")
        if len(names) == 1:
            return names[0]
        return self._widen(self.add_rule(" | ".join(names)), sum(self._wide.get(name, 1) for name in names))

    def _widen(self, name: str, count: int) -> str:
        """Note how many alternatives a rule has at one place."""
        self._wide[name] = max(count, self._wide.get(name, 1))
        if count > _MOST_AT_ONCE:
            raise GrammarError(f"there are more than {_MOST_AT_ONCE} alternatives at one place")
        return name

    def _times(self, least: int, most: int | None) -> str:
        self._spend(least if most is None else most)
        if most is None:
            return {0: "*", 1: "+"}.get(least, f"{{{least},}}")
        return f"{{{least},{most}}}"

    def _literals(self, texts: Sequence[str]) -> str:
        """Add a rule for one of several texts, divided where they differ: few alternatives are quickly chosen from."""
        first = self._name()
        waiting = [(first, list(dict.fromkeys(texts)))]
        while waiting:
            name, left = waiting.pop()
            self._spend(len(left))
            groups: dict[str, list[str]] = {}
            for text in left:
                groups.setdefault(text[:1], []).append(text)
            alternatives = []
            for group in groups.values():
                start = _common_start(group)
                alternatives.append(literal(start))
                if len(group) > 1:
                    alternatives[-1] += f" {(behind := self._name())}"
                    waiting.append((behind, [text[len(start) :] for text in group]))
            self._set(name, " | ".join(alternatives))
            self._widen(first, len(groups))
        return first

    def _states(self, automaton: Automaton | None, write: Callable[[Ranges], list[str]], end: str) -> str | None:
        """Add a rule for each state of an automaton, return the first; None if they would be too long, or of none."""
        if automaton is None:
            return None
        names = [self._name() for _ in automaton.edges]
        bodies = []
        for edges, ends in zip(automaton.edges, automaton.ends, strict=True):
            steps = [f"{form} {names[target]}" for target, ranges in edges.items() for form in write(ranges)]
            bodies.append(" | ".join([*steps, end] if ends else steps))
        size = sum(map(len, bodies))
        if size > self._room:
            return None
        self._room -= size
        self._rules.update(zip(names, bodies, strict=True))
        return names[0]

    # --- private: schemas --------------------------------------------------------------------------------------------
    # `above` are the schemas that this one begins with nothing before: it may not be one of them again.

    def _schema(self, schema: Schema, document: Schema, above: frozenset[int]) -> str:
        if schema is True:
            return self._basic("value")
        if not isinstance(schema, Mapping):
            raise GrammarError("a schema is an object, and 'false' allows nothing")
        if id(schema) in above:
            raise GrammarError("a schema refers to itself and nothing else")
        key = (id(schema), id(document))
        if key in self._made and key not in self._later:
            known = self._made[key] = self._made[key] or self._name()
            return known
        self._spend(_SCHEMA + len(schema))
        self._kept += (schema, document)
        self._later.pop(key, None)
        self._made.setdefault(key, None)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise GrammarError(f"schemas are nested more than {_DEEPEST} deep")
        made = self._of_schema(schema, document, above | {id(schema)})
        self._depth -= 1
        asked = self._made[key]
        if asked is not None:
            self._set(asked, made)
            self._widen(asked, self._wide.get(made, 1))
        self._made[key] = asked or made
        return asked or made

    def _inner(self, schema: Schema, document: Schema) -> str:
        """Add a schema behind a bracket or a name. One that is referred to is made later: references nest deeply."""
        if not isinstance(schema, Mapping) or "$ref" not in schema or rest(schema, "$ref"):
            return self._schema(schema, document, frozenset())
        target = resolve(str(schema["$ref"]), document)
        key = (id(target), id(document))
        if not isinstance(target, Mapping) or (key in self._made and key not in self._later):
            return self._schema(target, document, frozenset())
        self._later[key] = (target, document)
        name = self._made[key] = self._made.get(key) or self._name()
        return name

    def _of_schema(self, schema: Mapping[str, Any], document: Schema, above: frozenset[int]) -> str:
        kind = schema.get("type")
        if "$ref" in schema and not rest(schema, "$ref"):
            made = self._schema(resolve(str(schema["$ref"]), document), document, above)
        elif "$ref" in schema or "allOf" in schema:
            made = self._schema(self._merged([schema], document), document, above)
        elif "const" in schema:
            made = self._literals([to_json(schema["const"])])
        elif "enum" in schema:
            made = self._enum(schema["enum"])
        elif "anyOf" in schema:
            made = self._any_of(options(schema, "anyOf"), rest(schema, "anyOf"), document, above)
        elif "oneOf" in schema:
            made = self._any_of(options(schema, "oneOf"), rest(schema, "oneOf"), document, above)
        elif isinstance(kind, list):
            made = self._choice([self._schema({**schema, "type": one}, document, above) for one in kinds(kind)])
        else:
            made = self._typed(schema, kind, document)
        return made

    def _typed(self, schema: Mapping[str, Any], kind: object, document: Schema) -> str:
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
                return self._basic(kind)
            case None:
                return self._basic("value")
            case _:
                raise GrammarError(f"the schema has an unknown type {to_json(kind)}")

    def _merged(self, parts: Sequence[Any], document: Schema) -> Schema:
        return merged(parts, document, self._spend)

    def _enum(self, values: object) -> str:
        if not isinstance(values, list) or not values:
            raise GrammarError("an enum is a list with something in it")
        return self._literals([to_json(value) for value in values])

    def _any_of(self, found: list[Any], besides: Schema, document: Schema, above: frozenset[int]) -> str:
        if besides:
            found = [self._merged([besides, option], document) for option in found]
        return self._choice([self._schema(option, document, above) for option in found])

    def _string(self, schema: Mapping[str, Any]) -> str:
        key = _key("string", schema, OF_STRINGS)
        if key not in self._texts:
            states = self._states(string(schema, self._budget), self._string_forms, r'"\""')
            if states is None:
                states = rf'{self._basic("char")}{self._times(*counts(schema, "minLength", "maxLength"))} "\""'
            self._texts[key] = self.add_rule(rf'"\"" {states}')
        return self._texts[key]

    def _number(self, schema: Mapping[str, Any], kind: str) -> str:
        key = _key(kind, schema, OF_NUMBERS)
        if key not in self._texts:
            automaton = numeral(schema, self._budget, whole=kind == "integer")
            self._texts[key] = self._states(automaton, _raw_forms, '""') or self._basic(kind)
        return self._texts[key]

    # --- private: objects and arrays ---------------------------------------------------------------------------------

    def _object(self, schema: Mapping[str, Any], document: Schema) -> str:
        properties, needed = named(schema, "properties"), required(schema)
        more = schema.get("additionalProperties", not properties and "patternProperties" not in schema)
        unnamed = True if isinstance(more, bool) else more
        members = {**properties, **dict.fromkeys(sorted(needed - set(properties)), unnamed)}
        pairs = [
            (self._pair(literal(to_json(name)), value, document), name in needed)
            for name, value in members.items()
            if value is not False or name in needed
        ]
        tails = [self._pair(key, value, document) for key, value in self._other_members(schema, more, tuple(members))]
        ws = self._basic("ws")
        made = self.add_rule(f'"{{" {ws} {self._members(pairs, self._choice(tails) if tails else None)} {ws} "}}"')
        first = next((place for place, (_, is_needed) in enumerate(pairs, 1) if is_needed), len(pairs) + len(tails))
        return self._widen(made, first)

    def _other_members(self, schema: Mapping[str, Any], more: Schema, known: Sequence[str]) -> list[tuple[str, Schema]]:
        """Return rules for the names of members that are not named, with their schemas."""
        patterns = named(schema, "patternProperties")
        found: list[tuple[str | None, Schema]] = [(one, value) for one, value in patterns.items() if value is not False]
        if more is not False:
            found.append((None, more))
        keys = [(self._key(one, known, [other for other in patterns if other != one]), value) for one, value in found]
        return [(key, value) for key, value in keys if key is not None]

    def _key(self, pattern: str | None, known: Sequence[str], others: Sequence[str]) -> str | None:
        """Return a rule for names of a pattern, but not these and not of other patterns; None if there are none."""
        if pattern is None and not known and not others:
            return self._basic("string")
        key = repr((pattern, known, others))
        self._spend(len(key))
        if key not in self._texts:
            automaton = member(pattern, known, others, self._budget)
            if automaton is not None and not automaton.edges:
                return None
            states = self._states(automaton, self._string_forms, r'"\""')
            self._texts[key] = self._basic("string") if states is None else self.add_rule(rf'"\"" {states}')
        return self._texts[key]

    def _pair(self, name: str, schema: Schema, document: Schema) -> str:
        return self.add_rule(f'{name} ":" {self._basic("ws")} {self._inner(schema, document)}')

    def _members(self, pairs: Sequence[tuple[str, bool]], tail: str | None) -> str:
        """Write members in their order, each optional one or not, with commas between those that are there."""
        comma = f'"," {self._basic("ws")}'
        behind = f"({comma} {tail})*" if tail is not None else '""'
        first = [] if tail is None else [f"{tail} {self.add_rule(behind)}"]
        empty = True  # whether there may be none at all of these and what is behind them
        for pair, needed in reversed(pairs):
            here = f"{pair} {self.add_rule(behind)}"
            first = [here] if needed else [here, *first]
            empty = empty and not needed
            behind = f"{comma} {here}" if needed else f"({comma} {pair})? {self.add_rule(behind)}"
        if not first:
            return '""'
        return f"({' | '.join(first)})" + ("?" if empty else "")

    def _array(self, schema: Mapping[str, Any], document: Schema) -> str:
        """Write the items that have a place each, as far as there are any, and then others."""
        least, most = counts(schema, "minItems", "maxItems")
        places, others = schema.get("prefixItems"), schema.get("items", True)
        if isinstance(others, list):  # as in earlier drafts of the standard
            places, others = others, schema.get("additionalItems", True)
        places = list(options({"prefixItems": places}, "prefixItems")) if places is not None else []
        if others is False:
            most = len(places) if most is None else min(most, len(places))
            if least > most:
                raise GrammarError("there must be more items than are allowed")
        elif not places:
            places = [others]
        return self._items(places[:most], others, least, most, document)

    def _items(self, places: Sequence[Schema], others: Schema, least: int, most: int | None, document: Schema) -> str:
        ws = self._basic("ws")
        item = behind = '""'
        if most is None or most > len(places):
            other = self._inner(others, document)
            more = self._times(max(0, least - len(places)), None if most is None else most - len(places))
            behind = f'{self.add_rule(f""" "," {ws} {other}""")}{more}'
        for index in reversed(range(len(places))):
            comma = f'"," {ws} ' if index else ""
            item = self._inner(places[index], document)
            behind = self.add_rule(f"{comma}{item} {behind}") + ("" if index < least else "?")
        return self._widen(self.add_rule(f'"[" {ws} {behind} {ws} "]"'), self._wide.get(item, 1))

    def _string_forms(self, ranges: Ranges) -> list[str]:
        """Return how JSON writes one of these characters."""
        if ranges == ALL:
            return [self._basic("char")]
        forms = [_class(plain)] if (plain := common(ranges, _PLAIN)) else []
        escaped = [char for char in _ESCAPES if common(ranges, ((char, char),))]
        controls = common(ranges, _CONTROLS)
        if controls == _CONTROLS:
            forms.append(self._basic("control"))
            escaped = [char for char in escaped if char in b'"\\']
        else:
            codes = [code for low, high in controls for code in range(low, high + 1) if code not in _ESCAPES]
            forms += [literal(f"\\u{code:04x}") for code in codes]
        if escaped:
            forms.append(rf'"\\" [{"".join(_ESCAPES[char] for char in escaped)}]')
        return forms


def literal(text: str) -> str:
    """Write a text as a terminal of the grammar."""
    if "\0" in text:
        raise GrammarError("a NUL character ends what the engine reads")
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


def _class(ranges: Ranges) -> str:
    """Write characters as a class of the grammar."""
    return "[" + "".join(_code(low) + (f"-{_code(high)}" if high > low else "") for low, high in ranges) + "]"


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)  # whatever is between them begins as they do
    return first[: next((index for index, pair in enumerate(zip(first, last, strict=False)) if len({*pair}) > 1), None)]


def _code(code: int) -> str:
    if chr(code).isascii():
        return chr(code) if chr(code).isalnum() else f"\\x{code:02X}"
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"  # noqa: PLR2004 - what four digits can say


def _raw_forms(ranges: Ranges) -> list[str]:
    return [_class(ranges)]


def _key(kind: str, schema: Mapping[str, Any], about: Iterable[str]) -> str:
    return repr((kind, [schema.get(name) for name in about]))

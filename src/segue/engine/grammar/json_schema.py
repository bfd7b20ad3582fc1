"""What the keywords of a JSON schema say: references, schemas that must hold together, counts, names. Pure.

Schemas come from clients, so whatever is not of the form it should be is a `GrammarError` and nothing else. Not here:
the whole schema (`schema_normalizer`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from math import isfinite
from typing import Any

Schema = Mapping[str, Any] | bool

#: Of alternatives, and of members.
MOST_CHOICES = 500
#: Of a repetition that is counted.
MOST_TIMES = 1000
_MOST_PARTS = 200  # of schemas that hold together
_MOST_TYPES = 10
_SMALL = 10  # schemas that are compared

#: Says nothing about what is valid.
_NOTES = frozenset(
    {"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "deprecated"}
)
_LOWER = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems"})
_UPPER = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems"})


class GrammarError(ValueError):
    """No grammar can be made of this schema; the message says why."""


def resolve(reference: str, document: Schema) -> Schema:
    """Find what a reference within the document means."""
    found: Any = document
    path = reference.removeprefix("#")
    if path == reference or (path and not path.startswith("/")):
        raise GrammarError(f"the reference {reference} leaves the schema, or is no path")
    for part in path.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isascii() and name.isdecimal() and int(name[:9]) < len(found):
            found = found[int(name[:9])]
        elif isinstance(found, Mapping) and name in found:
            found = found[name]
        else:
            raise GrammarError(f"the reference {reference} leads nowhere")
    if not isinstance(found, Mapping | bool):
        raise GrammarError(f"the reference {reference} leads to what is no schema")
    return found


def merged(parts: Sequence[Any], document: Schema, spend: Callable[[int], None]) -> dict[str, Any]:
    """Return one schema for several that must all hold, as far as one can say it; tell `spend` what that costs."""
    made: dict[str, Any] = {}
    for count, part in enumerate(_flattened(parts, document)):
        if count == _MOST_PARTS:
            raise GrammarError("too many schemas must hold together, or one refers to itself")
        spend(1 + len(part))
        for name, value in part.items():
            if name in made:
                spend(sum(len(one) for one in (made[name], value) if isinstance(one, Mapping | list)))
                value = _both(name, made[name], value)  # noqa: PLW2901 - what both values mean
            made[name] = value
    return made


def rest(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what a schema says besides one keyword, and besides its notes."""
    return {key: value for key, value in schema.items() if key != name and key not in _NOTES}


def options(schema: Mapping[str, Any], name: str) -> list[Any]:
    """Return the list that is under this name."""
    found = schema[name]
    if not isinstance(found, list) or len(found) > MOST_CHOICES:
        raise GrammarError(f"{name} is a list of at most {MOST_CHOICES}")
    return found


def named(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object that is under this name, empty if there is none."""
    found = schema.get(name)
    if not isinstance(found, Mapping | None) or len(found or ()) > MOST_CHOICES:
        raise GrammarError(f"{name} is an object with at most {MOST_CHOICES} entries")
    return found or {}


def required(schema: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the members that must be there."""
    return frozenset(_names(schema.get("required") or []))


def _names(found: object) -> dict[str, None]:
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise GrammarError("required is a list of names")
    names = dict.fromkeys(found)
    if len(names) > MOST_CHOICES:
        raise GrammarError(f"more than {MOST_CHOICES} members are required")
    return names


def kinds(value: str | list[Any]) -> list[str]:
    """Return the types that `type` names."""
    found = [value] if isinstance(value, str) else value
    if len(found) > _MOST_TYPES or not all(isinstance(kind, str) for kind in found):
        raise GrammarError("type is the name of a type or a list of such names")
    return list(dict.fromkeys(found))


def counts(schema: Mapping[str, Any], low: str, high: str) -> tuple[int, int | None]:
    """Return how many of something there are at least and at most; None: any number."""
    least, most = _whole(schema, low) or 0, _whole(schema, high)
    if not 0 <= least <= MOST_TIMES or (most is not None and most < least):
        raise GrammarError(f"{low} and {high} must be whole numbers in order, at most {MOST_TIMES}")
    return least, None if most is None or most > MOST_TIMES else most


def finite(schema: Mapping[str, Any], name: str) -> int | float:
    """Return the number that is under this name."""
    found = schema[name]
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise GrammarError(f"{name} is a number")
    if isinstance(found, float) and not isfinite(found):
        raise GrammarError(f"{name} is a finite number")
    return found


def _whole(schema: Mapping[str, Any], name: str) -> int | None:
    value = schema.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise GrammarError(f"{name} must be a whole number")
    return value


def _flattened(parts: Sequence[Any], document: Schema) -> Iterator[Mapping[str, Any]]:
    waiting = list(reversed(parts))
    while waiting:
        part = waiting.pop()
        if part is False:
            raise GrammarError("something of what must hold allows nothing")
        if not isinstance(part, Mapping):
            continue
        if "$ref" in part:
            waiting.append(rest(part, "$ref"))
            waiting.append(resolve(str(part["$ref"]), document))
            part = {}
        elif "allOf" in part:
            waiting.append(rest(part, "allOf"))
            waiting += reversed(options(part, "allOf"))
            part = {}
        yield part  # also when it is empty, so that a reference in a circle comes to an end


def _both(name: str, one: Any, other: Any) -> Any:  # noqa: ANN401, PLR0911 - any JSON; a line a keyword
    """Return the value of a keyword that means what two values of it mean together, else the other."""
    if _same(one, other):
        return one
    if name == "pattern":  # JSON has no tuples: this is how several patterns are told apart from a wrong one
        return (*(one if isinstance(one, tuple) else (one,)), *(other if isinstance(other, tuple) else (other,)))
    match one, other:
        case Mapping(), Mapping() if name in {"properties", "patternProperties"}:
            return {**one, **{key: _and(one[key], value) if key in one else value for key, value in other.items()}}
        case Mapping(), Mapping() if name in {"items", "additionalProperties"}:
            return _and(one, other)
        case list(), list() if name == "required":
            return list(_names(one) | _names(other))
        case list(), list() if name == "enum":
            allowed = set(map(_mark, other))
            return [value for value in one if _mark(value) in allowed]
        case list(), list() if name in {"anyOf", "oneOf"} and len(one) * len(other) <= MOST_CHOICES:
            return [_and(*pair) for pair in product(one, other)]
        case ((str() | list()), (str() | list())) if name == "type":
            return _types(one, other)
        case ((int() | float()), (int() | float())) if name in _LOWER | _UPPER and not isinstance(one, bool):
            return (max if name in _LOWER else min)(one, other)
        case _:
            return other


def _and(one: Any, other: Any) -> Any:  # noqa: ANN401 - schemas, or what stands in their place
    return one if _same(_bare(one), _bare(other)) else {"allOf": [one, other]}


def _bare(schema: Any) -> Any:  # noqa: ANN401 - a schema, or what stands in its place
    """Leave out what does not matter when small schemas are compared: notes, and an allOf around a reference."""
    if not isinstance(schema, Mapping) or len(schema) > _SMALL:
        return schema
    bare = rest(schema, "")
    return bare["allOf"][0] if list(bare) == ["allOf"] and len(options(bare, "allOf")) == 1 else bare


def _mark(value: Any) -> tuple[bool, Any]:  # noqa: ANN401 - any JSON
    """Return what tells values apart without looking into what they hold. True is no number."""
    return isinstance(value, bool), value if isinstance(value, str | int | float) else id(value)


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401 - any JSON
    """Tell whether two values are surely the same; it hardly looks into what they hold."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and len(one) <= _SMALL:
        return one.keys() == other.keys() and all(_mark(one[key]) == _mark(other[key]) for key in one)
    return _mark(one) == _mark(other)


def _types(one: str | list[Any], other: str | list[Any]) -> list[Any]:
    """Return the types that both name; a whole number is a number."""
    first, second = kinds(one), kinds(other)
    numeric = {"number", "integer"}
    both = [kind for kind in first if kind in second]
    if numeric.isdisjoint(both) and not (numeric.isdisjoint(first) or numeric.isdisjoint(second)):
        both.append("integer")
    return both

"""JSON schemas as Anthropic takes them, and which tools of a request can be strict.

Where this API compels an answer or the arguments of a tool to fit a schema, it takes a part of JSON Schema only, and
wants every object closed (https://platform.claude.com/docs/en/build-with-claude/structured-outputs). What it does not
take becomes words in the description, as in Anthropic's own SDKs, so that the model still reads it. Not here: when a
schema is sent (`settings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from segue.protocol.codec import encode

Json = dict[str, Any]

#: Keywords that are sent as they are.
_TAKEN = frozenset({"type", "required", "enum", "const", "$ref", "title", "description", "default"})
#: Keywords whose value is a schema, a list of schemas, or schemas by name.
_INNER = frozenset({"items", "anyOf", "allOf", "properties", "$defs", "definitions"})
#: Keywords for programs, not for models.
_UNREAD = frozenset({"$schema", "$id", "$comment", "$anchor"})
#: Keywords that say nothing about what fits.
_NOTES = frozenset({"examples", "deprecated", "readOnly", "writeOnly", "contentMediaType", "contentEncoding"})
_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"),
)
_FEWEST_ITEMS = (0, 1)
_ALTERNATIVES = ("anyOf", "oneOf", "allOf")
#: What the strict tools and the schema of the answer may have together.
STRICT_TOOLS = 20
_OPTIONAL_FIELDS = 24
_UNIONS = 16


class ClosedSchema(NamedTuple):
    """A schema that the API can enforce, and the keywords that it cannot: they are words in a description now."""

    schema: Json
    unenforced: tuple[str, ...]


def close_schema(schema: Json) -> ClosedSchema:
    """Return a schema in the part of JSON Schema that can be enforced."""
    unenforced: dict[str, None] = {}
    return ClosedSchema(_closed(schema, unenforced), tuple(unenforced))


def _closed(schema: Json, unenforced: dict[str, None]) -> Json:
    closed: Json = {}
    told: Json = {}
    for word, value in schema.items():
        if word in _INNER:
            closed[word] = _closed_inner(value, unenforced, named=word in {"properties", "$defs", "definitions"})
        elif word == "oneOf" and "anyOf" not in schema:
            closed["anyOf"] = _closed_inner(value, unenforced)
        elif _is_enforced(word, value):
            closed[word] = value
        elif word not in _UNREAD and word != "additionalProperties":
            told[word] = value
    if _is_object(schema):
        _close_object(schema, closed, told)
    unenforced.update(dict.fromkeys(word for word in told if word not in _NOTES))
    if told:
        words = (schema.get("description"), encode(told).decode())
        closed["description"] = "\n\n".join(str(word) for word in words if word)
    return closed


def _closed_inner(value: object, unenforced: dict[str, None], *, named: bool = False) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, list):
        return [_closed_inner(member, unenforced) for member in value]
    if not isinstance(value, dict):
        return value  # `true`, or what is no schema: the provider says so
    if named:
        return {name: _closed_inner(member, unenforced) for name, member in value.items()}
    return _closed(value, unenforced)


def _is_enforced(word: str, value: object) -> bool:
    if word == "format":
        return value in _FORMATS
    return word in _TAKEN or (word == "minItems" and value in _FEWEST_ITEMS)


def _is_object(schema: Json) -> bool:
    kind = schema.get("type")
    return (
        kind == "object" or (isinstance(kind, list) and "object" in kind) or (kind is None and "properties" in schema)
    )


def _close_object(schema: Json, closed: Json, told: Json) -> None:
    """Allow no other fields; if the schema allows any, or names none at all, the model is told what it may add."""
    closed.setdefault("type", "object")
    closed["additionalProperties"] = False
    more = schema.get("additionalProperties", not schema.get("properties"))
    if more is not False:
        told["additionalProperties"] = more


def input_schema(parameters: Json) -> ClosedSchema:
    """Return a tool's parameters as the API takes them of a tool that is not strict: an object, without alternatives.

    At the top it refuses `anyOf`, `oneOf` and `allOf`, and a type that is not `object`.
    """
    schema = parameters if parameters.get("type") == "object" else {**parameters, "type": "object"}
    told = {word: schema[word] for word in _ALTERNATIVES if word in schema}
    if not told:
        return ClosedSchema(schema, ())
    fields: Json = {}
    for branch in (branch for branches in told.values() if isinstance(branches, list) for branch in branches):
        if isinstance(branch, dict) and isinstance(branch.get("properties"), dict):
            fields |= branch["properties"]
    kept = {word: value for word, value in schema.items() if word not in told}
    own = schema.get("properties")
    kept["properties"] = fields | (own if isinstance(own, dict) else {})
    words = (schema.get("description"), encode(told).decode())
    kept["description"] = "\n\n".join(str(word) for word in words if word)
    return ClosedSchema(kept, tuple(told))


def strict_schema(parameters: Json) -> ClosedSchema | None:
    """Return the parameters of a strict tool, or None if they allow fields of any name, which cannot be enforced."""
    # A tool without parameters has no fields; this is not said of other objects that name none.
    closed = close_schema(parameters if parameters.get("properties") else {"additionalProperties": False, **parameters})
    return None if "additionalProperties" in closed.unenforced else closed


class StrictBudget:
    """How much more of a request can be strict: tools, fields that may be left out, and fields of several types."""

    def __init__(self, tools: int) -> None:
        self._tools = tools
        self._optional = _OPTIONAL_FIELDS
        self._unions = _UNIONS

    def take(self, schema: Json) -> bool:
        """Take a tool with this schema, if there is room for it."""
        optional, unions = _count(schema)
        if not self._tools or optional > self._optional or unions > self._unions or _is_recursive(schema):
            return False
        self._tools -= 1
        self._optional -= optional
        self._unions -= unions
        return True


def _count(schema: object) -> tuple[int, int]:
    """Return how many fields may be left out and how many have several types, at any depth."""
    if isinstance(schema, list):
        counts = [_count(member) for member in schema]
        return sum(count[0] for count in counts), sum(count[1] for count in counts)
    if not isinstance(schema, dict):
        return 0, 0
    optional, unions = _count([value for word, value in schema.items() if word not in {"enum", "const", "default"}])
    fields, required = schema.get("properties"), schema.get("required")
    if isinstance(fields, dict):
        optional += len(fields.keys() - set(map(str, required if isinstance(required, list) else ())))
    if "anyOf" in schema or isinstance(schema.get("type"), list):
        unions += 1
    return optional, unions


def _is_recursive(schema: Json) -> bool:
    """Return whether a definition refers to itself, which cannot be enforced."""
    uses = {
        f"#/{group}/{name}": _references(definition)
        for group in ("$defs", "definitions")
        for name, definition in _members(schema, group)
    }
    if "#" in _references(schema):
        return True
    try:
        TopologicalSorter(uses).prepare()
    except CycleError:
        return True
    return False


def _members(schema: Mapping[str, Any], group: str) -> list[tuple[str, Any]]:
    members = schema.get(group)
    return list(members.items()) if isinstance(members, dict) else []


def _references(schema: object) -> set[str]:
    if isinstance(schema, list):
        return {reference for member in schema for reference in _references(member)}
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
    return own | _references(list(schema.values()))

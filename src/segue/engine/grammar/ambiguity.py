"""Refuses schemas by which one text can be read in so many ways that choosing a token takes too long. Pure.

The library reads an answer in all ways that are still possible at once. Two alternatives of a choice that begin alike,
as two arrays do, both stay possible until something tells them apart, and what is within them multiplies. A *state* is
the set of schemas that may hold at one place of an answer. It is *wide* if many arrays are in it, or many objects that
have a member in common. Objects whose first member is a constant are told apart by it, as those of a union are. One
wide state is read quickly; a wide state within a wide state is not, and is refused. Not here: how schemas are written
anew (`schema_normalizer`), whose definitions this reads, and the limits of the library (`token_matcher`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from segue.engine.grammar.json_schema import GrammarError
from segue.protocol.request_size import go_on

#: Schemas by the names of their definitions; "" stands for any JSON.
State: TypeAlias = frozenset[str]

_ANY = ""
_WIDE_ARRAYS = 8
_WIDE_OBJECTS = 64
#: Arrays that may be told apart at one place at all.
_MOST_ARRAYS = 128
#: Schemas that are looked at, in all states together. Those of a hundred real tools have some thousands.
_MOST_STEPS = 200_000
#: So many of them are looked at between two pauses.
_STEPS_AT_ONCE = 16
#: Of a member that tells objects apart.
_MOST_VALUES = 8


def refuse_ambiguous(
    root: Any,  # noqa: ANN401 - a schema, written anew
    definitions: Mapping[str, Any],
    pause: Callable[[], None] = go_on,
) -> None:
    """Raise `GrammarError` if wide states are within each other, in a schema as `SchemaNormalizer` writes it.

    `pause` is called again and again: whoever calls this can let others work there.
    """
    _States(definitions, pause).walk(root)


class _States:
    def __init__(self, definitions: Mapping[str, Any], pause: Callable[[], None]) -> None:
        self._definitions = definitions
        self._pause = pause
        self._left = _MOST_STEPS

    def walk(self, root: Any) -> None:  # noqa: ANN401 - a schema, written anew
        begin = self._closure([root])
        waiting = [(begin, False)]
        seen = {waiting[0]}
        while waiting:
            state, within_wide = waiting.pop()
            for inner, through_wide in self._inner(state, within_wide=within_wide):
                place = (inner, through_wide or within_wide)
                if place not in seen:
                    seen.add(place)
                    waiting.append(place)

    def _inner(self, state: State, *, within_wide: bool) -> Iterator[tuple[State, bool]]:
        """Return the states one level deeper, each with whether it is within a wide one."""
        leaves = [self._definitions[name] for name in state if name != _ANY]
        arrays = [leaf for leaf in leaves if leaf.get("type") == "array"]
        objects = [leaf for leaf in leaves if leaf.get("type") == "object"]
        anything = [True] if _ANY in state else []
        wide_arrays = len(arrays) > _WIDE_ARRAYS
        if len(arrays) > _MOST_ARRAYS or (within_wide and wide_arrays):
            raise _too_ambiguous()
        for place in range(max((len(one.get("prefixItems", ())) for one in arrays), default=0) + 1):
            items = [_item(one, place) for one in arrays]
            yield self._closure([*anything, *(item for item in items if item is not False)]), wide_arrays
        for alike in self._told_apart(objects):
            members = _members(alike)
            unnamed = [*anything, *(schema for one in alike for schema in _unnamed(one) if schema is not False)]
            wide_objects = max(map(len, (unnamed, *members.values()))) > _WIDE_OBJECTS
            if within_wide and wide_objects:
                raise _too_ambiguous()
            for schemas in ([], *members.values()):
                yield self._closure([*schemas, *unnamed]), wide_objects

    def _told_apart(self, objects: list[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
        """Group objects by the constant that each must begin with; those without one may be any of them."""
        groups: dict[str, list[Mapping[str, Any]]] = {}
        others = []
        for one in objects:
            marks = self._first_values(one)
            for mark in marks:
                groups.setdefault(mark, []).append(one)
            others += [] if marks else [one]
        return [[*group, *others] for group in groups.values()] or [others]

    def _first_values(self, one: Mapping[str, Any]) -> list[str]:
        """Return the values that the first member of an object may have, with its name, if they are listed."""
        name = next(iter(one["properties"]), None)
        if name is None or name not in one["required"] or one["properties"][name] is True:
            return []
        (leaf, *others) = self._closure([one["properties"][name]]) or [_ANY]
        values = [] if others or leaf == _ANY else self._definitions[leaf].get("enum", [])
        return [json.dumps([name, value]) for value in values] if len(values) <= _MOST_VALUES else []

    def _closure(self, schemas: list[Any]) -> State:
        """Return what may hold where one of the schemas does: choices are followed to what they are between."""
        found: set[str] = set()
        waiting = list(schemas)
        while waiting:
            schema = waiting.pop()
            name = _ANY if schema is True else schema["$ref"].rpartition("/")[2]
            if name in found:
                continue
            self._spend()
            found.add(name)
            meant: Any = True if name == _ANY else self._definitions[name]
            if isinstance(meant, Mapping):
                waiting += meant.get("anyOf", [meant] if "$ref" in meant else [])
        return frozenset(name for name in found if name == _ANY or _is_leaf(self._definitions[name]))

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _too_ambiguous()
        if self._left % _STEPS_AT_ONCE == 0:
            self._pause()


def _is_leaf(meant: Any) -> bool:  # noqa: ANN401 - a schema, written anew
    return meant is not True and "anyOf" not in meant and "$ref" not in meant


def _members(objects: list[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the schemas of the members that have the same name in several objects, by that name."""
    members: dict[str, list[Any]] = {}
    for one in objects:
        for name, schema in one["properties"].items():
            members.setdefault(name, []).append(schema)
    return members


def _unnamed(one: Mapping[str, Any]) -> Iterator[Any]:
    yield one["additionalProperties"]
    for schema in one.get("patternProperties", {}).values():
        yield from schema["anyOf"] if isinstance(schema, Mapping) and "anyOf" in schema else [schema]


def _item(array: Mapping[str, Any], place: int) -> Any:  # noqa: ANN401 - a schema, written anew
    places = array.get("prefixItems", [])
    return places[place] if place < len(places) else array["items"]


def _too_ambiguous() -> GrammarError:
    return GrammarError("an answer could be read in too many ways at once")

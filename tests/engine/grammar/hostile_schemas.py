"""Schemas that were made to exhaust whatever reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def within(times: int, make: Callable[[Any, int], Any], inner: Any) -> Any:  # noqa: ANN401 - any JSON schema
    for number in range(times):
        inner = make(inner, number)
    return inner


def row(length: int, make: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Definitions of which each refers to the next."""
    made: dict[str, Any] = {f"x{n}": make({"$ref": f"#/$defs/x{n + 1}"}) for n in range(length)}
    return {"$ref": "#/$defs/x0", "$defs": made | {f"x{length}": {"type": "object"}}}


HOSTILE: dict[str, Any] = {
    "types twice": within(25, lambda part, _: {"type": ["array", "object"], "items": part, "required": ["a"]}, {}),
    "the same rest twice": within(
        25, lambda part, _: {"properties": {"a": part}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {}
    ),
    "two references": row(40, lambda ref: {"type": "object", "anyOf": [ref, ref]}),
    "two ways": row(40, lambda ref: {"type": "object", "anyOf": [ref, {"required": ["a"], "allOf": [ref]}]}),
    "all of both": row(40, lambda ref: {"allOf": [ref, ref]}),
    "all of all pairs": {"allOf": [{"anyOf": [{"required": [f"a{n}"]}, {"required": [f"b{n}"]}]} for n in range(60)]},
    "joined again and again": {
        "type": "integer",
        "anyOf": [{"$ref": "#/$defs/x"}] * 400,
        "$defs": {"x": {"allOf": [{"enum": list(range(400))}, {"enum": list(range(399, -1, -1))}] * 90}},
    },
    "arrays of each other": {
        "anyOf": [{"type": "array", "items": {"$ref": "#"}, "minItems": 1, "maxItems": most} for most in (3, 4)]
    },
    "objects that differ late": within(
        12,
        lambda part, _: {
            "anyOf": [
                {"type": "object", "properties": {"k": part, "z": {"const": mark}}, "required": ["k", "z"]}
                for mark in "ab"
            ]
        },
        {"type": "string"},
    ),
    "many states": {
        "type": "array",
        "items": {"anyOf": [{"type": "string", "pattern": f"^(a|b)*a(a|b){{{n}}}$"} for n in range(10, 200, 4)]},
    },
    "deep": within(500, lambda part, _: {"type": "array", "items": part}, {}),
    "deep value": {"const": within(500, lambda part, _: [part], 1)},
    "many properties": {"properties": {f"p{n}": True for n in range(500)}},
    "too many properties": {"properties": {f"p{n}": True for n in range(100_000)}},
    "many objects": {
        "prefixItems": [{"properties": {f"{a}-{b}": {"const": b} for b in range(300)}} for a in range(100)]
    },
    "many values": {"enum": [f"value {n}" for n in range(3000)]},
    "values within each other": {"enum": ["a" * n for n in range(1200)]},
    "many lengths": {"prefixItems": [{"type": "string", "maxLength": n} for n in range(500)]},
    "long lengths": {"prefixItems": [{"type": "string", "maxLength": 999 - n, "minLength": n} for n in range(499)]},
    "many patterns": {"prefixItems": [{"pattern": f"(a|b)*a(a|b){{{n % 12}}}{n}"} for n in range(500)]},
    "large automata": {"prefixItems": [{"pattern": f"^[^a-f]{{500}}{n}$"} for n in range(20)]},
    "a large class": {"pattern": f"[{''.join(chr(0x4E00 + 2 * n) for n in range(3900))}]{{1,30}}"},
    "many names and patterns": {
        "properties": {f"p{n}": True for n in range(450)},
        "patternProperties": {f"^x{n}": True for n in range(450)},
    },
    "a large number": {"type": "integer", "minimum": 10**4000, "multipleOf": 10**4000},
    "a large divisor": {"type": "integer", "multipleOf": 10**15 + 37},
    "a long reference": {"$ref": "#/" + "a/" * 10_000},
}

"""What one hostile tenant does to a model in the process: schemas that are slow to obey, and turns in its queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tests.faults.isolation.attacks import Attack, Run, again, asked, kept_turns
from tests.faults.isolation.wire import Target, create

Schema = dict[str, Any]


def _record(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _ref(number: int) -> Schema:
    return {"$ref": f"#/$defs/d{number}"}


def nested_arrays() -> Schema:
    """Arrays in arrays, in two ways each: the readings multiply with each bracket."""
    one = {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1}
    ways = [one | {"maxItems": most} for most in (3, 4)]
    return _record(x={"$ref": "#/$defs/a"}) | {"$defs": {"a": {"anyOf": ways}}}


def nested_records() -> Schema:
    """Forty choices within each other of two objects that begin alike."""
    inner = {f"d{n}": {"anyOf": [_record(k=_ref(n + 1), z={"const": letter}) for letter in "ab"]} for n in range(40)}
    return _record(x=_ref(0)) | {"$defs": {**inner, "d40": {"type": "string"}}}


def patterns() -> Schema:
    """A text of many ways to read it."""
    return _record(x={"type": "string", "pattern": "^((a|aa|[a-z]{1,40}){1,40}b?){1,40}$"})


def many_names() -> Schema:
    return _record(x={"enum": [f"{number:06}" * 8 for number in range(20_000)]})


def schemas(make: Callable[[], Schema], prompt: str) -> Run:
    """Four turns at once that obey a schema."""

    async def attack(target: Target) -> None:
        text = {"format": {"type": "json_schema", "name": "s", "schema": make(), "strict": True}}
        body = create(model="tiny", input=prompt, text=text, store=False, max_output_tokens=400)

        async def attempt(target: Target) -> None:
            async with asyncio.timeout(120):
                await asked(target, target.post(body))

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(again(target, lambda: attempt(target), 0.2))

    return attack


MODEL_ATTACKS: Sequence[Attack] = (
    Attack("A1", "a schema of arrays in arrays", schemas(nested_arrays, "Write nested arrays: [[[[")),
    Attack("A1", "a schema of records that begin alike", schemas(nested_records, '{"k": {"k": {"k": ')),
    Attack("A1", "a schema with a pattern of many readings", schemas(patterns, "aaaa")),
    Attack("A1", "a schema of many names", schemas(many_names, "0")),
    Attack("A5", "turns in the background of the model", kept_turns(68, model="tiny", max_output_tokens=64)),
)

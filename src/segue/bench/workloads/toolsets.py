"""Generates the tools that agents declare: names, descriptions and schemas of a given size. They have no code."""

from __future__ import annotations

from segue.bench.workloads.prose import ProseWriter
from segue.testing.replies import Json, compact

_FRAME_BYTES = 90  # the JSON that an API puts around the three fields of a tool


def make_tools(writer: ProseWriter, count: int, size: int) -> list[Json]:
    """Return `count` tools with together about `size` bytes of JSON; each has a name, a description and a schema."""
    weights = [writer.random.uniform(0.3, 2) for _ in range(count)]
    made: list[Json] = []
    for weight in weights:
        wanted = int(size * weight / sum(weights))
        schema = _schema(writer, wanted // 2)
        room = wanted - len(compact(schema)) - _FRAME_BYTES
        description = writer.prompt(max(room, 20)).replace("\n\n", "\n")
        made.append({"name": writer.name(), "description": description, "schema": schema})
    return made


def _schema(writer: ProseWriter, size: int) -> Json:
    properties: dict[str, Json] = {}
    while len(compact(properties)) < size or not properties:
        kind = writer.random.choice(("string", "string", "number", "boolean"))
        properties[writer.name()] = {"type": kind, "description": writer.sentence()}
    required = list(properties)[:1]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

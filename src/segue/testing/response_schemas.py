"""The Open Responses document (the copy that llm-comply bundles) as a judge of single objects: its schemas, with a few
amendments, and the shapes beyond it that the openai SDK's models judge. Not here: what comes after what (`checker`).
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from openai.types import responses as sdk
from pydantic import ValidationError as ModelError

if TYPE_CHECKING:
    from pydantic import BaseModel

Json: TypeAlias = dict[str, Any]

_SHOWN_CHARACTERS: Final = 200
# The document leaves `status` a free string; clients do not.
STATUSES: Final = ("queued", "in_progress", "completed", "failed", "incomplete", "cancelled")


class SdkModel(NamedTuple):
    """A legal shape that the document cannot express, judged by the openai SDK's model in strict mode instead."""

    model: type[BaseModel]
    reason: str


EXTRA_EVENTS: Final = {
    "response.custom_tool_call_input.delta": SdkModel(
        sdk.ResponseCustomToolCallInputDeltaEvent, "the document knows function tools only; Codex edits by custom tools"
    ),
    "response.custom_tool_call_input.done": SdkModel(sdk.ResponseCustomToolCallInputDoneEvent, "closes those deltas"),
    "response.steer.failed": SdkModel(sdk.ResponseSteerFailedEvent, "the document knows nothing of steering"),
}
# By a schema of the union that lacks the shape, and the shape's `type`.
EXTRA_MEMBERS: Final = {
    ("FunctionCall", "custom_tool_call"): SdkModel(sdk.ResponseCustomToolCallItem, "the item that those events build"),
    ("FunctionTool", "custom"): SdkModel(sdk.CustomTool, "`tools` echoes the request, which may hold custom tools"),
    ("FunctionToolChoice", "custom"): SdkModel(sdk.ToolChoiceCustom, "`tool_choice` may name a custom tool"),
}


class ProtocolViolation(AssertionError):
    """Something on the wire is not what the protocol, or segue's own rules, allow."""

    def __init__(self, event: str, path: str, reason: str) -> None:
        self.event, self.path, self.reason = event, path, reason
        super().__init__(f"{event} at {path}: {reason}" if path else f"{event}: {reason}")


# The jsonschema package takes milliseconds for a response object, and then says "is not valid under any of the given
# schemas". The document uses few keywords, so they are read here, ten times faster and with the field named. A test
# holds the verdicts against those of that package, and another that no other keyword occurs.

_NULL: Final = {"type": "null"}
_TYPES: Final = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


@cache
def schemas() -> dict[str, Json]:
    """The schemas of the document, with three amendments."""
    text = files("llm_comply").joinpath("specs/openresponses.json").read_text("utf-8")
    found: dict[str, Json] = json.loads(text)["components"]["schemas"]
    # It lets a response echo `text.format.schema` only as null; OpenAI echoes the schema, and the SDK's model needs it.
    found["JsonSchemaResponseFormat"]["properties"]["schema"] = {"anyOf": [{"type": "object"}, _NULL]}
    # It leaves these open; the SDK's models do not.
    found["ResponseResource"]["properties"]["status"]["enum"] = list(STATUSES)
    found["WebSocketErrorEvent"]["properties"]["error"]["required"].append("type")
    return found


@cache
def event_schemas() -> dict[str, Json]:
    """The schema of each event type; for `error`, the one of SSE."""
    named = [schema for name, schema in schemas().items() if name.endswith("StreamingEvent")]
    return {schema["properties"]["type"]["enum"][0]: schema for schema in named}


def validate(event: str, schema: Json, value: object, path: str = "") -> None:
    """Check a value against a schema of the document; raises `ProtocolViolation`."""
    schema = _resolved(schema)
    if "type" in schema and not _has_type(value, schema["type"]):
        raise ProtocolViolation(event, path, f"{short(value)} is not of type {schema['type']}")
    if "enum" in schema and value not in schema["enum"]:
        raise ProtocolViolation(event, path, f"{short(value)} is not one of {', '.join(schema['enum'])}")
    for member in schema.get("allOf", ()):
        validate(event, member, value, path)
    for key in schema.keys() & {"anyOf", "oneOf"}:
        _validate_union(event, schema[key], value, path)
    if isinstance(value, dict):
        _validate_members(event, schema, value, path)
    elif isinstance(value, list) and "items" in schema:
        for index, member in enumerate(value):
            validate(event, schema["items"], member, f"{path}[{index}]")


def _validate_members(event: str, schema: Json, value: Json, path: str) -> None:
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        raise ProtocolViolation(event, path, f"lacks {', '.join(missing)}")
    members, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, member in value.items():
        expected = members.get(name, others)
        if expected is not True:
            validate(event, expected, member, f"{path}.{name}" if path else name)


def _validate_union(event: str, members: list[Json], value: object, path: str) -> None:
    """The members of each union in the document exclude each other: by their `type`, or as types of JSON."""
    if value is None and _NULL in members:
        return
    kind = str(value.get("type")) if isinstance(value, dict) else ""
    named = [(member.get("$ref", "").rpartition("/")[2], member) for member in members if member != _NULL]
    extra = [EXTRA_MEMBERS[name, kind] for name, _ in named if (name, kind) in EXTRA_MEMBERS]
    fitting = [member for name, member in named if _tag(name) in (kind, "")]
    if len(fitting) > 1:
        fitting = [member for member in fitting if _has_type(value, _resolved(member)["type"])]
    if extra:
        validate_model(event, extra[0], value, path)
    elif fitting:
        validate(event, fitting[0], value, path)
    else:
        raise ProtocolViolation(event, path, f"{short(value)} is not of any kind that is allowed here")


def validate_model(event: str, extra: SdkModel, value: object, path: str = "") -> None:
    """Check a value against a model of the openai SDK; raises `ProtocolViolation`."""
    try:
        # As JSON, because strict mode refuses a dict in place of a nested model.
        extra.model.model_validate_json(json.dumps(value), strict=True)
    except ModelError as error:
        detail = error.errors()[0]
        where = ".".join(str(step) for step in (path, *detail["loc"]) if step != "")
        raise ProtocolViolation(event, where, detail["msg"]) from None


@cache
def _tag(name: str) -> str:
    """The one `type` that the named schema requires, or nothing."""
    schema = schemas().get(name, {})
    kinds = schema.get("properties", {}).get("type", {}).get("enum", ())
    return kinds[0] if len(kinds) == 1 and "type" in schema["required"] else ""


def _resolved(schema: Json) -> Json:
    return schemas()[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _has_type(value: object, name: str) -> bool:
    found = _TYPES.get(type(value), "null")
    return found == name or (found, name) == ("integer", "number")  # and 1.0 is no integer, unlike in JSON Schema


def check_object(event: str, value: object) -> None:
    """Check that a value is a JSON object; raises `ProtocolViolation`."""
    if not isinstance(value, dict):
        raise ProtocolViolation(event, "", f"is not an object but {short(value)}")


def short(value: object) -> str:
    """Show a value in at most 200 characters."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:150]}…{text[-40:]}"

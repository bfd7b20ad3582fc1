"""The schemas that the protocol checker judges single objects by: the Open Responses document (the copy that
llm-comply bundles) with three amendments, and the openai SDK's models for shapes that the document lacks. Both packages
are imported on first use, so that importing this module is cheap. Not here: the order of events (`protocol_checker`).
"""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module
from importlib.resources import files
from types import ModuleType
from typing import Any, Final, TypeAlias

import msgspec

from segue.extras import how_to_add

Json: TypeAlias = dict[str, Any]

_SHOWN_CHARACTERS: Final = 200
# The document leaves `status` a free string; clients do not.
STATUSES: Final = ("queued", "in_progress", "completed", "failed", "incomplete", "cancelled")


class MissingPackageError(ImportError):
    """The protocol checker needs a package that is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the protocol checker needs {package}, which is not installed: {how_to_add('testing')}", name=package
        )


class SdkModel(msgspec.Struct, frozen=True):
    """A legal shape that the document cannot express: the model of `openai.types.responses` that judges it."""

    name: str
    reason: str


EXTRA_EVENTS: Final = {
    "response.custom_tool_call_input.delta": SdkModel(
        "ResponseCustomToolCallInputDeltaEvent",
        "the document knows function tools only; Codex edits by custom tools",
    ),
    "response.custom_tool_call_input.done": SdkModel("ResponseCustomToolCallInputDoneEvent", "closes those deltas"),
    "response.reasoning_text.delta": SdkModel(
        "ResponseReasoningTextDeltaEvent", "the document calls the event otherwise in which OpenAI's API shows thoughts"
    ),
    "response.reasoning_text.done": SdkModel("ResponseReasoningTextDoneEvent", "closes those deltas"),
    "response.compaction.compacting": SdkModel(
        "ResponseCompactionCompactingEvent", "the document has the item that it is about, and not the event"
    ),
    "response.steer.accepted": SdkModel("ResponseSteerAcceptedEvent", "the document knows nothing of steering"),
    "response.steer.pending": SdkModel("ResponseSteerPendingEvent", "the document knows nothing of steering"),
    "response.steer.failed": SdkModel("ResponseSteerFailedEvent", "the document knows nothing of steering"),
}
# The key is a schema of the union that lacks the shape, and the shape's `type`.
EXTRA_MEMBERS: Final = {
    ("FunctionCall", "custom_tool_call"): SdkModel("ResponseCustomToolCallItem", "the item that those events build"),
    ("FunctionTool", "custom"): SdkModel("CustomTool", "`tools` echoes the request, which may hold custom tools"),
    ("FunctionToolChoice", "custom"): SdkModel("ToolChoiceCustom", "`tool_choice` may name a custom tool"),
}


class ProtocolViolation(AssertionError):
    """Something on the wire breaks the protocol, or one of segue's own narrower rules."""

    def __init__(self, event: str, path: str, reason: str) -> None:
        self.event, self.path, self.reason = event, path, reason
        super().__init__(f"{event} at {path}: {reason}" if path else f"{event}: {reason}")


# The jsonschema package takes milliseconds for one response object, and then only says "is not valid under any of the
# given schemas". The document uses few keywords, so this module reads them itself: ten times faster, and it names the
# field. One test compares its verdicts with those of jsonschema; another checks that no other keyword occurs.

_NULL: Final = {"type": "null"}
_TYPES: Final = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


@cache
def _package(name: str) -> ModuleType:
    """Import a package of the extra `testing`.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingPackageError(name.partition(".")[0]) from error


@cache
def schemas() -> dict[str, Json]:
    """Return the schemas of the document, with three amendments.

    Raises:
        MissingPackageError: llm-comply is not installed.
    """
    text = files(_package("llm_comply")).joinpath("specs/openresponses.json").read_text("utf-8")
    found: dict[str, Json] = json.loads(text)["components"]["schemas"]
    # It lets a response echo `text.format.schema` only as null; OpenAI echoes the schema, and the SDK's model needs it.
    found["JsonSchemaResponseFormat"]["properties"]["schema"] = {"anyOf": [{"type": "object"}, _NULL]}
    # It leaves these open; the SDK's models do not.
    found["ResponseResource"]["properties"]["status"]["enum"] = list(STATUSES)
    found["WebSocketErrorEvent"]["properties"]["error"]["required"].append("type")
    return found


@cache
def event_schemas() -> dict[str, Json]:
    """Return the schema of each event type; for `error`, the one of SSE."""
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
    """Check a value against the one member that fits: they exclude each other by `type`, or as types of JSON."""
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
    model = vars(_package("openai.types.responses"))[extra.name]
    try:
        # As JSON, because strict mode refuses a dict in place of a nested model.
        model.model_validate_json(json.dumps(value), strict=True)
    except _package("pydantic").ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(str(step) for step in (path, *detail["loc"]) if step != "")
        raise ProtocolViolation(event, where, detail["msg"]) from None


@cache
def _tag(name: str) -> str:
    """Return the one `type` that the named schema requires, or nothing."""
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

"""The tools of a request and the choice among them, for the APIs that have only functions.

A custom tool becomes a function with one text argument. A hosted tool (one that a provider runs itself) is left out
with a warning; a request whose `tool_choice` demands one is refused. Not here: how an API writes a function.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from segue.dialects.output_writer import CUSTOM_ARGUMENT
from segue.dialects.rules import RequestBuilder, Rule

TOOLS = Rule(
    "translated",
    "`function` and `custom` tools become functions. (A custom tool has one text argument, and its description holds "
    "its grammar.) Tools that a provider runs itself do not reach the model; `warnings` names them.",
)
TOOL_CHOICE = Rule(
    "translated",
    "`auto`, `none`, `required` and a named tool; `allowed_tools` leaves the other tools out. The gateway refuses a "
    "choice of a tool that a provider runs itself.",
)
_HOSTED = "no tool that the provider of another API runs exists here"

_FUNCTION = frozenset({"type", "name", "description", "parameters", "strict"})
_CUSTOM = frozenset({"type", "name", "description", "format"})

_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")

Mode = Literal["auto", "none", "required", "named"]
_MODES: Mapping[str, Mode] = {"none": "none", "required": "required"}


class FunctionDeclaration(msgspec.Struct, frozen=True):
    """One function that the model may call."""

    name: str
    description: str | None
    parameters: dict[str, Any]
    strict: bool


class ToolSelection(msgspec.Struct, frozen=True):
    """The functions that the model is shown, and the choice among them; `name` is the one that it must call."""

    functions: list[FunctionDeclaration]
    mode: Mode = "auto"
    name: str | None = None


def custom_names(tools: list[dict[str, Any]]) -> frozenset[str]:
    """Return the names of the custom tools."""
    return frozenset(str(tool.get("name")) for tool in tools if tool.get("type") == "custom")


def wire_name(name: str, length: int) -> str:
    """Return the name of a tool for an API whose names have letters, digits, `_` and `-`, and a greatest length.

    A name that the API would refuse is replaced, by the same one each time: a client may call its tools anything, and a
    model may call tools that there are not.
    """
    if len(name) <= length and _NAME.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{_NOT_IN_NAMES.sub('_', name)[: length - len(digest) - 1]}_{digest}"


def read_tools(builder: RequestBuilder) -> ToolSelection:
    """Read `tools` and `tool_choice`."""
    functions: list[FunctionDeclaration] = []
    for tool in builder.settings.tools:
        kind = tool.get("type")
        if kind == "function":
            functions.append(_function(tool))
            builder.drop_others("tools", tool, _FUNCTION)
        elif kind == "custom":
            functions.append(_custom(tool))
            builder.drop_others("tools", tool, _CUSTOM)
        else:
            builder.drop(f"tools: {str(kind)[:40]}", _HOSTED)
    return _choose(builder, functions)


def check_choice(builder: RequestBuilder) -> None:
    """Refuse a `tool_choice` without tools; if there are tools, `read_tools` reads the choice."""
    if not builder.settings.tools and builder.settings.tool_choice != "none":
        builder.refuse("tool_choice", "the request has no tools")


def _function(tool: dict[str, Any]) -> FunctionDeclaration:
    parameters = tool.get("parameters") or {"type": "object", "properties": {}}
    return FunctionDeclaration(str(tool["name"]), tool.get("description"), parameters, tool.get("strict") is True)


def _custom(tool: dict[str, Any]) -> FunctionDeclaration:
    words = [str(tool["description"])] if tool.get("description") else []
    form = tool.get("format")
    if isinstance(form, dict) and form.get("type") == "grammar":
        words.append(f"The input must match this {form.get('syntax')} grammar:\n{form.get('definition')}")
    argument = {"type": "string", "description": "The whole input of the tool, as plain text."}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {CUSTOM_ARGUMENT: argument},
        "required": [CUSTOM_ARGUMENT],
    }
    schema["additionalProperties"] = False
    return FunctionDeclaration(str(tool["name"]), "\n\n".join(words) or None, schema, strict=False)


def _choose(builder: RequestBuilder, functions: list[FunctionDeclaration]) -> ToolSelection:
    choice = builder.settings.tool_choice
    if not isinstance(choice, dict):
        if choice == "required" and not functions:
            builder.refuse("tool_choice", "none of the tools can be called here")
        return ToolSelection(functions, _MODES.get(choice, "auto"))
    kind = choice.get("type")
    if kind in ("function", "custom") and isinstance(choice.get("name"), str):
        return ToolSelection(functions, "named", choice["name"])
    if kind == "allowed_tools":
        return _allow(builder, functions, choice)
    builder.refuse("tool_choice", f"{_HOSTED}; choose a function")
    return ToolSelection(functions)


def _allow(builder: RequestBuilder, functions: list[FunctionDeclaration], choice: dict[str, Any]) -> ToolSelection:
    """Show the model only the allowed tools, so that it cannot call another one."""
    listed = choice.get("tools")
    names = {tool.get("name") for tool in listed if isinstance(tool, dict)} if isinstance(listed, list) else set()
    allowed = [function for function in functions if function.name in names]
    if choice.get("mode") != "required":
        return ToolSelection(allowed)
    if not allowed:
        builder.refuse("tool_choice", "none of the allowed tools can be called here")
    return ToolSelection(allowed, "required")

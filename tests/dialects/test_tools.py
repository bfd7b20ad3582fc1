"""The tools of a request as functions, and the choice among them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from segue.dialects.rules import RequestBuilder
from segue.dialects.tools import (
    FunctionDeclaration,
    Mode,
    ToolSelection,
    check_choice,
    custom_names,
    read_tools,
    wire_name,
)
from segue.protocol.problems import Problem, unsupported
from tests.dialects.conversations import LOOK, settings

Json = dict[str, Any]
READ = {"type": "function", "name": "read"}
PATCH = {"type": "custom", "name": "patch"}
NAMES = re.compile(r"[a-zA-Z0-9_-]{1,64}")
LOOK_DECLARED = FunctionDeclaration("look", "Look.", {"type": "object"}, strict=True)
READ_DECLARED = FunctionDeclaration("read", None, {"type": "object", "properties": {}}, strict=False)
HOSTED = "no tool that the provider of another API runs exists here"


def read(**fields: Any) -> tuple[ToolSelection, list[str], Problem | None]:  # noqa: ANN401 - any setting
    builder = RequestBuilder("m", settings(**fields))
    return read_tools(builder), builder.warnings, builder.problem


def test_functions() -> None:
    assert read(tools=[LOOK, READ]) == (ToolSelection([LOOK_DECLARED, READ_DECLARED]), [], None)


@pytest.mark.parametrize(
    ("custom", "description"),
    [
        (PATCH, None),
        (PATCH | {"description": "Patch."}, "Patch."),
        (PATCH | {"format": {"type": "text"}}, None),
        (PATCH | {"format": "x"}, None),
        (
            PATCH
            | {"description": "Patch.", "format": {"type": "grammar", "syntax": "lark", "definition": "start: X"}},
            "Patch.\n\nThe input must match this lark grammar:\nstart: X",
        ),
    ],
)
def test_a_custom_tool_is_a_function_of_one_text(custom: Json, description: str | None) -> None:
    argument = {"type": "string", "description": "The whole input of the tool, as plain text."}
    schema = {
        "type": "object",
        "properties": {"input": argument},
        "required": ["input"],
        "additionalProperties": False,
    }
    declared = FunctionDeclaration("patch", description, schema, strict=False)
    assert read(tools=[custom]) == (ToolSelection([declared]), [], None)


def test_other_tools_are_left_out_with_a_warning_each() -> None:
    tools = [{"type": "web_search"}, {"type": "x" * 50}, READ, {"type": "web_search"}]
    warnings = [f"'tools: {kind}' was left out: {HOSTED}." for kind in ("web_search", "x" * 40)]
    assert read(tools=tools) == (ToolSelection([READ_DECLARED]), warnings, None)


def test_fields_of_a_tool_without_a_counterpart_are_left_out_with_a_warning() -> None:
    _, warnings, _ = read(tools=[LOOK | {"defer": 1, "none": None}, PATCH | {"strict": True}])
    assert warnings == [f"'tools.{name}' was left out: this API has nothing like it." for name in ("defer", "strict")]


@pytest.mark.parametrize(
    ("choice", "mode", "name"),
    [
        ("auto", "auto", None),
        ("none", "none", None),
        ("required", "required", None),
        ({"type": "function", "name": "read"}, "named", "read"),
        ({"type": "custom", "name": "patch"}, "named", "patch"),
    ],
)
def test_a_choice(choice: object, mode: Mode, name: str | None) -> None:
    assert read(tools=[READ], tool_choice=choice) == (ToolSelection([READ_DECLARED], mode, name), [], None)


def test_tools_that_are_not_allowed_are_not_shown() -> None:
    allowed = {"type": "allowed_tools", "tools": [{"type": "function", "name": "look"}, "read"]}
    assert read(tools=[READ, LOOK], tool_choice=allowed) == (ToolSelection([LOOK_DECLARED]), [], None)
    must = allowed | {"mode": "required"}
    assert read(tools=[READ, LOOK], tool_choice=must) == (ToolSelection([LOOK_DECLARED], "required"), [], None)
    nothing: Json = {"type": "allowed_tools", "mode": "auto", "tools": None}
    assert read(tools=[READ], tool_choice=nothing) == (ToolSelection([]), [], None)


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "none of the tools can be called here"),
        ({"tools": [READ], "tool_choice": {"type": "web_search"}}, f"{HOSTED}; choose a function"),
        ({"tools": [READ], "tool_choice": {"type": "function"}}, f"{HOSTED}; choose a function"),
        (
            {"tools": [READ], "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"name": "x"}]}},
            "none of the allowed tools can be called here",
        ),
    ],
)
def test_a_choice_that_cannot_be_kept_is_refused(fields: Json, advice: str) -> None:
    assert read(**fields)[2] == unsupported("tool_choice", advice)


def test_a_choice_without_tools_is_refused_unless_it_is_none() -> None:
    for fields, problem in (
        ({"tool_choice": "required"}, unsupported("tool_choice", "the request has no tools")),
        ({"tool_choice": "none"}, None),
        ({"tools": [READ], "tool_choice": "required"}, None),
    ):
        builder = RequestBuilder("m", settings(**fields))
        check_choice(builder)
        assert builder.problem == problem


def test_the_names_of_custom_tools() -> None:
    assert custom_names([LOOK, PATCH, {"type": "custom", "name": "other"}]) == {"patch", "other"}


@pytest.mark.parametrize("name", ["look", "mcp__server__look-2", "x" * 64])
def test_a_name_that_an_api_takes_stays(name: str) -> None:
    assert wire_name(name, 64) == name


def test_other_names_are_replaced_each_by_one_of_its_own() -> None:
    names = ["functions.look", "functions look", "", "é", "x" * 65, "x" * 66, "look\n"]
    sent = [wire_name(name, 64) for name in names]
    assert all(map(NAMES.fullmatch, sent))
    assert len(set(sent)) == len(names)
    assert sent == [wire_name(name, 64) for name in names]
    assert sent[0].startswith("functions_look_")

"""The schemas are strict, whatever a model sends is answered, and calls are carried out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from segue.agent.toolbox import Toolbox, ToolOutput
from segue.agent.workspace import Workspace
from tests.strategies import hostile_texts

NAMES = ["list", "read", "search", "edit", "write", "run"]


async def refuse(command: str) -> str:
    return f"nobody allowed {command!r}"


@pytest.fixture
def toolbox(tmp_path: Path) -> Toolbox:
    (tmp_path / "file").write_text("text\n")
    return Toolbox(Workspace(tmp_path), environment={"PATH": os.defpath}, approval=refuse)


def objects_in(schema: object) -> list[dict[str, Any]]:
    """Return a schema and all schemas in it."""
    if isinstance(schema, list):
        return [found for one in schema for found in objects_in(one)]
    if not isinstance(schema, dict):
        return []
    return [schema, *(found for one in schema.values() for found in objects_in(one))]


def test_each_schema_is_strict(toolbox: Toolbox) -> None:
    """The rules of https://platform.openai.com/docs/guides/structured-outputs: all required, none other, no default."""
    definitions = toolbox.definitions()
    assert [one["name"] for one in definitions] == NAMES
    for one in definitions:
        parameters = one["parameters"]
        assert one["strict"]
        assert one["description"]
        assert parameters["required"] == list(parameters["properties"])
        assert parameters["additionalProperties"] is False
        assert all(found["description"] for found in parameters["properties"].values())
        words = {word for found in objects_in(parameters) for word in found}
        assert not words & {"default", "minLength", "maxLength", "minimum", "maximum", "$ref", "title"}


async def test_each_tool_is_called(toolbox: Toolbox, tmp_path: Path) -> None:
    assert await toolbox.call("list", '{"path": ".", "depth": null}') == ToolOutput("file")
    assert await toolbox.call("list", "") == ToolOutput("file")
    assert await toolbox.call("read", '{"path": "file", "first_line": null, "last_line": null}') == ToolOutput("text\n")
    found = await toolbox.call("search", '{"pattern": "te", "path": ".", "regex": false}')
    assert found == ToolOutput("file:1:text\n(1 files searched)")
    assert not (await toolbox.call("edit", '{"path": "file", "old": "text", "new": "words"}')).failed
    assert not (await toolbox.call("write", '{"path": "new", "text": "x"}')).failed
    assert [(tmp_path / name).read_text() for name in ("file", "new")] == ["words\n", "x"]
    refused = await toolbox.call("run", '{"command": "true", "time_limit_s": null}')
    assert refused == ToolOutput("error: the command was not run: nobody allowed 'true'", failed=True)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("open", "{}", "there is no tool 'open'; there are list, read, search, edit, write, run"),
        ("read", "{", "the arguments of read (path, first_line, last_line) cannot be read: Input data was truncated"),
        ("read", "{}", "Object missing required field `path`"),
        ("read", '{"path": 1}', "Expected `str`, got `int` - at `$.path`"),
        ("read", '{"path": "file", "first_line": 0}', "Expected `int` >= 1 - at `$.first_line`"),
        ("read", '{"path": "file", "lines": 1}', "Object contains unknown field `lines`"),
        ("run", '{"command": "true", "time_limit_s": 601}', "Expected `int` <= 600"),
    ],
)
async def test_what_cannot_be_read_is_told(toolbox: Toolbox, name: str, arguments: str, words: str) -> None:
    answer = await toolbox.call(name, arguments)
    assert answer.failed
    assert words in answer.text


@given(arguments=hostile_texts)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_hostile_arguments_are_answered(toolbox: Toolbox, arguments: str) -> None:
    for name in ("read", "edit", "write", "run"):
        assert (await toolbox.call(name, arguments)).failed


def test_which_tools_only_read(toolbox: Toolbox) -> None:
    assert [name for name in [*NAMES, "unknown"] if toolbox.only_reads(name)] == ["list", "read", "search", "unknown"]


async def test_what_the_system_lacks_is_told(toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search starts a process; there may be too many of them."""

    async def fail(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("asyncio.create_subprocess_exec", fail)
    answer = await toolbox.call("search", '{"pattern": "x"}')
    assert answer == ToolOutput("error: [Errno 11] Resource temporarily unavailable", failed=True)


@pytest.mark.parametrize(("name", "arguments"), [("x" * 100_000, "{}"), ("read", '{"' + "k" * 100_000 + '": 1}')])
async def test_what_went_wrong_is_told_in_few_words(toolbox: Toolbox, name: str, arguments: str) -> None:
    """A reason quotes what the model has said; it need not hear all of it again."""
    output = await toolbox.call(name, arguments)
    assert output.failed
    assert len(output.text) < 2100

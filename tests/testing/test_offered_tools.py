"""Calls of the tasks' tools, written for the tools of real agents: Claude Code, Codex, opencode, pi and gemini-cli."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from segue.testing.offered_tools import AgentTools, tool_of
from segue.upstreams.scripted_tasks import PlannedCall

TEXT = {"type": "string"}
NUMBER = {"type": "number"}

#: Of each agent the names of its tools and parameters; those that must be given come first, up to a bar.
AGENTS: dict[str, dict[str, str]] = {
    "claude": {
        "Bash": "command | timeout description",
        "Read": "file_path | offset limit",
        "Edit": "file_path old_string new_string | replace_all",
        "Write": "file_path content |",
    },
    "codex": {"exec_command": "cmd | workdir yield_time_ms max_output_tokens", "update_plan": "plan |"},
    "opencode": {
        "bash": "command description | timeout",
        "read": "filePath | offset limit",
        "edit": "filePath oldString newString | replaceAll",
        "write": "content filePath |",
    },
    "pi": {
        "bash": "command | timeout",
        "read": "path | offset limit",
        "edit": "path edits |",
        "write": "path content |",
    },
    "gemini": {
        "run_shell_command": "command | description",
        "read_file": "file_path | start_line end_line",
        "replace": "file_path instruction old_string new_string |",
        "write_file": "file_path content |",
    },
}


def tools_of(agent: str) -> AgentTools:
    offered = []
    for name, parameters in AGENTS[agent].items():
        needed, more = (part.split() for part in parameters.split("|"))
        schema = {"type": "object", "properties": dict.fromkeys([*needed, *more], TEXT), "required": needed}
        offered.append(tool_of(name, schema))
    return AgentTools(offered)


def written(agent: str, name: str, **arguments: object) -> tuple[str, dict[str, Any]]:
    call = tools_of(agent).write(PlannedCall("call_1", name, json.dumps(arguments)))
    assert call.call_id == "call_1"
    return call.name, json.loads(call.arguments)


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ("claude", ("Edit", {"file_path": "a.py", "old_string": "x", "new_string": "y"})),
        ("opencode", ("edit", {"filePath": "a.py", "oldString": "x", "newString": "y"})),
        ("pi", ("edit", {"path": "a.py", "edits": [{"oldText": "x", "newText": "y"}]})),
        (
            "gemini",
            (
                "replace",
                {"file_path": "a.py", "old_string": "x", "new_string": "y", "instruction": "a step of the task"},
            ),
        ),
    ],
)
def test_an_edit_goes_to_the_agents_own_tool(agent: str, expected: tuple[str, dict[str, Any]]) -> None:
    assert written(agent, "edit", path="a.py", old="x", new="y") == expected


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ("claude", {"file_path": "a.py", "offset": 3, "limit": 5}),
        ("pi", {"path": "a.py", "offset": 3, "limit": 5}),
        ("gemini", {"file_path": "a.py", "start_line": 3, "end_line": 7}),
    ],
)
def test_lines_are_named_as_the_agent_names_them(agent: str, expected: dict[str, Any]) -> None:
    _, arguments = written(agent, "read", path="a.py", first_line=3, last_line=7)
    assert arguments == expected
    _, arguments = written(agent, "read", path="a.py", first_line=None, last_line=None)
    assert list(arguments.values()) == ["a.py"]


def test_a_file_is_named_with_its_whole_path_where_the_folder_is_known() -> None:
    """qwen-code takes no other. In a command of the shell, which runs there, names stay as they are."""
    tools = AgentTools(
        [tool_of("bash", {"properties": {"command": TEXT}}), tool_of("read", {"properties": {"path": TEXT}})], "/w"
    )
    called = [tools.write(PlannedCall("c", name, '{"path": "a/b.py"}')).arguments for name in ("read", "list")]
    assert called == ['{"path": "/w/a/b.py"}', '{"command": "ls -1Ap a/b.py"}']


def test_what_an_agent_asks_for_besides_is_given() -> None:
    name, arguments = written("opencode", "run", command="make")
    assert (name, arguments["description"]) == ("bash", "a step of the task")
    schema = {"properties": {"command": TEXT, "is_background": {"type": "boolean"}, "timeout": NUMBER}}
    tools = AgentTools([tool_of("bash", {**schema, "required": ["command", "is_background", "timeout"]})])
    call = tools.write(PlannedCall("c", "run", '{"command": "make"}'))
    assert json.loads(call.arguments)["is_background"] is False
    assert json.loads(call.arguments)["timeout"] == 60_000


@pytest.mark.parametrize("kind", [{"type": ["number", "null"]}, {"anyOf": [NUMBER, {"type": "null"}]}])
def test_what_a_strict_schema_requires_may_be_null(kind: dict[str, Any]) -> None:
    schema = {"properties": {"command": TEXT, "timeout": kind}, "required": ["command", "timeout"]}
    call = AgentTools([tool_of("bash", schema)]).write(PlannedCall("c", "run", '{"command": "make"}'))
    assert json.loads(call.arguments)["timeout"] is None


def test_defaults_are_said_since_agents_add_them() -> None:
    """Claude Code sends its calls back so, and the model knows its own calls by their arguments."""
    texts = dict.fromkeys(("file_path", "old_string", "new_string"), TEXT)
    schema = {"properties": {**texts, "replace_all": {"type": "boolean", "default": False}, "more": True}}
    tools = AgentTools([tool_of("Bash", {"properties": {"command": TEXT}}), tool_of("Edit", schema)])
    call = tools.write(PlannedCall("c", "edit", '{"path": "a", "old": "x", "new": "y"}'))
    expected = {"file_path": "a", "old_string": "x", "new_string": "y", "replace_all": False}
    assert json.loads(call.arguments) == expected


def test_a_shell_does_what_no_other_tool_does(tmp_path: Path) -> None:
    """Codex has nothing but a shell, here a real one."""

    def by_shell(name: str, **arguments: object) -> str:
        tool, given = written("codex", name, **arguments)
        assert (tool, list(given)) == ("exec_command", ["cmd"])
        ran = subprocess.run(("/bin/sh", "-c", given["cmd"]), cwd=tmp_path, capture_output=True, text=True, check=False)
        return ran.stdout

    by_shell("write", path="it's.py", text="one\ntwo $HOME `x`\nthree\n")
    assert (tmp_path / "it's.py").read_text() == "one\ntwo $HOME `x`\nthree\n"
    by_shell("edit", path="it's.py", old="$HOME `x`", new="'quoted'")
    assert by_shell("read", path="it's.py", first_line=None, last_line=None) == "one\ntwo 'quoted'\nthree\n"
    assert by_shell("read", path="it's.py", first_line=2, last_line=3) == "two 'quoted'\nthree\n"
    assert by_shell("search", pattern="two '", path=".") == "./it's.py:2:two 'quoted'\n"
    assert by_shell("list", path=".") == "it's.py\n"
    assert by_shell("run", command="false") == "exit status 1\n"


def test_an_agent_with_the_tasks_own_tools_needs_no_translation() -> None:
    tools = AgentTools(tool_of(name, None) for name in ("list", "read", "search", "edit", "write", "run", "more"))
    call = PlannedCall("c", "search", '{"pattern": "x", "path": "."}')
    assert (tools.enough, tools.write(call), tools.plain("read", "  1\tx")) == (True, call, "  1\tx")


def test_without_a_shell_no_task_can_be_solved() -> None:
    assert not AgentTools([tool_of("Read", {"properties": {"file_path": TEXT}})]).enough
    assert all(tools_of(agent).enough for agent in AGENTS)


@pytest.mark.parametrize("mark", ["{}→", "{}\t", "{}: ", "{}| ", "    {}→"])
def test_line_numbers_are_taken_from_what_was_read_and_from_nothing_else(mark: str) -> None:
    """A command may print what a failed tool would say."""
    text = "".join(f"{mark.format(number)}    x = {number}\n" for number in (9, 10))
    tools = tools_of("claude")
    assert tools.plain("Read", text) == "    x = 9\n    x = 10\n"
    assert tools.plain("Bash", f"error: {text}") == f"[output]\nerror: {text}"


def test_a_tool_whose_parameters_are_unknown_is_left_to_the_shell() -> None:
    odd = {"properties": {"where": TEXT}}
    tools = AgentTools(
        [
            tool_of("bash", {"properties": {"command": TEXT}}),
            *(tool_of(name, odd) for name in ("read", "edit", "write")),
        ]
    )
    for name, arguments in (
        ("read", {"path": "a"}),
        ("edit", {"path": "a", "old": "x", "new": "y"}),
        ("write", {"path": "a", "text": "x"}),
    ):
        call = tools.write(PlannedCall("c", name, json.dumps(arguments)))
        assert call.name == "bash"
        assert "a" in shlex.split(json.loads(call.arguments)["command"])

"""The tools that a coding agent offers to its model, and how a call of the tasks' own tools is written for them.

A task is solved with six tools (`segue.upstreams.scripted_tasks`). Every agent has others: some of the same meaning
under another name, and a shell, which can do what the others cannot. Which tool is which is found by the names that
agents give to tools and parameters. Pure. Not here: how the APIs write tools and calls (`task_provider`).
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from segue.upstreams.scripted_tasks import PlannedCall

Json: TypeAlias = dict[str, Any]

#: The tasks' own tools. An agent that has them all needs no translation.
OWN_TOOLS = frozenset({"list", "read", "search", "edit", "write", "run"})

_SHELLS = ("Bash", "bash", "exec_command", "run_shell_command", "shell_command", "execute_command", "shell")
_READERS = ("Read", "read", "read_file")
_EDITORS = ("Edit", "edit", "replace", "edit_file")
_WRITERS = ("Write", "write", "write_file")

#: Codex' newer models write JavaScript, which calls the shell.
CODE_TOOL = "exec"
_CODE = "const ran = await tools.exec_command(%s); text(typeof ran === 'string' ? ran : ran.output);"

_COMMAND = ("command", "cmd")
_PATH = ("file_path", "filePath", "path", "absolute_path")
_OLD = ("old_string", "oldString", "oldText", "old_text")
_NEW = ("new_string", "newString", "newText", "new_text")
_TEXT = ("content", "text", "contents")
_FIRST = ("offset", "start_line")
_COUNT = ("limit",)
_LAST = ("end_line",)
#: What stands in each text that an agent asks for beside what it needs, such as a description of the command.
_SPOKEN = "a step of the task"

#: What is put before the output of a command: `error:` at the beginning is how the tasks' own tools tell a failure.
_OUTPUT = "[output]\n"

#: What agents put before each line of a file.
_LINE_NUMBER = re.compile(r"^ *\d+(?:→|\t|\| ?|: )", re.MULTILINE)

_REPLACE = (
    "from pathlib import Path; from sys import argv; p = Path(argv[1]); t = p.read_text(); "
    "assert t.count(argv[2]) == 1; p.write_bytes(t.replace(argv[2], argv[3]).encode())"
)


class OfferedTool(msgspec.Struct, frozen=True):
    """A tool of an agent: its name, and the JSON Schema of each of its parameters."""

    name: str
    parameters: Mapping[str, Any] = {}
    required: Sequence[str] = ()

    def call(self, **meant: object) -> Json | None:
        """Return arguments; None if the tool has no parameter for one of the values that are meant."""
        arguments: Json = {}
        for meaning, value in meant.items():
            name = next((one for one in _NAMES[meaning] if one in self.parameters), None)
            if name is None:
                return None
            arguments[name] = value
        for name, schema in self.parameters.items():
            if name not in arguments and isinstance(schema, dict) and "default" in schema:
                arguments[name] = schema["default"]  # which agents add, so that the call comes back with it
        for name in self.required:
            if name not in arguments:
                arguments[name] = _filler(self.parameters.get(name))
        return arguments


_NAMES: Mapping[str, Sequence[str]] = {
    "command": _COMMAND,
    "path": _PATH,
    "old": _OLD,
    "new": _NEW,
    "text": _TEXT,
    "first": _FIRST,
    "count": _COUNT,
    "last": _LAST,
}


def _filler(schema: Any) -> object:  # noqa: ANN401 - JSON of an agent
    """Return a value for a parameter that is of no use here."""
    kinds = _kinds(schema)
    if "null" in kinds:  # a strict schema requires what is optional, and allows null for it
        return None
    if "boolean" in kinds:
        return False
    return 60_000 if kinds & {"integer", "number"} else _SPOKEN


def _kinds(schema: Any) -> set[str]:  # noqa: ANN401 - as above
    """Return the types that a JSON Schema allows, as far as it names them."""
    if not isinstance(schema, dict):
        return set()
    named = schema.get("type", [])
    kinds = {named} if isinstance(named, str) else set(named)
    return kinds.union(*map(_kinds, schema.get("anyOf", [])))


def tool_of(name: str, schema: Any) -> OfferedTool:  # noqa: ANN401 - as above
    """Read a tool from its name and the JSON Schema of its arguments."""
    if not isinstance(schema, dict):
        return OfferedTool(name)
    return OfferedTool(name, schema.get("properties") or {}, tuple(schema.get("required") or ()))


class AgentTools:
    """The tools of one agent, by what they are for.

    `folder`: the workspace. Some agents read and change only files that are named with their whole path.
    """

    def __init__(self, offered: Iterable[OfferedTool], folder: str = "") -> None:
        self._folder = folder
        by_name = {tool.name: tool for tool in offered}
        self._own = by_name.keys() >= OWN_TOOLS
        self._shell = _first(by_name, (*_SHELLS, CODE_TOOL))
        self._reader = _first(by_name, _READERS)
        self._editor = _first(by_name, _EDITORS)
        self._writer = _first(by_name, _WRITERS)

    @property
    def enough(self) -> bool:
        """Whether a task can be solved with them."""
        return self._own or self._shell is not None

    def write(self, planned: PlannedCall) -> PlannedCall:
        """Write a call of the tasks' own tools for this agent."""
        if self._own:
            return planned
        arguments: Json = json.loads(planned.arguments)
        tool, written = self._special(planned.name, arguments) or self._by_shell(planned.name, arguments)
        return PlannedCall(planned.call_id, tool, json.dumps(written))

    def plain(self, name: str, answer: str) -> str:
        """Return an answer of this agent's tool as the tasks' own tools give it."""
        if self._own:
            return answer
        if self._reader is not None and name == self._reader.name:
            return _LINE_NUMBER.sub("", answer)
        return f"{_OUTPUT}{answer}"

    def _special(self, name: str, arguments: Json) -> tuple[str, Json] | None:
        """Return the call of a tool of the same meaning; None if there is none that fits."""
        arguments = {**arguments, "path": posixpath.join(self._folder, arguments.get("path", ""))}
        match name:
            case "read":
                return _called(self._reader, _read_arguments(self._reader, arguments))
            case "edit":
                return _called(self._editor, _edit_arguments(self._editor, arguments))
            case "write" if self._writer is not None:
                return _called(self._writer, self._writer.call(path=arguments["path"], text=arguments["text"]))
            case _:
                return None

    def _by_shell(self, name: str, arguments: Json) -> tuple[str, Json]:
        assert self._shell is not None, "the caller has asked whether the tools are enough"
        command = _command(name, arguments)
        if self._shell.name == CODE_TOOL:
            return CODE_TOOL, {"input": _CODE % json.dumps({"cmd": command})}
        written = self._shell.call(command=command)
        assert written is not None, f"{self._shell.name} takes no command"
        return self._shell.name, written


def _first(by_name: Mapping[str, OfferedTool], names: Iterable[str]) -> OfferedTool | None:
    return next((by_name[name] for name in names if name in by_name), None)


def _called(tool: OfferedTool | None, arguments: Json | None) -> tuple[str, Json] | None:
    return None if tool is None or arguments is None else (tool.name, arguments)


def _read_arguments(tool: OfferedTool | None, asked: Json) -> Json | None:
    if tool is None:
        return None
    path, first, last = asked["path"], asked.get("first_line"), asked.get("last_line")
    if first is None or last is None:
        return tool.call(path=path)
    counted = tool.call(path=path, first=first, count=last - first + 1)
    return tool.call(path=path, first=first, last=last) if counted is None else counted


def _edit_arguments(tool: OfferedTool | None, asked: Json) -> Json | None:
    if tool is None:
        return None
    path, old, new = asked["path"], asked["old"], asked["new"]
    if "edits" not in tool.parameters:
        return tool.call(path=path, old=old, new=new)
    several = tool.call(path=path)
    return None if several is None else {**several, "edits": [{"oldText": old, "newText": new}]}


def _command(name: str, arguments: Json) -> str:
    """Return the shell command that does what the tool `name` does."""
    match name:
        case "run":
            return f'{arguments["command"]}; echo "exit status $?"'
        case "list":
            return f"ls -1Ap {shlex.quote(arguments['path'])}"
        case "search":
            pattern, path = shlex.quote(arguments["pattern"]), shlex.quote(arguments["path"])
            return f"grep -rnIF --exclude-dir=.git --exclude-dir=__pycache__ -- {pattern} {path}"
        case "read":
            return _print_lines(arguments["path"], arguments.get("first_line"), arguments.get("last_line"))
        case "edit":
            return shlex.join(("python3", "-c", _REPLACE, arguments["path"], arguments["old"], arguments["new"]))
        case _:
            return f"printf %s {shlex.quote(arguments['text'])} > {shlex.quote(arguments['path'])}"


def _print_lines(path: str, first: int | None, last: int | None) -> str:
    if first is None and last is None:
        return f"cat {shlex.quote(path)}"
    return f"sed -n {shlex.quote(f'{first or 1},{last or chr(36)}p')} {shlex.quote(path)}"

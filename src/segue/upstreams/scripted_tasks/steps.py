"""What a solution is written in: steps, each a few words and some calls, and what is to be found in their answers.

Values are templates: `$name` stands for what an earlier answer held. Not here: the solutions, and the order in which a
conversation is read (`player`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Template
from typing import TypeAlias

import msgspec

#: What stands in the first user message, on a line of its own, before the name of a task.
MARKER = "segue-task: "


class Find(msgspec.Struct, frozen=True):
    """A pattern (several lines at once) that must stand in a tool's answer. What its named groups match is kept."""

    pattern: str
    what: str
    """What it is, in the words in which the model says that it is missing."""


class Offset(msgspec.Struct, frozen=True):
    """A line number that was found, moved by so many lines; never less than 1."""

    name: str
    lines: int


class RewrittenText(msgspec.Struct, frozen=True):
    """A text that was read, with patterns replaced one after the other. Each must match at least once."""

    name: str
    rules: tuple[tuple[str, str], ...]


Value: TypeAlias = str | bool | Offset | RewrittenText | None


class ScriptedCall(msgspec.Struct, frozen=True):
    """A call, what must stand in its answer, and the name under which the whole answer is kept, if it is."""

    name: str
    arguments: Mapping[str, Value]
    finds: tuple[Find, ...] = ()
    keep: str | None = None


class TaskStep(msgspec.Struct, frozen=True):
    """What the model says, and the calls that it makes at once. A step without calls is the last one."""

    say: str
    calls: tuple[ScriptedCall, ...] = ()


class TaskScript(msgspec.Struct, frozen=True):
    """The solution of one task."""

    task: str
    steps: tuple[TaskStep, ...]


class PlannedCall(msgspec.Struct, frozen=True):
    """A call as the model makes it; `arguments` is JSON text."""

    call_id: str
    name: str
    arguments: str


class StuckError(Exception):
    """The model cannot go on; the message is what it says."""


Found: TypeAlias = dict[str, str]
"""What was found so far, by name."""


# --- the tools of the agent ------------------------------------------------------------------------------------------


def list_folder(path: str, *finds: Find) -> ScriptedCall:
    """List a folder."""
    return ScriptedCall("list", {"path": path, "depth": None}, finds)


def read(path: str, *finds: Find, keep: str | None = None) -> ScriptedCall:
    """Read a whole file."""
    return ScriptedCall("read", {"path": path, "first_line": None, "last_line": None}, finds, keep)


def read_lines(path: str, first: Offset, last: Offset, *finds: Find) -> ScriptedCall:
    """Read some lines of a file."""
    return ScriptedCall("read", {"path": path, "first_line": first, "last_line": last}, finds)


def search(pattern: str, path: str, *finds: Find) -> ScriptedCall:
    """Search for a text."""
    return ScriptedCall("search", {"pattern": pattern, "path": path, "regex": False}, finds)


def edit(path: str, old: str, new: str) -> ScriptedCall:
    """Replace a piece of a file."""
    return ScriptedCall("edit", {"path": path, "old": old, "new": new})


def write(path: str, text: str | RewrittenText) -> ScriptedCall:
    """Write a whole file."""
    return ScriptedCall("write", {"path": path, "text": text})


def run(command: str, status: int, *finds: Find) -> ScriptedCall:
    """Run a command that must end with this status."""
    ended = Find(rf"exit status:? {status}\b", f"exit status {status}")
    return ScriptedCall("run", {"command": command, "time_limit_s": None}, (ended, *finds))


# --- rendering and reading -------------------------------------------------------------------------------------------


def fill(template: str, found: Found) -> str:
    """Put what was found into a template."""
    return Template(template).substitute(found)


def render(call: ScriptedCall, call_id: str, found: Found) -> PlannedCall:
    """Return the call with what was found in its arguments.

    Raises:
        StuckError: a text that was read is not what the solution expects.
    """
    arguments = {name: _value(value, found) for name, value in call.arguments.items()}
    return PlannedCall(call_id, call.name, msgspec.json.encode(arguments).decode())


def _value(value: Value, found: Found) -> str | int | bool | None:
    match value:
        case str():
            return fill(value, found)
        case Offset():
            return max(1, min(int(found[value.name]), _LAST_LINE) + value.lines)
        case RewrittenText():
            return _rewrite(value, found[value.name])
        case _:
            return value


def _rewrite(value: RewrittenText, text: str) -> str:
    for pattern, replacement in value.rules:
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        if not count:
            raise StuckError(f"I wanted to rewrite the file, but nothing in it matches {pattern!r}.")
    return text.rstrip("\n") + "\n"


_LINE_NUMBER = re.compile(r" *\d+\t")
_RANGE = re.compile(r"\[lines [\d,]+ to [\d,]+ of [\d,]+\]\n")
_MAX_QUOTED = 200
#: Patterns are only tried on answers that a workspace of a task can give: on others they could take long.
MAX_ANSWER = 16_384
MAX_LINE = 500
_LAST_LINE = 10**9


def learn(call: ScriptedCall, answer: str, found: Found) -> None:
    """Add what an answer holds to what was found.

    Raises:
        StuckError: the tool failed, or the answer does not hold what the solution needs.
    """
    if answer.startswith("error:"):
        raise StuckError(f"The tool {call.name} answered: {answer.partition(chr(10))[0][:_MAX_QUOTED]}")
    if len(answer) > MAX_ANSWER or max(map(len, answer.split("\n"))) > MAX_LINE:
        raise StuckError(f"The tool {call.name} answered with more than I can read.")
    text = _plain(answer)
    for find in call.finds:
        match = re.search(find.pattern, text, re.MULTILINE)
        if match is None:
            raise StuckError(f"I expected {find.what} in the answer of the tool {call.name}, and it is not there.")
        found |= match.groupdict()
    if call.keep is not None:
        found[call.keep] = text


def _plain(answer: str) -> str:
    """Return an answer without the head of a range and without line numbers, if every line has one."""
    text = _RANGE.sub("", answer, count=1)
    lines = text.splitlines(keepends=True)
    if lines and all(map(_LINE_NUMBER.match, lines)):
        return "".join(_LINE_NUMBER.sub("", line, count=1) for line in lines)
    return text

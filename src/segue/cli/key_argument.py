"""Takes `--key` out of the process list, which all users of a machine can read.

What a program was called with is there for everybody as long as it runs; its environment is for its own user. So the
command is started again in the same process, with the key in the environment. For a moment the key is to be seen, and
the shell may keep it in its history: a file or the variable is better. Not here: what the key is for (`sidecar`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from segue.config.environment import KeyVariable, environment_with_key

_OPTION = "--key"
#: The commands that take a `--key`, and the variable that says the same.
COMMANDS: Mapping[tuple[str, ...], KeyVariable] = MappingProxyType(
    {
        ("sidecar",): "SEGUE_SIDECAR_KEY",
        ("run",): "SEGUE_SIDECAR_KEY",
        ("doctor",): "SEGUE_SIDECAR_KEY",
        ("bench", "run"): "SEGUE_SIDECAR_KEY",
        ("agent",): "SEGUE_AGENT_KEY",
        ("usage",): "SEGUE_AGENT_KEY",
        ("export",): "SEGUE_AGENT_KEY",
        ("import",): "SEGUE_AGENT_KEY",
        ("forget",): "SEGUE_AGENT_KEY",
    }
)


class Arguments(NamedTuple):
    """What to call the program with, and the key that was in it."""

    rest: list[str]
    key: str
    variable: KeyVariable


def without_key(arguments: Sequence[str]) -> Arguments | None:
    """Return the arguments without the key; None if they hold none."""
    variable = COMMANDS.get(tuple(arguments[:1])) or COMMANDS.get(tuple(arguments[:2]))
    if variable is None:
        return None
    end = arguments.index("--") if "--" in arguments else len(arguments)  # behind it is somebody else's command
    kept: list[str] = []
    key: str | None = None
    at = 0
    while at < end:
        name, equals, value = arguments[at].partition("=")
        at += 1
        if name != _OPTION:
            kept.append(arguments[at - 1])
        elif equals or at < end:
            key = value if equals else arguments[at]
            at += 0 if equals else 1
        else:
            return None  # it lacks its value, which the parser of the command line tells
    return None if key is None else Arguments([*kept, *arguments[end:]], key, variable)


def hide_key() -> None:
    """Start the program anew without the key that it was called with, if it was. Then this does not return."""
    given = sys.argv[1:]
    found = without_key(given)
    if found is not None:
        before = sys.orig_argv[: len(sys.orig_argv) - len(given)]
        os.execve(sys.executable, [*before, *found.rest], environment_with_key(found.key, found.variable))  # noqa: S606 - itself, with no shell

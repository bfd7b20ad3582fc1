"""Where the command of another program begins: `segue run [options] PROGRAM [its options]`.

Everything from the program on is the program's, as with `env` or `sudo`: its `-c` is not our `--config`. A `--` in
front of it says so; here it is written where a user left it out (POSIX, Utility Syntax Guideline 10). Not here: what
our options mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from cyclopts import App

END_OF_OPTIONS = "--"

#: The commands that run another program.
RUNNERS: tuple[tuple[str, ...], ...] = (("run",), ("doctor",), ("bench", "run"))


def end_options(app: App, arguments: Sequence[str]) -> list[str]:
    """Return a command line with `--` in front of the program that it runs, if it runs one."""
    given = list(arguments)
    path = next((path for path in RUNNERS if tuple(given[: len(path)]) == path), None)
    if path is None:
        return given
    place = _program(given, len(path), _takes_value(app, path))
    return given if place is None else [*given[:place], END_OF_OPTIONS, *given[place:]]


def _program(given: Sequence[str], start: int, takes_value: dict[str, bool]) -> int | None:
    """Return where the program is; None if there is none, or if `--` or an option that we do not know comes first."""
    place = start
    while place < len(given):
        word = given[place]
        if word == END_OF_OPTIONS:
            return None
        if not word.startswith("-") or word == "-":
            return place
        name, equals, _ = word.partition("=")
        if name not in takes_value:
            return None
        place += 2 if takes_value[name] and not equals else 1
    return None


def _takes_value(app: App, path: Sequence[str]) -> dict[str, bool]:
    """Return the options of a command, and whether the word behind each is its value."""
    command = app
    for name in path:
        command = command[name]
    flags = dict.fromkeys((*command.help_flags, *command.version_flags), False)
    arguments = command.assemble_argument_collection()
    named = {name: bool not in {one.hint, *get_args(one.hint)} for one in arguments for name in one.names}
    return flags | {name: value for name, value in named.items() if name.startswith("-")}

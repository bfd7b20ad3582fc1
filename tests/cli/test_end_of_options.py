"""What belongs to us on a command line that runs another program, and what belongs to that."""

from __future__ import annotations

import pytest

from segue.cli.end_of_options import RUNNERS, end_options
from segue.cli.main import app


def _split(line: str) -> str:
    return " ".join(end_options(app, line.split()))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("run python3 -c pass", "run -- python3 -c pass"),
        ("run claude --config x --help", "run -- claude --config x --help"),
        ("run --gateway wss://a claude -p hi", "run --gateway wss://a -- claude -p hi"),
        ("run --gateway=wss://a --direct claude -p hi", "run --gateway=wss://a --direct -- claude -p hi"),
        ("run -c f.toml --no-check --stats codex -c k=v", "run -c f.toml --no-check --stats -- codex -c k=v"),
        ("run --log f claude", "run --log f -- claude"),
        ("doctor claude --version", "doctor -- claude --version"),
        ("bench run --link 2g claude --link x", "bench run --link 2g -- claude --link x"),
    ],
)
def test_what_follows_the_program_is_the_programs(given: str, expected: str) -> None:
    assert _split(given) == expected


@pytest.mark.parametrize(
    "line",
    [
        "",
        "run",
        "run --help",
        "run -- python3 -c pass",
        "run --gateway wss://a -- run -- -c",
        "run --gateway",
        "run --unknown claude -c x",
        "serve --config x",
        "bench table --session codex",
        "doctor --json",
    ],
)
def test_all_other_lines_stay_as_they_are(line: str) -> None:
    """Also one with an option that we do not know: it is refused by its name."""
    assert _split(line) == line


def test_every_command_that_runs_a_program_is_known_here() -> None:
    """Its positional arguments are named `command`."""
    found = set()
    for path in [(name,) for name in app] + [("bench", name) for name in app["bench"]]:
        if path[-1].startswith("-") or path == ("bench",):
            continue
        command = app
        for name in path:
            command = command[name]
        if callable(command.default_command) and any(
            "COMMAND" in argument.names for argument in command.assemble_argument_collection()
        ):
            found.add(path)
    assert found == set(RUNNERS)

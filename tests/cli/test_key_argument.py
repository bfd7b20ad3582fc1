"""A key on the command line is in the process list for a moment only."""

from __future__ import annotations

import os
import sys

import pytest
from cyclopts import App

from segue.cli.key_argument import COMMANDS, Arguments, hide_key, without_key
from segue.cli.main import app


@pytest.mark.parametrize(
    ("arguments", "rest"),
    [
        ("sidecar --key sk-1 --listen :0", "sidecar --listen :0"),
        ("sidecar --listen :0 --key=sk-1", "sidecar --listen :0"),
        ("sidecar --key sk-0 --key sk-1", "sidecar"),
        ("run --key sk-1 -- agent --key sk-2", "run -- agent --key sk-2"),
        ("bench run --key sk-1 -- agent", "bench run -- agent"),
        ("doctor --key sk-1", "doctor"),
    ],
)
def test_the_key_is_taken_out(arguments: str, rest: str) -> None:
    assert without_key(arguments.split()) == Arguments(rest.split(), "sk-1", "SEGUE_SIDECAR_KEY")


@pytest.mark.parametrize("command", ["agent", "usage", "export resp_1", "import file", "forget"])
def test_the_key_of_what_asks_like_an_agent_goes_into_its_own_variable(command: str) -> None:
    assert without_key(f"{command} --key sk-1".split()) == Arguments(command.split(), "sk-1", "SEGUE_AGENT_KEY")


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "sidecar",
        "sidecar --key",
        "run -- agent --key sk-1",
        "bench --key sk-1",
        "key new --key x",
        "run --key --",
    ],
)
def test_what_is_no_key_for_the_gateway_stays(arguments: str) -> None:
    assert without_key(arguments.split()) is None


def test_the_program_starts_anew_as_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *given: called.append(given))
    monkeypatch.setattr(sys, "argv", ["segue", "sidecar", "--key", "sk-1"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "-m", "segue", "sidecar", "--key", "sk-1"])
    monkeypatch.setenv("SEGUE_SIDECAR_KEY_FILE", "f")
    hide_key()
    ((program, arguments, environment),) = called
    assert (program, arguments) == (sys.executable, ["python", "-X", "dev", "-m", "segue", "sidecar"])
    assert environment["SEGUE_SIDECAR_KEY"] == "sk-1"
    assert "SEGUE_SIDECAR_KEY_FILE" not in environment
    monkeypatch.setattr(sys, "argv", ["segue", "usage", "--key", "sk-2"])
    hide_key()
    assert called[1][2]["SEGUE_AGENT_KEY"] == "sk-2"
    monkeypatch.setattr(sys, "argv", ["segue", "sidecar"])
    hide_key()
    assert len(called) == 2


def test_every_command_that_takes_a_key_is_known() -> None:
    """Whoever adds one is reminded here."""
    found: dict[tuple[str, ...], App] = {(name,): app[name] for name in app if not name.startswith("-")}
    found |= {("bench", name): app["bench"][name] for name in app["bench"] if not name.startswith("-")}
    takers = {
        path
        for path, command in found.items()
        if command.default_command and any("--key" in one.names for one in command.assemble_argument_collection())
    }
    assert takers == COMMANDS.keys()

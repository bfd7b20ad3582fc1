"""A key on the command line is in the process list for a moment only."""

from __future__ import annotations

import os
import sys

import pytest

from segue.cli.key_argument import Arguments, hide_key, without_key


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
    assert without_key(arguments.split()) == Arguments(rest.split(), "sk-1")


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "sidecar",
        "sidecar --key",
        "run -- agent --key sk-1",
        "agent --key sk-1",
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
    monkeypatch.setattr(sys, "argv", ["segue", "sidecar"])
    hide_key()
    assert len(called) == 1

"""The commands that have a module of their own are in the list of `segue bench`, with their options."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("airplane", ("--agent", "--event", "--quick", "--json")),
        ("spectrum", ("--engine", "--rounds", "--json")),
        ("times", ("--tokens-s", "--computed", "--resume", "--json")),
    ],
)
def test_a_command_is_listed_with_its_options(name: str, options: tuple[str, ...], command: Command) -> None:
    status, printed, told = command("bench", name, "--help")
    assert (status, told) == (0, "")
    assert all(option in printed for option in options)

"""The commands of `segue key` are listed, with their options."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command


@pytest.mark.parametrize(
    ("name", "options"),
    [("new", ("--tenant", "--expires", "--model", "--route", "--json")), ("list", ("--json",)), ("revoke", ("NAME",))],
)
def test_a_command_is_listed_with_its_options(name: str, options: tuple[str, ...], command: Command) -> None:
    status, printed, told = command("key", name, "--help")
    assert (status, told) == (0, "")
    assert all(option in printed for option in options)

"""The commands of `segue config` are listed, with their options."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command


@pytest.mark.parametrize(("name", "options"), [("path", ("--json",)), ("show", ("--config", "--json"))])
def test_a_command_is_listed_with_its_options(name: str, options: tuple[str, ...], command: Command) -> None:
    status, printed, told = command("config", name, "--help")
    assert (status, told) == (0, "")
    assert all(option in printed for option in options)

"""The commands about stored conversations are listed, with their options."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("usage", ("--base-url", "--key", "--json")),
        ("export", ("RESPONSE_ID", "--as", "--output", "--base-url", "--key")),
        ("forget", ("--tenant", "--before", "--ids", "--store", "--output")),
        ("import", ("FILE", "--base-url", "--key")),
    ],
)
def test_a_command_is_listed_with_its_options(name: str, options: tuple[str, ...], command: Command) -> None:
    status, printed, told = command(name, "--help")
    assert (status, told) == (0, "")
    assert all(option in printed for option in options)

"""The options of `segue store`."""

from __future__ import annotations

from tests.cli.conftest import Command


def test_the_help_names_what_can_be_copied(command: Command) -> None:
    status, printed, _ = command("store", "copy", "--help")
    assert status == 0
    for word in ("FROM", "TO", "--json", "postgresql://", "sqlite:///FILE"):
        assert word in printed

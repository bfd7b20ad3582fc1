"""The options of `segue model`."""

from __future__ import annotations

import json

from tests.cli.conftest import Command


def test_the_list_is_for_people_and_for_scripts(command: Command) -> None:
    status, printed, _ = command("model", "list")
    assert status == 0
    assert "smollm2" in printed
    status, printed, _ = command("model", "list", "--json")
    (row,) = json.loads(printed)
    assert (status, row["name"], row["size"]) == (0, "smollm2", 98_362_432)


def test_a_model_that_is_not_known_is_refused(command: Command) -> None:
    status, _, told = command("model", "get", "gpt-7")
    assert status == 2
    assert told.startswith("segue: 'gpt-7' is not known here; known models: smollm2.")

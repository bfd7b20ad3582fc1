"""The help of every command says what a newcomer can use."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from cyclopts import App
from rich.console import Console

from segue.cli.main import app
from segue.cli.parameter_defaults import shown_default


@pytest.mark.parametrize(
    ("value", "shown"),
    [(True, "yes"), (False, None), (None, None), ((), None), ((1, 2), "1, 2"), ("memory:", "memory:"), (3, "3")],
)
def test_a_default_is_told_in_words(value: object, shown: str | None) -> None:
    assert shown_default(value) == shown


def commands(of: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command below, by the words that call it."""
    for name in of:
        if not name.startswith("-"):
            yield (*path, name)
            yield from commands(of[name], (*path, name))


def test_no_help_has_words_of_python_and_every_command_says_what_it_is_for() -> None:
    found = list(commands(app))
    assert len(found) > 25
    for words in found:
        page = io.StringIO()
        app.help_print(list(words), console=Console(file=page, width=100))
        text = page.getvalue()
        assert not [word for word in ("False", "True]", "None", "()", "--empty", "PosixPath") if word in text], words
        usage, _, said = text.strip().partition("\n\n")
        assert usage.startswith("Usage: segue "), words
        assert said.split("\n", 1)[0].rstrip().endswith((".", ":", ",")) or len(said) > 60, words

"""The options of `segue serve` reach what carries them out."""

from __future__ import annotations

import pytest

from segue.cli import serve
from segue.cli.main import app
from segue.cli.serve_options import ServeOptions


class Asked:
    """Stands for the command's work: it keeps what it was asked for."""

    def __init__(self) -> None:
        self.options: list[ServeOptions] = []

    def __call__(self, options: ServeOptions) -> int:
        self.options.append(options)
        return 3


def test_options_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked()
    monkeypatch.setattr(serve, "run_serve", asked)
    given = ["--config", "a.toml", "--port", "0", "--host", "::1", "--store", "memory:", "--workers", "auto"]
    assert app(["serve", *given], result_action="return_value") == 3
    (options,) = asked.options
    assert options == ServeOptions(config="a.toml", port=0, host="::1", store="memory:", workers="auto", log="info")


def test_a_number_of_workers_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked()
    monkeypatch.setattr(serve, "run_serve", asked)
    app(["serve", "--workers", "4"], result_action="return_value")
    assert asked.options[0].workers == 4

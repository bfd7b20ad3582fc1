"""`segue bench advise` says what to do and why, for every link by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segue.bench.advice import RULES
from segue.bench.links.profiles import LINKS
from tests.cli.conftest import Command


@pytest.mark.parametrize("link", LINKS)
def test_advises_for_every_link(link: str, command: Command) -> None:
    status, printed, told = command("bench", "advise", "--link", link)
    assert (status, told) == (0, "")
    (arrow,) = (line for line in printed.splitlines() if line.startswith("> "))
    (rule,) = (rule for rule in RULES if arrow.startswith(f"> {rule.condition}"))
    assert printed.startswith(f"{rule.advice}\n")
    assert all(len(line) <= 80 for line in printed.splitlines())


def test_takes_the_workload_from_its_options(command: Command, tmp_path: Path) -> None:
    options = ["--turns", "3", "--first-bytes", "10", "--growth-bytes", "20", "--delta-bytes", "30", "--link", "2g"]
    options += ["--tokens-s", "5", "--output-tokens", "7", "--api", "other", "--short-lived", "--json", "advice.json"]
    status, printed, _ = command("bench", "advise", *options)
    assert status == 0
    assert printed.startswith("plain HTTP\n")
    assert json.loads((tmp_path / "advice.json").read_bytes())["settings"] == {
        "link": "2g",
        "turns": 3,
        "first_bytes": 10,
        "growth_bytes": 20,
        "delta_bytes": 30,
        "tokens_s": 5.0,
        "output_tokens": 7,
        "api": "other",
        "short_lived": True,
        "advice": "plain HTTP",
        "condition": RULES[2].condition,
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--turns", "0"], "--turns must be more than 0"), (["--tokens-s", "0"], "--tokens-s must be more than 0")],
)
def test_says_what_is_wrong(options: list[str], said: str, command: Command) -> None:
    assert command("bench", "advise", *options) == (2, "", f"segue: {said}\n")

"""`segue bench capacity` shows its assumptions and results, writes them, and says what cannot be computed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from segue.bench.capacity import ASSUMPTIONS
from tests.cli.conftest import Command

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def row(printed: str, beginning: str) -> list[str]:
    (line,) = (line for line in printed.splitlines() if line.startswith(beginning))
    return line.removeprefix(beginning).split()


def test_shows_the_articles_numbers_in_80_columns(command: Command) -> None:
    status, printed, told = command("bench", "capacity")
    assert (status, told) == (0, "")
    assert row(printed, "a task sends: replay") == ["176", "KB"]
    assert row(printed, "a task sends: delta") == ["32", "KB"]
    assert row(printed, "fleet, tasks of 40 s: saved") == ["28.8", "Gbit/s"]
    assert row(printed, "fleet, each its own time: saved") == ["25.65", "Gbit/s"]
    assert row(printed, "   84") == ["11,424.0", "268.8", "97.6", "%"]
    assert all(one.option in printed for one in ASSUMPTIONS)
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert "Give --results FILE" in printed


def test_every_assumption_is_an_option(command: Command, tmp_path: Path) -> None:
    given = [str(argument) for number, one in enumerate(ASSUMPTIONS, start=2) for argument in (one.option, number)]
    status, printed, told = command("bench", "capacity", *given, "--json", "capacity.json")
    assert (status, told) == (0, "")
    assert "Give --results FILE" not in printed
    written = json.loads((tmp_path / "capacity.json").read_bytes())
    assert list(written["settings"].values()) == list(range(2, 2 + len(ASSUMPTIONS)))
    replay, delta = written["arms"]
    assert [turn["bytes_up_payload"] for turn in replay["turns"]] == [4, 9, 14]
    assert [turn["bytes_up_payload"] for turn in delta["turns"]] == [4, 6, 6]
    assert {"CPU for the turns", "state, connections"} <= {one["name"] for one in written["figures"]}


def test_takes_costs_from_a_measurement(command: Command, tmp_path: Path) -> None:
    shutil.copy(RESULTS / "gateway.json", tmp_path / "gateway.json")
    status, printed, _ = command("bench", "capacity", "--results", "gateway.json")
    assert status == 0
    assert row(printed, "CPU for the turns")[1] == "cores"
    assert row(printed, "state, connections")[1] == "GB"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--turns", "0"], "--turns must be more than 0"),
        (["--delta-s", "nan"], "--delta-s must be more than 0"),
        (["--results", "none.json"], "none.json cannot be read: No such file or directory"),
        (["--results", "other.json"], "other.json has no figure 'CPU per turn: gateway, paced, depth 1'"),
    ],
)
def test_says_what_is_wrong(options: list[str], said: str, command: Command, tmp_path: Path) -> None:
    shutil.copy(RESULTS / "lean-streams.json", tmp_path / "other.json")
    status, printed, told = command("bench", "capacity", *options)
    assert (status, printed) == (2, "")
    assert told.startswith(f"segue: {said}")
    assert told.count("\n") == 1

"""`segue bench spectrum` measures what its options say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from segue.bench.arms.measurement import DifferentWorkError, MeasurementPlan
from segue.bench.reports.report import BenchReport, make_report
from segue.bench.workloads.workload import Workload
from segue.cli import bench_spectrum
from tests.cli.conftest import Command

ENGINE = Path(__file__).parents[2] / "docs" / "results" / "engine-smollm2.json"

LASTS = {"http id": "store", "websocket id, not stored": "connection", "websocket id, stored": "store"}


class Measured:
    """Stands in for the measurement, and keeps what it was told to measure."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, float | None, int, bool]] = []
        self.error: Exception | None = None

    async def __call__(
        self,
        workload: Workload,
        plan: MeasurementPlan,
        *,
        rounds: int,
        engine: BenchReport | None,
        console: Console,
    ) -> BenchReport:
        assert plan.link is not None
        self.asked.append((workload.name, plan.link.name, plan.tokens_s, rounds, engine is not None))
        if self.error is not None:
            raise self.error
        return make_report([], {"workload": workload.name, "link": plan.link.name, "lasts": LASTS})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    made = Measured()
    monkeypatch.setattr(bench_spectrum, "measure", made)
    return made


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ([], ("article", "fibre", None, 3, False)),
        (["--quick", "--engine", str(ENGINE)], ("article", "fibre", None, 1, True)),
        (
            ["--workload", "loop-12", "--link", "2g", "--tokens-s", "65", "--rounds", "2"],
            ("loop-12", "2g", 65.0, 2, False),
        ),
    ],
)
def test_options_say_what_is_measured(
    options: list[str],
    asked: tuple[str, str, float | None, int, bool],
    *,
    command: Command,
    measured: Measured,
    tmp_path: Path,
) -> None:
    status, printed, told = command("bench", "spectrum", *options, "--json", "spectrum.json")
    assert (status, told) == (0, "")
    assert measured.asked == [asked]
    assert f"{asked[0]}, 0 turns over {asked[1]}" in printed
    assert json.loads((tmp_path / "spectrum.json").read_bytes())["arms"] == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--link", "string"], "there is no link 'string'"),
        (["--workload", "nothing"], "there is no workload 'nothing'"),
        (["--rounds", "-1"], "--rounds must be at least 1"),
        (["--tokens-s", "0"], "--tokens-s more than 0"),
        (["--engine", "missing.json"], "missing.json cannot be read"),
    ],
)
def test_it_says_what_is_wrong(options: list[str], reason: str, command: Command) -> None:
    status, printed, told = command("bench", "spectrum", *options)
    assert (status, printed) == (2, "")
    assert reason in told


def test_it_says_what_to_install(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_spectrum, "why_no_tls", lambda: "install trustme")
    assert command("bench", "spectrum") == (2, "", "segue: install trustme\n")


def test_arms_that_differ_are_an_error(command: Command, measured: Measured) -> None:
    measured.error = DifferentWorkError("http id had 3 turns")
    assert command("bench", "spectrum") == (1, "", "segue: the arms cannot be compared: http id had 3 turns\n")

"""`segue bench cluster`: its options, and what it shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from segue.bench.arms.database_servers import ServersMissing
from segue.bench.cluster import ClusterBench
from segue.bench.cluster_plan import plan_figures
from segue.bench.reports.report import BenchReport, Figure, make_report, write
from segue.cli import bench_cluster
from tests.bench.test_cluster_plan import COSTS, PLAN
from tests.cli.conftest import Command


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[ClusterBench]:
    """What was to be measured; the figures are made up."""
    asked = list[ClusterBench]()

    async def measure(chosen: ClusterBench, on_step: Callable[[str], None]) -> BenchReport:
        asked.append(chosen)
        on_step("measures")
        settings = {**msgspec.to_builtins(chosen), "limited": False, "costs": msgspec.to_builtins(COSTS)}
        checked = Figure(name="check, 1 worker, turns: off by", value=3.0, unit="%", budget=15.0, met=True)
        missed = Figure(name="check, 2 workers, turns: off by", value=20.0, unit="%", budget=15.0, met=False)
        return make_report([], settings, [checked, missed, *plan_figures(chosen.plan, COSTS)])

    monkeypatch.setattr(bench_cluster, "measure_cluster", measure)
    return asked


def test_it_measures_and_plans(measured: list[ClusterBench], command: Command, tmp_path: Path) -> None:
    """The costs in its file plan for other numbers without measuring."""
    status, shown, told = command("bench", "cluster", "--sessions", "3000", "--rounds", "2", "--json", "cluster.json")
    assert (status, told) == (0, "segue: measures\n")
    assert "plan: turns" in shown
    assert "No worker was limited: that takes root." in shown
    told_apart = " ".join(shown.split())
    assert "What was predicted of 1 worker agrees with what was measured: off by 3 % at most" in told_apart
    assert "What was predicted of 2 workers does not agree with what was measured: off by 20 % at most" in told_apart
    assert (measured[0].rounds, measured[0].plan.sessions) == (2, 3000)
    file = tmp_path / "cluster.json"
    assert json.loads(file.read_bytes())["settings"]["costs"]["database_bytes"] == 8000
    status, shown, _ = command(
        "bench", "cluster", "--sessions", "6000", "--turn-every", "60", "--results", "cluster.json"
    )
    assert status == 0
    assert "100 /s" in shown
    assert len(measured) == 1


def test_what_is_missing_is_said_in_a_word(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    async def missing(chosen: ClusterBench, on_step: Callable[[str], None]) -> BenchReport:
        raise ServersMissing("Redis is not installed")

    monkeypatch.setattr(bench_cluster, "measure_cluster", missing)
    assert command("bench", "cluster") == (0, "skipped: Redis is not installed\n", "")


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--load", "2"], "--load is a part of a core: at most 1"), (["--cores", "0"], "--cores must be more than 0")],
)
def test_a_plan_that_cannot_be_is_refused(options: list[str], said: str, command: Command) -> None:
    status, _, told = command("bench", "cluster", *options)
    assert status == 2
    assert said in told


def test_a_file_of_something_else_is_refused(tmp_path: Path, command: Command) -> None:
    write(make_report([], {"plan": PLAN.sessions}), tmp_path / "other.json")
    status, _, told = command("bench", "cluster", "--results", "other.json")
    assert status == 2
    assert "has no costs of turns; `segue bench cluster --json` measures them" in told

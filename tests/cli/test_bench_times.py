"""`segue bench times` measures the grid that its options say, keeps what it has, and goes on with a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from segue.bench.arms.measurement import DifferentWorkError, MeasurementPlan
from segue.bench.reports.report import BenchReport, make_report, write
from segue.bench.reports.report import arm as make_arm
from segue.bench.time_grid import LONG_WORKLOADS, Progressed, Save, TimeGrid, UnlikeGridError
from segue.cli import bench_times
from tests.cli.conftest import Command


class Measured:
    """Stands in for the measurement: keeps what it was told to measure, and saves one arm on the way."""

    def __init__(self) -> None:
        self.grid = TimeGrid()
        self.before: BenchReport | None = None
        self.error: BaseException | None = None
        self.saved = False

    async def __call__(
        self,
        grid: TimeGrid,
        plan: MeasurementPlan,
        *,
        before: BenchReport | None,
        save: Save | None,
        progressed: Progressed,
    ) -> BenchReport:
        assert plan == MeasurementPlan()
        self.grid, self.before, self.saved = grid, before, save is not None
        one = replace(make_arm("http replay", []), workload="article", link="fibre", tokens_s=65.0)
        progressed(1, 2, "http replay")
        if save is not None:
            save(make_report([one], grid.settings))
        if self.error is not None:
            raise self.error
        return make_report([one, replace(one, name="http id")], grid.settings)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    made = Measured()
    monkeypatch.setattr(bench_times, "measure", made)
    return made


@pytest.mark.parametrize(
    ("options", "grid"),
    [
        ([], TimeGrid()),
        (["--quick"], TimeGrid(speeds=(1000.0,), rounds=1, computed=())),
        (
            ["--workload", "loop-12", "--workload", "article", "--workload", "loop-12", "--no-tls", "--rounds", "2"],
            TimeGrid(workloads=("loop-12", "article"), rounds=2, tls=False),
        ),
        (
            ["--quick", "--link", "2g", "--link", "fibre", "--tokens-s", "20", "--computed", "conversation:7"],
            TimeGrid(links=("2g", "fibre"), speeds=(20.0,), rounds=1, computed=("conversation:7",)),
        ),
    ],
)
def test_options_say_what_is_measured(
    options: list[str], grid: TimeGrid, *, command: Command, measured: Measured
) -> None:
    status, printed, told = command("bench", "times", *options)
    assert (status, told) == (0, "")
    assert measured.grid == grid
    assert (measured.before, measured.saved) == (None, False)
    assert "article, 0 turns" in printed


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--link", "string"], "there is no link 'string'"),
        (["--workload", "nothing"], "there is no workload 'nothing'"),
        (["--computed", "nothing"], "there is no workload 'nothing'"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--tokens-s", "65", "--tokens-s", "0"], "--tokens-s must be more than 0"),
        (["--tokens-s", "nan"], "--tokens-s must be more than 0"),
        (["--resume", "missing.json"], "missing.json cannot be read"),
    ],
)
def test_it_says_what_is_wrong(options: list[str], reason: str, *, command: Command, measured: Measured) -> None:
    measured.error = AssertionError("nothing is measured")
    status, printed, told = command("bench", "times", *options)
    assert (status, printed) == (2, "")
    assert told.startswith("segue: ")
    assert reason in told


def test_it_says_what_to_install(command: Command, measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_times, "why_no_tls", lambda: "install trustme")
    assert command("bench", "times") == (2, "", "segue: install trustme; or give --no-tls\n")
    assert command("bench", "times", "--no-tls")[0] == 0
    assert measured.grid.tls is False


def test_rounds_that_differ_are_an_error(command: Command, measured: Measured) -> None:
    measured.error = DifferentWorkError("http id had 3 turns")
    assert command("bench", "times") == (1, "", "segue: the arms cannot be compared: http id had 3 turns\n")


# --- what is kept ----------------------------------------------------------------------------------------------------


def names_in(file: Path) -> list[str]:
    return [one["name"] for one in json.loads(file.read_bytes())["arms"]]


def test_a_run_that_is_stopped_leaves_what_it_has_and_says_how_to_go_on(
    command: Command, measured: Measured, tmp_path: Path
) -> None:
    measured.error = KeyboardInterrupt()
    status, printed, told = command("bench", "times", "--json", "times.json")
    assert (status, printed, told) == (130, "", "segue: stopped; with --resume times.json it goes on\n")
    assert names_in(tmp_path / "times.json") == ["http replay"]
    measured.error = None
    status, printed, told = command("bench", "times", "--resume", "times.json")
    assert (status, told) == (0, "")
    assert "written to times.json" in printed
    assert measured.before is not None
    assert [one.name for one in measured.before.arms] == ["http replay"]
    assert names_in(tmp_path / "times.json") == ["http replay", "http id"]
    assert [file.name for file in tmp_path.iterdir()] == ["times.json"]


def test_a_run_that_keeps_nothing_says_nothing_of_going_on(command: Command, measured: Measured) -> None:
    measured.error = KeyboardInterrupt()
    assert command("bench", "times") == (130, "", "")


def test_going_on_can_write_to_another_file(command: Command, measured: Measured, tmp_path: Path) -> None:
    write(make_report([], TimeGrid().settings), tmp_path / "old.json")
    assert command("bench", "times", "--resume", "old.json", "--json", "new.json")[0] == 0
    assert names_in(tmp_path / "old.json") == []
    assert names_in(tmp_path / "new.json") == ["http replay", "http id"]


def test_a_file_of_another_measurement_is_refused(command: Command, measured: Measured, tmp_path: Path) -> None:
    write(make_report([], {}), tmp_path / "old.json")
    measured.error = UnlikeGridError("its version differs")
    status, _, told = command("bench", "times", "--resume", "old.json", "--json", "new.json")
    assert (status, told) == (2, "segue: old.json is of another measurement: its version differs\n")


def test_a_file_that_is_none_of_results_is_refused(command: Command, measured: Measured, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("[]", encoding="utf-8")
    status, _, told = command("bench", "times", "--resume", "old.json")
    assert status == 2
    assert "old.json is no result file" in told


def test_what_cannot_be_replaced_is_written_at_the_end_alone(
    command: Command, measured: Measured, tmp_path: Path
) -> None:
    status, _, _ = command("bench", "times", "--json", "/dev/null")
    assert (status, measured.saved) == (0, False)


def test_a_folder_that_nobody_may_write_in_is_told_at_once(
    command: Command, measured: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "times.json"
    file.touch()
    measured.error = AssertionError("nothing is measured")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    status, _, told = command("bench", "times", "--json", str(file))
    assert status == 2
    assert "is replaced as results come, and you may not write in" in told


def test_long_conversations_are_only_computed() -> None:
    assert set(LONG_WORKLOADS).isdisjoint(TimeGrid().workloads)

"""The measuring of lean streams: it counts every byte, judges what has a budget, and its report makes the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.bench.reports.report import BenchReport, make_report, write
from tools import measure_lean_stream, measured_tables
from tools.measure_lean_stream import BUDGET, FORMS, SESSION, SHAPES, WAYS, LeanArm, arms, main, measure


async def test_a_session_is_measured_on_every_way_and_judged_where_it_can_be_met() -> None:
    chosen = [LeanArm("reasoning and tool call", "burst", way, form) for way in WAYS for form in FORMS]
    report = await measure(chosen, turns=2)
    values = {one.name: one for one in report.figures}
    for arm in chosen:
        ratio, size = values[f"received / said: {arm.name}"], values[f"bytes received a turn: {arm.name}"]
        assert ratio.value is not None
        assert size.value is not None
        assert size.value > 2048 * 3 / 4, "the encrypted reasoning is random; only its base64 gets smaller"
        assert (ratio.value < 3) is (arm.form != "whole"), "it has the instructions and tools, three times"
        assert (ratio.budget, ratio.met) == ((BUDGET, True) if arm.form == "compact" else (None, None))


def test_all_shapes_are_measured_in_both_paces() -> None:
    shapes = {*SHAPES, "session"}
    assert set(SESSION) < shapes
    assert len(arms(quick=False)) == 2 * len(arms(quick=True)) == 2 * len(shapes) * len(WAYS) * len(FORMS)


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> BenchReport:
    """What measuring returns."""
    made = make_report([], {"turns": 1}, [])

    async def measured(_: object) -> BenchReport:
        return made

    monkeypatch.setattr(measure_lean_stream, "measure", measured)
    return made


def test_the_report_is_written_where_it_is_wanted(report: BenchReport, tmp_path: Path) -> None:
    assert main(["--quick", "--json", str(tmp_path / "out.json")]) == 0
    write(report, tmp_path / "expected.json")
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "expected.json").read_bytes()


@pytest.mark.parametrize("wrong", [["--json"], ["--paced"], ["a", "b", "c"]])
def test_a_wrong_option_is_told(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(wrong) == 2
    assert capsys.readouterr().out.startswith("usage: ")


def test_the_table_has_a_row_for_each_shape_and_pace() -> None:
    table = measured_tables.lean_streams().splitlines()
    rows = [line for line in table if line.startswith("| ")][2:]
    assert len(rows) == len(arms(quick=False)) / len(WAYS) / len(FORMS)

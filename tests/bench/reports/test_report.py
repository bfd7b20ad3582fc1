"""The report has the shape that other programs rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from segue import __version__
from segue.bench.reports.report import (
    RoundFigures,
    TurnFigures,
    arm,
    figure,
    make_report,
    this_commit,
    write,
    write_report,
    write_whole,
)

FIGURES = {
    "bytes_up_payload",
    "bytes_up_wire",
    "bytes_down_wire",
    "ttft_s",
    "time_s",
    "server_cpu_s",
    "tokens_reused",
    "tokens_processed",
    "bytes_down_payload",
    "bytes_repeated",
    "bytes_settings_repeated",
    "bytes_parsed",
    "memory_bytes",
    "state_bytes",
    "at_s",
    "requests",
}
ARM = {
    "failures",
    "name",
    "status",
    "turns",
    "totals",
    "workload",
    "link",
    "tokens_s",
    "basis",
    "failed_turn",
    "problem",
    "rounds",
}


def test_shape(tmp_path: Path) -> None:
    turns = [TurnFigures(bytes_up_payload=size, time_s=0.5) for size in (100, 200)]
    figures = [figure("cost", [1.0], "ms", 2.0)]
    write(make_report([arm("one", turns, server_cpu_s=0.25)], {"rounds": 2}, figures), tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_bytes())

    assert set(report) == {"machine", "version", "commit", "settings", "arms", "figures"}
    assert set(report["machine"]) == {"cpu", "cores", "python", "platform"}
    assert report["version"] == __version__
    assert report["settings"] == {"rounds": 2}
    (only,) = report["arms"]
    assert set(only) == ARM
    assert only["status"] == "completed"
    assert [set(turn) for turn in only["turns"]] == [FIGURES, FIGURES]
    assert set(only["totals"]) == FIGURES
    assert only["totals"]["bytes_up_payload"] == 300
    assert only["totals"]["time_s"] == 1.0
    assert only["totals"]["server_cpu_s"] == 0.25
    assert only["turns"][0]["server_cpu_s"] is None


def test_what_one_turn_lacks_has_no_total() -> None:
    made = arm("half", [TurnFigures(tokens_reused=5, tokens_processed=1), TurnFigures(tokens_processed=2)])
    assert made.totals == TurnFigures(tokens_processed=3)
    assert arm("none", []).totals == TurnFigures()


def test_levels_have_a_peak_and_moments_no_total() -> None:
    turns = [TurnFigures(memory_bytes=level, state_bytes=2 * level, at_s=0.5) for level in (5, 9, 7)]
    assert arm("held", turns).totals == TurnFigures(memory_bytes=9, state_bytes=18)


def test_the_time_of_a_task_is_that_of_the_median_round() -> None:
    rounds = [RoundFigures(task_s=task_s) for task_s in (3.0, 1.0, 2.5)]
    made = arm("timed", [TurnFigures(time_s=0.5)], rounds=[*rounds, RoundFigures()])
    assert (made.totals.time_s, len(made.rounds)) == (2.5, 4)


@pytest.mark.parametrize(
    ("more", "label"),
    [
        ({}, "http id"),
        ({"workload": "article"}, "http id, article"),
        ({"link": "2g", "tokens_s": 65.0}, "http id, 2g, 65 tokens/s"),
    ],
)
def test_an_arm_is_told_apart_by_name_workload_link_and_speed(more: dict[str, Any], label: str) -> None:
    made = msgspec.structs.replace(arm("http id", []), **more)
    assert made.label == label
    assert made.identity == ("http id", more.get("workload"), more.get("link"), more.get("tokens_s"))


def test_a_figure_is_the_median_and_its_spread() -> None:
    odd = figure("odd", [3.0, 1.0, 2.0], "ms", 2.0)
    assert (odd.value, odd.low, odd.high, odd.met) == (2.0, 1.0, 3.0, True)
    even = figure("even", [1.0, 2.0, 3.0, 4.0], "ms", 2.0)
    assert (even.value, even.met) == (2.5, False)


def test_a_figure_without_a_value_or_a_budget_is_not_judged() -> None:
    assert figure("free", [1.0], "ms").met is None
    nothing = figure("nothing", [], "ms", 2.0)
    assert (nothing.value, nothing.met) == (None, None)


def test_arms_that_completed(tmp_path: Path) -> None:
    write_report(tmp_path / "report.json", {"a": [TurnFigures(time_s=1.0)], "b": []}, {})
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert [one["name"] for one in report["arms"]] == ["a", "b"]
    assert report["figures"] == []


def test_a_report_takes_the_place_of_an_earlier_one_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report.json"
    write_whole(make_report([], {"number": 1}), file)

    def fill_the_disk(_: Path, data: bytes) -> None:
        raise OSError(f"no room for {len(data)} bytes")

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", fill_the_disk)
        with pytest.raises(OSError, match="no room"):
            write_whole(make_report([], {"number": 2}), file)
    assert json.loads(file.read_bytes())["settings"] == {"number": 1}
    write_whole(make_report([], {"number": 3}), file)
    assert json.loads(file.read_bytes())["settings"] == {"number": 3}
    assert list(tmp_path.iterdir()) == [file]


def test_commit_is_one_or_none() -> None:
    commit = this_commit()
    assert commit is None or len(commit.removesuffix("-dirty")) == 40

"""`segue bench compare` shows differences in 80 columns, refuses what is no result file, and fails over a limit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from segue.bench.reports.report import BenchReport, TurnFigures, arm, figure, make_report, write
from tests.cli.conftest import Command

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def put(tmp_path: Path, name: str, *, cost: float = 1.0, status: str = "completed", version: str = "1") -> None:
    figures = [figure("cost", [cost * 0.9, cost, cost * 1.1], "ms"), figure("memory", [2.0], "KB")]
    made = make_report([arm("raw", [TurnFigures(bytes_up_wire=10)])], {}, figures)
    failed = [msgspec.structs.replace(one, status=status) for one in made.arms]
    write(msgspec.structs.replace(made, version=version, commit=None, arms=failed), tmp_path / name)


def test_shows_ratios_verdicts_and_what_else_differs(command: Command, tmp_path: Path) -> None:
    put(tmp_path, "a.json")
    put(tmp_path, "b.json", cost=2.0, version="2")
    status, printed, told = command("bench", "compare", "a.json", "b.json")
    assert (status, told) == (0, "")
    lines = [line.split() for line in printed.splitlines()]
    assert ["cost", "1", "ms", "2", "ms", "2.000", "clear"] in lines
    assert ["memory", "2", "KB", "2", "KB", "1.000", "same"] in lines
    assert ["raw:", "bytes_up_wire", "10", "B", "10", "B", "1.000", "same"] in lines
    assert "version: 1 -> 2" in printed


@pytest.mark.parametrize(("limit", "status"), [("99", 1), ("100", 0), ("0", 1)])
def test_fails_over_a_limit(limit: str, status: int, command: Command, tmp_path: Path) -> None:
    put(tmp_path, "a.json")
    put(tmp_path, "b.json", cost=2.0)
    ended, _, told = command("bench", "compare", "a.json", "b.json", "--fail-over", limit)
    assert (ended, told) == (status, "segue: cost is worse by 100.0 %\n" * status)


def test_what_got_better_or_is_noise_does_not_fail(command: Command, tmp_path: Path) -> None:
    put(tmp_path, "a.json", cost=1.0)
    put(tmp_path, "b.json", cost=1.05)
    for pair in (("a.json", "b.json"), ("b.json", "a.json")):
        assert command("bench", "compare", *pair, "--fail-over", "1")[0] == 0
    put(tmp_path, "b.json", cost=0.1)
    assert command("bench", "compare", "a.json", "b.json", "--fail-over", "1")[0] == 0


def test_an_arm_that_failed_fails(command: Command, tmp_path: Path) -> None:
    put(tmp_path, "a.json")
    put(tmp_path, "b.json", status="failed")
    ended, printed, told = command("bench", "compare", "a.json", "b.json", "--fail-over", "50")
    assert (ended, told) == (1, "segue: raw failed\n")
    assert "raw: status: completed -> failed" in printed


#: Of other tools, which write lists.
LISTS = {"agent-tasks.json", "real-agents.json"}


#: A second or two are spent on drawing the table of a file that is larger.
LARGE_BYTES = 80_000


def published() -> list[object]:
    files = {path.name: path.stat().st_size for path in RESULTS.glob("*.json") if path.name not in LISTS}
    return [
        pytest.param(name, marks=[pytest.mark.deep] if size > LARGE_BYTES else [])
        for name, size in sorted(files.items())
    ]


@pytest.mark.parametrize("name", published())
def test_every_published_file_is_the_same_as_itself(name: str, command: Command, tmp_path: Path) -> None:
    shutil.copy(RESULTS / name, tmp_path / "a.json")
    status, printed, told = command("bench", "compare", "a.json", "a.json", "--fail-over", "0", "--json", "out.json")
    assert (status, told) == (0, "")
    written = json.loads((tmp_path / "out.json").read_bytes())
    assert {one["verdict"] for one in written["values"]} == {"same"}
    assert written["differences"] == []
    assert all(len(line) <= 80 for line in printed.splitlines() if not line.startswith("not compared"))


def test_two_agents_sessions_are_compared(command: Command, tmp_path: Path) -> None:
    for name in ("codex", "claude-code"):
        shutil.copy(RESULTS / f"table-{name}.json", tmp_path)
    status, printed, _ = command("bench", "compare", "table-codex.json", "table-claude-code.json")
    assert status == 0
    assert "settings: session: codex -> claude-code" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.json", "a.json"], "none.json cannot be read"),
        (["a.json", "list.json"], "list.json is no result file"),
        (["a.json", "empty.json"], "have no figure in common"),
        (["a.json", "a.json", "--fail-over", "-1"], "--fail-over must be 0 or more"),
        (["a.json", "a.json", "--fail-over", "nan"], "--fail-over must be 0 or more"),
    ],
)
def test_says_in_one_line_what_is_wrong(arguments: list[str], said: str, command: Command, tmp_path: Path) -> None:
    put(tmp_path, "a.json")
    (tmp_path / "list.json").write_text("[]")
    write(make_report([], {}), tmp_path / "empty.json")
    status, printed, told = command("bench", "compare", *arguments)
    assert (status, printed) == (2, "")
    assert told.startswith("segue: ")
    assert said in told
    assert told.count("\n") == 1


def test_the_json_is_a_report_like_any_other(command: Command, tmp_path: Path) -> None:
    """What `segue bench capacity` writes can be compared too."""
    for name, turns in (("a.json", "10"), ("b.json", "20")):
        command("bench", "capacity", "--turns", turns, "--json", name)
    assert msgspec.json.decode((tmp_path / "a.json").read_bytes(), type=BenchReport).arms
    status, printed, _ = command("bench", "compare", "a.json", "b.json")
    assert status == 0
    assert "settings: turns: 10 -> 20" in printed
    assert "not compared: replay; delta" in printed

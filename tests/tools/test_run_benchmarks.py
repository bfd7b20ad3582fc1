"""All benchmarks are run, go on where they were stopped, and put their results in place only when they are whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from segue.bench.reports.report import TurnFigures, arm, figure, make_report, write
from segue.bench.reports.result_file import read_results
from tools import run_benchmarks
from tools.result_files import ResultFile
from tools.run_benchmarks import main, run_all, run_command

FILES = (
    ResultFile(name="one.json", command="segue bench one", about="", about_s=200, without_turns=True),
    ResultFile(
        name="two.json", command="segue bench two --turns 3", about="", about_s=5, has_quick=False, resumes=True
    ),
    ResultFile(name="apart.json", command="segue bench apart", about=""),
)


class Runs:
    """Stands in for the commands: writes their files, unless it is told to fail or to stop."""

    def __init__(self, *ends: int | type[BaseException]) -> None:
        self.ends = list(ends)
        self.commands: list[str] = []
        self.patience_s: list[float] = []

    def __call__(self, command: Sequence[str], folder: Path, patience_s: float) -> int:
        self.commands.append(" ".join(command))
        self.patience_s.append(patience_s)
        end = self.ends.pop(0) if self.ends else 0
        arms = [arm("a", [TurnFigures(bytes_up_wire=5), TurnFigures(bytes_up_wire=6)])]
        write(make_report(arms, {}, [figure("cost", [1.0], "ms")]), folder / command[-1])
        if isinstance(end, int):
            return end
        raise end


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_benchmarks, "RESULT_FILES", FILES)
    monkeypatch.setattr(run_benchmarks, "this_commit", lambda: "c0ffee-dirty")
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0, 0))


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_all_results_and_a_page_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, folder = Runs(), tmp_path / "new" / "folder"
    assert run_all(folder, quick=False, run=runs) == 0
    assert runs.commands == [
        "segue bench one --json one.json.part",
        "segue bench two --turns 3 --json two.json.part",
    ]
    assert runs.patience_s == [800, 120]
    assert names(folder) == {"one.json", "two.json", "report.html"}
    one, two = (read_results(folder / name).arms[0] for name in ("one.json", "two.json"))
    assert ([], 2, one.totals) == (one.turns, len(two.turns), two.totals), "of the first, single turns are not kept"
    assert (folder / "report.html").read_text().count("Bytes sent so far</h3>") == 2, "but shown"
    told = capsys.readouterr().out
    assert told.startswith("2 benchmarks: about 3 min\n")
    assert "[2/2] segue bench two" in told
    assert "in all" in told


def test_a_quick_run_asks_for_it_where_that_is_known(tmp_path: Path) -> None:
    runs = Runs()
    run_all(tmp_path, quick=True, run=runs)
    assert ["--quick" in command for command in runs.commands] == [True, False]


def test_what_was_stopped_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is done is not done again. The one that was running begins anew, or goes on from its file if it can."""
    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path, quick=False, run=Runs(0, KeyboardInterrupt))
    assert names(tmp_path) == {".running"}, "nothing is in its place yet"
    again = Runs()
    assert run_all(tmp_path, quick=False, run=again) == 0
    assert again.commands == ["segue bench two --turns 3 --resume two.json.part --json two.json.part"]
    assert names(tmp_path) == {"one.json", "two.json", "report.html"}
    assert "2 benchmarks; 1 are done" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["commit", "quick", "damage"])
def test_what_another_program_did_is_done_again(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path, quick=False, run=Runs(0, KeyboardInterrupt))
    if change == "commit":
        monkeypatch.setattr(run_benchmarks, "this_commit", lambda: None)
    if change == "damage":
        (tmp_path / ".running" / "progress.json").write_text("{")
    again = Runs()
    run_all(tmp_path, quick=change == "quick", run=again)
    assert len(again.commands) == 2
    assert not any("--resume" in command for command in again.commands)


def test_one_that_fails_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And is tried again by the next run."""
    assert run_all(tmp_path, quick=False, run=Runs(3, 0)) == 1
    assert names(tmp_path) == {".running", "two.json", "report.html"}
    assert "failed: one.json: exit status 3\n" in capsys.readouterr().out
    assert run_all(tmp_path, quick=False, run=Runs(-1)) == 1
    assert "failed: one.json: took too long\n" in capsys.readouterr().out
    again = Runs()
    assert run_all(tmp_path, quick=False, run=again) == 0
    assert again.commands == ["segue bench one --json one.json.part"]


def test_noise_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (3.5, 0, 0))
    run_all(tmp_path, quick=False, run=Runs())
    assert "Other programs are running (load 3.5)" in capsys.readouterr().out


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert (main([]), main(["--help"]), main(["a", "b"])) == (2, 2, 2)
    asked: list[tuple[Path, bool]] = []

    def remember(folder: Path, *, quick: bool) -> int:
        asked.append((folder, quick))
        raise KeyboardInterrupt

    monkeypatch.setattr(run_benchmarks, "run_all", remember)
    assert main([str(tmp_path), "--quick"]) == 130
    assert asked == [(tmp_path, True)]
    assert "the same command goes on from here" in capsys.readouterr().out


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Make a program of a text, and return the command for it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(text: str) -> list[str]:
        (tmp_path / "measured.py").write_text(text)
        return ["measured", "argument"]

    return make


def test_a_command_runs_in_the_folder(module: Callable[[str], list[str]], tmp_path: Path) -> None:
    command = module("import os, sys\nopen('out', 'w').write(sys.argv[1])\nsys.exit(5)\n")
    assert run_command(command, tmp_path, 60) == 5
    assert (tmp_path / "out").read_text() == "argument"


def test_a_command_that_takes_too_long_is_ended(
    module: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may begin so slowly that it does not hear that it is to end, and is killed then."""
    monkeypatch.setattr(run_benchmarks, "_ENDING_S", 0.2)
    assert run_command(module("import signal\nsignal.pause()\n"), tmp_path, 0.01) == -1


def test_a_benchmark_is_really_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quickest: it computes. `tests/cli` runs one that measures."""
    quickest = ResultFile(name="capacity.json", command="segue bench capacity", about="", about_s=1, has_quick=False)
    monkeypatch.setattr(run_benchmarks, "RESULT_FILES", (quickest,))
    assert run_all(tmp_path, quick=True) == 0
    assert read_results(tmp_path / "capacity.json").figures[0].value == 176.0
    assert "a task sends: replay" in (tmp_path / "report.html").read_text(encoding="utf-8")

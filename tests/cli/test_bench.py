"""`segue bench gateway`, `tunnel` and `dialects` measure as they are told, show the report and write it."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from segue.bench import dialects, gateway, tunnel
from segue.bench.reports.report import BenchReport, figure, make_report
from tests.cli.conftest import Command

MISSED = make_report([], {"rounds": 1}, [figure("CPU per turn: gateway", [2.0], "ms", 0.5)])


@pytest.mark.parametrize(("benchmark", "name"), [(gateway, "gateway"), (tunnel, "tunnel"), (dialects, "dialects")])
@pytest.mark.parametrize("quick", [False, True])
def test_measures_shows_and_writes(
    benchmark: ModuleType, name: str, quick: bool, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A missed budget is no error."""
    asked: list[bool] = []

    async def measure(*, quick: bool, console: Console) -> BenchReport:
        asked.append(quick)
        return MISSED

    monkeypatch.setattr(benchmark, "measure", measure)
    if benchmark is dialects:  # whose table needs all of its figures
        monkeypatch.setattr(dialects, "render", gateway.render)
    status, printed, told = command("bench", name, *["--quick"] * quick, "--json", "out.json")
    assert (status, told, asked) == (0, "", [quick])
    assert "CPU per turn: gateway" in printed
    assert "missed" in printed
    assert printed.endswith("written to out.json\n")
    assert json.loads((tmp_path / "out.json").read_bytes())["figures"][0]["met"] is False

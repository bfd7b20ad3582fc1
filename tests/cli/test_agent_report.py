"""The report has the shape of a benchmark's."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from segue.agent.progress import AgentTurn, RunResult
from segue.agent.tasks import TaskCheck
from segue.bench.reports.report import BenchReport
from segue.cli.agent_report import FinishedRun, write_agent_report
from segue.client.settings import SessionSettings

TURN = AgentTurn(
    bytes_up_payload=1, bytes_up_wire=2, bytes_down_wire=3, ttft_s=None, time_s=1.0,
    input_tokens=100, cached_tokens=90, output_tokens=20, tool_calls=1,
)  # fmt: skip
SETTINGS = SessionSettings(model="m", transport="http")
RESULT = RunResult(ending="completed", turns=(TURN, TURN), time_s=3.0)


def test_an_arm_for_each_run(tmp_path: Path) -> None:
    runs = [
        FinishedRun(name="a", settings=SETTINGS, result=RESULT, reconnects=1),
        FinishedRun(
            name="b", settings=SETTINGS, result=RESULT, reconnects=0, check=TaskCheck("t", passed=False, missing=("x",))
        ),
        FinishedRun(
            name="c",
            settings=SETTINGS,
            result=RunResult(ending="failed", turns=(), time_s=0.0, reason="lost"),
            reconnects=0,
        ),
    ]
    write_agent_report(tmp_path / "r.json", runs)
    data = (tmp_path / "r.json").read_bytes()
    report = msgspec.json.decode(data)
    assert report["settings"] == {"model": "m", "transport": "http", "store": False, "history": "auto"}
    first, second, third = report["arms"]
    assert first["turns"][0] == {
        "bytes_up_payload": 1, "bytes_up_wire": 2, "bytes_down_wire": 3, "ttft_s": None, "time_s": 1.0,
        "server_cpu_s": None, "tokens_reused": 90, "tokens_processed": 10,
        "input_tokens": 100, "cached_tokens": 90, "output_tokens": 20, "tool_calls": 1,
    }  # fmt: skip
    assert first["totals"] == {
        "bytes_up_payload": 2, "bytes_up_wire": 4, "bytes_down_wire": 6, "ttft_s": None, "time_s": 2.0,
        "server_cpu_s": None, "tokens_reused": 180, "tokens_processed": 20,
        "input_tokens": 200, "cached_tokens": 180, "output_tokens": 40, "tool_calls": 2,
    }  # fmt: skip
    assert [first[name] for name in ("name", "status", "ending", "check", "reconnects", "run_time_s")] == [
        "a", "completed", "completed", None, 1, 3.0,
    ]  # fmt: skip
    assert (second["status"], second["check"]) == ("failed", {"task": "t", "passed": False, "missing": ["x"]})
    assert (third["status"], third["reason"], third["totals"]["time_s"]) == ("failed", "lost", None)
    msgspec.json.decode(data, type=BenchReport)  # what reads the reports of benchmarks reads this one


@pytest.mark.parametrize(
    ("ending", "passed", "succeeded"),
    [("completed", None, True), ("completed", True, True), ("completed", False, False), ("failed", True, False)],
)
def test_a_run_succeeds_when_it_ended_well_and_passed(ending: str, *, passed: bool | None, succeeded: bool) -> None:
    result = msgspec.convert({"ending": ending, "turns": (), "time_s": 1.0}, RunResult)
    check = None if passed is None else TaskCheck("t", passed, ())
    assert FinishedRun(name="a", settings=SETTINGS, result=result, reconnects=0, check=check).succeeded is succeeded

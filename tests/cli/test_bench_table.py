"""`segue bench table` measures a workload on every arm, or a session, generated or recorded, on every path."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from segue.bench import workload_table
from segue.bench.arms.measurement import DifferentWorkError, MeasurementPlan
from segue.bench.arms.paths import OpenPath, straight_path
from segue.bench.arms.table import ARMS, MeasuredArm
from segue.bench.links.profiles import LINKS
from segue.bench.reports.report import BenchReport, make_report
from segue.bench.reports.report import arm as make_arm
from segue.bench.table import QUICK_ROUNDS, ROUNDS
from segue.bench.workloads.sessions import make_session
from segue.bench.workloads.workload import ConversationWorkload, TaskWorkload, Workload
from segue.cli import bench_table
from segue.testing.recorded_session import RecordedSession
from tests.cli.conftest import Command


@pytest.mark.parametrize("tunnelled", [False, pytest.param(True, marks=pytest.mark.deep)])
def test_the_command_writes_a_report(
    tunnelled: bool, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For real: with a sidecar and a gateway in processes of their own, or straight to a provider."""
    if not tunnelled:
        monkeypatch.setattr(bench_table, "sidecar_path", straight_path)
        monkeypatch.setattr(bench_table, "warmed", lambda _: straight_path)
    status, printed, told = command(
        "bench", "table", "--session", "openai-agents", "--turns", "2", "--quick", "--json", "table.json"
    )
    assert (status, told) == (0, "")
    report = json.loads((tmp_path / "table.json").read_bytes())
    computed = ["raw", "gzip", "zstd", "permessage-deflate"]
    assert [one["name"] for one in report["arms"]] == [*computed, "sidecar cold", "sidecar warm"]
    assert report["settings"]["turns"] == 2
    costs = [one["server_cpu_s"] for arm in report["arms"][4:] for one in arm["turns"]]
    assert all(cost > 0 for cost in costs) if tunnelled else costs == [None] * 4
    assert "document of 3 KB of news, the largest" in {one["name"] for one in report["figures"]}
    assert "openai-agents, 2 turns" in printed


@pytest.mark.parametrize(
    "options",
    [
        ["--session", "pi", "--turns", "0"],
        ["--trace", "missing.jsonl"],
        ["--workload", "none"],
        ["--arms", "none"],
        ["--link", "none"],
        ["--tokens-s", "0"],
        ["--tokens-s", "nan"],
        ["--rounds", "0"],
    ],
)
def test_the_command_says_what_is_wrong(options: list[str], command: Command) -> None:
    status, printed, told = command("bench", "table", *options)
    assert (status, printed) == (2, "")
    assert told.startswith("segue: ")


class MeasuredWorkload:
    """Stands in for measuring a workload, and keeps what it was told to measure."""

    def __init__(self, *, different: bool = False) -> None:
        self.asked: list[object] = []
        self._different = different

    async def measure(
        self,
        workloads: Sequence[Workload],
        arms: Sequence[MeasuredArm],
        plan: MeasurementPlan,
        *,
        rounds: int,
        console: Console,
    ) -> BenchReport:
        self.asked = [*workloads, [arm.name for arm in arms], plan, rounds]
        if self._different:
            raise DifferentWorkError("turn 1 differs")
        settings = {"workloads": [one.name for one in workloads], "link": None, "tokens_s": None, "tls": plan.tls}
        return make_report([make_arm(arm.name, []) for arm in arms], settings)


def test_a_workload_is_measured_as_the_options_say(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured = MeasuredWorkload()
    monkeypatch.setattr(workload_table, "measure", measured.measure)
    assert command("bench", "table")[0] == 0
    assert measured.asked == [ConversationWorkload("article"), list(ARMS), MeasurementPlan(), 5]
    options = ["--workload", "fix-a-failing-test", "--arms", "http id", "--arms", "http replay", "--link", "fibre"]
    options += ["--tokens-s", "65", "--no-tls", "--quick", "--json", "arms.json"]
    status, _, told = command("bench", "table", *options)
    assert (status, told) == (0, "")
    plan = MeasurementPlan(link=LINKS["fibre"], tokens_s=65.0, tls=False)
    assert measured.asked == [TaskWorkload("fix-a-failing-test"), ["http id", "http replay"], plan, 1]
    assert [one["name"] for one in json.loads((tmp_path / "arms.json").read_bytes())["arms"]] == options[3:6:2]
    several = ["--workload", "loop-12", "--workload", "conversation:5"]
    assert command("bench", "table", "--quick", "--rounds", "2", *several)[0] == 0
    assert measured.asked[:2] == [ConversationWorkload("loop-12"), ConversationWorkload("conversation:5")]
    assert measured.asked[-1] == 2


def test_arms_that_did_other_work_give_no_figures(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_table, "measure", MeasuredWorkload(different=True).measure)
    assert command("bench", "table") == (1, "", "segue: the arms cannot be compared: turn 1 differs\n")


def test_without_what_tls_needs_the_command_says_so(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_table, "measure", MeasuredWorkload().measure)
    monkeypatch.setattr(bench_table, "why_no_tls", lambda: "there is none")
    assert command("bench", "table") == (2, "", "segue: there is none; or give --no-tls\n")
    assert command("bench", "table", "--no-tls")[0] == 0


def test_without_what_http2_needs_the_command_says_so(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_table, "measure", MeasuredWorkload().measure)
    monkeypatch.setattr(bench_table, "why_no_http2", lambda: "there is none")
    assert command("bench", "table") == (2, "", "segue: there is none; or name other --arms\n")
    assert command("bench", "table", "--arms", "http id")[0] == 0


@pytest.mark.deep
@pytest.mark.parametrize("workload", ["article", "mend-a-failing-build"])
def test_every_arm_for_real(workload: str, command: Command, tmp_path: Path) -> None:
    status, _, told = command("bench", "table", "--workload", workload, "--quick", "--json", "arms.json")
    assert (status, told) == (0, "")
    report = json.loads((tmp_path / "arms.json").read_bytes())
    assert {one["status"] for one in report["arms"]} == {"completed"}
    assert [one["name"] for one in report["arms"]] == [*ARMS, "gzip", "zstd", "permessage-deflate"]


class Measured:
    """Stands in for the measurement, and keeps what it was told to measure."""

    def __init__(self) -> None:
        self.session: RecordedSession | None = None
        self.earlier: RecordedSession | None = None
        self.paths: list[str] = []
        self.rounds = 0

    def warmed(self, earlier: RecordedSession) -> OpenPath:
        self.earlier = earlier
        return straight_path

    async def measure(
        self, session: RecordedSession, paths: Mapping[str, OpenPath], *, rounds: int, console: Console
    ) -> BenchReport:
        self.session, self.paths, self.rounds = session, list(paths), rounds
        return make_report([], {"session": session.kind, "turns": len(session.turns)})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    made = Measured()
    monkeypatch.setattr(bench_table, "measure", made.measure)
    monkeypatch.setattr(bench_table, "warmed", made.warmed)
    monkeypatch.setattr(bench_table, "measure_documents", lambda _: [])
    monkeypatch.setattr(bench_table, "render", lambda report, console: console.print(report.settings))
    return made


def test_a_generated_session_is_warmed_by_another_task_of_the_same_agent(command: Command, measured: Measured) -> None:
    status, _, _ = command("bench", "table", "--session", "pi", "--turns", "3")
    assert (status, measured.rounds, measured.paths) == (0, ROUNDS, ["raw", "sidecar cold", "sidecar warm"])
    assert measured.session == make_session("pi", turns=3)
    assert measured.earlier == make_session("pi", turns=3, task=1)


def test_a_recorded_session_is_warmed_by_its_own_first_request(
    command: Command, measured: Measured, tmp_path: Path
) -> None:
    bodies = [{"model": "m", "stream": True, "messages": [{"role": "user", "content": text}]} for text in ("a", "b")]
    at = {"dir": "client->server", "transport": "http", "method": "POST", "path": "/v1/messages", "headers": []}
    lines = [json.dumps({**at, "seq": number, "body": json.dumps(body)}) for number, body in enumerate(bodies)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    status, _, _ = command("bench", "table", "--trace", "mine.jsonl", "--quick")
    assert (status, measured.rounds) == (0, QUICK_ROUNDS)
    assert measured.session is not None
    assert measured.earlier is not None
    assert [turn.body for turn in measured.session.turns] == [json.dumps(body).encode() for body in bodies]
    assert measured.earlier.turns == measured.session.turns[:1]

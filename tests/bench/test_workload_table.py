"""All arms do the same work in turns, and what they did is shown in 80 columns."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from segue.bench import workload_table
from segue.bench.arms.measurement import DifferentWorkError, MeasurementPlan, TaskRound
from segue.bench.arms.table import ARMS, REPLAY, SOCKET_REPLAY, MeasuredArm
from segue.bench.links.profiles import LINKS
from segue.bench.meters.turn_meter import RecordedExchange, TurnUsage
from segue.bench.reports.report import BenchReport, RoundFigures, TurnFigures
from segue.bench.reports.report import arm as make_arm
from segue.bench.workload_table import arms_named, measure, render
from segue.bench.workloads.workload import ConversationWorkload, TaskWorkload, Workload
from tests.bench.arms.processes import end_here, model_here
from tests.terminals import terminal_of

WORKLOAD = ConversationWorkload("conversation:2")
ALL = list(ARMS.values())
CREATE = b'{"model":"m","input":[{"role":"user","content":"Hello, hello, hello, hello, hello, hello, hello."}]}'


class Rounds:
    """Stands in for measuring: notes who was measured, and takes a second more for each."""

    def __init__(self, *, failing: str = "", different: str = "") -> None:
        self.order: list[str] = []
        self.kept: list[str] = []
        self._failing = failing
        self._different = different

    async def __call__(
        self, arm: MeasuredArm, workload: Workload, plan: MeasurementPlan, *, keep: bool = False
    ) -> TaskRound:
        self.order.append(arm.name)
        self.kept += [arm.name] * keep
        failed = arm.name == self._failing
        sent = 1000 if arm.history == "replay" else 250
        read = plan.link is None
        turn = TurnFigures(
            bytes_up_payload=sent,
            bytes_repeated=sent // 2,
            bytes_settings_repeated=sent // 4,
            bytes_up_wire=1_234_000 if arm.name == REPLAY else 34_000,
            bytes_down_wire=4_567_000,
            ttft_s=0.012,
            time_s=1.0,
            server_cpu_s=0.0123 if read else None,
            bytes_parsed=sent if read else None,
            memory_bytes=1_234_567 if read else None,
            state_bytes=45_678 if read else None,
            tokens_processed=123_456,
            tokens_reused=45_678,
        )
        figures = RoundFigures(
            task_s=float(len(self.order)),
            turns_s=2.0,
            ttft_first_s=0.5,
            ttft_median_s=0.012,
            set_up_s=0.0456,
            set_up_up_bytes=591,
        )
        return TaskRound(
            turns=[turn] if failed else [turn, turn],
            figures=figures,
            usages=[TurnUsage(10, 9 if arm.name == self._different else 8)] * 2,
            failed_turn=2 if failed else None,
            problem="the [connection] broke" if failed else None,
            recorded=[RecordedExchange(CREATE, (b'{"type":"response.completed"}',))] * 2 if keep else [],
        )


async def report_of(
    monkeypatch: pytest.MonkeyPatch,
    rounds: Rounds,
    arms: Sequence[MeasuredArm] = ALL,
    *,
    count: int = 1,
    plan: MeasurementPlan | None = None,
) -> BenchReport:
    monkeypatch.setattr(workload_table, "measure_round", rounds)
    return await measure([WORKLOAD], arms, plan or MeasurementPlan(), rounds=count)


def shown(report: BenchReport) -> str:
    file = io.StringIO()
    render(report, terminal_of(file=file, width=80))
    return file.getvalue()


async def test_the_arms_take_turns_in_another_order_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds()
    report = await report_of(monkeypatch, rounds, ALL[:3], count=3)
    a, b, c = (arm.name for arm in ALL[:3])
    assert rounds.order == [a, b, c, a, c, b, c, a, b]
    assert rounds.kept == [REPLAY, SOCKET_REPLAY]
    assert [len(arm.rounds) for arm in report.arms[:3]] == [3, 3, 3]
    assert [arm.name for arm in report.arms[3:]] == ["gzip", "zstd", "permessage-deflate"]
    assert report.settings["rounds"] == 3
    assert len(report.settings["sources"]) == 2
    assert {figure.name: figure.value for figure in report.figures} == {
        "payload saved, http id": 75.0,
        "payload saved, 2 equal turns: 1 - 2/(N+1)": pytest.approx(100 / 3),
    }


@pytest.mark.parametrize("link", [None, "slow-4g"])
async def test_everything_fits_into_80_columns(link: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = MeasurementPlan(link=None if link is None else LINKS[link], tokens_s=65.0, tls=False)
    text = shown(await report_of(monkeypatch, Rounds(), count=2, plan=plan))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert "65 tokens/s; no TLS" in text
    for arm in [*ARMS, "gzip", "zstd", "permessage-deflate"]:
        assert arm in text
    assert " 2,468  " in text
    assert "97.2 %" in text
    assert ("CPU ms" in text) == (link is None)
    assert ("over slow-4g" in text) == (link is not None)


async def test_a_long_session_fits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """84 turns send 21 MB by replay."""
    report = await report_of(monkeypatch, Rounds())
    turn = TurnFigures(
        **dict.fromkeys(("bytes_up_payload", "bytes_repeated", "bytes_up_wire", "bytes_down_wire"), 10_490_000),
        **dict.fromkeys(("bytes_parsed", "memory_bytes", "state_bytes"), 10_490_000),
        **dict.fromkeys(("tokens_processed", "tokens_reused"), 2_620_000),
        bytes_settings_repeated=442_950,
        server_cpu_s=0.0312,
    )
    long = [make_arm(arm.name, [turn, turn], rounds=arm.rounds) for arm in report.arms]
    text = shown(replace(report, arms=[replace(arm, workload=WORKLOAD.name) for arm in long]))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert "20,980" in text
    assert "885.9" in text
    assert "5,240k" in text


async def test_an_arm_that_fails_is_told_and_nothing_is_computed_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await report_of(monkeypatch, Rounds(failing=REPLAY))
    assert [arm.name for arm in report.arms if arm.basis == "computed"] == ["permessage-deflate"]
    assert report.figures == []
    assert "http replay failed at turn 2: the [connection] broke" in shown(report)


async def test_arms_that_did_other_work_are_an_error_and_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DifferentWorkError):
        await report_of(monkeypatch, Rounds(different="http id"))


async def test_without_the_arm_to_compare_with_nothing_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await report_of(monkeypatch, Rounds(), arms_named(["http id"]))
    assert [arm.name for arm in report.arms] == ["http id"]
    assert report.figures == []
    assert " %" not in shown(report)


async def test_a_task_has_no_published_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_table, "measure_round", Rounds())
    report = await measure([TaskWorkload("fix-a-failing-test")], ALL[:1], MeasurementPlan(), rounds=1)
    assert report.settings["sources"] == []


async def test_several_workloads_are_measured_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds()
    monkeypatch.setattr(workload_table, "measure_round", rounds)
    several = [ConversationWorkload("article"), ConversationWorkload("loop-12")]
    report = await measure(several, ALL[:2], MeasurementPlan(), rounds=1, console=terminal_of(file=io.StringIO()))
    assert rounds.order == [REPLAY, "http id"] * 2
    assert [arm.workload for arm in report.arms] == ["article"] * 4 + ["loop-12"] * 4
    assert [one.name for one in report.figures[2:]] == [
        "loop-12: payload saved, http id",
        "loop-12: payload saved, 2 equal turns: 1 - 2/(N+1)",
    ]
    text = shown(report)
    assert text.index("article, 2 turns") < text.index("loop-12, 2 turns")


def test_arms_are_chosen_by_name() -> None:
    assert arms_named([]) == ALL
    assert [arm.name for arm in arms_named(["http id", REPLAY])] == ["http id", REPLAY]


async def test_three_arms_for_real() -> None:
    """The smoke of the whole: in this process, and without waiting for the tunnel to be silent."""
    plan = replace(MeasurementPlan(), start_server=model_here, start_end=end_here)
    report = await measure([WORKLOAD], arms_named([REPLAY, SOCKET_REPLAY, "websocket id, not stored"]), plan, rounds=1)
    assert [arm.status for arm in report.arms] == ["completed"] * 6
    up = {arm.name: arm.totals.bytes_up_wire or 0 for arm in report.arms}
    assert up["websocket id, not stored"] < up[REPLAY]
    assert up["permessage-deflate"] < up["zstd"] < 0.6 * up[REPLAY]
    assert max(len(line.rstrip()) for line in shown(report).splitlines()) <= 80

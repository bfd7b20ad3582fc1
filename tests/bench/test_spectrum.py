"""Each way to keep a conversation is measured or cited, and how long an id lasts is tried out."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from segue.bench import spectrum
from segue.bench.arms.measurement import DifferentWorkError, MeasurementPlan
from segue.bench.links.profiles import LINKS
from segue.bench.reports.report import BenchReport
from segue.bench.reports.result_file import read_results
from segue.bench.spectrum import LOCAL, ROWS, local_figures, measure, measured_arms, render, try_lifetimes
from segue.bench.workloads.workload import ConversationWorkload
from tests.bench.arms.processes import launched_here
from tests.bench.test_workload_table import Rounds
from tests.terminals import terminal_of

WORKLOAD = ConversationWorkload("conversation:2")
ENGINE = Path(__file__).parents[2] / "docs" / "results" / "engine-smollm2.json"


async def test_how_long_an_id_lasts_is_tried_out() -> None:
    assert await try_lifetimes(launched_here) == {
        "http id": "store",
        "websocket id, not stored": "connection",
        "websocket id, stored": "store",
        "message threads": "process",
    }


async def report_of(
    monkeypatch: pytest.MonkeyPatch, rounds: Rounds, *, engine: BenchReport | None = None
) -> BenchReport:
    monkeypatch.setattr(spectrum, "measure_round", rounds)
    plan = MeasurementPlan(link=LINKS["fibre"])
    return await measure(WORKLOAD, plan, rounds=2, engine=engine, start_probed=launched_here)


async def test_every_row_is_measured_or_says_where_it_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds()
    report = await report_of(monkeypatch, rounds, engine=read_results(ENGINE))
    names = [arm.name for arm in measured_arms()]
    assert rounds.order == [*names, *reversed(names)]
    assert [arm.name for arm in report.arms] == names
    assert report.settings["lasts"] == {
        "http id": "store",
        "websocket id, not stored": "connection",
        "websocket id, stored": "store",
        "message threads": "process",
    }
    for row in ROWS:
        assert row.arm in names or row.name == LOCAL or (row.source or "").startswith("https://")
        assert row.lasts is not None or row.arm in report.settings["lasts"]
    assert next(one.name for one in report.figures) == f"{LOCAL}: first token at 7,900 tokens, whole conversation"


async def test_arms_that_differ_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DifferentWorkError):
        await report_of(monkeypatch, Rounds(different="http id"))


def shown(report: BenchReport) -> str:
    file = io.StringIO()
    render(report, terminal_of(file=file, width=80))
    table = [line for line in file.getvalue().splitlines() if not line.startswith("[")]
    assert max(map(len, table)) <= 80
    return file.getvalue()


async def test_a_narrow_screen_shows_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(await report_of(monkeypatch, Rounds(), engine=read_results(ENGINE)))
    assert "conversation:2, 2 turns over fibre" in text
    assert "1,234.0" in text
    assert "survives a" in text
    assert "until the" in text
    assert "[2] A later turn sends new steps, instructions and tools.\nhttps://ai.google.dev/" in text
    assert "first token at 7,900 tokens, continued" in " ".join(text.split())


async def test_an_arm_that_failed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(await report_of(monkeypatch, Rounds(failing="sidecar cold")))
    assert "sidecar cold failed at turn 2: the [connection] broke" in text


def test_the_engine_is_read_at_its_longest_context() -> None:
    whole, continued, restored = (one.value or 0 for one in local_figures(read_results(ENGINE)))
    assert whole > 10 * continued
    assert whole > restored >= continued

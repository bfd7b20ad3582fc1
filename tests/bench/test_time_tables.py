"""Task times fit into 80 columns, and what failed, what is computed and what is saved is told."""

from __future__ import annotations

import io

import pytest
from msgspec.structs import replace

from segue.bench.links.profiles import LINKS
from segue.bench.reports.report import Arm, BenchReport, RoundFigures, TurnFigures, arm, figure, make_report
from segue.bench.time_grid import AGREEMENT, MAIN_ARMS, MAIN_LINKS
from segue.bench.time_tables import render
from tests.terminals import terminal_of

SPEEDS = (65.0, 1000.0)


def timed(name: str, link: str, tokens_s: float, workload: str = "article", *, task_s: float = 38.25) -> Arm:
    rounds = [RoundFigures(task_s=task_s * part, ttft_first_s=task_s * part / 20) for part in (0.9, 1.0, 1.2)]
    made = arm(name, [TurnFigures(time_s=1.0)] * 10, rounds=rounds)
    basis = "measured" if link in MAIN_LINKS and workload == "article" else "computed"
    return replace(made, workload=workload, link=link, tokens_s=tokens_s, basis=basis)


def report_of(arms: list[Arm]) -> BenchReport:
    return make_report(arms, {"workloads": ["article"], "tls": True}, [figure(AGREEMENT, [0.91, 0.98, 0.99], "x")])


def shown(report: BenchReport) -> str:
    file = io.StringIO()
    render(report, terminal_of(file=file, width=80))
    return file.getvalue()


@pytest.fixture(scope="module")
def text() -> str:
    arms = [
        timed(name, link, tokens_s, workload, task_s=task_s / (1 + number))
        for workload, task_s in (("article", 2345.6), ("conversation:84", 48_300.0))
        for tokens_s in SPEEDS
        for link in LINKS
        for number, name in enumerate(MAIN_ARMS)
    ]
    return shown(report_of(arms))


def test_everything_fits_into_80_columns(text: str) -> None:
    lines = text.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "…" not in text
    assert [line for line in lines if "10 turns" in line] == [
        "article, 10 turns, TLS: task, s",
        "article, 10 turns, TLS: first token, s",
        "conversation:84, 10 turns, TLS: task, s",
    ]


def test_a_row_has_the_times_of_a_link_and_what_was_saved(text: str) -> None:
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "geo-in-flight-bad* 65 2,346 1,173 -50% 781.9 -67% 586.4 -75%" in rows
    assert "fibre 1,000 2,346 1,173 -50% 781.9 -67% 586.4 -75%" in rows
    assert "2g* 1,000 48,300 24,150 -50% 16,100 -67% 12,075 -75%" in rows
    assert "fibre 1,000 117.3 58.6 39.1 29.3" in rows
    assert f"{AGREEMENT}: 0.98 (0.91 to 0.99)" in rows


def test_what_failed_says_where_and_is_not_compared_with() -> None:
    dead = replace(timed("http replay", "fibre", 65.0), status="failed", failed_turn=3, problem="no [answer] came")
    slower = timed("http id", "fibre", 65.0, task_s=5.0)
    alone = replace(timed("http id", "fibre", 65.0, "loop-12"), link=None, status="failed", failed_turn=1, problem="x")
    text = shown(report_of([dead, slower, alone, timed("http id", "2g", 65.0)]))
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "fibre 65 failed: 3 5.00" in rows
    assert "2g* 65 38.2" in rows
    assert "fibre 65 0.25" in rows
    assert "http replay, article, fibre, 65 tokens/s failed at turn 3: no [answer] came" in rows
    assert "http id, loop-12, 65 tokens/s failed at turn 1: x" in rows
    assert "loop-12, 10 turns" not in text


def test_a_report_of_nothing_is_only_explained() -> None:
    assert shown(make_report([], {"workloads": [], "tls": False})).startswith("Medians of the rounds")

"""What a measurement of several gateways says, and one that is run."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from segue.bench.cluster import (
    CHECKED,
    FITTED,
    PACES,
    ClusterBench,
    ClusterReading,
    LoadWindow,
    check_figures,
    costs_of,
    measure_cluster,
    measured_figures,
    paced_figures,
    pooled,
    turn_costs,
    verdicts_of,
    worker_label,
)
from segue.bench.cluster_plan import ClusterPlan
from segue.bench.meters.turn_load import LoadResult
from segue.bench.reports.report import make_report
from tests.stores.live.redis_servers import PROGRAM

NOTHING = ClusterReading(0.0, 0.0, 0.0, 0, 0, 0, 0)


def window(turns: int, cpu_s: float, *, seconds: float = 2.0) -> LoadWindow:
    load = LoadResult(turns=turns, seconds=seconds, latencies_s=[0.01] * turns, sent_bytes=5000 * turns)
    after = ClusterReading(cpu_s, cpu_s / 2, cpu_s / 4, 8000 * turns, 9000 * turns, turns // 4, 6)
    return LoadWindow(load, NOTHING, after)


IDLE = LoadWindow(
    LoadResult(turns=0, seconds=2.0, latencies_s=[], sent_bytes=0), NOTHING, replace(NOTHING, gateway_cpu_s=0.1)
)


def test_what_is_used_without_turns_is_no_cost_of_turns() -> None:
    costs = turn_costs([window(100, 0.3), window(200, 0.5), window(400, 0.9)], IDLE)
    assert [costs.gateway_cpu_ms.at(rate) for rate in (50, 100, 200)] == pytest.approx([2.0, 2.0, 2.0], rel=0.01)
    assert costs.idle_gateway_cores == pytest.approx(0.05)
    assert (costs.database_bytes, costs.sent_bytes, costs.fullest_turns_s) == pytest.approx((8000, 5000, 200))
    assert costs.commits.at(100) == pytest.approx(0.25)


def test_windows_are_pooled_as_one() -> None:
    both = pooled([window(100, 0.2), window(300, 0.4, seconds=3.0)])
    assert (both.load.turns, both.load.seconds, both.turns_s) == (400, 5.0, 80)
    assert both.per_turn("gateway_cpu_s") == pytest.approx(0.6 / 400)
    assert (both.per_turn("commits"), both.after.connections) == (0.25, 6)
    assert len(both.load.latencies_s) == 400


def test_each_pace_tells_what_a_turn_takes() -> None:
    figures = {figure.name: figure.value for figure in paced_figures({"light": window(100, 0.2)})}
    assert figures["light, turns"] == 50
    assert figures["light, gateway CPU per turn"] == pytest.approx(2.0)
    assert figures["light, PostgreSQL commits per turn"] == 0.25
    assert set(FITTED) < PACES.keys()
    assert CHECKED in PACES.keys() - set(FITTED), "a prediction is of what did not make it"


def test_workers_are_compared_round_by_round() -> None:
    windows = {
        "1 worker": [window(100, 0.2), window(100, 0.3)],
        "2 workers": [window(190, 0.4), window(210, 0.6)],
        "SQLite": [window(100, 0.1), window(100, 0.3)],
    }
    figures = {figure.name: figure for figure in measured_figures(windows)}
    assert figures["turns: 2 workers / 1 worker"].value == pytest.approx(2.0)
    assert figures["turns: 2 workers / 1 worker"].low == pytest.approx(1.9)
    assert figures["turns: 2 workers / 1 worker, round 2"].value == pytest.approx(2.1)
    assert figures["gateway CPU used: 1 worker"].high == pytest.approx(0.15)
    assert figures["turns per CPU second: 2 workers / 1 worker"].value == pytest.approx((0.95 + 1.05) / 2)
    assert figures["gateway CPU per turn: PostgreSQL / SQLite"].value == pytest.approx(1.5)
    assert figures["gateway CPU per turn: PostgreSQL / SQLite"].met


def test_a_prediction_stands_beside_what_was_measured() -> None:
    costs = turn_costs([window(100, 0.3), window(200, 0.5)], IDLE)
    figures = check_figures("2 workers", costs, window(200, 0.5), workers=2, turns_s=100.0)
    by_name = {figure.name.removeprefix("check, 2 workers, "): figure for figure in figures}
    assert by_name["turns: predicted"].value == by_name["turns: measured"].value == 100
    assert by_name["gateway CPU: predicted"].value == pytest.approx(2 * 0.05 + 100 * 0.002)
    assert by_name["gateway CPU: measured"].value == pytest.approx(0.25)
    assert by_name["gateway CPU: off by"].value == pytest.approx(20)
    assert by_name["gateway CPU: off by"].met is False
    assert by_name["turns: off by"].met is True
    assert by_name["Redis CPU: off by"].met is None
    assert by_name["PostgreSQL size: predicted"].value == pytest.approx(800)
    assert by_name["connections of PostgreSQL"].value == 6


def test_a_report_says_whether_its_predictions_agree() -> None:
    costs = turn_costs([window(100, 0.3), window(200, 0.5)], IDLE)
    right = check_figures("1 worker", costs, window(200, 0.5), workers=1, turns_s=100.0)
    wrong = check_figures("2 workers", costs, window(200, 0.5), workers=2, turns_s=50.0)
    one, two = verdicts_of(make_report([], {}, [*right, *wrong]))
    assert (one.load, one.agrees, round(one.off_by)) == ("1 worker", True, 0)
    assert (two.load, two.agrees, round(two.off_by)) == ("2 workers", False, 50)
    assert verdicts_of(make_report([], {})) == []


def test_costs_are_found_in_an_earlier_report() -> None:
    costs = turn_costs([window(100, 0.3)], IDLE)
    assert costs_of(make_report([], {"costs": msgspec.to_builtins(costs)})) == costs
    assert costs_of(make_report([], {})) is None
    assert [worker_label(count) for count in (1, 3)] == ["1 worker", "3 workers"]


@pytest.mark.deep  # it starts five servers; what it computes is tested above
@pytest.mark.postgres
@pytest.mark.skipif(PROGRAM is None, reason="no redis-server")
async def test_several_gateways_are_measured() -> None:
    chosen = ClusterBench(rounds=1, seconds=0.5, sessions=160, plan=ClusterPlan(sessions=1000))
    steps = list[str]()
    report = await measure_cluster(chosen, steps.append)
    figures = {figure.name: figure.value or 0 for figure in report.figures}
    assert steps[:4] == [
        "starts PostgreSQL, Redis and the gateways",
        "round 1 of 1: 1 worker",
        "round 1 of 1: 2 workers",
        "round 1 of 1: SQLite",
    ]
    paces = [step.partition(":")[0] for step in steps[4:-1]]
    assert paces == ["light", "a quarter", "half", "full", "full", "half", "a quarter", "light"]
    assert steps[-1] == "checks the prediction with 2 workers"
    for name in ("turns: 1 worker", "turns: 2 workers", "turns: SQLite", "gateway CPU per turn: 2 workers"):
        assert figures[name] > 0
    assert 0 < figures["PostgreSQL bytes per byte of a turn"] < 10
    assert figures["check, 1 worker, turns: measured"] > 0
    assert figures["check, 2 workers, gateway CPU: measured"] > 0
    assert [one.load for one in verdicts_of(report)] == ["1 worker", "2 workers"]
    assert figures["plan: gateways: workers at 60 % of a core"] >= 1
    assert costs_of(report) is not None

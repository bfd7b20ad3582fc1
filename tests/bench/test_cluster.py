"""What a measurement of several gateways says, and one that is run."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from segue.bench.cluster import (
    ClusterBench,
    ClusterReading,
    LoadWindow,
    check_figures,
    costs_of,
    measure_cluster,
    measured_figures,
    turn_costs,
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
    costs = turn_costs([window(100, 0.3), window(300, 0.7)], IDLE)
    assert costs.gateway_cpu_ms == pytest.approx(1e3 * (1.0 - 0.2) / 400)
    assert costs.idle_gateway_cores == pytest.approx(0.05)
    assert (costs.database_bytes, costs.sent_bytes, costs.commits) == pytest.approx((8000, 5000, 0.25))


def test_workers_are_compared_round_by_round() -> None:
    windows = {
        "1 worker": [window(100, 0.2), window(100, 0.3)],
        "2 workers": [window(190, 0.4), window(210, 0.6)],
        "SQLite": [window(100, 0.1), window(100, 0.3)],
    }
    figures = {figure.name: figure for figure in measured_figures(windows)}
    assert figures["turns: 2 workers / 1 worker"].value == pytest.approx(2.0)
    assert figures["turns: 2 workers / 1 worker"].low == pytest.approx(1.9)
    assert figures["gateway CPU used: 1 worker"].high == pytest.approx(0.15)
    assert figures["turns per CPU second: 2 workers / 1 worker"].value == pytest.approx((0.95 + 1.05) / 2)
    assert figures["gateway CPU per turn: PostgreSQL / SQLite"].value == pytest.approx(1.5)
    assert figures["gateway CPU per turn: PostgreSQL / SQLite"].met


def test_a_prediction_stands_beside_what_was_measured() -> None:
    chosen = ClusterBench(sessions=1000, turn_every_s=10.0)
    costs = turn_costs([window(100, 0.3)], IDLE)
    figures = {figure.name: figure.value for figure in check_figures(chosen, costs, window(200, 0.5))}
    assert figures["check, turns: predicted"] == 100
    assert figures["check, turns: measured"] == 100
    assert figures["check, gateway CPU: predicted"] == pytest.approx(2 * 0.05 + 100 * 0.002)
    assert figures["check, gateway CPU: measured"] == pytest.approx(0.25)
    assert figures["check, PostgreSQL size: predicted"] == pytest.approx(800)
    assert figures["check, connections of PostgreSQL"] == 6


def test_costs_are_found_in_an_earlier_report() -> None:
    costs = turn_costs([window(100, 0.3)], IDLE)
    assert (
        costs_of(make_report([], {"costs": {name: getattr(costs, name) for name in costs.__struct_fields__}})) == costs
    )
    assert costs_of(make_report([], {})) is None
    assert [worker_label(count) for count in (1, 3)] == ["1 worker", "3 workers"]


@pytest.mark.deep  # it starts five servers; what it computes is tested above
@pytest.mark.postgres
@pytest.mark.skipif(PROGRAM is None, reason="no redis-server")
async def test_several_gateways_are_measured() -> None:
    chosen = ClusterBench(rounds=1, seconds=1.0, sessions=160, turn_every_s=2.0, plan=ClusterPlan(sessions=1000))
    steps = list[str]()
    report = await measure_cluster(chosen, steps.append)
    figures = {figure.name: figure.value or 0 for figure in report.figures}
    assert steps == [
        "starts PostgreSQL, Redis and the gateways",
        "round 1 of 1: 1 worker",
        "round 1 of 1: 2 workers",
        "round 1 of 1: SQLite",
        "checks the prediction",
    ]
    for name in ("turns: 1 worker", "turns: 2 workers", "turns: SQLite", "gateway CPU per turn: 2 workers"):
        assert figures[name] > 0
    assert 0 < figures["PostgreSQL bytes per byte of a turn"] < 10
    assert figures["check, turns: measured"] > 0
    assert figures["plan: gateways: workers at 60 % of a core"] >= 1
    assert costs_of(report) is not None

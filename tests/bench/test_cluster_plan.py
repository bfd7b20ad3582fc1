"""What a number of sessions needs: rates times the costs at those rates."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from segue.bench.cluster_plan import (
    ClusterPlan,
    TurnCosts,
    off_by,
    plan_figures,
    predicted,
    problem_of,
    rate_at_load,
    turns_per_second,
    workers_for,
)
from segue.bench.cost_curve import CostCurve

COSTS = TurnCosts(
    gateway_cpu_ms=CostCurve(turn=1.0, wake=3.0, window_s=0.02),
    database_cpu_ms=CostCurve(turn=0.5, wake=1.0, window_s=0.01),
    redis_cpu_ms=CostCurve(turn=0.25),
    commits=CostCurve(turn=0.0, wake=1.0, window_s=0.01),
    database_bytes=8000,
    log_bytes=10_000,
    sent_bytes=5000,
    fullest_turns_s=500,
    idle_gateway_cores=0.1,
    idle_redis_cores=0.01,
)
PLAN = ClusterPlan(sessions=3000, turn_every_s=30, keep_days=10, cores=2, load=0.6, connections=8)


def test_everything_is_a_rate_times_the_cost_at_that_rate() -> None:
    figures = {figure.name.removeprefix("plan: "): figure.value for figure in plan_figures(PLAN, COSTS)}
    assert figures == pytest.approx(
        {
            "turns": 100,
            "gateways: CPU": 0.1 + 0.1 * 2.0,
            "gateways: CPU per turn at that load": 1.0 + 3.0 / (1 + 100 * 0.02),
            "gateways: workers at 60 % of a core": 1,
            "gateways: nodes of 2 cores": 1,
            "sessions per worker": 3000,
            "turns per worker": 100,
            "PostgreSQL: CPU": 0.1 * (0.5 + 1.0 / 2),
            "PostgreSQL: connections, at most": 8,
            "PostgreSQL: commits": 100 / 2,
            "PostgreSQL: rows written": 100,
            "PostgreSQL: log written": 1.0,
            "PostgreSQL: size after 10 days": 100 * 864_000 * 8000 / 1e12,
            "Redis: CPU": 0.01 + 0.025,
        }
    )


def test_a_worker_has_the_turns_that_make_it_as_busy_as_planned() -> None:
    rate = rate_at_load(PLAN, COSTS)
    assert COSTS.worker_cores(rate) == pytest.approx(PLAN.load)
    assert rate_at_load(replace(PLAN, load=0.9), COSTS) > rate
    assert rate_at_load(replace(PLAN, load=0.05), COSTS) == pytest.approx(0.001), "it is busier than that when idle"


def test_ten_times_the_sessions_take_ten_times_the_workers() -> None:
    large = replace(PLAN, sessions=1_000_000)
    assert turns_per_second(large) == pytest.approx(33_333.3, abs=0.1)
    workers = workers_for(large, COSTS)
    assert workers == pytest.approx(33_333.3 / rate_at_load(large, COSTS), abs=1)
    assert workers_for(replace(large, sessions=10_000_000), COSTS) == pytest.approx(10 * workers, abs=10)


def test_of_rates_that_were_not_measured_no_lower_cost_is_assumed() -> None:
    assert COSTS.at(COSTS.gateway_cpu_ms, 5000) == COSTS.gateway_cpu_ms.at(500)
    assert COSTS.worker_cores(5000) == pytest.approx(0.1 + 5 * COSTS.gateway_cpu_ms.at(500))


def test_a_prediction_is_for_the_workers_that_share_the_turns() -> None:
    said = predicted(COSTS, workers=2, sessions=2000, turn_every_s=20)
    assert (said.turns_s, said.redis_cores) == pytest.approx((100, 0.045))
    assert said.gateway_cores == pytest.approx(2 * 0.1 + 0.1 * COSTS.gateway_cpu_ms.at(50))
    assert said.database_cores == pytest.approx(0.1 * COSTS.database_cpu_ms.at(50))
    assert said.database_bytes_s == 800_000


@pytest.mark.parametrize(("said", "measured", "off"), [(9, 10, 0.1), (11, 10, 0.1), (0, 0, 0), (1, 0, 1)])
def test_a_prediction_is_off_by_a_part_of_what_was_measured(said: float, measured: float, off: float) -> None:
    assert off_by(said, measured) == pytest.approx(off)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"sessions": 0}, "--sessions must be more than 0"),
        ({"turn_every_s": -1.0}, "--turn-every must be more than 0"),
        ({"load": 1.5}, "--load is a part of a core: at most 1"),
        ({}, None),
    ],
)
def test_a_plan_that_cannot_be_is_told(changed: dict[str, float], problem: str | None) -> None:
    assert problem_of(replace(PLAN, **changed)) == problem

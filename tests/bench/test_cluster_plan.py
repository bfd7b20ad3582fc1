"""What a number of sessions needs: rates times costs."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from segue.bench.cluster_plan import (
    ClusterPlan,
    TurnCosts,
    plan_figures,
    predicted,
    problem_of,
    turns_per_second,
    workers_for,
)

COSTS = TurnCosts(
    gateway_cpu_ms=2.0,
    database_cpu_ms=0.5,
    redis_cpu_ms=0.25,
    database_bytes=8000,
    log_bytes=10_000,
    commits=0.25,
    sent_bytes=5000,
    idle_gateway_cores=0.1,
    idle_redis_cores=0.01,
)
PLAN = ClusterPlan(sessions=3000, turn_every_s=30, keep_days=10, cores=2, load=0.6, connections=8)


def test_everything_is_a_rate_times_a_cost() -> None:
    figures = {figure.name.removeprefix("plan: "): figure.value for figure in plan_figures(PLAN, COSTS)}
    assert figures == pytest.approx(
        {
            "turns": 100,
            "gateways: CPU": 0.1 + 0.2,
            "gateways: workers at 60 % of a core": 1,
            "gateways: nodes of 2 cores": 1,
            "sessions per worker": 3000,
            "PostgreSQL: CPU": 0.05,
            "PostgreSQL: connections, at most": 8,
            "PostgreSQL: commits, at most": 25,
            "PostgreSQL: rows written": 100,
            "PostgreSQL: log written": 1.0,
            "PostgreSQL: size after 10 days": 100 * 864_000 * 8000 / 1e12,
            "Redis: CPU": 0.01 + 0.025,
        }
    )


def test_ten_times_the_sessions_take_ten_times_the_workers() -> None:
    large = replace(PLAN, sessions=1_000_000)
    assert turns_per_second(large) == pytest.approx(33_333.3, abs=0.1)
    assert workers_for(large, COSTS) == 134  # 66.7 cores at half of each, since 0.1 is used without any turn
    assert workers_for(replace(large, sessions=10_000_000), COSTS) == 1334


def test_a_prediction_is_for_the_workers_that_there_are() -> None:
    said = predicted(COSTS, workers=2, sessions=2000, turn_every_s=20)
    assert (said.turns_s, said.gateway_cores, said.redis_cores) == pytest.approx((100, 0.4, 0.045))
    assert (said.database_cores, said.database_bytes_s) == pytest.approx((0.05, 800_000))


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

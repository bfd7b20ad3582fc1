"""The arithmetic of several gateways: what a number of sessions needs, from what one turn was measured to cost. Pure.

Each turn costs its gateway, PostgreSQL and Redis so much CPU, bytes and commits, however many turns there are: a turn
reads and writes what is its own, and no cost grows with the number of sessions. So all is a rate times a cost, and what
a worker uses while it is idle. Peaks are left to `load`, the part of a core that a worker is to use. Not here:
measuring the costs (`cluster`).
"""

from __future__ import annotations

from math import ceil

import msgspec

from segue.bench.reports.report import Figure

_DAY_S = 86_400


class TurnCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What one turn costs: CPU in milliseconds of one core, and what is written."""

    gateway_cpu_ms: float
    database_cpu_ms: float
    redis_cpu_ms: float
    database_bytes: float
    """On the disk of PostgreSQL: rows, settings and indexes."""
    log_bytes: float
    """In the write-ahead log, which goes to the disk and to each replica."""
    commits: float
    """Fewer than 1: turns that end at the same time share one."""
    sent_bytes: float
    """The bodies of the request and of the answer."""
    idle_gateway_cores: float = 0.0
    """What a worker uses without any turn: it renews its lease and looks after its connections."""
    idle_redis_cores: float = 0.0
    """What each worker costs Redis without any turn."""


class ClusterPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be served. `cores` are those of a node, one worker on each."""

    sessions: int = 1_000_000
    turn_every_s: float = 30.0
    keep_days: float = 30.0
    cores: int = 8
    load: float = 0.6
    connections: int = 8
    """How many connections of PostgreSQL a worker opens at most (`pool_size`)."""


def problem_of(plan: ClusterPlan) -> str | None:
    """Return what is wrong with a plan, or None."""
    for name in plan.__struct_fields__:
        if not 0 < getattr(plan, name) < float("inf"):
            return f"--{name.removesuffix('_s').replace('_', '-')} must be more than 0"
    return "--load is a part of a core: at most 1" if plan.load > 1 else None


def turns_per_second(plan: ClusterPlan) -> float:
    """Return how many turns end in a second."""
    return plan.sessions / plan.turn_every_s


def workers_for(plan: ClusterPlan, costs: TurnCosts) -> int:
    """Return how many workers the turns need, if each is to be busy for `load` of its time."""
    left = max(0.01, plan.load - costs.idle_gateway_cores)
    return max(1, ceil(turns_per_second(plan) * costs.gateway_cpu_ms / 1e3 / left))


def plan_figures(plan: ClusterPlan, costs: TurnCosts) -> list[Figure]:
    """Return what the sessions need."""
    rate = turns_per_second(plan)
    workers = workers_for(plan, costs)
    rows = [
        ("turns", rate, "/s"),
        ("gateways: CPU", _gateway_cores(costs, rate, workers), "cores"),
        (f"gateways: workers at {100 * plan.load:g} % of a core", workers, ""),
        (f"gateways: nodes of {plan.cores} cores", ceil(workers / plan.cores), ""),
        ("sessions per worker", plan.sessions / workers, ""),
        ("PostgreSQL: CPU", rate * costs.database_cpu_ms / 1e3, "cores"),
        ("PostgreSQL: connections, at most", workers * plan.connections, ""),
        ("PostgreSQL: commits, at most", rate * costs.commits, "/s"),
        ("PostgreSQL: rows written", rate, "/s"),
        ("PostgreSQL: log written", rate * costs.log_bytes / 1e6, "MB/s"),
        (f"PostgreSQL: size after {plan.keep_days:g} days", _stored(plan, costs) / 1e12, "TB"),
        ("Redis: CPU", _redis_cores(costs, rate, workers), "cores"),
    ]
    return [Figure(name=f"plan: {name}", value=value, unit=unit) for name, value, unit in rows]


def _gateway_cores(costs: TurnCosts, rate: float, workers: int) -> float:
    return workers * costs.idle_gateway_cores + rate * costs.gateway_cpu_ms / 1e3


def _redis_cores(costs: TurnCosts, rate: float, workers: int) -> float:
    return workers * costs.idle_redis_cores + rate * costs.redis_cpu_ms / 1e3


def _stored(plan: ClusterPlan, costs: TurnCosts) -> float:
    return turns_per_second(plan) * plan.keep_days * _DAY_S * costs.database_bytes


class LoadPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """What a load should take, by the costs of another: compared with what it took."""

    turns_s: float
    gateway_cores: float
    database_cores: float
    redis_cores: float
    database_bytes_s: float


def predicted(costs: TurnCosts, *, workers: int, sessions: int, turn_every_s: float) -> LoadPrediction:
    """Predict a load that does not fill the machine: each session begins a turn every `turn_every_s`."""
    rate = sessions / turn_every_s
    return LoadPrediction(
        turns_s=rate,
        gateway_cores=_gateway_cores(costs, rate, workers),
        database_cores=rate * costs.database_cpu_ms / 1e3,
        redis_cores=_redis_cores(costs, rate, workers),
        database_bytes_s=rate * costs.database_bytes,
    )

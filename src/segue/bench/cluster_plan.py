"""The arithmetic of several gateways: what a number of sessions needs, from what one turn was measured to cost. Pure.

A turn reads and writes what is its own, and no cost grows with the number of sessions. But turns that come soon after
each other share wake-ups and commits, so that a cost falls with the rate of turns at a worker (`cost_curve`). So all
is a rate times the cost at that rate, and what a worker uses while it is idle. Peaks are left to `load`, the part of a
core that a worker is to use. Not here: measuring the costs (`cluster`).
"""

from __future__ import annotations

from math import ceil

import msgspec

from segue.bench.cost_curve import CostCurve
from segue.bench.reports.report import Figure

_DAY_S = 86_400
#: By how much of what was measured a prediction may be off and still agree with it.
AGREES_WITHIN = 0.15
_MOST_TURNS_S = 1e9


class TurnCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What one turn costs, by how many come to a worker in a second: CPU in milliseconds of a core, and commits.

    What it writes is the same at all rates.
    """

    gateway_cpu_ms: CostCurve
    database_cpu_ms: CostCurve
    redis_cpu_ms: CostCurve
    commits: CostCurve
    """Of one turn at most 1: turns that end at the same time share one."""
    database_bytes: float
    """On the disk of PostgreSQL: rows, settings and indexes."""
    log_bytes: float
    """In the write-ahead log, which goes to the disk and to each replica."""
    sent_bytes: float
    """The bodies of the request and of the answer."""
    fullest_turns_s: float
    """The highest rate that was measured. Of higher ones it is not assumed that a turn costs less."""
    idle_gateway_cores: float = 0.0
    """What a worker uses without any turn: it renews its lease and looks after its connections."""
    idle_redis_cores: float = 0.0
    """What each worker costs Redis without any turn."""

    def at(self, curve: CostCurve, rate: float) -> float:
        """Return a cost at a rate of turns of one worker."""
        return curve.at(min(rate, self.fullest_turns_s))

    def worker_cores(self, rate: float) -> float:
        """Return what a worker uses of its core at a rate of turns."""
        return self.idle_gateway_cores + rate * self.at(self.gateway_cpu_ms, rate) / 1e3


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


def rate_at_load(plan: ClusterPlan, costs: TurnCosts) -> float:
    """Return how many turns a second keep a worker busy for `load` of its time. More turns always take more of it."""
    low, high = 0.0, 1.0
    while costs.worker_cores(high) < plan.load and high < _MOST_TURNS_S:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if costs.worker_cores(middle) < plan.load else (low, middle)
    return max(low, 1e-3)


def workers_for(plan: ClusterPlan, costs: TurnCosts) -> int:
    """Return how many workers the turns need, if each is to be busy for `load` of its time."""
    return max(1, ceil(turns_per_second(plan) / rate_at_load(plan, costs)))


def plan_figures(plan: ClusterPlan, costs: TurnCosts) -> list[Figure]:
    """Return what the sessions need."""
    workers = workers_for(plan, costs)
    said = predicted(costs, workers=workers, sessions=plan.sessions, turn_every_s=plan.turn_every_s)
    rate, own_rate = said.turns_s, said.turns_s / workers
    rows = [
        ("turns", rate, "/s"),
        ("gateways: CPU", said.gateway_cores, "cores"),
        ("gateways: CPU per turn at that load", costs.at(costs.gateway_cpu_ms, own_rate), "ms"),
        (f"gateways: workers at {100 * plan.load:g} % of a core", workers, ""),
        (f"gateways: nodes of {plan.cores} cores", ceil(workers / plan.cores), ""),
        ("sessions per worker", plan.sessions / workers, ""),
        ("turns per worker", own_rate, "/s"),
        ("PostgreSQL: CPU", said.database_cores, "cores"),
        ("PostgreSQL: connections, at most", workers * plan.connections, ""),
        ("PostgreSQL: commits", rate * costs.at(costs.commits, own_rate), "/s"),
        ("PostgreSQL: rows written", rate, "/s"),
        ("PostgreSQL: log written", rate * costs.log_bytes / 1e6, "MB/s"),
        (f"PostgreSQL: size after {plan.keep_days:g} days", _stored(plan, costs) / 1e12, "TB"),
        ("Redis: CPU", said.redis_cores, "cores"),
    ]
    return [Figure(name=f"plan: {name}", value=value, unit=unit) for name, value, unit in rows]


def _stored(plan: ClusterPlan, costs: TurnCosts) -> float:
    return turns_per_second(plan) * plan.keep_days * _DAY_S * costs.database_bytes


class LoadPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """What a load should take, by the costs at other rates: compared with what it took."""

    turns_s: float
    gateway_cores: float
    database_cores: float
    redis_cores: float
    database_bytes_s: float


def predicted(costs: TurnCosts, *, workers: int, sessions: float, turn_every_s: float) -> LoadPrediction:
    """Predict a load that the workers share evenly: each session begins a turn every `turn_every_s`."""
    rate = sessions / turn_every_s
    own_rate = rate / workers
    return LoadPrediction(
        turns_s=rate,
        gateway_cores=workers * costs.worker_cores(own_rate),
        database_cores=rate * costs.at(costs.database_cpu_ms, own_rate) / 1e3,
        redis_cores=workers * costs.idle_redis_cores + rate * costs.at(costs.redis_cpu_ms, own_rate) / 1e3,
        database_bytes_s=rate * costs.database_bytes,
    )


def off_by(said: float, measured: float) -> float:
    """Return by which part of what was measured a prediction is off; too much and too little count alike."""
    return abs(said - measured) / measured if measured else float(said != measured)

"""Three nodes behind a balancer, killed, paused and cut off: no acknowledged turn is lost, and none runs twice.

What clients were told is in a ledger, which the provider's requests and, in the end, the lists of all nodes are
compared with (`tests.faults.cluster`). A failing run prints its seed and its schedule. Not here: each single fault,
which has tests of its own (`test_several_nodes`, `test_tunnel_nodes`, `test_postgres`, `tests/stores/live`).
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.cluster.agents import agents_of
from tests.faults.cluster.disturbances import Disturbances
from tests.faults.cluster.nodes import Cluster, clustered
from tests.faults.cluster.sessions import sessions_of
from tests.faults.cluster.settling import check_all

pytestmark = [pytest.mark.postgres, pytest.mark.redis, pytest.mark.usefixtures("plain_loop")]

#: Ten runs of a hundred kills.
SEEDS, KILLS = range(1, 11), 100


async def test_each_disturbance_once(tmp_path: Path) -> None:
    """The quick form: each kind of disturbance comes once, with leases that are shorter still."""
    async with clustered(tmp_path, 0, lease_s=1.5) as cluster:
        disturbances = Disturbances(cluster, 0)
        async with sessions_of(cluster, 0, each=1) as sessions, agents_of(cluster, 0):
            await disturbances.once_each(lambda: _look(cluster, disturbances, sessions, 0))
        await check_all(cluster)
        _report(cluster, disturbances, 0)
        assert disturbances.kills == 3
        assert cluster.ledger.acknowledged


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_acknowledged_is_lost_and_nothing_runs_twice(seed: int, tmp_path: Path) -> None:
    async with clustered(tmp_path, seed) as cluster:
        disturbances = Disturbances(cluster, seed)
        async with sessions_of(cluster, seed, each=2) as sessions, agents_of(cluster, seed):
            await disturbances.run(KILLS, lambda: _look(cluster, disturbances, sessions, seed))
        await check_all(cluster)
        _report(cluster, disturbances, seed)
        sys.stdout.write(_summary(cluster, disturbances, seed))


def _look(cluster: Cluster, disturbances: Disturbances, sessions: Sequence[asyncio.Task[None]], seed: int) -> None:
    """Stop as soon as there is a fault, or a client was told what no client may be told."""
    _report(cluster, disturbances, seed)
    for session in sessions:
        if session.done():
            session.result()


def _report(cluster: Cluster, disturbances: Disturbances, seed: int) -> None:
    """Fail if there is a fault, and say how to see it again."""
    if cluster.ledger.faults:
        faults = "\n".join(cluster.ledger.faults)
        pytest.fail(f"seed {seed}, after {disturbances.schedule}:\n{faults}\n{cluster.log}", pytrace=False)


def _summary(cluster: Cluster, disturbances: Disturbances, seed: int) -> str:
    """Say what a run has seen."""
    outcomes = dict(Counter(turn.outcome for turn in cluster.ledger.turns.values()))
    forwarded = [exchange.runs for exchange in cluster.ledger.exchanges.values()]
    exchanges = f"{len(forwarded)} exchanges, {sum(forwarded)} of them forwarded"
    return f"seed {seed}: {disturbances.kills} kills, {disturbances.counts()}; turns {outcomes}; {exchanges}\n"

"""Three nodes behind a balancer, killed, paused and cut off: no acknowledged turn is lost, and none runs twice.

What clients were told is in a ledger, which the provider's requests and, in the end, the lists of all nodes are
compared with (`tests.faults.cluster`). A failing run prints its seed and its schedule; the others say at the end of the
tests what they have seen. `make kills` runs all seeds. Not here: each single fault, which has tests of its own
(`test_several_nodes`, `test_tunnel_nodes`, `test_postgres`, `tests/stores/live`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from segue.stores.live.redis_nodes import LEASE_S
from tests.faults.cluster.agents import agents_of
from tests.faults.cluster.disturbances import Disturbances
from tests.faults.cluster.findings import FINDINGS, find
from tests.faults.cluster.nodes import Cluster, clustered, key_of
from tests.faults.cluster.requests import client_of
from tests.faults.cluster.sessions import sessions_of
from tests.faults.cluster.settling import check_all
from tests.faults.gateways import until

pytestmark = [pytest.mark.postgres, pytest.mark.redis, pytest.mark.usefixtures("plain_loop")]

#: Ten runs of a hundred kills.
SEEDS, KILLS = range(1, 11), 100


@pytest.mark.timeout(300)
async def test_each_disturbance_once(tmp_path: Path) -> None:
    """The quick form: each kind of disturbance comes once, with leases that are shorter still."""
    async with clustered(tmp_path, 0, lease_s=1.5) as cluster:
        disturbances = Disturbances(cluster, 0)
        async with sessions_of(cluster, 0, each=1) as sessions, agents_of(cluster, 0) as agents:
            await disturbances.once_each(lambda: _look(cluster, disturbances, [*sessions, *agents], 0))
        await check_all(cluster)
        _report(cluster, disturbances, 0)
        assert disturbances.kills >= 3
        assert cluster.ledger.acknowledged


@pytest.mark.deep
@pytest.mark.timeout(300)
async def test_what_a_killed_node_ran_has_failed_once_its_lease_is_over(tmp_path: Path) -> None:
    """With the command's own lease: a turn in the background, and one with a key, of which the model has said half."""
    async with (
        clustered(tmp_path, 0, lease_s=None) as cluster,
        client_of(cluster.nodes[0].url, key_of("ada")) as at_first,
        client_of(cluster.nodes[1].url, key_of("ada")) as at_second,
    ):
        cluster.model.gate = asyncio.Event()
        apart, keyed = (cluster.ledger.begin("s", "ada") for _ in range(2))
        begun = await at_first.post({"model": "m", "input": apart.marker, "background": True})
        asked = {"model": "m", "input": keyed.marker, "segue": {"idempotency_key": "k"}}
        asking = asyncio.create_task(at_first.stream(asked))
        await until(lambda: (apart.runs, keyed.runs) == (1, 1))
        await cluster.nodes[0].kill()
        assert (await asking).how == "lost"
        async with asyncio.timeout(4 * LEASE_S):
            while True:
                found = await at_second.call("GET", f"/v1/responses/{begun.response_id}")
                assert found is not None
                assert found[0] == 200
                if found[1]["status"] == "failed":
                    break
                await asyncio.sleep(0.1)
        assert found[1]["error"]["code"] == "segue_outcome_unknown"
        assert (await at_second.post(asked)).code == "segue_outcome_unknown"
        assert (await at_second.stream(asked)).code == "segue_outcome_unknown"
        assert cluster.ledger.faults == []


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_acknowledged_is_lost_and_nothing_runs_twice(
    seed: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with clustered(tmp_path, seed) as cluster:
        disturbances = Disturbances(cluster, seed)
        async with sessions_of(cluster, seed, each=2) as sessions, agents_of(cluster, seed) as agents:
            await disturbances.run(KILLS, lambda: _look(cluster, disturbances, [*sessions, *agents], seed))
        await check_all(cluster)
        _report(cluster, disturbances, seed)
        record_property(FINDINGS, find(cluster.ledger, disturbances.counts()))


def _look(cluster: Cluster, disturbances: Disturbances, users: Sequence[asyncio.Task[None]], seed: int) -> None:
    """Stop as soon as there is a fault, or a client was told what no client may be told."""
    _report(cluster, disturbances, seed)
    for user in users:
        if user.done():
            user.result()


def _report(cluster: Cluster, disturbances: Disturbances, seed: int) -> None:
    """Fail if there is a fault, and say how to see it again."""
    if cluster.ledger.faults:
        faults = "\n".join(cluster.ledger.faults)
        pytest.fail(f"seed {seed}, after {disturbances.schedule}:\n{faults}\n{cluster.log}", pytrace=False)

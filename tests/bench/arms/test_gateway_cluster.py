"""Gateways for a measurement, as a user starts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.bench.arms.child import ChildError
from segue.bench.arms.gateway_cluster import gateway_cluster
from segue.bench.meters.process_tree import usage_of
from segue.bench.meters.turn_load import SessionLoad


async def test_a_gateway_serves_its_load_and_ends(tmp_path: Path) -> None:
    async with gateway_cluster(tmp_path, store=f"sqlite:///{tmp_path}/turns.db", live=None, workers=1) as cluster:
        assert cluster.workers() == [cluster.root]
        load = SessionLoad(cluster.host, cluster.port, model="scripted", text="hello")
        await load.connect(2)
        assert (await load.run(range(2), seconds=0.1)).turns >= 2
        load.close()
    assert usage_of(cluster.root).cpu_s is None, "it has ended"


async def test_a_gateway_that_does_not_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="ended with status"):
        async with gateway_cluster(tmp_path, store="nonsense:", live=None, workers=1):
            pass

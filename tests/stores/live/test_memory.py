"""One gateway alone keeps the rules of those that share something."""

from __future__ import annotations

import pytest

from segue.stores.event_logs import MemoryEventLogs
from segue.stores.idempotency_keys import MemoryClaims
from segue.stores.live.advisory_locks import MemoryLocks
from segue.stores.live.memory import SingleNode
from segue.testing.live_conformance import LIVE_CHECKS, LiveCheck, LiveParts


@pytest.mark.parametrize("check", LIVE_CHECKS, ids=lambda check: check.__name__)
async def test_memory_conforms(check: LiveCheck) -> None:
    nodes = SingleNode(b"epoch", address="http://here", started_at=1.0)
    await check(LiveParts(nodes=nodes, claims=MemoryClaims(), locks=MemoryLocks(), logs=MemoryEventLogs(2**20, 2**20)))
    nodes.watch(nodes.drain)
    await nodes.aclose()

"""A turn that generates nothing (`generate: false`): its history is read before an answer is wanted, if it can be.

Not here: the turn (`executor`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from segue.protocol.events import Ended
from segue.protocol.responses import usage
from segue.upstreams.interface import Batch, Prefilling, Streaming, UpstreamRequest


async def warm_up(runs: Streaming, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
    """Stand in for an upstream's stream where nothing is to be generated; an upstream that can prefill does so."""
    counted = await runs.prefill(request) if isinstance(runs, Prefilling) else usage(0, 0)
    yield (Ended("completed", counted),)

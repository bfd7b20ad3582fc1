"""Turns that generate nothing: what an upstream is asked, if anything."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from segue.gateway.turns.warm_up import warm_up
from segue.history.chains import History
from segue.protocol.events import Ended
from segue.protocol.requests import Settings
from segue.protocol.responses import Usage, usage
from segue.testing.store_samples import sample_id
from segue.upstreams.interface import Batch, UpstreamRequest

ASKED = UpstreamRequest("m", sample_id("now"), "t", History(None, ()), Settings(model="m"))


class _Streaming:
    """Runs turns, and cannot get ready for one."""

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        yield (Ended("failed", warnings=(request.model,)),)


class _Prefilling(_Streaming):
    """Reads a prompt of seven tokens."""

    async def prefill(self, request: UpstreamRequest) -> Usage:
        assert request is ASKED
        return usage(7, 0)


async def test_an_upstream_that_can_reads_the_history() -> None:
    assert [batch async for batch in warm_up(_Prefilling(), ASKED)] == [(Ended("completed", usage(7, 0)),)]


async def test_any_other_is_not_asked() -> None:
    assert [batch async for batch in warm_up(_Streaming(), ASKED)] == [(Ended("completed", usage(0, 0)),)]

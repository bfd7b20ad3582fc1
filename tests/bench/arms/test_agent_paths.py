"""Every path leads to the server, and says what its wire has carried."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from segue.bench.arms.agent_paths import (
    OpenAgentPath,
    PathSite,
    cold_sidecar,
    over_http2,
    straight,
    warm_sidecar,
    why_no_http2,
)
from segue.bench.arms.model_server import ModelServerSpec, serve_workload
from segue.bench.arms.tls_coding import tls_contexts
from segue.bench.arms.tunnelled import QUIET_S, silence
from segue.bench.workloads.agent_tasks import AgentArm
from segue.bench.workloads.holding import do_work
from segue.bench.workloads.workload import ConversationWorkload
from segue.client.client import AsyncClient
from segue.testing.link import LinkProfile
from tests.bench.arms.processes import end_here

ARM = AgentArm("http replay", "http", store=False, history="replay")
WORKLOAD = ConversationWorkload("conversation:2")


async def work(url: str, workload: ConversationWorkload = WORKLOAD) -> None:
    async with AsyncClient(base_url=f"{url}/v1", deflate=False) as client:
        await do_work(client, workload, ARM)


@pytest.mark.parametrize(
    ("opened", "quiet_s", "least_bytes", "most_bytes"),
    [
        (straight, 0.05, 60_000, 90_000),
        (over_http2, 0.05, 60_000, 90_000),
        (cold_sidecar, QUIET_S + 0.02, 10_000, 20_000),
        (warm_sidecar, QUIET_S + 0.02, 5_000, 10_000),
    ],
)
async def test_the_work_goes_over_the_wire(
    opened: OpenAgentPath, quiet_s: float, least_bytes: int, most_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def noted(count: Callable[[], int], seconds: float) -> None:
        """Wait for real: a gateway that drains waits longer for what its sidecar has not acknowledged."""
        waited.append(seconds)
        await silence(count, seconds)

    async def warm_up(url: str) -> None:
        await work(url, WORKLOAD.earlier)

    monkeypatch.setattr("segue.bench.arms.agent_paths.silence", noted)
    profile = LinkProfile(rtt_s=0.02, setup_rtts=1.0)
    async with serve_workload(ModelServerSpec(workload=WORKLOAD.name)) as (host, port):
        site = PathSite(host=host, port=port, tls=tls_contexts(), profile=profile, warm_up=warm_up, start=end_here)
        async with opened(site) as path:
            set_ups = len(path.carried.set_ups)
            assert set_ups == (0 if opened in {straight, over_http2} else 1)
            path.carried.take()
            await work(path.url)
            await path.settle()
            assert len(path.carried.set_ups) == 1
            assert path.carried.set_ups[0].time_s > 0.04
            assert least_bytes < path.carried.take().up_bytes < most_bytes
    assert waited == [pytest.approx(quiet_s)]


def test_says_what_is_missing_for_http2(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_http2() is None
    monkeypatch.setattr("segue.bench.arms.agent_paths.find_spec", lambda _: None)
    assert "its extra bench" in (why_no_http2() or "")

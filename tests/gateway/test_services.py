"""The parts of a gateway are joined: what one counts, another one shows."""

from __future__ import annotations

import asyncio

import pytest

from segue.dialects.render_cache import RenderCache
from segue.protocol.problems import Refused
from segue.upstreams.http import HttpUpstream, Provider, UpstreamRuntime
from segue.upstreams.scripted import Say, ScriptedTurn, ScriptedUpstream, Wait
from tests.gateway.parts import Clock, caller, create, metric, parts, respond
from tests.upstreams.plain_dialect import PlainDialect


class Connection:
    async def drain(self) -> None: ...


async def test_what_is_open_and_running_is_in_the_metrics() -> None:
    gate = asyncio.Event()
    async with parts(ScriptedUpstream([ScriptedTurn((Say(("x",)), Wait(gate)))])) as services:
        with services.drain.connection_open(Connection()):
            await services.background.create(create(background=True), caller(services))
            assert metric(services, "segue_websocket_connections") == 1
            assert metric(services, "segue_kept_turns") == 1
            assert metric(services, "segue_event_log_bytes") == services.event_logs.size_bytes > 0
        assert metric(services, "segue_websocket_connections") == 0


async def test_providers_show_their_own_figures() -> None:
    around = UpstreamRuntime(clock=lambda: 0.0, jitter=lambda: 0.0, render_cache=RenderCache(0))
    provider = Provider(name="acme", base_url="http://127.0.0.1:9")
    upstream = HttpUpstream(provider, PlainDialect(), around, models=["m"], key=None)
    async with parts(upstream) as services:
        assert metric(services, "segue_upstream_running", upstream="acme") == 0
        assert services.metrics.upstreams.providers == [upstream]


async def test_the_settings_reach_the_parts() -> None:
    clock = Clock()
    async with parts(clock=clock, retention_s=5, memory_budget_bytes=1) as services:
        assert services.started_at == clock.now
        await respond(services, create("a"))
        await respond(services, create("b"))
        assert services.cache.evictions == 1, "only the newest turn may pass the budget"
        clock.now += 5
        assert await services.executor.sweep() == 2


async def test_a_request_for_another_run_is_refused() -> None:
    async with parts() as services:
        services.check_epoch(create("a"))
        services.check_epoch(create("a", segue={"epoch": services.epoch.hex()}))
        with pytest.raises(Refused) as caught:
            services.check_epoch(create("a", segue={"epoch": "0" * 16}))
        assert caught.value.problem.code == "epoch_changed"


@pytest.mark.parametrize(("store", "warned"), [("memory:", False), ("postgresql://host/db", True)])
async def test_a_gateway_that_shares_its_store_and_no_secret_is_warned_of(
    store: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What it seals, no other gateway could read."""
    async with parts(tables={"server": {"store": store}}):
        assert ("compaction.secrets_env names no secret" in caplog.text) is warned

"""What providers count themselves is on the page of metrics."""

from __future__ import annotations

from segue.dialects.render_cache import RenderCache
from segue.gateway.admin.metrics import Metrics
from segue.history.cache import TurnCache
from segue.upstreams.http import HttpUpstream, Provider, UpstreamRuntime
from tests.upstreams.plain_dialect import PlainDialect


async def test_a_providers_figures_are_those_of_now() -> None:
    """Turns under way, turns that wait, and tries that failed, by what they are called."""
    metrics = Metrics()
    runtime = UpstreamRuntime(clock=lambda: 0.0, jitter=lambda: 0.0, render_cache=RenderCache(0))
    provider = Provider(name="acme", base_url="http://127.0.0.1:9", max_concurrent=1)
    one = HttpUpstream(provider, PlainDialect(), runtime, models=["m"], key=None)
    metrics.upstreams.providers.append(one)
    one.failures["rate_limit_exceeded"] += 2
    async with one.admission.permit("ann"):
        page = metrics.render(TurnCache(1000)).decode()
    assert 'segue_upstream_running{upstream="acme"} 1.0' in page
    assert 'segue_upstream_waiting{upstream="acme"} 0.0' in page
    assert 'segue_upstream_failed_tries_total{code="rate_limit_exceeded",upstream="acme"} 2.0' in page

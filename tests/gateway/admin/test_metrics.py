"""What others count is on the page of metrics, as it is now."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from segue.dialects.messages.request import MessagesDialect
from segue.dialects.messages.thread_request import ThreadedDialect
from segue.dialects.render_cache import RenderCache
from segue.engine import LocalUpstream, ModelFile
from segue.gateway.admin.metrics import Metrics
from segue.history.cache import TurnCache
from segue.protocol.problems import Problem, Refused
from segue.testing.responses_rules import OPENAI
from segue.testing.responses_server import responding
from segue.upstreams.group import GroupState
from segue.upstreams.http import HttpUpstream, Provider, UpstreamRuntime
from segue.upstreams.message_threads import MessageThreads
from segue.upstreams.retries import FailedAttempt
from segue.upstreams.router import ModelRule, Router, Sharing
from segue.upstreams.scripted import Fail, Refuse, ScriptedTurn, ScriptedUpstream, say
from tests.gateway.parts import caller, create, metric, parts, respond
from tests.upstreams.plain_dialect import PlainDialect
from tests.upstreams.socket_turns import Conversation, connected


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


async def test_continuations_are_shown_where_an_upstream_keeps_conversations() -> None:
    metrics = Metrics()
    runtime = UpstreamRuntime(clock=lambda: 0.0, jitter=lambda: 0.0, render_cache=RenderCache(0))
    dialect = MessagesDialect("claude")
    threads = MessageThreads(ThreadedDialect(dialect), trusted=True)
    provider = Provider(name="claude", base_url="http://127.0.0.1:9")
    one = HttpUpstream(provider, dialect, runtime, models=["m"], key=None, threads=threads)
    other = HttpUpstream(provider, dialect, runtime, models=["m"], key=None)
    metrics.upstreams.providers += [one, other]
    threads.counts.note_hit(100)
    threads.counts.replays["expired"] += 2
    other.forget_tenant("ann")
    page = metrics.render(TurnCache(1000)).decode().splitlines()
    shown = [
        line for line in page if line.startswith(("segue_upstream_continuations_t", "segue_upstream_saved_bytes_t"))
    ]
    assert shown == [
        'segue_upstream_continuations_total{outcome="hit",upstream="claude"} 1.0',
        'segue_upstream_continuations_total{outcome="expired",upstream="claude"} 2.0',
        'segue_upstream_saved_bytes_total{upstream="claude"} 100.0',
    ]


async def test_the_websockets_of_an_upstream_are_shown() -> None:
    metrics = Metrics()
    async with responding(OPENAI) as server, connected(server) as one:
        metrics.upstreams.providers.append(one)
        chain = Conversation(one)
        for _ in range(2):
            await chain.run()
        one.fallbacks["too_large"] += 1
        page = metrics.render(TurnCache(1000)).decode()
    assert 'segue_upstream_websockets{state="idle",upstream="acme"} 1.0' in page
    assert 'segue_upstream_websockets{state="turn",upstream="acme"} 0.0' in page
    assert 'segue_upstream_http_fallbacks_total{reason="too_large",upstream="acme"} 1.0' in page
    assert 'segue_upstream_continuations_total{outcome="hit",upstream="acme"} 1.0' in page


def test_the_upstreams_of_groups_are_shown_in_use_or_out() -> None:
    """Others stand alone: there are no series of theirs."""
    metrics, clock = Metrics(), iter(range(100))
    one, other = (ModelRule(ScriptedUpstream(), ["m"], sharing=Sharing(name, group="g")) for name in ("one", "other"))
    alone = ModelRule(ScriptedUpstream(), ["m"], sharing=Sharing("alone"))
    metrics.upstreams.router = router = Router([one, other, alone], GroupState(lambda: next(clock)))
    health, failed = router.state.health, FailedAttempt(Problem("upstream_error", ""), unhealthy=True)
    for _ in range(3):
        health.note_failure("one", "m", failed, begun_at=0.0, now=0.0)
    health.left["one"] += 2
    page = metrics.render(TurnCache(1000)).decode().splitlines()
    shown = [line for line in page if line.startswith(("segue_upstream_out", "segue_upstream_fail"))]
    assert shown == [
        'segue_upstream_out{upstream="one"} 1.0',
        'segue_upstream_out{upstream="other"} 0.0',
        'segue_upstream_outages_total{upstream="one"} 1.0',
        'segue_upstream_outages_total{upstream="other"} 0.0',
        'segue_upstream_failovers_total{upstream="one"} 2.0',
        'segue_upstream_failovers_total{upstream="other"} 0.0',
    ]


def test_a_local_models_counters_are_those_of_now() -> None:
    """By what was done with tokens, and by where their KV cache is."""
    metrics = Metrics()
    model = LocalUpstream(ModelFile(Path("/models/tiny.gguf"), "tiny"))
    metrics.engines.models.append(model)
    counters = model.counters
    counters.reused_tokens, counters.restored_tokens, counters.prefilled_tokens, counters.output_tokens = 1, 2, 3, 4
    counters.drafted_tokens, counters.accepted_tokens = 14, 15
    counters.evictions, counters.preemptions, counters.defrags = 5, 6, 7
    counters.sequences |= {"context": 8, "host": 9, "disk": 10}
    counters.context_tokens, counters.host_bytes, counters.disk_bytes = 11, 12, 13
    found = {
        line.partition(" ")[0].removeprefix("segue_local_").replace('upstream="tiny"', ""): float(line.split()[-1])
        for line in metrics.render(TurnCache(1000)).decode().splitlines()
        if line.startswith("segue_local_")
    }
    assert found == {
        "running{}": 0,
        "waiting{}": 0,
        'tokens_total{kind="reused",}': 1,
        'tokens_total{kind="restored",}': 2,
        'tokens_total{kind="prefilled",}': 3,
        'tokens_total{kind="output",}': 4,
        'tokens_total{kind="drafted",}': 14,
        'tokens_total{kind="accepted",}': 15,
        "evictions_total{}": 5,
        "parked_total{}": 6,
        "compactions_total{}": 7,
        'sequences{place="context",}': 8,
        'sequences{place="host",}': 9,
        'sequences{place="disk",}': 10,
        "context_tokens{}": 11,
        'state_bytes{place="host",}': 12,
        'state_bytes{place="disk",}': 13,
    }


def test_a_counter_of_the_cache_is_counted_once() -> None:
    metrics, cache = Metrics(), TurnCache(1000)
    for evictions in (2, 2, 5):
        cache.evictions = evictions
        assert f"segue_cache_evictions_total {float(evictions)}\n" in metrics.render(cache).decode()


def test_the_series_of_workers_at_one_port_can_be_told_apart() -> None:
    metrics, cache = Metrics(), TurnCache(1000)
    assert "worker=" not in metrics.render(cache).decode(), "a gateway that is alone is told apart by its address"
    metrics.worker = 2
    lines = [line for line in metrics.render(cache).decode().splitlines() if not line.startswith("#")]
    assert len(lines) > 50
    assert [line for line in lines if 'worker="2"' not in line] == []
    assert 'segue_turns_total{outcome="completed",transport="http",worker="2"} 0.0' in lines


async def test_compactions_are_counted() -> None:
    """By what asked for them, and by how they ended; with what they have saved."""
    refused = ScriptedTurn((Refuse(Problem("rate_limit_exceeded", "not now")),))
    turns = [say("sum"), say("on"), ScriptedTurn((Fail(),)), say("on"), say("sum"), refused]
    async with parts(ScriptedUpstream([*turns, say("half", "half")])) as services:

        def counted(kind: str, outcome: str) -> float:
            return metric(services, "segue_compactions_total", transport="websocket", kind=kind, outcome=outcome)

        asked = {"role": "user", "content": "x"}
        long = "word " * 1200  # about 1,500 tokens
        managed: dict[str, Any] = {"context_management": [{"type": "compaction", "compact_threshold": 1000}]}
        history = [asked, {"type": "message", "role": "assistant", "content": long}, asked]
        triggered = [*history, {"type": "compaction_trigger"}]
        await respond(services, create(input=history, **managed))
        assert counted("threshold", "completed") == 1
        saved = metric(services, "segue_compaction_saved_tokens_total", transport="websocket", kind="threshold")
        assert abs(saved - len(long) // 4) < 50
        await respond(services, create(input=history, **managed))
        assert counted("threshold", "failed") == 1
        await respond(services, create(input=triggered))
        assert counted("trigger", "completed") == 1
        with pytest.raises(Refused):
            await respond(services, create(input=triggered))
        assert counted("trigger", "failed") == 1
        async with aclosing(services.executor.run(create(input=triggered), caller(services)).events()) as batches:
            await anext(batches)
        assert counted("trigger", "cancelled") == 1
        with pytest.raises(Refused):
            await respond(services, create(input=[{"type": "compaction", "encrypted_content": "?"}, asked]))
        assert metric(services, "segue_compaction_items_refused_total") == 1

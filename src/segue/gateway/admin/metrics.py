"""Metrics for Prometheus. They are counted per turn and per message, never per event.

Children of labelled metrics are bound once, so that counting is one addition. Each gateway has its own registry: two
gateways in one process do not add up. The help texts below define each metric. Not here: the endpoint (`health`).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate, product
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from segue import __version__
from segue.engine.counters import EngineTokens
from segue.engine.upstream import LocalUpstream
from segue.gateway.quotas.concurrency import ConcurrencyLimiter
from segue.gateway.quotas.quotas import Quotas
from segue.gateway.quotas.shared_windows import SharedWindows
from segue.history.cache import TurnCache
from segue.stores.live.interface import Live, Nodes
from segue.upstreams.continuation import HIT
from segue.upstreams.http import HttpUpstream
from segue.upstreams.router import Router
from segue.upstreams.websocket import WebSocketUpstream

Transport = Literal["http", "sse", "websocket"]
Level = Literal["connection", "process", "store"]
ExchangeOutcome = Literal["completed", "cancelled", "failed"]
Outcome = Literal["completed", "incomplete", "failed", "refused", "cancelled"]
CompactionKind = Literal["endpoint", "trigger", "threshold"]
CompactionOutcome = Literal["completed", "failed", "cancelled"]

_TRANSPORTS: tuple[Transport, ...] = ("http", "sse", "websocket")
_OUTCOMES: tuple[Outcome, ...] = ("completed", "incomplete", "failed", "refused", "cancelled")
_EXCHANGE_OUTCOMES: tuple[ExchangeOutcome, ...] = ("completed", "cancelled", "failed")
_LEVELS: tuple[Level, ...] = ("connection", "process", "store")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_BOUNDS = (*map(str, _SECONDS), "+Inf")


class Durations:
    """How many durations were no longer than each bound, and how long all were together."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(_SECONDS) + 1)
        self.sum_s = 0.0

    def observe(self, time_s: float) -> None:
        """Count one."""
        self.counts[bisect_left(_SECONDS, time_s)] += 1
        self.sum_s += time_s

    def buckets(self) -> list[tuple[str, float]]:
        """Return the bounds, each with the number of durations within it."""
        return list(zip(_BOUNDS, accumulate(self.counts), strict=True))


class TransportMeter:
    """The counts of one transport: plain numbers, since each turn has several, read for each scrape."""

    __slots__ = ("events", "first_output", "received_bytes", "sent_bytes", "time", "transport", "turns")

    def __init__(self, transport: Transport = "http") -> None:
        self.transport = transport
        self.turns: dict[Outcome, int] = dict.fromkeys(_OUTCOMES, 0)
        self.events = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.first_output = Durations()
        self.time = Durations()

    def received(self, size: int) -> None:
        """Count the payload of one request or message."""
        self.received_bytes += size

    def sent(self, events: int, size: int) -> None:
        """Count what a turn, or an error, sent as payload."""
        self.events += events
        self.sent_bytes += size

    def turn(self, outcome: Outcome, first_output_s: float | None, time_s: float) -> None:
        """Count a turn that is over; times in seconds since its request was read."""
        self.turns[outcome] += 1
        self.time.observe(time_s)
        if first_output_s is not None:
            self.first_output.observe(first_output_s)


class TransportCollector(Collector):
    """The counts of all transports."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.meters = {transport: TransportMeter(transport) for transport in _TRANSPORTS}
        self._created_at = time.time()
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the present counts."""
        turns = CounterMetricFamily(
            "segue_turns", "Turns that are over, by transport and outcome.", labels=["transport", "outcome"]
        )
        for transport, meter in self.meters.items():
            for outcome, count in meter.turns.items():
                turns.add_metric([transport, outcome], count, self._created_at)
        return (
            turns,
            self._counter("segue_events", "Events sent to clients.", lambda meter: meter.events),
            self._counter("segue_received_bytes", "Payload bytes of requests.", lambda meter: meter.received_bytes),
            self._counter("segue_sent_bytes", "Payload bytes of events and replies.", lambda meter: meter.sent_bytes),
            self._histogram(
                "segue_first_output_seconds",
                "Time from a request to the first event of its output.",
                lambda meter: meter.first_output,
            ),
            self._histogram("segue_turn_seconds", "Time from a request to its end.", lambda meter: meter.time),
        )

    def _counter(self, name: str, text: str, count: Callable[[TransportMeter], int]) -> Metric:
        family = CounterMetricFamily(name, text, labels=["transport"])
        for transport, meter in self.meters.items():
            family.add_metric([transport], count(meter), self._created_at)
        return family

    def _histogram(self, name: str, text: str, durations: Callable[[TransportMeter], Durations]) -> Metric:
        family = HistogramMetricFamily(name, text, labels=["transport"])
        for transport, meter in self.meters.items():
            found = durations(meter)
            family.add_metric([transport], found.buckets(), found.sum_s)
            family.add_sample(f"{name}_created", {"transport": transport}, self._created_at)
        return family


class TunnelMeter:
    """The counters of the tunnel. Bytes are those of packets; the frames of the WebSocket come on top."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self.links = counter("segue_tunnel_links", "Connections of sidecars.")
        exchanges = counter("segue_tunnel_exchanges", "Exchanges that are over, by outcome.", "outcome")
        self._exchanges = {outcome: exchanges.labels(outcome) for outcome in _EXCHANGE_OUTCOMES}
        self.received_bytes = counter("segue_tunnel_received_bytes", "Bytes of packets that sidecars sent.")
        self.sent_bytes = counter("segue_tunnel_sent_bytes", "Bytes of packets sent to sidecars.")
        self.rebuilt_bytes = counter("segue_tunnel_rebuilt_bytes", "Bytes of the request bodies that were rebuilt.")
        self.base_misses = counter("segue_tunnel_base_misses", "Uploads whose base was not held, or not the same.")
        self.sessions = Gauge("segue_tunnel_sessions", "Sidecars with a session.", registry=registry)
        self.running = Gauge("segue_tunnel_running", "Exchanges under way.", registry=registry)
        self.bases_bytes = Gauge("segue_tunnel_bases_bytes", "What is kept to send against.", registry=registry)

    def count(self, outcome: ExchangeOutcome) -> None:
        """Count an exchange that is over."""
        self._exchanges[outcome].inc()


class CompactionMeter:
    """The counters of compactions. They are few, so that each is looked up when it is counted.

    Each is there from the start: of one that comes into being with its first count, Prometheus sees no increase.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._compactions = Counter(
            "segue_compactions",
            "Compactions by the gateway that are over: by transport, by what asked for them (the endpoint, an item, or "
            "a threshold), and by outcome.",
            ("transport", "kind", "outcome"),
            registry=registry,
        )
        self._saved = Counter(
            "segue_compaction_saved_tokens",
            "About how many tokens of histories compactions have left out, less those of their summaries.",
            ("transport", "kind"),
            registry=registry,
        )
        self.unreadable = Counter(
            "segue_compaction_items_refused",
            "Requests that were refused because a sealed summary in their history cannot be read here.",
            registry=registry,
        )
        for transport, kind in product(_TRANSPORTS, get_args(CompactionKind)):
            self._saved.labels(transport, kind)
            for outcome in get_args(CompactionOutcome):
                self._compactions.labels(transport, kind, outcome)

    def count(self, transport: Transport, kind: CompactionKind, outcome: CompactionOutcome, saved_tokens: int) -> None:
        """Count a compaction that is over."""
        self._compactions.labels(transport, kind, outcome).inc()
        self._saved.labels(transport, kind).inc(saved_tokens)


class ProviderCollector(Collector):
    """The figures that providers' upstreams keep themselves, read for each scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.providers: list[HttpUpstream] = []
        self.router: Router | None = None
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the present figures."""
        running = GaugeMetricFamily("segue_upstream_running", "Turns under way at a provider.", labels=["upstream"])
        waiting = GaugeMetricFamily("segue_upstream_waiting", "Turns that wait for a place.", labels=["upstream"])
        failed = CounterMetricFamily(
            "segue_upstream_failed_tries",
            "Tries at a turn that failed, by what it is called.",
            labels=["upstream", "code"],
        )
        learned = CounterMetricFamily(
            "segue_upstream_learned_refusals",
            "Times that a model was found to refuse a field that this gateway adds by itself, by field.",
            labels=["upstream", "field"],
        )
        for provider in self.providers:
            running.add_metric([provider.name], provider.admission.running)
            waiting.add_metric([provider.name], provider.admission.waiting)
            for code, count in sorted(provider.failures.items()):
                failed.add_metric([provider.name, code], count)
            for field, count in sorted(provider.learned.items()):
                learned.add_metric([provider.name, field], count)
        return running, waiting, failed, learned, *self._continuations(), *self._sockets(), *self._groups()

    def _continuations(self) -> Iterable[Metric]:
        outcomes = CounterMetricFamily(
            "segue_upstream_continuations",
            "Turns that continue others at an upstream that keeps conversations, by outcome: hit, if only what is new "
            "was sent, else why all was.",
            labels=["upstream", "outcome"],
        )
        saved = CounterMetricFamily(
            "segue_upstream_saved_bytes", "Bytes of requests that were not sent because of hits.", labels=["upstream"]
        )
        for provider in self.providers:
            counts = provider.continuations
            if counts is None:
                continue
            outcomes.add_metric([provider.name, HIT], counts.hits)
            for reason, count in sorted(counts.replays.items()):
                outcomes.add_metric([provider.name, reason], count)
            saved.add_metric([provider.name], counts.saved_bytes)
        return outcomes, saved

    def _sockets(self) -> Iterable[Metric]:
        sockets = GaugeMetricFamily(
            "segue_upstream_websockets",
            "Open WebSockets to an upstream: those that carry a turn, and those that wait for one.",
            labels=["upstream", "state"],
        )
        fallbacks = CounterMetricFamily(
            "segue_upstream_http_fallbacks",
            "Turns that went to an upstream over HTTP although it is configured for WebSockets, by why.",
            labels=["upstream", "reason"],
        )
        for provider in self.providers:
            if isinstance(provider, WebSocketUpstream):
                pool = provider.sockets
                sockets.add_metric([provider.name, "idle"], pool.idle)
                sockets.add_metric([provider.name, "turn"], len(pool) - pool.idle)
                for reason, count in sorted(provider.fallbacks.items()):
                    fallbacks.add_metric([provider.name, reason], count)
        return sockets, fallbacks

    def _groups(self) -> Iterable[Metric]:
        out = GaugeMetricFamily(
            "segue_upstream_out", "1 while an upstream of a group gets no turns because it fails.", labels=["upstream"]
        )
        opened = CounterMetricFamily(
            "segue_upstream_outages", "Times that an upstream of a group was taken out.", labels=["upstream"]
        )
        left = CounterMetricFamily(
            "segue_upstream_failovers",
            "Turns that failed at an upstream before their output, and went on at another of its group.",
            labels=["upstream"],
        )
        if self.router is not None:
            health = self.router.state.health
            for name, in_use in self.router.in_use.items():
                out.add_metric([name], not in_use)
                opened.add_metric([name], health.opened[name])
                left.add_metric([name], health.left[name])
        return out, opened, left


class UsageCollector(Collector):
    """What keys and tenants have used, read for each scrape. There are as many series as keys in the configuration."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.quotas: Quotas | None = None
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the present figures, by key; the sums of a tenant follow from those of its keys."""

        def counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
            return CounterMetricFamily(f"segue_usage_{name}", text, labels=["tenant", "key", *labels])

        turns = counter("turns", "Turns and requests to providers that began, by key.")
        refused = counter("refused", "Those that were refused because of a limit of the key or its tenant.")
        tokens = counter(
            "tokens", "Tokens of turns, as providers count them, or else estimated; cached ones are input, too.", "kind"
        )
        uploads = counter("upload_bytes", "Bytes of requests, and of the bodies of sidecars.")
        of_models = counter("model_turns", "Turns that are over, by model; of each key the first 50 by name.", "model")
        model_tokens = counter("model_tokens", "Tokens of these turns.", "model", "kind")
        scopes = [] if self.quotas is None else list(self.quotas.counted())
        with_keys = {tenant for tenant, key, _ in scopes if key is not None}
        for tenant, key, scope in scopes:
            if key is None and tenant in with_keys:
                continue
            counts, labels = scope.counts, [tenant, key or ""]
            turns.add_metric(labels, counts.turns)
            refused.add_metric(labels, counts.refused)
            for kind in ("input", "cached", "output"):
                tokens.add_metric([*labels, kind], getattr(counts, f"{kind}_tokens"))
            uploads.add_metric(labels, counts.upload_bytes)
            for model, used in scope.models.items():
                of_models.add_metric([*labels, model], used.turns)
                for kind in ("input", "cached", "output"):
                    model_tokens.add_metric([*labels, model, kind], getattr(used, f"{kind}_tokens"))
        return turns, refused, tokens, uploads, of_models, model_tokens


class EngineCollector(Collector):
    """The figures that models in this process keep themselves, read for each scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.models: list[LocalUpstream] = []
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the present figures."""

        def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"segue_local_{name}", text, labels=["upstream", *labels])

        def counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
            return CounterMetricFamily(f"segue_local_{name}", text, labels=["upstream", *labels])

        running = gauge("running", "Turns that a model in this process works on.")
        waiting = gauge("waiting", "Turns that wait for it.")
        about = (
            "Tokens of prompts reused, restored (of those), prefilled; of answers; drafted, and accepted (of those)."
        )
        tokens = counter("tokens", about, "kind")
        sequences = gauge("sequences", "Conversations whose KV cache is kept, by where.", "place")
        cells = gauge("context_tokens", "Tokens in the context, shared ones once.")
        held = gauge("state_bytes", "Evicted KV cache, by where.", "place")
        evictions = counter("evictions", "Conversations moved out of the context.")
        parked = counter("parked", "Turns that had to give way to others for a while.")
        compactions = counter("compactions", "Times that all in the context was moved together.")
        for model in self.models:
            counts, name = model.counters, model.name
            running.add_metric([name], model.running)
            waiting.add_metric([name], model.waiting)
            for kind in get_args(EngineTokens):
                tokens.add_metric([name, kind], counts.tokens(kind))
            for place in ("context", "host", "disk"):
                sequences.add_metric([name, place], counts.sequences[place])
            cells.add_metric([name], counts.context_tokens)
            held.add_metric([name, "host"], counts.host_bytes)
            held.add_metric([name, "disk"], counts.disk_bytes)
            evictions.add_metric([name], counts.evictions)
            parked.add_metric([name], counts.preemptions)
            compactions.add_metric([name], counts.defrags)
        return running, waiting, tokens, sequences, cells, held, evictions, parked, compactions


class NodeCollector(Collector):
    """What this node is to others that share something with it, read for each scrape; nothing of a single one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.nodes: Nodes | None = None
        self.live: Live | None = None
        self._windows: SharedWindows | None = None
        self._limiter: ConcurrencyLimiter | None = None
        registry.register(self)

    def watch(
        self, nodes: Nodes, live: Live | None, windows: SharedWindows | None, limiter: ConcurrencyLimiter
    ) -> None:
        """Tell of these from now on."""
        self.nodes, self.live, self._windows, self._limiter = nodes, live, windows, limiter

    def collect(self) -> Iterable[Metric]:
        """Return the present figures."""
        lease = GaugeMetricFamily(
            "segue_node_lease",
            "1 while the lease of this node holds; without it, it trusts the store alone.",
            labels=["node"],
        )
        available = GaugeMetricFamily(
            "segue_node_live_available", "1 while what the nodes share can be reached from this one.", labels=["node"]
        )
        alone = GaugeMetricFamily(
            "segue_node_quotas_alone", "1 while this node counts its quotas for itself alone.", labels=["node"]
        )
        if self.nodes is not None and self.live is not None:
            lease.add_metric([self.nodes.id], self.nodes.held)
            available.add_metric([self.nodes.id], self.live.available)
        if self.nodes is not None and self._windows is not None and self._limiter is not None:
            alone.add_metric([self.nodes.id], self._windows.alone or self._limiter.alone)
        return lease, available, alone


class Metrics:
    """All metrics of one gateway."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self.by_transport = TransportCollector(registry).meters
        self.hits = counter("segue_continuation_hits", "Continued responses, by where they were found.", "level")
        self.misses = counter("segue_continuation_misses", "Continuations of a response that was not found.")
        self.evictions = counter("segue_cache_evictions", "Responses dropped from memory to keep the byte budget.")
        self.state_bytes = Gauge("segue_state_bytes", "History held in memory.", registry=registry)
        self.connections = Gauge("segue_websocket_connections", "Open WebSocket connections.", registry=registry)
        self.kept_turns = Gauge("segue_kept_turns", "Turns that run apart from their clients.", registry=registry)
        self.event_log_bytes = Gauge(
            "segue_event_log_bytes", "Events kept so that streams can resume.", registry=registry
        )
        resumes = counter("segue_resumes", "Streams that were asked for from an event on, by outcome.", "outcome")
        self.resumed, self.not_resumed = resumes.labels("found"), resumes.labels("gone")
        self.repeats = counter(
            "segue_repeated_creates", "Creates that were answered with a response that there was already."
        )
        self.tunnel = TunnelMeter(registry)
        self.compactions = CompactionMeter(registry)
        self.upstreams = ProviderCollector(registry)
        self.usage = UsageCollector(registry)
        self.engines = EngineCollector(registry)
        build = Gauge("segue_build_info", "1, labelled with the version that runs.", ["version"], registry=registry)
        build.labels(__version__).set(1)
        ProcessCollector(registry=registry)  # where there is /proc
        self.nodes = NodeCollector(registry)
        self.store_available = Gauge(
            "segue_store_available", "1 if the store took a write at this scrape.", registry=registry
        )
        self.worker: int | None = None
        """The place of this process among the workers of one machine, from 1 on; None if it is alone."""
        self._evictions = 0
        self.hit = {level: self.hits.labels(level) for level in _LEVELS}

    def render(self, cache: TurnCache, *, stores: bool = True) -> bytes:
        """Return the text of `GET /metrics`. The cache's own counts are read now; the store `stores`, or does not."""
        self.store_available.set(stores)
        self.state_bytes.set(cache.size_bytes)
        self.evictions.inc(cache.evictions - self._evictions)
        self._evictions = cache.evictions
        return generate_latest(self.registry if self.worker is None else _OfWorker(self.registry, self.worker))


class _OfWorker(Collector):
    """The metrics of one of several workers: each series says whose it is, since all answer at the same port."""

    def __init__(self, registry: CollectorRegistry, worker: int) -> None:
        self._registry = registry
        self._label = {"worker": str(worker)}

    def collect(self) -> Iterable[Metric]:
        for family in self._registry.collect():
            family.samples = [sample._replace(labels={**sample.labels, **self._label}) for sample in family.samples]
            yield family

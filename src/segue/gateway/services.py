"""What the parts of a gateway share. Endpoints, tunnel and WebSocket connections get this object and never the app.

Not here: the listening socket and the order of starting and stopping (`app`), and who runs turns how (`turns`).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import msgspec

from segue.config import Config, ServerConfig, compaction_secrets
from segue.engine.upstream import LocalUpstream
from segue.gateway.access import Access
from segue.gateway.admin.metrics import Metrics
from segue.gateway.audit import AuditLog
from segue.gateway.caller_rules import CallerRules
from segue.gateway.drain import DrainState
from segue.gateway.listener_profile import ListenerProfiles
from segue.gateway.quotas.concurrency import ConcurrencyLimiter
from segue.gateway.quotas.quotas import Quotas
from segue.gateway.quotas.shared_windows import SharedWindows
from segue.gateway.request_memory import RequestMemory
from segue.gateway.request_parser import RequestParser
from segue.gateway.sealing_secret import stored_secret
from segue.gateway.turns.background import BackgroundResponses, BackgroundSettings
from segue.gateway.turns.compaction import Compactions, CompactionSettings
from segue.gateway.turns.erasure import Erasure
from segue.gateway.turns.eviction import Eviction
from segue.gateway.turns.executor import Executor
from segue.gateway.turns.grace_period import GracePeriod
from segue.gateway.turns.node_notices import NodeNotices
from segue.gateway.turns.parents import Parents
from segue.gateway.turns.threads import ThreadRules, Threads
from segue.gateway.turns.turn_log import TurnLog
from segue.gateway.turns.turn_settings import Sources, TurnSettings
from segue.history.cache import TurnCache
from segue.history.compaction import TOKEN_BYTES
from segue.history.sealed_summaries import MIN_SECRET_BYTES, SummarySealer
from segue.protocol.problems import Refused, epoch_changed
from segue.protocol.request_size import RequestLimits
from segue.protocol.requests import Create
from segue.stores.event_logs import EventLogs, MemoryEventLogs
from segue.stores.idempotency_keys import MemoryClaims
from segue.stores.interface import Store
from segue.stores.live.advisory_locks import AdvisoryLocks, MemoryLocks
from segue.stores.live.interface import Live, Nodes
from segue.stores.live.memory import SingleNode
from segue.stores.postgres.postgres_url import is_postgres
from segue.stores.sqlite import SqliteStore
from segue.stores.store_url import file_of
from segue.upstreams.http import HttpUpstream
from segue.upstreams.router import Router

#: Length of an epoch. No two runs draw the same.
EPOCH_BYTES = 8

_log = logging.getLogger("segue.gateway")


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The shared parts of one gateway. `clock` gives unix seconds; `epoch` names this run of it."""

    epoch: bytes
    server: ServerConfig
    clock: Callable[[], float]
    started_at: float
    access: Access
    profiles: ListenerProfiles
    requests: RequestParser
    memory: RequestMemory
    router: Router
    store: Store
    cache: TurnCache
    parents: Parents
    executor: Executor
    background: BackgroundResponses
    grace: GracePeriod
    threads: Threads
    event_logs: MemoryEventLogs
    metrics: Metrics
    drain: DrainState
    nodes: Nodes
    live: Live | None
    shared_windows: SharedWindows | None
    rules: CallerRules
    audit: AuditLog

    def note_upstreams(self) -> None:
        """Let metrics and deletions follow the router's upstreams, after they were replaced."""
        upstreams = self.router.upstreams
        self.executor.eviction.replace_upstreams(upstreams)
        self.metrics.upstreams.providers = [one for one in upstreams if isinstance(one, HttpUpstream)]
        self.metrics.upstreams.router = self.router
        self.metrics.engines.models = [one for one in upstreams if isinstance(one, LocalUpstream)]

    async def start_node(self, erasure: Erasure) -> None:
        """Take a lease where there are several gateways. Raises `LiveUnavailable`."""
        self.nodes.watch(self.distrust_memory)
        await self.nodes.start(NodeNotices(self.executor, self.background, erasure).act)
        self.profiles.name_epoch(self.nodes.epoch)

    async def distrust_memory(self) -> None:
        """Drop what is in memory of stored turns: others may have deleted some, and this gateway was not told."""
        self.profiles.name_epoch(self.nodes.epoch)
        self.parents.note_deletion()
        self.cache.drop_stored()
        await self.background.distrust()
        if self.live is not None:
            await self.live.locks.renew()
        self.rules.limiter.tell_again()

    def check_epoch(self, create: Create) -> None:
        """Refuse a request that is for another run of the gateway: this one may not know that it has been run."""
        if create.epoch is not None and create.epoch != self.nodes.epoch.hex():
            raise Refused(epoch_changed())


def build_services(
    config: Config, router: Router, store: Store, clock: Callable[[], float], live: Live | None = None
) -> Services:
    """Build the parts of a gateway around upstreams that have started and a store that is open.

    `live` is what it shares with other gateways; without it, there are none.
    """
    server, epoch = config.server, os.urandom(EPOCH_BYTES) if live is None else bytes.fromhex(live.nodes.id)
    nodes: Nodes = live.nodes if live else SingleNode(epoch, address=config.tunnel.address, started_at=clock())
    drain, metrics, cache = DrainState(), Metrics(), TurnCache(server.memory_budget_bytes)
    access, quotas, compactions = Access(config), Quotas(config), _build_compactions(config, store, metrics)
    limiter = ConcurrencyLimiter(quotas, None if live is None else live.places, clock)
    eviction = Eviction(cache, router.upstreams)
    grace = GracePeriod(cache, clock, eviction.release)
    parents = Parents(
        cache, store, eviction=eviction, grace=grace, metrics=metrics, compactions=compactions, nodes=nodes, clock=clock
    )
    locks = MemoryLocks() if live is None else live.locks
    executor = _build_executor(server, router, store, parents=parents, limiter=limiter, locks=locks, clock=clock)
    event_logs = MemoryEventLogs(server.events_bytes, server.event_log_bytes)
    memory = RequestMemory(server.requests_bytes)
    background = BackgroundResponses(
        executor,
        logs=event_logs if live is None else _share_logs(live, event_logs, server, clock),
        claims=MemoryClaims() if live is None else live.claims,
        grace=grace,
        settings=BackgroundSettings(server.resume_s, server.events_s, server.max_kept),
        memory=memory,
        metrics=metrics,
        drain=drain,
    )
    services = Services(
        epoch=epoch,
        server=server,
        clock=clock,
        started_at=clock(),
        access=access,
        profiles=ListenerProfiles(server, epoch),
        requests=RequestParser(RequestLimits(server.max_items, server.max_values), router.accounts),
        memory=memory,
        router=router,
        store=store,
        cache=cache,
        parents=parents,
        executor=executor,
        background=background,
        grace=grace,
        threads=_build_threads(config, executor, grace=grace, locks=locks),
        event_logs=event_logs,
        metrics=metrics,
        drain=drain,
        nodes=nodes,
        live=live,
        shared_windows=None if live is None else SharedWindows(quotas, live.windows, clock),
        rules=CallerRules(access, limiter, clock),
        audit=AuditLog(server.audit_log, clock),
    )
    services.note_upstreams()
    _measure(services)
    return services


def _measure(services: Services) -> None:
    """Let metrics show what the parts count themselves."""
    metrics = services.metrics
    metrics.nodes.watch(services.nodes, services.live, services.shared_windows, services.rules.limiter)
    metrics.usage.quotas = services.rules.quotas
    metrics.connections.set_function(lambda: services.drain.connections)
    metrics.kept_turns.set_function(lambda: services.background.running)
    metrics.event_log_bytes.set_function(lambda: services.event_logs.size_bytes)


def _share_logs(live: Live, logs: MemoryEventLogs, server: ServerConfig, clock: Callable[[], float]) -> EventLogs:
    return live.share_logs(logs, log_bytes=server.event_log_bytes, tenant_bytes=server.events_bytes, clock=clock)


def _build_executor(
    server: ServerConfig,
    router: Router,
    store: Store,
    *,
    parents: Parents,
    limiter: ConcurrencyLimiter,
    locks: AdvisoryLocks,
    clock: Callable[[], float],
) -> Executor:
    return Executor(
        router=router,
        store=store,
        parents=parents,
        limiter=limiter,
        locks=locks,
        settings=TurnSettings(retention_s=server.retention_s, max_referenced_bytes=server.max_message_bytes),
        sources=Sources(clock=clock, monotonic=time.monotonic, entropy=os.urandom),
        turn_log=TurnLog(server.turn_log),
    )


def _build_threads(config: Config, executor: Executor, *, grace: GracePeriod, locks: AdvisoryLocks) -> Threads:
    return Threads(
        ThreadRules.of(config),
        parents=executor.parents,
        store=executor.store,
        cache=executor.cache,
        grace=grace,
        locks=locks,
        clock=executor.clock,
        entropy=executor.entropy,
    )


def _build_compactions(config: Config, store: Store, metrics: Metrics) -> Compactions:
    """Build what compacts histories. Without any secret, what it seals can be read in this run of the gateway."""
    table = config.compaction
    secrets = compaction_secrets(table)
    file = file_of(config.server.store) if isinstance(store, SqliteStore) else None
    stored = None if file is None else stored_secret(file, make=not secrets)
    secrets += [] if stored is None else [stored]
    if not secrets and is_postgres(config.server.store):
        _log.warning(
            "action=start no other gateway can read the summaries that this one seals, nor this one after a restart: "
            "compaction.secrets_env names no secret"
        )
    secrets = secrets or [os.urandom(MIN_SECRET_BYTES)]
    settings = CompactionSettings(
        prompt=table.prompt,
        lead=table.lead,
        threshold_tokens=table.threshold_tokens,
        summary_tokens=table.summary_tokens,
        retained_bytes=TOKEN_BYTES * table.retained_tokens,
    )
    return Compactions(SummarySealer(secrets), settings, entropy=os.urandom, meter=metrics.compactions)

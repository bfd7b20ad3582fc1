"""From the configuration to upstreams and routes: which models this gateway offers, and where its tunnel forwards.

With no `[[upstream]]` configured, the bundled model answers as `smollm2` if it can run here. If it cannot, the log says
so once, and only the scripted model is left. The scripted model is always there under its own name, after everything
that is configured. Not here: reading the configuration (`config`), and starting what is built (`app`).
"""

from __future__ import annotations

import hashlib
import logging
import random
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import assert_never
from urllib.parse import urlsplit

import msgspec

from segue.config import (
    Config,
    ConfigError,
    KeyConfig,
    ProviderDialect,
    UpstreamConfig,
    concurrency,
    has_openmp_policy,
    models_directory,
    read_key,
    split_header,
)
from segue.dialects.chat.request import ChatDialect
from segue.dialects.interface import Dialect
from segue.dialects.messages.request import MessagesDialect
from segue.dialects.messages.thread_request import ThreadedDialect
from segue.dialects.provider_families import FAMILIES, ProviderFamily, find_family_by_host
from segue.dialects.provider_profiles import PLAIN, ProviderProfile, override_cells
from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.request import ResponsesDialect
from segue.dialects.rules import OWN_FIELDS, Preset
from segue.engine import MODEL_NAME as LOCAL_MODEL
from segue.engine import ModelFile, find_model, why_unavailable
from segue.engine.openmp import shorten_spinning
from segue.engine.upstream import LocalUpstream
from segue.http.routes import RouteError, RouteTable, Target, parse_target, route_table
from segue.upstreams.http import HttpUpstream, Provider, UpstreamRuntime
from segue.upstreams.interface import Upstream
from segue.upstreams.message_threads import MessageThreads
from segue.upstreams.retries import RetryPolicy
from segue.upstreams.router import ModelRule, Router, Sharing
from segue.upstreams.scripted import MODEL as SCRIPTED
from segue.upstreams.scripted import ScriptedUpstream
from segue.upstreams.session_affinity import SessionAffinity, fault_of_header
from segue.upstreams.slots import CACHE_FIELD, SLOT_FIELD
from segue.upstreams.socket_lanes import IdleLimits
from segue.upstreams.time_slices import TimeAccounts
from segue.upstreams.websocket import WebSocketUpstream

_log = logging.getLogger("segue.gateway")

#: The providers whose guides to WebSocket mode describe `generate: false`.
_WARMING_UP = frozenset({"openai", "azure", "xai"})
#: The host of the service that message threads are of.
_ANTHROPIC = "api.anthropic.com"


def build_router(config: Config, before: Router | None = None) -> Router:
    """Build the upstreams, not yet started, and the rules that lead to them.

    What is configured as it was when `before` was built is taken from there, with all that it holds.

    Raises:
        ConfigError: a configured upstream cannot run here.
    """
    known = {} if before is None else {rule.origin: rule.upstream for rule in before.rules if rule.origin}
    runtime = _runtime_of(before) or UpstreamRuntime(
        time.time, random.random, RenderCache(config.server.fragments_budget_bytes)
    )
    secret_of = tenant_secrets(config.key)
    zero_retention = frozenset(tenant.name for tenant in config.tenant if tenant.zero_retention)
    accounts = TimeAccounts() if before is None else before.accounts

    def rule(up: UpstreamConfig) -> ModelRule:
        origin = _origin(up, config.key, zero_retention=zero_retention)
        upstream = known.get(origin) or _build(
            up, runtime, accounts, secret_of=secret_of, zero_retention=zero_retention
        )
        return ModelRule(upstream, up.models, up.model_as, origin, sharing=_sharing(up))

    bundled = [] if config.upstream else _bundled()
    scripted = known.get(_SCRIPTED_ORIGIN) or ScriptedUpstream()
    rules = [rule(up) for up in (*config.upstream, *bundled)]
    rules.append(ModelRule(scripted, (SCRIPTED,), origin=_SCRIPTED_ORIGIN))
    return Router(rules, None if before is None else before.state, accounts)


_SCRIPTED_ORIGIN = b"the scripted model that is always there"


def _sharing(up: UpstreamConfig) -> Sharing:
    return Sharing(up.name, up.group, up.weight, up.backup, tuple(up.tenants))


def _origin(up: UpstreamConfig, keys: Sequence[KeyConfig], *, zero_retention: frozenset[str]) -> bytes:
    """Return what stands for an upstream's settings: all that it is built from, and a digest of its own key."""
    secret = (read_key(up) or "").encode()
    up = msgspec.structs.replace(up, group=None, weight=1, backup=False, tenants=[])  # these are settings of its rule
    tenants = [(key.tenant, key.sha256) for key in keys] if up.affinity_header else []
    kept = sorted(zero_retention) if up.dialect == "messages" else []
    return msgspec.json.encode((up, hashlib.sha256(secret).hexdigest(), tenants, kept))


def _runtime_of(router: Router | None) -> UpstreamRuntime | None:
    upstreams = [] if router is None else router.upstreams
    return next((one.runtime for one in upstreams if isinstance(one, HttpUpstream)), None)


def build_routes(config: Config) -> RouteTable:
    """Build the table of where the tunnel forwards.

    Raises:
        ConfigError: a route is not allowed.
    """
    try:
        return route_table(config.route, built_in=config.tunnel.built_in_routes)
    except RouteError as error:
        raise ConfigError(str(error)) from None


def provider_targets(config: Config) -> list[Target]:
    """Return the servers of the configured upstreams, as far as their addresses are those of a plain server."""
    targets = []
    for up in config.upstream:
        with suppress(RouteError):
            targets += [] if up.base_url is None else [parse_target(up.base_url)]
    return targets


def tenant_secrets(keys: Sequence[KeyConfig]) -> Callable[[str], bytes]:
    """Return a function from a tenant to its secret, which no provider knows.

    The secret is the digest of the tenant's first API key, so that all gateways of a configuration have the same one.
    A configuration without keys is for one gateway on one machine, which draws a secret.
    """
    drawn = secrets.token_bytes(32)
    first: dict[str, bytes] = {}
    for key in keys:
        first.setdefault(key.tenant, bytes.fromhex(key.sha256))
    return lambda tenant: first.get(tenant, drawn)


def why_no_local_model() -> str | None:
    """Return why the bundled model cannot answer here; None if it can."""
    return why_unavailable(find_model(models_directory()))


def _bundled() -> list[UpstreamConfig]:
    """Return the settings of the bundled model, if it can answer here."""
    reason = why_no_local_model()
    if reason is not None:
        _log.warning("action=start no local model: %s; only %r is offered", reason, SCRIPTED)
        return []
    return [UpstreamConfig(name=LOCAL_MODEL, dialect="local", models=[LOCAL_MODEL])]


def _build(
    up: UpstreamConfig,
    runtime: UpstreamRuntime,
    accounts: TimeAccounts,
    *,
    secret_of: Callable[[str], bytes],
    zero_retention: frozenset[str],
) -> Upstream:
    match up.dialect:
        case "scripted":
            return ScriptedUpstream(models=up.models)
        case "local":
            return _build_local(up, accounts)
        case "chat" | "messages" | "responses":
            dialect = _build_dialect(up, up.dialect, _build_preset(up))
            affinity = _build_affinity(up, secret_of)
            return _build_provider(up, dialect, runtime, affinity=affinity, zero_retention=zero_retention)
        case _:
            assert_never(up.dialect)


def _build_preset(up: UpstreamConfig) -> Preset:
    """Return the fields that every request has. With slots, the gateway itself sets llama-server's own fields."""
    where = f"upstream {up.name!r}: body"
    for name in up.body:
        if name in OWN_FIELDS[up.dialect]:
            raise ConfigError(f"{where}.{name} is a field that the gateway writes itself; leave it out")
        if up.slots is not None and name in {SLOT_FIELD, CACHE_FIELD}:
            raise ConfigError(f"{where}.{name} is a field that the gateway writes because of slots; leave it out")
    if msgspec.json.decode(msgspec.json.encode(up.body)) != up.body:
        raise ConfigError(f"{where} holds what JSON does not have: a date, a time, or a number that is none")
    if up.slots is None:
        return Preset(up.body)
    return Preset({**up.body, CACHE_FIELD: True}, withheld=frozenset({SLOT_FIELD}))


def _build_affinity(up: UpstreamConfig, secret_of: Callable[[str], bytes]) -> SessionAffinity | None:
    name = up.affinity_header
    if name is None:
        return None
    twice = any(split_header(line)[0].lower() == name.lower() for line in up.headers)
    fault = "is in headers too: which one is sent?" if twice else fault_of_header(name)
    if fault is not None:
        raise ConfigError(f"upstream {up.name!r}: affinity_header {name!r} {fault}")
    return SessionAffinity(name, secret_of)


def family_of(up: UpstreamConfig) -> ProviderFamily | None:
    """Return whose server a provider's is: what the configuration says, or else what its address says.

    Raises:
        ConfigError: the configuration names a provider that is not in the table.
    """
    if up.provider is None:
        return find_family_by_host(urlsplit(up.base_url or "").hostname or "")
    family = FAMILIES.get(up.provider)
    if family is None:
        known = ", ".join(FAMILIES)
        raise ConfigError(f"upstream {up.name!r}: provider {up.provider!r} is unknown; known providers: {known}")
    return family


def build_profile(up: UpstreamConfig) -> ProviderProfile:
    """Return what a provider's server does differently: what is known of it, and over it what the configuration says.

    Raises:
        ConfigError: the configuration says what there is not.
    """
    family = family_of(up)
    cells = up.compat if up.return_reasoning else {"returned_reasoning": "never", **up.compat}
    profile = override_cells(PLAIN if family is None else family.profile, cells, up.dialect)
    if isinstance(profile, str):
        raise ConfigError(f"upstream {up.name!r}: compat: {profile}")
    return profile


def _build_dialect(up: UpstreamConfig, dialect: ProviderDialect, preset: Preset) -> Dialect:
    assert up.base_url is not None, "checked when the configuration was read"
    host = urlsplit(up.base_url).netloc.lower()
    reader = f"{dialect}@{host}"  # who can read the reasoning that comes from there: this API of this host
    profile = build_profile(up)
    match dialect:
        case "chat":
            return ChatDialect(reader, profile=profile, preset=preset)
        case "messages":
            return MessagesDialect(reader, max_tokens=up.max_tokens, profile=profile, preset=preset)
        case "responses":
            return ResponsesDialect(reader, profile=profile, preset=preset)
        case _:
            assert_never(dialect)


def _build_threads(up: UpstreamConfig, dialect: Dialect) -> MessageThreads | None:
    """Return the message threads at an upstream. Anthropic's own service is known not to ignore them."""
    address = urlsplit(up.base_url or "")
    is_anthropic = (address.scheme, address.hostname) == ("https", _ANTHROPIC)
    wanted = is_anthropic if up.message_threads is None else up.message_threads
    if not wanted or not isinstance(dialect, MessagesDialect):
        return None
    return MessageThreads(ThreadedDialect(dialect), trusted=is_anthropic)


def _build_provider(
    up: UpstreamConfig,
    dialect: Dialect,
    runtime: UpstreamRuntime,
    *,
    affinity: SessionAffinity | None,
    zero_retention: frozenset[str],
) -> HttpUpstream:
    assert up.base_url is not None, "checked when the configuration was read"
    provider = Provider(
        name=up.name,
        base_url=up.base_url,
        headers=tuple(map(split_header, up.headers)),
        pass_key=up.pass_key,
        max_concurrent=concurrency(up),
        max_queued=up.max_queued,
        queue_timeout_s=up.queue_timeout_s,
        connect_timeout_s=up.connect_timeout_s,
        first_byte_timeout_s=up.first_byte_timeout_s,
        idle_timeout_s=up.idle_timeout_s,
        retry=RetryPolicy(attempts=up.attempts, longest_wait_s=up.longest_wait_s),
        slots=up.slots,
        rerun=up.rerun,
        compacts=up.compaction == "upstream",
        zero_retention=zero_retention,
    )
    key = read_key(up)
    if up.transport == "websocket":
        assert isinstance(dialect, ResponsesDialect), "checked when the configuration was read"
        limits = IdleLimits(
            max_idle=up.websocket_idle,
            idle_s=up.websocket_idle_s,
            age_s=up.websocket_age_s,
            lanes=up.websocket_lanes,
        )
        family = family_of(up)
        warms_up = family is not None and family.name in _WARMING_UP
        return WebSocketUpstream(
            provider,
            dialect,
            runtime,
            models=up.models,
            key=key,
            affinity=affinity,
            limits=limits,
            warms_up=warms_up,
        )
    threads = _build_threads(up, dialect)
    return HttpUpstream(provider, dialect, runtime, models=up.models, key=key, affinity=affinity, threads=threads)


def _build_local(up: UpstreamConfig, accounts: TimeAccounts) -> LocalUpstream:
    path = Path(up.model_file) if up.model_file is not None else find_model(models_directory())
    reason = why_unavailable(path)
    if reason is not None or path is None:
        raise ConfigError(f"upstream {up.name!r}: {reason}")
    if not has_openmp_policy():
        shorten_spinning()
    file = ModelFile(
        path,
        up.name,
        template=Path(up.chat_template_file) if up.chat_template_file is not None else None,
        context=up.context_tokens,
        threads=up.threads,
        parallel=up.parallel,
        batch_invariant=up.batch_invariant,
        answer_tokens=up.answer_tokens,
        draft_tokens=up.draft_tokens,
        kv_bytes=up.kv_bytes,
        host_bytes=up.kv_host_bytes,
        disk_bytes=up.kv_disk_bytes,
        spill_directory=Path(up.kv_directory) if up.kv_directory else None,
        idle_s=up.kv_idle_s,
    )
    return LocalUpstream(file, accounts=accounts)

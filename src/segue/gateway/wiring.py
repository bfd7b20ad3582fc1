"""From the configuration to upstreams: which models this gateway offers.

With no `[[upstream]]` configured the model in the box answers as `smollm2`, if it can run here; where it cannot, that
is said once in the log, and the scripted model is what there is. That one is always there under its own name, after
everything that is configured.
"""

from __future__ import annotations

import logging
from pathlib import Path

from segue.config import Config, ConfigError, UpstreamConfig
from segue.egress.routes import RouteError, RouteTable, route_table
from segue.upstreams.interface import Upstream
from segue.upstreams.local import MODEL_NAME as LOCAL_MODEL
from segue.upstreams.local import LocalUpstream, ModelFile, find_model, why_unavailable
from segue.upstreams.router import Router, Rule
from segue.upstreams.scripted import MODEL as SCRIPTED
from segue.upstreams.scripted import ScriptedUpstream

_log = logging.getLogger("segue.gateway")


def build_router(config: Config) -> Router:
    """Build the upstreams, not yet started, and the rules that lead to them.

    Raises:
        ConfigError: a configured upstream cannot run here.
    """
    rules = [Rule(_build(up), up.models, up.model_as) for up in config.upstream]
    return Router([*(rules or _defaults()), Rule(ScriptedUpstream(), (SCRIPTED,))])


def build_routes(config: Config) -> RouteTable:
    """Build the table of where the tunnel forwards.

    Raises:
        ConfigError: a route says something that is not allowed.
    """
    try:
        return route_table(config.route)
    except RouteError as error:
        raise ConfigError(str(error)) from None


def why_no_local_model() -> str | None:
    """Say why the model in the box cannot answer here; None if it can."""
    return why_unavailable(find_model())


def _defaults() -> list[Rule]:
    reason = why_no_local_model()
    if reason is not None:
        _log.warning("action=start no local model: %s; only %r is offered", reason, SCRIPTED)
        return []
    boxed = UpstreamConfig(name=LOCAL_MODEL, dialect="local", models=[LOCAL_MODEL])
    return [Rule(_build(boxed), boxed.models)]


def _build(up: UpstreamConfig) -> Upstream:
    if up.dialect == "scripted":
        return ScriptedUpstream(models=up.models)
    path = Path(up.model_file) if up.model_file is not None else find_model()
    reason = why_unavailable(path)
    if reason is not None or path is None:
        raise ConfigError(f"upstream {up.name!r}: {reason}")
    file = ModelFile(path, up.name, context=up.context_tokens, threads=up.threads)
    return LocalUpstream(file)

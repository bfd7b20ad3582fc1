"""From the configuration to upstreams: which models this gateway offers.

With no `[[upstream]]` configured the model in the box answers as `smollm2`, if it can run here. The scripted model is
always there under its own name, after everything that is configured.
"""

from __future__ import annotations

from segue.config import Config, UpstreamConfig
from segue.upstreams.interface import Upstream
from segue.upstreams.router import Router, Rule
from segue.upstreams.scripted import MODEL as SCRIPTED
from segue.upstreams.scripted import ScriptedUpstream


def build_router(config: Config) -> Router:
    """Build the upstreams and the rules that lead to them."""
    rules = [Rule(_build(up), up.models, up.model_as) for up in config.upstream]
    return Router([*rules, Rule(ScriptedUpstream(), (SCRIPTED,))])


def _build(up: UpstreamConfig) -> Upstream:
    return ScriptedUpstream(models=up.models)

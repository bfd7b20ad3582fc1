"""The router: which upstream runs a model, by its name.

Rules are tried in the order of the configuration and the first match wins; a rule may give the upstream another name
for the model. Not here: what an upstream does with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate

from segue.upstreams.interface import Upstream


class ModelRule:
    """Models that match one of `patterns` (names or globs) run on `upstream`, as `model_as` if that is given."""

    def __init__(self, upstream: Upstream, patterns: Sequence[str], model_as: str | None = None) -> None:
        self.upstream = upstream
        self.patterns = tuple(patterns)
        self.model_as = model_as
        self._matches = re.compile("|".join(translate(pattern) for pattern in patterns)).match

    def matches(self, model: str) -> bool:
        """Tell whether this rule takes the model."""
        return self._matches(model) is not None


class Router:
    """The rules in order, and the upstreams they name."""

    def __init__(self, rules: Sequence[ModelRule]) -> None:
        self._rules = tuple(rules)

    @property
    def rules(self) -> Sequence[ModelRule]:
        """The rules, in the order they are tried."""
        return self._rules

    def find(self, model: str) -> tuple[Upstream, str] | None:
        """Return the upstream for a model and the upstream's own name for it."""
        rule = next((rule for rule in self._rules if rule.matches(model)), None)
        return None if rule is None else (rule.upstream, rule.model_as or model)

    def models(self) -> list[str]:
        """Return the names that can be listed: those of the rules that are no globs."""
        names = (name for rule in self._rules for name in rule.patterns if not set(name) & set("*?["))
        return list(dict.fromkeys(names))

    @property
    def upstreams(self) -> list[Upstream]:
        """Every upstream once."""
        return list({id(rule.upstream): rule.upstream for rule in self._rules}.values())

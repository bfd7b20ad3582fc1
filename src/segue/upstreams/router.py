"""The router: which upstream runs a model, by the model's name.

Rules are tried in the order of the configuration, and the first match wins. A rule may have the upstream called with
another name for the model. Not here: what an upstream does with a turn.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from fnmatch import translate

from segue.upstreams.interface import ModelLister, Secret, Upstream

#: Gemini lists its models by their resource names, and takes both (https://ai.google.dev/gemini-api/docs/openai).
_RESOURCE = "models/"


class ModelRule:
    """Models that match one of `patterns` (names or globs) run on `upstream`, under the name `model_as` if given.

    `origin` stands for the settings that the upstream was built from: the same settings need no other upstream.
    """

    def __init__(
        self, upstream: Upstream, patterns: Sequence[str], model_as: str | None = None, origin: bytes = b""
    ) -> None:
        self.upstream = upstream
        self.patterns = tuple(patterns)
        self.model_as = model_as
        self.origin = origin
        self._matches = re.compile("|".join(translate(pattern) for pattern in patterns)).match

    @property
    def has_globs(self) -> bool:
        """Whether it applies to models that the configuration does not name."""
        return any(map(_is_glob, self.patterns))

    def is_match(self, model: str) -> bool:
        """Say whether the rule applies to a model."""
        return self._matches(model) is not None


class Router:
    """The rules, in order, and their upstreams."""

    def __init__(self, rules: Sequence[ModelRule]) -> None:
        self._rules = tuple(rules)

    @property
    def rules(self) -> Sequence[ModelRule]:
        """The rules, in the order in which they are tried."""
        return self._rules

    def replace(self, rules: Sequence[ModelRule]) -> None:
        """Take other rules. Turns that have found their upstream go on with it."""
        self._rules = tuple(rules)

    def find(self, model: str) -> tuple[Upstream, str] | None:
        """Return the upstream for a model and the upstream's own name for it."""
        rule = next((rule for rule in self._rules if rule.is_match(model)), None)
        return None if rule is None else (rule.upstream, rule.model_as or model)

    def models(self) -> list[str]:
        """Return the models to list: the patterns that are names, not globs."""
        names = (name for rule in self._rules for name in rule.patterns if not _is_glob(name))
        return list(dict.fromkeys(names))

    async def discover(self, credential: Secret | None) -> list[str]:
        """Return the models that upstreams list themselves and that a glob of theirs lets clients name.

        `credential` is the client's own key. A rule with another name for all its models has nothing to list.
        """
        rules = [rule for rule in self._rules if rule.has_globs and rule.model_as is None]
        asked = [(rule, rule.upstream) for rule in rules if isinstance(rule.upstream, ModelLister)]
        lists = await asyncio.gather(*(upstream.list_models(credential) for _, upstream in asked))
        found: dict[str, None] = {}
        for (rule, _), names in zip(asked, lists, strict=True):
            spelled = (name if rule.is_match(name) else name.removeprefix(_RESOURCE) for name in names)
            found |= dict.fromkeys(name for name in spelled if self._runs(rule, name))
        return list(found)

    def _runs(self, rule: ModelRule, model: str) -> bool:
        return next((one for one in self._rules if one.is_match(model)), None) is rule

    @property
    def upstreams(self) -> list[Upstream]:
        """Every upstream once."""
        return list({id(rule.upstream): rule.upstream for rule in self._rules}.values())


def _is_glob(pattern: str) -> bool:
    return bool(set(pattern) & set("*?["))

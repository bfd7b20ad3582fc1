"""The router: which upstream runs a model, by the model's name and the tenant.

Rules are tried in the order of the configuration, and the first match wins. If that one is in a group, all rules of its
group that match run the model together. A rule may be for some tenants only; for others it is as if it were not there.
A rule may have the upstream called with another name for the model. Not here: which upstream of a group has a turn
(`group`), and what an upstream does with it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import translate
from typing import NamedTuple

import msgspec

from segue.upstreams.group import GroupState, Member, UpstreamGroup
from segue.upstreams.interface import ModelLister, Secret, Streaming, TellingSettings, Upstream
from segue.upstreams.time_slices import TimeAccounts

#: Gemini lists its models by their resource names, and takes both (https://ai.google.dev/gemini-api/docs/openai).
_RESOURCE = "models/"


class Sharing(msgspec.Struct, frozen=True):
    """How an upstream, by its own name, shares turns with the others of its group, and for which tenants it is.

    A `backup` has turns only while all others are out. `tenants` are names or globs.
    """

    name: str = ""
    group: str | None = None
    weight: int = 1
    backup: bool = False
    tenants: tuple[str, ...] = ("*",)


class ModelRule:
    """Models that match one of `patterns` (names or globs) run on `upstream`, under the name `model_as` if given.

    `origin` stands for the settings that the upstream was built from: the same settings need no other upstream.
    """

    def __init__(
        self,
        upstream: Upstream,
        patterns: Sequence[str],
        model_as: str | None = None,
        origin: bytes = b"",
        *,
        sharing: Sharing | None = None,
    ) -> None:
        self.upstream = upstream
        self.patterns = tuple(patterns)
        self.model_as = model_as
        self.origin = origin
        self.sharing = sharing or Sharing()
        self.tells = upstream if isinstance(upstream, TellingSettings) else None
        self._matches = _matcher(patterns)
        self._serves = None if "*" in self.sharing.tenants else _matcher(self.sharing.tenants)

    @property
    def has_globs(self) -> bool:
        """Whether it applies to models that the configuration does not name."""
        return any(map(_is_glob, self.patterns))

    def is_match(self, model: str) -> bool:
        """Say whether the rule applies to a model."""
        return self._matches(model) is not None

    def runs(self, model: str, tenant: str) -> bool:
        """Say whether the rule applies to a model that a tenant asks for."""
        return self._matches(model) is not None and (self._serves is None or self._serves(tenant) is not None)

    def is_for(self, tenant: str) -> bool:
        """Say whether the rule applies to a tenant."""
        return self._serves is None or self._serves(tenant) is not None

    def member(self) -> Member:
        """Return its upstream as one of a group."""
        sharing = self.sharing
        return Member(sharing.name, self.upstream, self.model_as, sharing.weight, sharing.backup)


class Found(NamedTuple):
    """What runs a model: an upstream or a group, its name for the model, and every upstream that a turn may reach.

    `tells`: the upstream, if it alone runs the model and says which settings it uses.
    """

    runs: Streaming
    model: str
    upstreams: tuple[Upstream, ...]
    tells: TellingSettings | None = None


class Router:
    """The rules, in order, and their upstreams."""

    def __init__(
        self, rules: Sequence[ModelRule], state: GroupState | None = None, accounts: TimeAccounts | None = None
    ) -> None:
        self._rules = tuple(rules)
        self._groups: dict[tuple[int, ...], UpstreamGroup] = {}
        self.state = state or GroupState(time.monotonic)
        self.accounts = accounts or TimeAccounts()
        """Of what a tenant's requests compute in threads, for upstreams in this process and all else in it."""

    @property
    def rules(self) -> Sequence[ModelRule]:
        """The rules, in the order in which they are tried."""
        return self._rules

    def replace(self, rules: Sequence[ModelRule]) -> None:
        """Take other rules. Turns that have found their upstream go on with it."""
        kept = {rule.sharing.name: rule.upstream for rule in rules}
        changed = [rule.sharing.name for rule in self._rules if kept.get(rule.sharing.name) is not rule.upstream]
        self.state.health.forget(changed)
        self._rules, self._groups = tuple(rules), {}

    def find(self, model: str, tenant: str) -> Found | None:
        """Return what runs a model for a tenant."""
        for number, rule in enumerate(self._rules):
            if rule.runs(model, tenant):
                if rule.sharing.group is not None:
                    return self._find_group(number, rule.sharing.group, model, tenant)
                return Found(rule.upstream, rule.model_as or model, (rule.upstream,), rule.tells)
        return None

    def _find_group(self, first: int, group: str, model: str, tenant: str) -> Found:
        """Return what of a group runs a model, whose first rule that does has this number."""
        others = [
            number
            for number, rule in enumerate(self._rules[first + 1 :], first + 1)
            if rule.sharing.group == group and rule.runs(model, tenant)
        ]
        rule = self._rules[first]
        if not others:
            return Found(rule.upstream, rule.model_as or model, (rule.upstream,), rule.tells)
        numbers = (first, *others)
        rules = [self._rules[number] for number in numbers]
        runs = self._groups.get(numbers)
        if runs is None:  # there are as many as the rules allow: clients cannot make more
            runs = self._groups[numbers] = UpstreamGroup(group, [one.member() for one in rules], self.state)
        return Found(runs, model, tuple(one.upstream for one in rules))

    @property
    def in_use(self) -> Mapping[str, bool]:
        """Whether each upstream of a group is in use now, by its name."""
        now, health = self.state.clock(), self.state.health
        names = [rule.sharing.name for rule in self._rules if rule.sharing.group is not None]
        return {name: not health.is_out(name, now) for name in names}

    def models(self, tenant: str | None = None) -> list[str]:
        """Return the models to list for a tenant, or for anybody: the patterns that are names, not globs."""
        rules = (rule for rule in self._rules if tenant is None or rule.is_for(tenant))
        names = (name for rule in rules for name in rule.patterns if not _is_glob(name))
        return list(dict.fromkeys(names))

    async def discover(self, credential: Secret | None, tenant: str) -> list[str]:
        """Return the models that upstreams list themselves and that a glob of theirs lets clients of a tenant name.

        `credential` is the client's own key. A rule with another name for all its models has nothing to list.
        """
        rules = [rule for rule in self._rules if rule.has_globs and rule.model_as is None and rule.is_for(tenant)]
        asked = [(rule, rule.upstream) for rule in rules if isinstance(rule.upstream, ModelLister)]
        lists = await asyncio.gather(*(upstream.list_models(credential) for _, upstream in asked))
        found: dict[str, None] = {}
        for (rule, _), names in zip(asked, lists, strict=True):
            spelled = (name if rule.is_match(name) else name.removeprefix(_RESOURCE) for name in names)
            found |= dict.fromkeys(name for name in spelled if self._runs(rule, name, tenant))
        return list(found)

    def _runs(self, rule: ModelRule, model: str, tenant: str) -> bool:
        found = self.find(model, tenant)
        return found is not None and any(one is rule.upstream for one in found.upstreams)

    @property
    def upstreams(self) -> list[Upstream]:
        """Every upstream once."""
        return list({id(rule.upstream): rule.upstream for rule in self._rules}.values())


def _matcher(patterns: Sequence[str]) -> Callable[[str], re.Match[str] | None]:
    return re.compile("|".join(translate(pattern) for pattern in patterns)).match


def _is_glob(pattern: str) -> bool:
    return bool(set(pattern) & set("*?["))

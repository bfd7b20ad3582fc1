"""Quotas: counts what keys and tenants use, and refuses a turn that is over one of their limits.

Each key and each tenant is a scope of its own; a turn must be within both. What is asked of the scopes of others takes
nothing away. What is counted here is that of this gateway; several compare their windows (`shared_windows`), and share
what may be under way at once (`concurrency`). Pure: `now` is passed in, in unix seconds. Not here: what is in the store
(`storage_quota`), and who a principal is (`access`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from segue.config import Config, LimitsConfig
from segue.gateway.principal import Principal
from segue.gateway.quotas.rate_bucket import RateBucket
from segue.gateway.quotas.ratelimit_headers import duration, ratelimit_headers
from segue.protocol.problems import Problem, Refused
from segue.protocol.responses import Usage

#: So many models are counted each by its name, for a key; the others together under another one.
MOST_MODELS, OTHER_MODELS = 50, "(other)"
#: When a turn may be over, so that another one may begin: nobody knows better.
_TURN_WAIT_S = 1.0


class UsageCounts(msgspec.Struct):
    """What a scope has used since the gateway began. Uploads are in bytes."""

    turns: int = 0
    refused: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    upload_bytes: int = 0


class ModelCounts(msgspec.Struct):
    """What a scope has used of one model since the gateway began: turns that are over, and their tokens."""

    turns: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class Scope:
    """A key, or a tenant: its limits, what is left of them, and what it has used.

    `models` counts by model, for the scope of a key, or for that of a tenant without keys.
    """

    __slots__ = ("connections", "counts", "limits", "limits_turns", "models", "running", "whose", "windows")

    def __init__(self, whose: str, limits: LimitsConfig) -> None:
        self.whose = whose
        """How the refusal of a turn names it."""
        self.counts = UsageCounts()
        self.models: dict[str, ModelCounts] = {}
        self.connections = 0
        self.running = 0
        self.windows: dict[str, RateBucket] = {}
        self.limit(limits)

    def limit(self, limits: LimitsConfig) -> None:
        """Take other limits. A window whose rate stays goes on as it is."""
        self.limits = limits
        rates = {
            "requests": limits.requests_per_minute,
            "tokens": limits.tokens_per_minute,
            "upload-bytes": limits.upload_bytes_per_minute,
        }
        before, self.windows = self.windows, {}
        for what, rate in rates.items():
            if rate is not None:
                known = before.get(what)
                self.windows[what] = known if known is not None and known.per_minute == rate else RateBucket(rate)
        self.limits_turns = bool(self.windows) or limits.turns is not None
        """Whether a turn has to be looked at."""

    def note_model(self, model: str, used: Usage | None) -> None:
        """Count a turn of a model. Clients choose names, where globs let them: the names beyond a number are one."""
        counts = self.models.get(model)
        if counts is None:
            name = model if len(self.models) < MOST_MODELS else OTHER_MODELS
            counts = self.models.setdefault(name, ModelCounts())
        counts.turns += 1
        if used is not None:
            counts.input_tokens += used.input_tokens
            counts.cached_tokens += used.input_tokens_details.cached_tokens
            counts.output_tokens += used.output_tokens

    def take(self, what: str, units: int, now: float) -> None:
        """Take units out of a window, if there is one."""
        window = self.windows.get(what)
        if window is not None:
            window.take(units, now)


class Quotas:
    """The scopes of one gateway: as many as its configuration has keys and tenants."""

    def __init__(self, config: Config) -> None:
        self._scopes: dict[tuple[str, str | None], Scope] = {}
        self._of_principals: dict[tuple[str, str | None], tuple[Scope, ...]] = {}
        self.replace(config)

    def replace(self, config: Config) -> None:
        """Take the limits of another configuration. What was counted stays."""
        self._by_tenant = {tenant.name: tenant.limits for tenant in config.tenant if tenant.limits is not None}
        self._for_others = config.limits
        self._by_key = {(key.tenant, key.name): key.limits for key in config.callers}
        for (tenant, key), scope in self._scopes.items():
            scope.limit(self._limits(tenant, key))

    def scopes(self, principal: Principal) -> Sequence[Scope]:
        """Return the scopes of a principal: that of its key, if it has one, and that of its tenant."""
        name = (principal.tenant, principal.key)
        scopes = self._of_principals.get(name)
        if scopes is None:
            tenant = self._scope(principal.tenant, None)
            own = () if principal.key is None else (self._scope(principal.tenant, principal.key),)
            scopes = self._of_principals[name] = (*own, tenant)
        return scopes

    def tenant_limits(self, tenant: str) -> LimitsConfig:
        """Return the limits of a tenant as a whole."""
        return self._limits(tenant, None)

    def counted(self) -> Iterator[tuple[str, str | None, Scope]]:
        """Return every scope by its tenant and the name of its key; of a tenant as a whole that is None."""
        for (tenant, key), scope in self._scopes.items():
            yield tenant, key, scope

    def check(self, principal: Principal, now: float) -> None:
        """Refuse a principal that is over a limit of a minute, before its request is read.

        Turns at once are not looked at: the request may repeat one that is under way, and begin none.

        Raises:
            Refused: it is; nothing was taken.
        """
        scopes = self.scopes(principal)
        for scope in scopes:
            if scope.windows:
                refuse(scope, _why_too_fast(scope, scopes, now))

    def take_request(self, principal: Principal, now: float) -> None:
        """Count a request that runs no turn: it is none of those that are under way, and takes no tokens.

        Raises:
            Refused: the principal is over a limit of a minute; nothing was taken.
        """
        self.check(principal, now)
        for scope in self.scopes(principal):
            scope.take("requests", 1, now)

    def begin(self, principal: Principal, now: float) -> Sequence[Scope]:
        """Begin a turn; `end` gets what is returned.

        Raises:
            Refused: the principal is over a limit; nothing was taken.
        """
        scopes = self.scopes(principal)
        for scope in scopes:
            if scope.limits_turns:
                refuse(scope, _why_too_many(scope) or _why_too_fast(scope, scopes, now))
        for scope in scopes:
            scope.running += 1
            scope.counts.turns += 1
            if scope.windows:
                scope.take("requests", 1, now)
        return scopes

    def end(self, scopes: Sequence[Scope], usage: Usage | None, now: float, *, model: str | None = None) -> None:
        """End a turn that used so many tokens of a model; None: none was found, or it is not known here."""
        if model is not None and scopes:
            scopes[0].note_model(model, usage)
        for scope in scopes:
            scope.running -= 1
            if usage is not None:
                scope.counts.input_tokens += usage.input_tokens
                scope.counts.cached_tokens += usage.input_tokens_details.cached_tokens
                scope.counts.output_tokens += usage.output_tokens
                if scope.windows:
                    scope.take("tokens", usage.input_tokens + usage.output_tokens, now)

    @contextmanager
    def connected(self, principal: Principal) -> Iterator[None]:
        """Count a connection around a block.

        Raises:
            Refused: the principal has as many as it may have.
        """
        scopes = self.scopes(principal)
        for scope in scopes:
            most = scope.limits.connections
            if most is not None and scope.connections >= most:
                refuse(scope, connection_limit_reached(scope))
        for scope in scopes:
            scope.connections += 1
        try:
            yield
        finally:
            for scope in scopes:
                scope.connections -= 1

    def note_upload(self, principal: Principal, size: int, now: float) -> None:
        """Count the bytes of a request."""
        for scope in self.scopes(principal):
            scope.counts.upload_bytes += size
            if scope.windows:
                scope.take("upload-bytes", size, now)

    def _scope(self, tenant: str, key: str | None) -> Scope:
        scope = self._scopes.get((tenant, key))
        if scope is None:
            whose = "this tenant" if key is None else "this key"
            scope = self._scopes[tenant, key] = Scope(whose, self._limits(tenant, key))
        return scope

    def _limits(self, tenant: str, key: str | None) -> LimitsConfig:
        if key is None:
            return self._by_tenant.get(tenant, self._for_others)
        return self._by_key.get((tenant, key), LimitsConfig())


def refuse(scope: Scope, problem: Problem | None) -> None:
    """Count and raise a refusal, if there is one."""
    if problem is not None:
        scope.counts.refused += 1
        raise Refused(problem)


def turn_limit_reached(scope: Scope) -> Problem:
    """Return why a scope may not begin another turn."""
    message = f"{scope.limits.turns} turns are under way, the most for {scope.whose} at once. Try again after one."
    return Problem("rate_limit_exceeded", message, retry_after_s=_TURN_WAIT_S)


def connection_limit_reached(scope: Scope) -> Problem:
    """Return why a scope may not open another connection."""
    most = scope.limits.connections
    message = f"{most} connections are open, the most for {scope.whose}. Close one, or use its lanes."
    return Problem("rate_limit_exceeded", message, retry_after_s=_TURN_WAIT_S)


def _why_too_many(scope: Scope) -> Problem | None:
    most = scope.limits.turns
    return None if most is None or scope.running < most else turn_limit_reached(scope)


def _why_too_fast(scope: Scope, all_scopes: Sequence[Scope], now: float) -> Problem | None:
    """Say why a turn may not begin now; with the numbers of all windows that hold for it."""
    for what, window in scope.windows.items():
        wait_s = window.wait_s(now)
        if wait_s:
            named = what.replace("-", " ")
            message = (
                f"Rate limit reached for {scope.whose}: {window.per_minute} {named} per minute. "
                f"Try again in {duration(wait_s)}."
            )
            told = ratelimit_headers((pair for one in all_scopes for pair in one.windows.items()), now)
            return Problem("rate_limit_exceeded", message, retry_after_s=wait_s, headers=told)
    return None

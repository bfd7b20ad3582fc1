"""What an upstream still holds of conversations, under its own names of replies, and how often that was of use. Pure.

An upstream that keeps conversations can be sent only what is new, with its own name of the last reply. That name is
kept here under the gateway's id of that reply, or a digest of the history up to it, for one instance of an upstream:
another instance knows nothing of it, so each has its own table. A name is taken out while a turn uses it, since a reply
may have one successor only. It comes back if the turn came to nothing. Whoever finds no name sends everything. Not
here: what a name is, when a conversation may be continued, and how (the upstreams).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, Generic, Literal, NamedTuple, TypeVar

#: How many names one table holds. Each belongs to a turn that the gateway holds too.
MAX_NAMES = 65_536

N = TypeVar("N")

#: What became of a turn of which only what is new was sent.
HIT: Final = "hit"
#: Why a turn was sent whole that continues another. Without asking the upstream: it has no name here (it was made
#: elsewhere, or has a successor); the name is too old; its connection is gone; a setting changed; the history is not
#: what the upstream holds; it was found not to keep conversations. Because the upstream said so: it does not know the
#: name; the reply has a successor; another request continues it now; a setting changed; it does not keep this
#: conversation; it refused for another reason; it answered without the history.
ReplayReason = Literal[
    "unknown",
    "expired",
    "disconnected",
    "settings",
    "history",
    "unsupported",
    "not_found",
    "continued",
    "in_flight",
    "mismatch",
    "not_kept",
    "refused",
    "forgotten",
]


class _KeptName(NamedTuple, Generic[N]):
    name: N
    used_at: float


class ContinuationTable(Generic[N]):
    """The names that one instance gave its replies, each for `lifetime_s` after its last use.

    Over `max_names`, the tenant that has most loses its oldest. `now` may come from any clock that runs evenly.
    """

    def __init__(self, lifetime_s: float, *, max_names: int = MAX_NAMES) -> None:
        self._lifetime_s = lifetime_s
        self._max_names = max_names
        self._tenants: dict[str, OrderedDict[str, _KeptName[N]]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def keep(self, tenant: str, response_id: str, name: N, *, used_at: float) -> None:
        """Keep the upstream's name of a response, which it gave or answered to at `used_at`."""
        names = self._tenants.setdefault(tenant, OrderedDict())
        self._size += response_id not in names
        names[response_id] = _KeptName(name, used_at)
        names.move_to_end(response_id)
        while (oldest := next(iter(names))) != response_id and self._is_old(names[oldest], used_at):
            self._drop(tenant, oldest)
        while self._size > self._max_names:
            most = max(self._tenants, key=lambda one: len(self._tenants[one]))
            self._drop(most, next(iter(self._tenants[most])))

    def take(self, tenant: str, response_id: str, *, now: float) -> N | ReplayReason:
        """Take the name of a response out of the table; or say why it has none that is of use."""
        names = self._tenants.get(tenant)
        kept = None if names is None else names.get(response_id)
        if kept is None:
            return "unknown"
        self._drop(tenant, response_id)
        return "expired" if self._is_old(kept, now) else kept.name

    def forget(self, tenant: str, response_ids: Iterable[str]) -> None:
        """Drop the names of responses that are gone; ids without one are fine."""
        for response_id in response_ids:
            if response_id in self._tenants.get(tenant, {}):
                self._drop(tenant, response_id)

    def forget_tenant(self, tenant: str) -> None:
        """Drop all names of a tenant."""
        self._size -= len(self._tenants.pop(tenant, {}))

    def forget_where(self, gone: Callable[[N], bool]) -> None:
        """Drop the names for which `gone` is true, such as those of a connection that was closed. O(names)."""
        found = [(tenant, one) for tenant, names in self._tenants.items() for one in names if gone(names[one].name)]
        for tenant, response_id in found:
            self._drop(tenant, response_id)

    def _is_old(self, kept: _KeptName[N], now: float) -> bool:
        return now - kept.used_at >= self._lifetime_s

    def _drop(self, tenant: str, response_id: str) -> None:
        names = self._tenants[tenant]
        del names[response_id]
        self._size -= 1
        if not names:
            del self._tenants[tenant]


class ContinuationCounts:
    """What became of the turns that continue others: `hits` were sent as what is new, `replays` whole, by reason.

    `saved_bytes` is what was not sent. A turn that was sent both ways counts as a replay.
    """

    def __init__(self) -> None:
        self.hits = 0
        self.replays: Counter[ReplayReason] = Counter()
        self.saved_bytes = 0

    def note_hit(self, saved_bytes: int) -> None:
        """Count a turn whose answer began after only what is new was sent."""
        self.hits += 1
        self.saved_bytes += max(saved_bytes, 0)

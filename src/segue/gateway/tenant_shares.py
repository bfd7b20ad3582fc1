"""How many connections each tenant has: with a request at work, and idle between two requests.

A tenant alone may have all. As soon as there is a second one, a quarter of the connections is for those that have less
than their even share of all. So neither WebSockets that stay open nor requests that never end lock others out. Pure.
Not here: connections that nobody has a key for, and which one gives way (`connections`).
"""

from __future__ import annotations

_PART_FOR_OTHERS = 4
_NOBODY = ""


class TenantShares:
    """The connections of all tenants, of which there may be `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._for_all = most - most // _PART_FOR_OTHERS
        self._known: set[str] = set()  # as many as the configuration has tenants
        self._at_work: dict[object, str] = {}
        self._working: dict[str, int] = {}  # no tenant that has none
        self._at_rest: dict[object, str] = {}
        self._resting: dict[str, int] = {}

    def begin(self, connection: object, tenant: str) -> bool:
        """Count a request of a tenant; return False if it has more than its share under way."""
        self._known.add(tenant)
        if len(self._at_work) >= self._for_all and self._is_over(tenant):
            return False
        self._at_work[connection] = tenant
        self._working[tenant] = self._working.get(tenant, 0) + 1
        return True

    def rest(self, connection: object) -> None:
        """Note that a connection has its reply, and is idle. Those whose request was nobody's count together."""
        tenant = self._at_rest[connection] = _take(connection, self._at_work, self._working) or _NOBODY
        self._resting[tenant] = self._resting.get(tenant, 0) + 1

    def wake(self, connection: object) -> None:
        """Note that a connection is idle no more."""
        _take(connection, self._at_rest, self._resting)

    def closed(self, connection: object) -> None:
        """Note that a connection is gone."""
        _take(connection, self._at_work, self._working)
        _take(connection, self._at_rest, self._resting)

    def idle_beside(self, connection: object) -> int:
        """Return how many idle connections there are of the tenant that an idle one is of."""
        tenant = self._at_rest.get(connection)
        return 0 if tenant is None else self._resting[tenant]

    def _is_over(self, tenant: str) -> bool:
        if len(self._known) == 1:
            return False
        tenants = len({*self._working, tenant}) + 1  # there is room for one that comes next
        return self._working.get(tenant, 0) >= max(1, self._most // tenants)


def _take(connection: object, owners: dict[object, str], counts: dict[str, int]) -> str | None:
    tenant = owners.pop(connection, None)
    if tenant is not None:
        left = counts[tenant] - 1
        if left:
            counts[tenant] = left
        else:
            del counts[tenant]
    return tenant

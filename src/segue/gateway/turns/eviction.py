"""Responses that are gone for good: the one place that takes them from memory and tells the upstreams.

A stored response is gone when it is deleted or has expired. An unstored one is gone when its connection is closed and
nothing else holds it. A turn that was to be held is gone too if it came to nothing after its upstream's end. A response
that nobody holds from the start (unstored, over HTTP) is not announced: its upstream knows that no client can name it.

The gateway does not know which upstream made a response, so it tells all that keep something. Not here: when a response
is deleted, expires or is released; the executor, the connections and the grace period know that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import islice

from segue.gateway.redacted_traceback import redacted_traceback
from segue.history.cache import TurnCache
from segue.protocol.ids import ResponseId
from segue.upstreams.interface import Forgetting, ForgettingTenants, Upstream

_log = logging.getLogger("segue.gateway")

#: How many responses of a connection are remembered beside those that something still holds.
_REMEMBERED = 256


class Eviction:
    """Takes responses from the cache, and from the upstreams that keep something of them."""

    def __init__(self, cache: TurnCache, upstreams: Iterable[Upstream]) -> None:
        self._cache = cache
        self.replace_upstreams(upstreams)

    def replace_upstreams(self, upstreams: Iterable[Upstream]) -> None:
        """Tell these upstreams from now on."""
        known = tuple(upstreams)
        self._upstreams = [one for one in known if isinstance(one, Forgetting)]
        self._by_tenant = [one for one in known if isinstance(one, ForgettingTenants)]

    def forget(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        """Make responses that are gone unresolvable in memory, and tell the upstreams to forget them."""
        if not response_ids:
            return
        for response_id in response_ids:
            self._cache.forget(tenant, response_id)
        for upstream in self._upstreams:
            try:
                upstream.forget(tenant, response_ids)
            except Exception as error:  # noqa: BLE001 - the seam to foreign code: the response is gone all the same
                _log.error("action=forget error=%s", redacted_traceback(error))

    def forget_tenant(self, tenant: str) -> int:
        """Drop all that is in memory of a tenant, here and at the upstreams; return how many turns were here."""
        turns = self._cache.drop_tenant(tenant)
        for upstream in self._by_tenant:
            try:
                upstream.forget_tenant(tenant)
            except Exception as error:  # noqa: BLE001 - the seam to foreign code, as above
                _log.error("action=forget error=%s", redacted_traceback(error))
        return turns

    def release(self, tenant: str, response_ids: Iterable[ResponseId]) -> None:
        """Forget unstored responses that one holder has released, except those that another one still holds."""
        self.forget(tenant, [one for one in response_ids if not self._cache.has_turn(tenant, one)])

    def connection(self, tenant: str) -> ConnectionScoped:
        """Return the list of the responses that are forgotten with one connection."""
        return ConnectionScoped(self, self._cache, tenant, needed=bool(self._upstreams))


class ConnectionScoped:
    """The unstored responses of a connection. They end with it, whatever became of their turns.

    Of those that nothing holds any more, only the newest are remembered; older ones are forgotten before the connection
    ends. Without an upstream that keeps something (`needed`), nothing is remembered.
    """

    def __init__(self, eviction: Eviction, cache: TurnCache, tenant: str, *, needed: bool) -> None:
        self._eviction = eviction
        self._cache = cache
        self._tenant = tenant
        self._needed = needed
        self._closed = False
        self._ids: dict[ResponseId, None] = {}  # the oldest first

    def add(self, response_id: ResponseId) -> None:
        """Let a response end with the connection; if that is closed already, at once."""
        if not self._needed:
            return
        self._ids[response_id] = None
        if self._closed:
            self.close()
        self._trim()

    def _trim(self) -> None:
        """Look at the two oldest: one more than was added, so that what was held once does not stay forever."""
        for oldest in list(islice(self._ids, 2)):
            if len(self._ids) <= _REMEMBERED:
                return
            del self._ids[oldest]
            if self._cache.has_turn(self._tenant, oldest):
                self._ids[oldest] = None  # the newest from now on
            else:
                self._eviction.forget(self._tenant, [oldest])

    def close(self) -> None:
        """Release all of them: the connection is closed, and its lanes are empty."""
        self._closed = True
        ids, self._ids = self._ids, {}
        self._eviction.release(self._tenant, ids)

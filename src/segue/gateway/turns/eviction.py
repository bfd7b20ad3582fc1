"""Responses that are gone for good: the one place that takes them from memory and tells the upstreams.

A stored response is gone when it is deleted or has expired. An unstored one is gone when its connection is closed and
nothing else holds it. A turn that was to be held and came to nothing after its upstream's end is gone too. One that
nobody holds from the start (unstored, over HTTP) is not told: its upstream knows that nobody will name it.

The gateway does not know which upstream made a response, so all that keep something are told. Not here: when a response
is deleted, expires or is let go of, which the executor, the connections and the parking know.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from segue.gateway.redacted_traceback import outline
from segue.history.cache import TurnCache
from segue.protocol.ids import ResponseId
from segue.upstreams.interface import Forgetting, Upstream

_log = logging.getLogger("segue.gateway")

#: So many responses of a connection are remembered beside those that are still held.
_REMEMBERED = 256


class Forgetter:
    """Takes responses from the cache, and from the upstreams that keep something of them."""

    def __init__(self, cache: TurnCache, upstreams: Iterable[Upstream]) -> None:
        self._cache = cache
        self._upstreams = [one for one in upstreams if isinstance(one, Forgetting)]

    def forget(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        """Make responses that are gone unresolvable in memory, and have what was made of them forgotten."""
        for response_id in response_ids:
            self._cache.forget(tenant, response_id)
        for upstream in self._upstreams if response_ids else ():
            try:
                upstream.forget(tenant, response_ids)
            except Exception as error:  # noqa: BLE001 - the seam to foreign code: the response is gone all the same
                _log.error("action=forget error=%s", outline(error))

    def release(self, tenant: str, response_ids: Iterable[ResponseId]) -> None:
        """Forget unstored responses that somebody has let go of, but for those that others still hold."""
        self.forget(tenant, [one for one in response_ids if not self._cache.has_turn(tenant, one)])

    def connection(self, tenant: str) -> Fleeting:
        """Return a list of what is to be forgotten with a connection."""
        return Fleeting(self, self._cache, tenant, unheard=not self._upstreams)


class Fleeting:
    """The unstored responses of a connection, which go with it, whatever became of their turns.

    Of those that it does not hold any more only the newest are remembered; older ones go before it.
    """

    def __init__(self, forgetter: Forgetter, cache: TurnCache, tenant: str, *, unheard: bool) -> None:
        self._forgetter = forgetter
        self._cache = cache
        self._tenant = tenant
        self._unheard = unheard
        self._closed = False
        self._ids: dict[ResponseId, None] = {}  # the oldest first

    def add(self, response_id: ResponseId) -> None:
        """Let a response go with the connection."""
        if self._unheard:
            return
        self._ids[response_id] = None
        if self._closed:
            self.close()
        for _ in range(2):  # one more than came, so that what was held does not stay for ever
            if len(self._ids) <= _REMEMBERED:
                return
            oldest = next(iter(self._ids))
            del self._ids[oldest]
            if self._cache.has_turn(self._tenant, oldest):
                self._ids[oldest] = None
            else:
                self._forgetter.forget(self._tenant, [oldest])

    def close(self) -> None:
        """Let go of all of them: the connection is closed, and its lanes are empty. What comes later goes at once."""
        self._closed = True
        ids, self._ids = self._ids, {}
        self._forgetter.release(self._tenant, ids)

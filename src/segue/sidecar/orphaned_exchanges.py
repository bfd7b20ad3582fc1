"""Exchanges whose agent has hung up while the link was away: the same request again is answered by them.

So an agent that loses patience does not pay twice. A request is the same if method, target, body and credentials are;
only a keyed digest of them is kept. Not here: when an exchange is parked.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from typing import NamedTuple

from segue.http.heads import RequestHead
from segue.sidecar.exchange import Exchange
from segue.sidecar.session import Verdict

_CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key", b"cookie"})
_DIGEST_BYTES = 32


class Bounds(NamedTuple):
    """How long, how many, and with how much in their bodies."""

    keep_s: float = 120.0
    max_exchanges: int = 64
    max_body_bytes: int = 64 * 1024 * 1024


class _Place(NamedTuple):
    identity: bytes
    body_bytes: int
    timer: asyncio.TimerHandle


class Parking:
    """The parked exchanges. `on_left` is told of those that nobody came for."""

    def __init__(self, on_left: Callable[[Exchange], None], bounds: Bounds | None = None) -> None:
        self._on_left = on_left
        self._bounds = Bounds() if bounds is None else bounds
        self._secret = secrets.token_bytes(_DIGEST_BYTES)
        self._places: dict[Exchange, _Place] = {}  # oldest first
        self._body_bytes = 0

    def __len__(self) -> int:
        return len(self._places)

    def park(self, exchange: Exchange, body: bytes | None) -> None:
        """Keep an exchange for a while."""
        timer = asyncio.get_running_loop().call_later(self._bounds.keep_s, self._leave, exchange)
        place = _Place(self._identity(exchange.request.head, body), len(body or b""), timer)
        self._places[exchange] = place
        self._body_bytes += place.body_bytes
        exchange.park()
        while len(self._places) > self._bounds.max_exchanges or self._body_bytes > self._bounds.max_body_bytes:
            self._leave(next(iter(self._places)))

    def find(self, head: RequestHead, body: bytes | None) -> Exchange | None:
        """Take the oldest exchange of the same request, if there is one that can be read from its beginning."""
        if not self._places:
            return None
        identity = self._identity(head, body)
        for exchange, place in tuple(self._places.items()):
            if place.identity != identity:
                continue
            if exchange.log.is_whole and not isinstance(exchange.over, Verdict):
                self._remove(exchange)
                exchange.is_parked = False
                return exchange
            self._leave(exchange)
        return None

    def clear(self) -> None:
        """Give all of them up."""
        for exchange in tuple(self._places):
            self._leave(exchange)

    def _leave(self, exchange: Exchange) -> None:
        self._remove(exchange)
        exchange.cancel()
        self._on_left(exchange)

    def _remove(self, exchange: Exchange) -> None:
        place = self._places.pop(exchange)
        place.timer.cancel()
        self._body_bytes -= place.body_bytes

    def _identity(self, head: RequestHead, body: bytes | None) -> bytes:
        digest = hashlib.blake2b(key=self._secret, digest_size=_DIGEST_BYTES)
        credentials = [line for line in head.lines if line.name.lower() in _CREDENTIALS]
        parts = [head.method, head.target, *(part for name, value in credentials for part in (name.lower(), value))]
        for part in (*parts, b"no body" if body is None else b"body", body or b""):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.digest()

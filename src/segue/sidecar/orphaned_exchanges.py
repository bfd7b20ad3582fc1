"""Orphaned exchanges: their agents have hung up while the link was away. The same request again gets their replies.

So an agent that loses patience and retries does not pay twice. Two requests are the same if method, target, body and
credentials are the same; only a keyed digest of these is kept. Not here: when an exchange is orphaned
(`segue.sidecar.request_handler`).
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets

import msgspec

from segue.http.heads import RequestHead
from segue.sidecar.body_encoder import BodyEncoder, EncodedBody
from segue.sidecar.link_status import LinkUnavailable
from segue.sidecar.session import AgentExchange

_CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key", b"cookie"})
_DIGEST_BYTES = 32


class OrphanLimits(msgspec.Struct, frozen=True):
    """How long orphans are kept, how many, and how many bytes their bodies may have together."""

    keep_s: float = 120.0
    max_exchanges: int = 64
    max_body_bytes: int = 64 * 1024 * 1024


class _Orphan(msgspec.Struct, frozen=True):
    identity: bytes
    body: EncodedBody | None
    body_bytes: int
    folded: bytes
    timer: asyncio.TimerHandle


class OrphanedExchanges:
    """The orphans of one sidecar. An orphan that no agent comes back for is cancelled, and still becomes a base."""

    def __init__(self, encoder: BodyEncoder, limits: OrphanLimits | None = None) -> None:
        self._encoder = encoder
        self._limits = OrphanLimits() if limits is None else limits
        self._secret = secrets.token_bytes(_DIGEST_BYTES)
        self._orphans: dict[AgentExchange, _Orphan] = {}  # oldest first
        self._body_bytes = 0

    def __len__(self) -> int:
        return len(self._orphans)

    def add(self, exchange: AgentExchange, sent: bytes | None, *, body: EncodedBody | None, folded: bytes) -> None:
        """Keep an exchange for a while.

        `sent`: the body as the agent sent it. `folded`: the fold of what the agent was sent before it hung up.
        """
        timer = asyncio.get_running_loop().call_later(self._limits.keep_s, self._give_up, exchange)
        orphan = _Orphan(self._identity(exchange.request.head, sent), body, len(sent or b""), folded, timer)
        self._orphans[exchange] = orphan
        self._body_bytes += orphan.body_bytes
        exchange.session.orphan(exchange)
        while len(self._orphans) > self._limits.max_exchanges or self._body_bytes > self._limits.max_body_bytes:
            self._give_up(next(iter(self._orphans)))

    def take(self, head: RequestHead, sent: bytes | None) -> tuple[AgentExchange, EncodedBody | None] | None:
        """Take out the oldest orphan of the same request whose reply can still be read from its beginning."""
        if not self._orphans:
            return None
        identity = self._identity(head, sent)
        for exchange, orphan in tuple(self._orphans.items()):
            if orphan.identity != identity:
                continue
            if exchange.log.replayable and not isinstance(exchange.ending, LinkUnavailable):
                self._remove(exchange)
                exchange.session.adopt(exchange)
                return exchange, orphan.body
            self._give_up(exchange)
        return None

    def clear(self) -> None:
        """Give up all orphans."""
        for exchange in tuple(self._orphans):
            self._give_up(exchange)

    def _give_up(self, exchange: AgentExchange) -> None:
        orphan = self._remove(exchange)
        exchange.session.cancel(exchange)
        self._encoder.record(exchange, orphan.body, orphan.folded)

    def _remove(self, exchange: AgentExchange) -> _Orphan:
        orphan = self._orphans.pop(exchange)
        orphan.timer.cancel()
        self._body_bytes -= orphan.body_bytes
        return orphan

    def _identity(self, head: RequestHead, sent: bytes | None) -> bytes:
        digest = hashlib.blake2b(key=self._secret, digest_size=_DIGEST_BYTES)
        credentials = [line for line in head.lines if line.name.lower() in _CREDENTIALS]
        parts = [head.method, head.target, *(part for name, value in credentials for part in (name.lower(), value))]
        for part in (*parts, b"no body" if sent is None else b"body", sent or b""):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.digest()

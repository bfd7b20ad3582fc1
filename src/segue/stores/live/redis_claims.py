"""Idempotency keys in Redis: of several nodes that get a create with one key, one runs it.

A claim is *claimed* until its turn goes to its upstream, then *forwarded*, then *done*. The claim of a node that lives
no more is taken over if it was only claimed: then nothing has run. If it was forwarded, it is returned as lost, since
nobody knows what became of its turn. The key itself is the client's, so its digest stands for it. Not here: what a
lost claim means for a client.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from segue.protocol.ids import ResponseId
from segue.stores.idempotency_keys import Claim
from segue.stores.live.interface import LiveUnavailable
from segue.stores.live.redis_link import RedisLink, load_script
from segue.stores.live.redis_nodes import RedisNodes
from segue.stores.live.tenant_keys import tenant_tag

#: How long a claim holds at most while its turn runs: longer than any turn does.
_RUNNING_MS: Final = 24 * 3600 * 1000


#: How many changes are remembered while Redis is away, and how often they are tried.
_MOST_OWED: Final = 10_000
_AGAIN_S: Final = 0.25


class _OwedChange(msgspec.Struct, frozen=True):
    """A change of the claim of one response."""

    tenant: str
    key: str
    response_id: ResponseId
    how: Literal["forward", "done", "release"]
    for_ms: int = 0


class RedisClaims:
    """The claims of all nodes."""

    def __init__(self, link: RedisLink, nodes: RedisNodes) -> None:
        self._link = link
        self._nodes = nodes
        self._owed: deque[_OwedChange] = deque(maxlen=_MOST_OWED)
        self._paying: asyncio.Task[None] | None = None
        self._claim, self._changing, self._drop = map(load_script, ("claim_key", "change_claim", "drop_claims"))

    async def claim(self, tenant: str, key: str, claim: Claim, now: float) -> Claim:  # noqa: ARG002 - Redis has a clock of its own
        """Claim a key, or return the claim that exists."""
        if not self._nodes.held:
            raise LiveUnavailable("the lease of this gateway is over")
        try:
            return await self._claim_or_find(tenant, key, claim)
        except LiveUnavailable:
            self._owe(_OwedChange(tenant, key, claim.response_id, "release"))  # the claim may have been written
            raise

    async def _claim_or_find(self, tenant: str, key: str, claim: Claim) -> Claim:
        found, lost = await asyncio.gather(self._try(tenant, key, claim), self._nodes.is_lost())
        if lost:
            raise LiveUnavailable("the data in Redis was lost, and with it perhaps this claim")
        if found and found[3] != b"done" and await self._nodes.is_gone(found[2].decode()):
            if found[3] == b"claimed":
                found = await self._try(tenant, key, claim, take_over=found[0].decode())
            if found and found[3] == b"forwarded":
                return Claim(ResponseId(found[0].decode()), found[1], lost=True)
        return Claim(ResponseId(found[0].decode()), found[1]) if found else claim

    async def forward(self, tenant: str, key: str, response_id: ResponseId) -> bool:
        """Note that the turn of a claim goes to its upstream."""
        return self._nodes.held and await self._change(_OwedChange(tenant, key, response_id, "forward"))

    async def expire(self, tenant: str, key: str, response_id: ResponseId, *, at: float, now: float) -> None:
        """Let a claim hold until then, and no longer; if Redis is away, as soon as it is back."""
        await self._change_or_owe(_OwedChange(tenant, key, response_id, "done", max(1, int((at - now) * 1000))))

    async def release(self, tenant: str, key: str, response_id: ResponseId) -> None:
        """Drop a claim; if Redis is away, as soon as it is back."""
        await self._change_or_owe(_OwedChange(tenant, key, response_id, "release"))

    @property
    def owed(self) -> int:
        """How many changes wait for Redis."""
        return len(self._owed)

    async def drop_tenant(self, tenant: str) -> None:
        """Drop all claims of a tenant."""
        await self._link.run(self._drop, [self._index(tenant)])

    async def purge(self, now: float) -> None:
        """They expire by themselves."""

    async def aclose(self) -> None:
        """Leave what is owed to expire."""
        if self._paying is not None:
            self._paying.cancel()
            await asyncio.gather(self._paying, return_exceptions=True)

    async def _try(self, tenant: str, key: str, claim: Claim, *, take_over: str = "") -> Sequence[bytes]:
        keys = [self._key(tenant, key), self._index(tenant)]
        nodes = self._nodes
        about = (claim.response_id, claim.digest, nodes.id, nodes.token, _RUNNING_MS, take_over)
        found: Sequence[bytes] = await self._link.run(self._claim, keys, *about)
        return found

    async def _change(self, wanted: _OwedChange) -> bool:
        keys = [self._key(wanted.tenant, wanted.key)]
        changed: int = await self._link.run(self._changing, keys, wanted.response_id, wanted.how, wanted.for_ms)
        return bool(changed)

    async def _change_or_owe(self, wanted: _OwedChange) -> None:
        try:
            await self._change(wanted)
        except LiveUnavailable:
            self._owe(wanted)

    def _owe(self, wanted: _OwedChange) -> None:
        """Note a change to be made as soon as Redis is back. Of very many, the oldest are left to expire."""
        self._owed.append(wanted)
        if self._paying is None:
            self._paying = asyncio.get_running_loop().create_task(self._pay())

    async def _pay(self) -> None:
        while self._owed:
            wanted = self._owed[0]
            try:
                await self._change(wanted)
            except LiveUnavailable:
                await asyncio.sleep(_AGAIN_S)
            else:
                if self._owed and self._owed[0] is wanted:
                    self._owed.popleft()
        self._paying = None

    def _key(self, tenant: str, key: str) -> str:
        return f"{tenant_tag(self._link.prefix, tenant)}:claim:{hashlib.sha256(key.encode()).hexdigest()[:32]}"

    def _index(self, tenant: str) -> str:
        return f"{tenant_tag(self._link.prefix, tenant)}:claims"

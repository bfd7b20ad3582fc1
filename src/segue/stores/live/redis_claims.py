"""Idempotency keys in Redis: of several nodes that get a create with one key, one runs it.

A claim is *claimed* until its turn goes to its upstream, then *forwarded*, then *done* or *spent*. The claim of a node
that lives no more is taken over if it was only claimed: then nothing has run. If it was forwarded, it is returned as
lost, since nobody knows what became of its turn. The key itself is the client's, so its digest stands for it. Not here:
what a lost claim means for a client.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from segue.protocol.ids import ResponseId
from segue.stores.idempotency_keys import Claim
from segue.stores.live.interface import LiveUnavailable
from segue.stores.live.owed_work import OwedWork
from segue.stores.live.redis_link import RedisLink, load_script
from segue.stores.live.redis_nodes import RedisNodes
from segue.stores.live.tenant_keys import tenant_tag

#: How long a claim holds at most while its turn runs: longer than any turn does.
_RUNNING_MS: Final = 24 * 3600 * 1000
#: The states of a claim whose turn has not ended.
_RUNNING: Final = (b"claimed", b"forwarded")


class _ClaimChange(msgspec.Struct, frozen=True):
    """A change of the claim of one response."""

    tenant: str
    key: str
    response_id: ResponseId
    how: Literal["forward", "done", "spend", "release"]
    for_ms: int = 0


class RedisClaims:
    """The claims of all nodes."""

    def __init__(self, link: RedisLink, nodes: RedisNodes) -> None:
        self._link = link
        self._nodes = nodes
        self._owed = OwedWork(self._change)
        self._claim, self._changing, self._drop = map(load_script, ("claim_key", "change_claim", "drop_claims"))

    async def claim(self, tenant: str, key: str, claim: Claim, now: float, *, repeats: bool = False) -> Claim:  # noqa: ARG002 - Redis has a clock of its own
        """Claim a key, or return the claim that exists."""
        if not self._nodes.held:
            raise LiveUnavailable("the lease of this gateway is over")
        try:
            return await self._claim_or_find(tenant, key, claim, repeats=repeats)
        except LiveUnavailable:
            wanted = _ClaimChange(tenant, key, claim.response_id, "release")
            self._owed.owe(wanted)  # the claim may have been written
            raise

    async def _claim_or_find(self, tenant: str, key: str, claim: Claim, *, repeats: bool) -> Claim:
        trying = self._try(tenant, key, claim, repeats=repeats)
        found, lost = await asyncio.gather(trying, self._nodes.is_lost())
        if lost:
            raise LiveUnavailable("the data in Redis was lost, and with it perhaps this claim")
        if found and found[3] in _RUNNING and await self._nodes.is_gone(found[2].decode()):
            if found[3] == b"claimed":
                found = await self._try(tenant, key, claim, repeats=repeats, take_over=found[0].decode())
            if found and found[3] == b"forwarded":
                return Claim(ResponseId(found[0].decode()), found[1], lost=True)
        return Claim(ResponseId(found[0].decode()), found[1]) if found else claim

    async def forward(self, tenant: str, key: str, response_id: ResponseId) -> bool:
        """Note that the turn of a claim goes to its upstream."""
        return self._nodes.held and await self._change(_ClaimChange(tenant, key, response_id, "forward"))

    async def expire(self, tenant: str, key: str, response_id: ResponseId, *, at: float, now: float) -> None:
        """Let a claim hold until then, and no longer; if Redis is away, as soon as it is back."""
        wanted = _ClaimChange(tenant, key, response_id, "done", max(1, int((at - now) * 1000)))
        await self._owed.do_or_owe(wanted)

    async def spend(self, tenant: str, key: str, response_id: ResponseId, *, at: float, now: float) -> None:
        """Keep a claim for repeats alone; if Redis is away, as soon as it is back."""
        wanted = _ClaimChange(tenant, key, response_id, "spend", max(1, int((at - now) * 1000)))
        await self._owed.do_or_owe(wanted)

    async def release(self, tenant: str, key: str, response_id: ResponseId) -> None:
        """Drop a claim; if Redis is away, as soon as it is back."""
        wanted = _ClaimChange(tenant, key, response_id, "release")
        await self._owed.do_or_owe(wanted)

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
        await self._owed.aclose()

    async def _try(self, tenant: str, key: str, claim: Claim, *, repeats: bool, take_over: str = "") -> Sequence[bytes]:
        keys = [self._key(tenant, key), self._index(tenant)]
        nodes = self._nodes
        about = (claim.response_id, claim.digest, nodes.id, nodes.token, _RUNNING_MS, take_over, int(repeats))
        found: Sequence[bytes] = await self._link.run(self._claim, keys, *about)
        return found

    async def _change(self, wanted: _ClaimChange) -> bool:
        keys = [self._key(wanted.tenant, wanted.key)]
        changed: int = await self._link.run(self._changing, keys, wanted.response_id, wanted.how, wanted.for_ms)
        return bool(changed)

    def _key(self, tenant: str, key: str) -> str:
        return f"{tenant_tag(self._link.prefix, tenant)}:claim:{hashlib.sha256(key.encode()).hexdigest()[:32]}"

    def _index(self, tenant: str) -> str:
        return f"{tenant_tag(self._link.prefix, tenant)}:claims"

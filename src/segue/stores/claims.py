"""Keys that clients give to their creates, so that a create can be sent again without making a second response: the
interface, and its form in memory. A claim says which response a key stands for. Not here: running that response.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from segue.protocol.ids import ResponseId


class Claim(msgspec.Struct, frozen=True):
    """The response that a key stands for, and the digest of the request that asked for it."""

    response_id: ResponseId
    digest: bytes


class Claims(Protocol):
    """A place for claims. Every call is atomic; a key belongs to its tenant."""

    async def claim(self, tenant: str, key: str, claim: Claim, now: float) -> Claim:
        """Claim a key that nobody has claimed, or return the claim there is. It holds until it is said to expire."""

    async def expire(self, tenant: str, key: str, expires_at: float) -> None:
        """Say until when a claim holds (unix seconds)."""

    async def release(self, tenant: str, key: str) -> None:
        """Give a key back: the next create with it makes a response of its own."""

    async def purge(self, now: float) -> None:
        """Forget the claims whose time has come."""


class MemoryClaims:
    """Claims in this process."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], Claim] = {}
        self._until: dict[tuple[str, str], float] = {}

    async def claim(self, tenant: str, key: str, claim: Claim, now: float) -> Claim:
        """Claim a key, or return the claim there is."""
        if self._until.get((tenant, key), now + 1) <= now:
            await self.release(tenant, key)
        return self._claims.setdefault((tenant, key), claim)

    async def expire(self, tenant: str, key: str, expires_at: float) -> None:
        """Say until when a claim holds."""
        if (tenant, key) in self._claims:
            self._until[tenant, key] = expires_at

    async def release(self, tenant: str, key: str) -> None:
        """Give a key back."""
        self._claims.pop((tenant, key), None)
        self._until.pop((tenant, key), None)

    async def purge(self, now: float) -> None:
        """Forget the claims whose time has come."""
        for name in [name for name, expires_at in self._until.items() if expires_at <= now]:
            await self.release(*name)

"""Idempotency keys: which response a client's key stands for. The interface, and its form in memory.

A client gives a key to a create so that it can send the create again without making a second response. The first
create claims the key for its response; a later one with the same key finds the claim. Not here: running the response.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from segue.protocol.ids import ResponseId


class Claim(msgspec.Struct, frozen=True):
    """The response that a key stands for, and the digest of the request that claimed it."""

    response_id: ResponseId
    digest: bytes


class Claims(Protocol):
    """Keeps claims. Every call is atomic; a key belongs to its tenant."""

    async def claim(self, tenant: str, key: str, claim: Claim, now: float) -> Claim:
        """Claim a key, or return the claim that exists. A claim holds until `expire` gives it an end."""

    async def expire(self, tenant: str, key: str, expires_at: float) -> None:
        """Set until when a claim holds (unix seconds)."""

    async def release(self, tenant: str, key: str) -> None:
        """Drop a claim: the next create with the key makes a response of its own."""

    async def drop_tenant(self, tenant: str) -> None:
        """Drop all claims of a tenant."""

    async def purge(self, now: float) -> None:
        """Drop the claims that have expired."""


class MemoryClaims:
    """Claims in this process."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], Claim] = {}
        self._until: dict[tuple[str, str], float] = {}

    async def claim(self, tenant: str, key: str, claim: Claim, now: float) -> Claim:
        """Claim a key, or return the claim that exists."""
        if self._until.get((tenant, key), now + 1) <= now:
            await self.release(tenant, key)
        return self._claims.setdefault((tenant, key), claim)

    async def expire(self, tenant: str, key: str, expires_at: float) -> None:
        """Set until when a claim holds."""
        if (tenant, key) in self._claims:
            self._until[tenant, key] = expires_at

    async def release(self, tenant: str, key: str) -> None:
        """Drop a claim."""
        self._claims.pop((tenant, key), None)
        self._until.pop((tenant, key), None)

    async def drop_tenant(self, tenant: str) -> None:
        """Drop all claims of a tenant."""
        for name in [name for name in self._claims if name[0] == tenant]:
            await self.release(*name)

    async def purge(self, now: float) -> None:
        """Drop the claims that have expired."""
        for name in [name for name, expires_at in self._until.items() if expires_at <= now]:
            await self.release(*name)

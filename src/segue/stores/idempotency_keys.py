"""Idempotency keys: which response a client's key stands for. The interface, and its form in memory.

A client gives a key to a create so that it can send the create again without making a second response. The first
create claims the key for its response; a later one with the same key finds the claim. The claim of a turn that ran and
came to nothing is *spent*: a create that says that it is a repeat finds it, and to any other one the key is free. Not
here: running the response.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from segue.protocol.ids import ResponseId


class Claim(msgspec.Struct, frozen=True):
    """The response that a key stands for, and the digest of the request that claimed it.

    It is `lost` if the gateway that had it is gone after it may have run the turn.
    """

    response_id: ResponseId
    digest: bytes
    lost: bool = False


class Claims(Protocol):
    """Keeps claims. Every call is atomic; a key belongs to its tenant."""

    async def claim(self, tenant: str, key: str, claim: Claim, now: float, *, repeats: bool = False) -> Claim:
        """Claim a key, or return the claim that exists. A claim holds until `expire` or `spend` gives it an end.

        `repeats`: the create is sent again by a client that does not know what became of the same one before.
        """

    async def forward(self, tenant: str, key: str, response_id: ResponseId) -> bool:
        """Note that the turn of a claim goes to its upstream; False: the response has the claim no more."""

    async def expire(self, tenant: str, key: str, response_id: ResponseId, *, at: float, now: float) -> None:
        """Set until when the claim of a response holds (unix seconds)."""

    async def spend(self, tenant: str, key: str, response_id: ResponseId, *, at: float, now: float) -> None:
        """Keep the claim of a response until then for repeats alone: its turn ran, and came to nothing."""

    async def release(self, tenant: str, key: str, response_id: ResponseId) -> None:
        """Drop the claim of a response: the next create with the key makes a response of its own."""

    async def drop_tenant(self, tenant: str) -> None:
        """Drop all claims of a tenant."""

    async def purge(self, now: float) -> None:
        """Drop the claims that have expired."""


class MemoryClaims:
    """Claims in this process."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], Claim] = {}
        self._until: dict[tuple[str, str], float] = {}
        self._spent: set[tuple[str, str]] = set()

    async def claim(self, tenant: str, key: str, claim: Claim, now: float, *, repeats: bool = False) -> Claim:
        """Claim a key, or return the claim that exists."""
        name = (tenant, key)
        if self._until.get(name, now + 1) <= now:
            self._drop(name)
        if name in self._spent and not (repeats and self._claims[name].digest == claim.digest):
            self._drop(name)
        return self._claims.setdefault(name, claim)

    async def forward(self, tenant: str, key: str, response_id: ResponseId) -> bool:
        """Tell whether the response has the claim still."""
        return self._has(tenant, key, response_id)

    async def expire(self, tenant: str, key: str, response_id: ResponseId, *, at: float, now: float) -> None:  # noqa: ARG002 - for those with clocks of their own
        """Set until when the claim of a response holds."""
        if self._has(tenant, key, response_id):
            self._until[tenant, key] = at

    async def spend(self, tenant: str, key: str, response_id: ResponseId, *, at: float, now: float) -> None:
        """Keep the claim of a response for repeats alone."""
        if self._has(tenant, key, response_id):
            self._spent.add((tenant, key))
            await self.expire(tenant, key, response_id, at=at, now=now)

    async def release(self, tenant: str, key: str, response_id: ResponseId) -> None:
        """Drop the claim of a response."""
        if self._has(tenant, key, response_id):
            self._drop((tenant, key))

    async def drop_tenant(self, tenant: str) -> None:
        """Drop all claims of a tenant."""
        for name in [name for name in self._claims if name[0] == tenant]:
            self._drop(name)

    async def purge(self, now: float) -> None:
        """Drop the claims that have expired."""
        for name in [name for name, expires_at in self._until.items() if expires_at <= now]:
            self._drop(name)

    def _has(self, tenant: str, key: str, response_id: ResponseId) -> bool:
        claim = self._claims.get((tenant, key))
        return claim is not None and claim.response_id == response_id

    def _drop(self, name: tuple[str, str]) -> None:
        self._claims.pop(name, None)
        self._until.pop(name, None)
        self._spent.discard(name)

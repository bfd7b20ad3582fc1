"""Advisory locks: who may change one thing of a tenant, as all who ask agree. The interface, and its form in memory.

Nothing stops those who do not ask: what must hold in any case, the store makes sure of. A holder is a name that is
never used again, so who has lost a lock can neither use nor release it. Not here: what is locked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

#: Length of the name of a holder. No two draw the same.
_HOLDER_BYTES: Final = 12


class AdvisoryLocks(Protocol):
    """The locks of all tenants."""

    async def take(self, tenant: str, name: str, holder: str) -> bool:
        """Take a lock; False if another one has it, at whatever node that lives."""

    async def keeps(self, tenant: str, name: str, holder: str) -> bool:
        """Say whether a holder has its lock still: it loses it if its node is taken for dead."""

    async def release(self, tenant: str, name: str, holder: str) -> None:
        """Let others take a lock, unless another one has it by now."""

    async def renew(self) -> None:
        """Take the locks of this node again, after what is shared was lost."""


class LockClaim:
    """The right of one request to change one thing, from `take` to `release`; `entropy(n)` draws n bytes."""

    __slots__ = ("_about", "_locks", "_released")

    def __init__(self, locks: AdvisoryLocks, tenant: str, name: str, entropy: Callable[[int], bytes]) -> None:
        self._locks = locks
        self._about = (tenant, name, entropy(_HOLDER_BYTES).hex())
        self._released = False

    async def take(self) -> bool:
        """Take the right; False if another request has it, at whatever node."""
        return await self._locks.take(*self._about)

    async def holds(self) -> bool:
        """Say whether the right is still ours: another node may have taken this one for dead."""
        return await self._locks.keeps(*self._about)

    async def release(self) -> None:
        """Give the right to others; to do so again does nothing."""
        if not self._released:
            self._released = True
            await self._locks.release(*self._about)


class MemoryLocks:
    """Locks in this process."""

    def __init__(self) -> None:
        self._holders: dict[tuple[str, str], str] = {}

    async def take(self, tenant: str, name: str, holder: str) -> bool:
        """Take a lock; False if another one has it."""
        return self._holders.setdefault((tenant, name), holder) == holder

    async def keeps(self, tenant: str, name: str, holder: str) -> bool:
        """Say whether a holder has its lock still."""
        return self._holders.get((tenant, name)) == holder

    async def release(self, tenant: str, name: str, holder: str) -> None:
        """Let others take a lock."""
        if self._holders.get((tenant, name)) == holder:
            del self._holders[tenant, name]

    async def renew(self) -> None:
        """Nothing is ever lost."""

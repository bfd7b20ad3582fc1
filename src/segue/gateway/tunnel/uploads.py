"""The budget of uploads under way: what has arrived of them, and the bodies that they expand to.

Tenants share it. A tenant that has less than its even share is never stopped, whatever the others do; beyond the
budget, one that has more goes on with its oldest upload only. So memory is bounded by the budget, once more for those
below their share, and one upload for each tenant; and there is no deadlock, since the oldest upload of each tenant can
always end, and then frees what it held. Not here: what an upload is, and how a sidecar is stopped (an upload without
credit stops at its window).
"""

from __future__ import annotations

from typing import Protocol


class Upload(Protocol):
    """An upload whose sender waits for credit."""

    @property
    def tenant(self) -> str:
        """Whose it is."""

    def credit(self) -> None:
        """Let the sender go on by as much as has arrived, and let the body be expanded."""


class _TenantUploads:
    """The uploads of one tenant that hold memory, the oldest first."""

    __slots__ = ("held", "size_bytes")

    def __init__(self) -> None:
        self.held: dict[Upload, int] = {}
        self.size_bytes = 0


class Uploads:
    """The uploads of all tenants that hold memory."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._tenants: dict[str, _TenantUploads] = {}
        self.size_bytes = 0
        """How much all of them hold."""

    def hold(self, upload: Upload, size: int) -> None:
        """Count what has arrived of an upload, or what it is about to expand to; credit it if it may go on."""
        tenant = self._tenants.get(upload.tenant)
        if tenant is None:
            tenant = self._tenants[upload.tenant] = _TenantUploads()
        tenant.held[upload] = tenant.held.get(upload, 0) + size
        tenant.size_bytes += size
        self.size_bytes += size
        if self.may_go_on(upload):
            upload.credit()

    def release(self, upload: Upload) -> None:
        """Count an upload no more, and let others go on."""
        tenant = self._tenants.get(upload.tenant)
        size = None if tenant is None else tenant.held.pop(upload, None)
        if tenant is None or size is None:
            return
        tenant.size_bytes -= size
        self.size_bytes -= size
        if not tenant.held:
            del self._tenants[upload.tenant]
        for other in [one for tenant in self._tenants.values() for one in tenant.held]:
            if self.may_go_on(other):
                other.credit()

    def may_go_on(self, upload: Upload) -> bool:
        """Say whether an upload that holds memory may hold more."""
        tenant = self._tenants[upload.tenant]
        return (
            self.size_bytes <= self._budget_bytes
            or tenant.size_bytes * len(self._tenants) <= self._budget_bytes
            or next(iter(tenant.held)) is upload
        )

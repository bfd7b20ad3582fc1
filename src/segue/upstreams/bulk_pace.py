"""The pace of streams that say very much at a time: each tenant's share one, so that they do not fill the event loop.

A model writes some thousands of tokens in a second at most, and each read of its stream is small. Only large reads are
counted here: a bucket of bytes for each tenant, which fills at a steady rate. Pure: `now` is any clock, in seconds. Not
here: what a read is, and waiting (`sse_source`).
"""

from __future__ import annotations

#: Some ten thousand events. To pass them on takes a fifth of a second.
BYTES_PER_S = 1024 * 1024
#: What may come at once after a rest.
_BURST_S = 0.25


class BulkPace:
    """The paces of all tenants."""

    def __init__(self) -> None:
        self._paid_until: dict[str, float] = {}  # as many as the configuration has tenants

    def wait_s(self, tenant: str, size: int, now: float) -> float:
        """Count a large read of a tenant's stream; return how long its next one has to wait."""
        paid = max(self._paid_until.get(tenant, 0.0), now - _BURST_S) + size / BYTES_PER_S
        self._paid_until[tenant] = paid
        return max(0.0, paid - now)

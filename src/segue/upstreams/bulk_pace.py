"""The pace of bulk data: each tenant's share one, so that what comes in bulk does not fill the event loop.

A bucket of bytes for each tenant, which fills at a steady rate. Only large reads are counted: a model writes some
thousands of tokens in a second at most, and each read of its stream is small. Pure: `now` is any clock, in seconds. Not
here: what a large read is, and waiting (`sse_source`, and the gateway's bodies).
"""

from __future__ import annotations

#: Of streams: some ten thousand events. To pass them on takes a fifth of a second.
BYTES_PER_S = 1024 * 1024
#: What may come of a stream at once after a rest, in seconds. It holds up all others.
BURST_S = 0.03


class BulkPace:
    """The paces of all tenants."""

    def __init__(self, bytes_per_s: float = BYTES_PER_S, burst_s: float = BURST_S) -> None:
        self._bytes_per_s = bytes_per_s
        self._burst_s = burst_s
        self._paid_until: dict[str, float] = {}  # as many as the configuration has tenants

    def wait_s(self, tenant: str, size: int, now: float) -> float:
        """Count a large read of a tenant's; return how long its next one has to wait."""
        paid = max(self._paid_until.get(tenant, 0.0), now - self._burst_s) + size / self._bytes_per_s
        self._paid_until[tenant] = paid
        return max(0.0, paid - now)

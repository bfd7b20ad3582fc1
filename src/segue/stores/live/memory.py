"""One gateway that shares nothing with others: its lease always holds, and there is nobody to tell.

Not here: event logs and idempotency keys in memory (`segue.stores`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from segue.stores.live.interface import Act, NodeLease, Notice


class SingleNode:
    """The only node. `epoch` names its run."""

    held = True
    token = 1

    def __init__(self, epoch: bytes, *, address: str, started_at: float) -> None:
        self.epoch = epoch
        self.id = epoch.hex()
        self.address = address
        self._lease = NodeLease(self.id, self.token, address, started_at)

    def watch(self, on_lost: Callable[[], Awaitable[None]]) -> None:
        """Nothing is ever missed."""

    async def start(self, act: Act) -> None:
        """There is nobody to hear."""

    async def living(self) -> Sequence[NodeLease]:
        """Return this node."""
        return [self._lease]

    async def is_gone(self, node: str) -> bool:
        """There is no other node."""
        return node != self.id

    async def tell(self, notice: Notice) -> None:
        """There is nobody to tell."""

    async def drain(self) -> None:
        """Leave."""
        self._lease = replace(self._lease, draining=True)

    async def aclose(self) -> None:
        """There is no lease to give back."""

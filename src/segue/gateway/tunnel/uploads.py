"""The budget of uploads under way, all sidecars together. Beyond it only the oldest upload goes on.

So memory is bounded, and there is no deadlock: the oldest upload can always end, and then frees what it held. Not here:
what an upload is, and how a sidecar is stopped (an upload without credit stops at its window).
"""

from __future__ import annotations

from typing import Protocol


class Upload(Protocol):
    """An upload whose sender waits for credit."""

    def credit(self) -> None:
        """Let the sender go on by as much as has arrived."""


class Uploads:
    """The uploads that hold memory, the oldest first."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._held: dict[Upload, int] = {}
        self.size_bytes = 0
        """How much all of them hold."""

    def hold(self, upload: Upload, size: int) -> None:
        """Count what has arrived of an upload, and credit it if more may come."""
        self._held[upload] = self._held.get(upload, 0) + size
        self.size_bytes += size
        if self._may_go_on(upload):
            upload.credit()

    def release(self, upload: Upload) -> None:
        """Count an upload no more, and let others go on."""
        size = self._held.pop(upload, None)
        if size is None:
            return
        self.size_bytes -= size
        for other in tuple(self._held):
            if self._may_go_on(other):
                other.credit()

    def _may_go_on(self, upload: Upload) -> bool:
        return self.size_bytes <= self._budget_bytes or next(iter(self._held)) is upload

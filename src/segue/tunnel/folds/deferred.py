"""The fold of a reply, made in batches: nobody needs it before the reply has ended, and every event has to go on first.

The owner feeds what it has passed on, and folds when that is due and there is time. Pure. Not here: when there is time,
and what a fold is (`fold`).
"""

from __future__ import annotations

from typing import Final

from segue.tunnel.folds.fold import Fold

#: So much of a reply waits before a fold is due: many events, and less than a millisecond of work.
BATCH_BYTES: Final = 16 * 1024


class DeferredFold:
    """A `Fold` of one reply that does its work later. `content_type` has to be right when it does."""

    def __init__(self, content_type: bytes = b"") -> None:
        self.content_type = content_type
        self._fold: Fold | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    @property
    def due(self) -> bool:
        """So much waits that it should be folded now."""
        return self._waiting_bytes >= BATCH_BYTES

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the reply."""
        self._waiting.append(data)
        self._waiting_bytes += len(data)

    def fold(self) -> None:
        """Fold what waits."""
        if self._waiting:
            self._fold = self._fold or Fold(self.content_type)
            self._fold.feed(b"".join(self._waiting))
            self._waiting.clear()
            self._waiting_bytes = 0

    @property
    def value(self) -> bytes:
        """The fold of everything so far."""
        self.fold()
        return b"" if self._fold is None else self._fold.value

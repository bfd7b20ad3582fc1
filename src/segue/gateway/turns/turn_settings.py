"""What every turn is run with: time, chance, and limits. Not here: what a caller asks for (`caller`)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Time and chance: `clock` gives unix seconds, `monotonic` measures durations, `entropy(n)` draws n bytes."""

    clock: Callable[[], float]
    monotonic: Callable[[], float]
    entropy: Callable[[int], bytes]


class TurnSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How long a response is stored, and how many bytes the items may have that one request refers to."""

    retention_s: float
    max_referenced_bytes: int
